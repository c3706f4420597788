"""The table of 8-bit trigger codes: written once, kept, read by everything, refused with a hole or a double."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minddiffuser.config.spec import load_config
from minddiffuser.errors import AppError
from minddiffuser.experiment.codes import codes_for, write_codes
from minddiffuser.experiment.present import prepare
from minddiffuser.training.data import matcher_of, shown_pictures

IDS, FILES = ("cat", "car", "cup"), ("cat.png", "car.png", "cup.png")


def test_markers_are_codes_that_labels_reads_back(config_of: Callable[..., Path], tmp_path: Path) -> None:
    """What present sends for a picture, train and live take for that picture, by the same table."""
    table = tmp_path / "codes.tsv"
    config = load_config(config_of({"labels": str(table)}, codes=str(table)))
    experiment = prepare(config)
    assert not table.exists()
    write_codes(table, experiment.codes)
    matcher = matcher_of(shown_pictures(config.data), config.labels)
    assert sorted(experiment.codes.values()) == list(range(1, 21))
    for name, marker in experiment.markers.items():
        assert marker == str(experiment.codes[name])
        assert matcher.match(marker) == name
    assert prepare(config).codes == experiment.codes


def test_codes_without_labels_are_refused(config_of: Callable[..., Path], tmp_path: Path) -> None:
    """Nothing could read the recording."""
    with pytest.raises(AppError, match="set labels"):
        prepare(load_config(config_of(codes=str(tmp_path / "codes.tsv"))))


def test_a_table_that_is_there_is_kept(tmp_path: Path) -> None:
    """Codes of another program's table stay, in its columns, with files for ids, and a row for each trial."""
    table = tmp_path / "codes.csv"
    table.write_text("trigger;image\n11;pics/cup.png\n12;cat.png\n13;CAR\n12;cat.png\n", "utf-8")
    assert codes_for(table, IDS, FILES) == {"cup": 11, "cat": 12, "car": 13}
    before = table.read_bytes()
    write_codes(table, {"cat": 1})
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1\tcat\n2\tcar\n", "1 of 3 pictures have no code, such as 'cup'"),
        ("1\tcat\n\tcar\n3\tcup\n", "line 3: a hole: no code"),
        ("1\tcat\n2\t\n3\tcup\n", "line 3: a hole: no picture"),
        ("1\tcat\n1\tcar\n3\tcup\n", "line 3: code 1 stands for two pictures, 'cat' and 'car'"),
        ("1\tcat\n2\tcat\n3\tcup\n", "line 3: picture 'cat' has two codes, 1 and 2"),
        ("256\tcat\n2\tcar\n3\tcup\n", "from 1 to 255"),
        ("0\tcat\n2\tcar\n3\tcup\n", "from 1 to 255"),
        ("one\tcat\n2\tcar\n3\tcup\n", "no whole number"),
        ("1\tcat\n2\tcar\n3\tcup\n4\tdog\n", "line 5: code 4 stands for 'dog', and no picture"),
    ],
)
def test_a_table_with_a_hole_or_a_double_is_refused(tmp_path: Path, rows: str, words: str) -> None:
    """The line is named, and the file stays as it is."""
    table = tmp_path / "codes.tsv"
    table.write_text("code\tpicture\n" + rows, "utf-8")
    with pytest.raises(AppError) as error:
        codes_for(table, IDS, FILES)
    assert words in str(error.value)


def test_more_pictures_than_codes_are_refused(tmp_path: Path) -> None:
    """Eight bits are 255 pictures."""
    ids = tuple(f"p{n}" for n in range(256))
    with pytest.raises(AppError, match="255 codes"):
        codes_for(tmp_path / "codes.tsv", ids, ids)
    assert len(set(codes_for(tmp_path / "codes.tsv", ids[:255], ids[:255]).values())) == 255
