"""What is prepared once: whole or not at all, and older versions of the same thing go."""

from pathlib import Path

import pytest

from minddiffuser.cache import remove_older, written_whole


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A block that fails leaves what was there before, and no scratch."""
    target = tmp_path / "made"
    with written_whole(target) as scratch:
        (scratch / "first").touch()

    def fail() -> None:
        with written_whole(target) as scratch:
            (scratch / "second").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in target.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [target]


def test_only_what_has_the_same_name_and_another_key_is_removed(tmp_path: Path) -> None:
    """A config whose name begins alike keeps what was prepared for it."""
    for name in ("demo-0123456789abcdef", "demo-fedcba9876543210", "demo-meg-0123456789abcdef"):
        (tmp_path / name).mkdir()
    remove_older(tmp_path / "demo-0123456789abcdef", "demo")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        "demo-0123456789abcdef",
        "demo-meg-0123456789abcdef",
    ]
