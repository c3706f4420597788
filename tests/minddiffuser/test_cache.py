"""What is prepared once: whole or not at all, and older versions of the same thing go."""

from pathlib import Path

import pytest

from minddiffuser.cache import made_once
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


def test_what_is_made_once_is_found_again_and_older_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key makes it anew; a config whose name begins alike keeps what was prepared for it."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path))
    made: list[Path] = []
    kept = made_once("demo-meg", "0123456789abcdef", made.append)
    older = made_once("demo", "fedcba9876543210", made.append)
    assert made_once("demo", "fedcba9876543210", made.append) == older
    newest = made_once("demo", "0123456789abcdef", made.append)
    assert len(made) == 3
    assert set((tmp_path / "prepared").iterdir()) == {newest, kept}
