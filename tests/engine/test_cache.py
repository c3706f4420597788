import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.backends.cache import EngineCache
from engine.errors import CacheError

KEY = {"kind": "onnx", "part": "unet", "opset": 23}


def write(text: str, calls: list[str]) -> object:
    """Give a builder that writes one file and says that it ran."""

    def build(folder: Path) -> None:
        calls.append(text)
        (folder / "model.onnx").write_text(text)

    return build


def test_an_entry_is_built_once_and_is_its_owner_s(tmp_path: Path) -> None:
    """The second call finds what the first made; nobody else may read it."""
    cache, calls = EngineCache(tmp_path / "engines"), []
    for _ in range(2):
        entry = cache.get(KEY, write("one", calls), room=0)  # type: ignore[arg-type]
    assert calls == ["one"]
    assert cache.find(KEY) == entry
    assert stat.S_IMODE(cache.folder.stat().st_mode) == stat.S_IMODE(entry.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in entry.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["kind", "part", "opset"])
def test_any_difference_makes_another_entry(tmp_path: Path, name: str) -> None:
    """No part of a key is left out of its place."""
    cache = EngineCache(tmp_path)
    assert cache.path(KEY) != cache.path(KEY | {name: 7})


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, file: str) -> None:
    """One changed byte in any file is noticed."""
    cache, calls = EngineCache(tmp_path), []
    entry = cache.get(KEY, write("one", calls), room=0)  # type: ignore[arg-type]
    raw = bytearray((entry / file).read_bytes())
    raw[0] ^= 1
    (entry / file).write_bytes(raw)
    assert cache.find(KEY) is None
    again = cache.get(KEY, write("two", calls), room=0)  # type: ignore[arg-type]
    assert calls == ["one", "two"]
    assert (again / "model.onnx").read_text() == "two"


def test_two_builders_leave_one_good_file(tmp_path: Path) -> None:
    """Of two that begin at once one builds, the other waits and finds it."""
    calls: list[str] = []
    start = threading.Barrier(2)
    found: list[Path] = []

    def one(name: str) -> None:
        start.wait()
        found.append(EngineCache(tmp_path).get(KEY, write(name, calls), room=0))  # type: ignore[arg-type]

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert EngineCache(tmp_path).find(KEY) == found[0]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """The builder's error comes through, and no half-written entry stays."""
    cache = EngineCache(tmp_path)

    def build(folder: Path) -> None:
        (folder / "model.onnx").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get(KEY, build, room=0)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_no_room_is_refused_with_both_figures(tmp_path: Path) -> None:
    """The error says how much is needed, how much is free, and where to go."""
    with pytest.raises(CacheError, match=r"GiB are needed and .* GiB are free.*MINDDIFFUSER_CACHE"):
        EngineCache(tmp_path).get(KEY, write("one", []), room=1 << 60)  # type: ignore[arg-type]


def test_processes_that_build_at_once_leave_one_good_entry(tmp_path: Path) -> None:
    """Of three programs one builds and the others take what it built, whole."""
    script = (
        "import sys, time; from pathlib import Path; from engine.backends.cache import EngineCache; cache = "
        "EngineCache(Path(sys.argv[1])); cache.get({'kind': 'x'}, lambda f: "
        "[(f / str(i)).write_text('y' * 999) or time.sleep(0.02)"
        " for i in range(20)], room=0); print(*cache.given.values())"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    built = [program.communicate(timeout=60)[0].strip() for program in programs]
    assert sorted(built) == ["False", "False", "True"]
    entry = EngineCache(tmp_path).find({"kind": "x"})
    assert entry is not None
    assert {(entry / str(i)).read_text() for i in range(20)} == {"y" * 999}
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [entry]


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    """A program killed while it writes leaves no entry, and its remains go when the entry is built."""
    script = (
        "import os, sys; from pathlib import Path; from engine.backends.cache import EngineCache; "
        "EngineCache(Path(sys.argv[1])).get({'kind': 'x'}, lambda f: "
        "((f / 'a').write_text('half'), os.kill(os.getpid(), 9)), room=0)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60).returncode == -9
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    cache = EngineCache(tmp_path)
    assert cache.find({"kind": "x"}) is None
    entry = cache.get({"kind": "x"}, write("whole", []), room=0)  # type: ignore[arg-type]
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [entry]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """An error of the system while an entry is written names the cache and the way out, and leaves nothing."""

    def build(folder: Path) -> None:
        (folder / "model.onnx").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CacheError, match=r"No space left on device; name another folder with MINDDIFFUSER_CACHE"):
        EngineCache(tmp_path).get(KEY, build, room=0)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
