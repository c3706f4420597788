"""What is prepared once: whole or not at all, and what nobody uses any more goes."""

import os
import time
from pathlib import Path

import pytest

from minddiffuser.cache import UNUSED_DAYS, key_of, made_once
from stream.atomic import whole_folder


def test_a_folder_is_whole_folder_or_not_at_all(tmp_path: Path) -> None:
    """A block that fails leaves what was there before, and no scratch."""
    target = tmp_path / "made"
    with whole_folder(target) as scratch:
        (scratch / "first").touch()

    def fail() -> None:
        with whole_folder(target) as scratch:
            (scratch / "second").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in target.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_made_once_is_found_again_and_unused_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key makes it anew; what another checkout still uses stays, and so does what another config prepared."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path))
    made: list[Path] = []
    kept = made_once("demo-meg", "0123456789abcdef", made.append)
    unused = made_once("demo", "fedcba9876543210", made.append)
    elsewhere = made_once("demo", "00112233445566ff", made.append)
    month_ago = time.time() - (UNUSED_DAYS + 1) * 86400
    for folder in (kept, unused, elsewhere):
        os.utime(folder, (month_ago, month_ago))
    assert made_once("demo", "00112233445566ff", made.append) == elsewhere
    newest = made_once("demo", "0123456789abcdef", made.append)
    assert len(made) == 4
    assert set((tmp_path / "prepared").iterdir()) == {newest, elsewhere, kept}


def test_keys_follow_what_they_name_and_nothing_else() -> None:
    """Equal settings have one key, in whatever order they are written; another value has another."""
    assert key_of({"format": 1, "data": {"seed": 0, "pictures": 8}}) == key_of(
        {"data": {"pictures": 8, "seed": 0}, "format": 1}
    )
    assert key_of({"format": 1}) != key_of({"format": 2})
