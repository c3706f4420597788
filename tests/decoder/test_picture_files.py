"""Folders of pictures as Excel, stimulus programs and cameras leave them."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decoder.data.stimuli import StimulusTable, read_stimuli
from decoder.errors import StimulusError

RED, BLUE = (200, 10, 20), (5, 6, 250)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of one colour each, one of them in a folder."""
    (tmp_path / "sub").mkdir()
    for name, colour in (("cat-01.png", RED), ("car.png", BLUE), ("sub/r\u00e4v.png", (1, 2, 3))):
        Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    return tmp_path


def read(folder: Path, table: str | bytes) -> StimulusTable:
    """Read the folder with a table."""
    (folder / "stimuli.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    return read_stimuli(folder)


TABLE = 'file,caption\r\ncat-01.png,"a cat, on a sofa"\r\ncar.png,une voiture \u00e0 l\'arr\u00eat | a car\r\n'


@pytest.mark.parametrize(
    "table",
    [
        TABLE.encode("utf-8"), TABLE.encode("utf-8-sig"), TABLE.encode("utf-16"), TABLE.encode("latin-1"),
        TABLE.replace("\r\n", "\r").encode("cp1252"), (TABLE + "\r\n\r\n,,\r\n").encode(),
        TABLE.replace("file,caption", " File , Caption").encode(), TABLE.replace("file", "imageFile").encode(),
        TABLE.replace("caption", "CAPTION ").replace(",\"", ", \"").encode(), ("sep=,\r\n" + TABLE).encode(),
        b"file;caption\r\ncat-01.png;a cat, on a sofa\r\ncar.png;une voiture \xe0 l'arr\xeat | a car\r\n",
        "file\tcaption\ncat-01.png\ta cat, on a sofa\ncar.png\tune voiture à l'arrêt | a car".encode("utf-16"),
        TABLE.replace("cat-01.png", "C:\\Users\\me\\exp\\Cat-01.PNG").encode(),
        TABLE.replace("cat-01.png", "/home/me/pictures/cat-01.png").encode(),
        TABLE.replace("cat-01.png", "cat-01").encode(), (TABLE + "cat-01.png,\r\n").encode(),
    ],
)  # fmt: skip
def test_a_table_out_of_any_program(folder: Path, table: bytes) -> None:
    """Encoding, delimiter, header, empty lines and paths of another machine change neither pictures nor captions."""
    stimuli = read(folder, table)
    assert [name.lower() for name in stimuli.ids] == ["cat-01", "car"]
    assert stimuli.captions == (("a cat, on a sofa",), ("une voiture \u00e0 l'arr\u00eat", "a car"))
    assert stimuli.files == ("cat-01.png", "car.png")
    assert stimuli.images[:, 0, 0].tolist() == [list(RED), list(BLUE)]


def test_pictures_are_found_by_other_spellings(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Backslashes and decomposed Unicode lead to the file, aloud; a path that fits two files is refused."""
    stimuli = read(folder, "id,file\na,Sub\\ra\u0308v.png\n")
    assert stimuli.images[0, 0, 0].tolist() == [1, 2, 3]
    assert "1 of 1 pictures are found under another spelling of their path" in caplog.text
    (folder / "other").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "other" / "r\u00e4v.png")
    with pytest.raises(
        StimulusError, match=r"picture 'x/r\u00e4v.png' may be 'other/r\u00e4v.png', 'sub/r\u00e4v.png'"
    ):
        read(folder, "id,file\na,x/r\u00e4v.png\n")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,caption\ncat-01.png,a\n", r"stimuli\.csv: no column of pictures \(file, .*it has 'name', 'caption'"),
        ("file\n", "has no rows"),
        ("file\ndog.png\n", r"dog\.png: no such file"),
        ("file\n" + "x" * 400 + ".png\n", "no such file"),
        ("file,caption\ncat-01.png,a cat, on a sofa\n", "line 2 has 3 cells parted by ',' for 2 columns"),
        ("id,file\na,cat-01.png\na,car.png\n", r"id 'a' occurs more than once, for cat-01\.png and for car\.png"),
        ("file\ncat-01.png\nwide.png\n", r"1 are 4 x 4, but 'wide' is 9 x 4; resize them to one"),
        ("file\nhalf.png\n", r"cannot read picture .*half\.png: "),
        ("file\nstimuli.csv\n", r"cannot read picture .*stimuli\.csv: cannot identify"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_one_line(folder: Path, table: str, said: str) -> None:
    """What is wrong is named with its file or row, in one line."""
    Image.new("RGB", (9, 4)).save(folder / "wide.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "half.png")
    (folder / "half.png").write_bytes((folder / "half.png").read_bytes()[:2000])
    with pytest.raises(StimulusError, match=said) as error:
        read(folder, table)
    assert "\n" not in str(error.value)


def test_rows_of_one_picture_are_one_picture(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log with a row a trial gives each picture once, with all its captions; what some lack is said, and not used."""
    table = "file,caption,concept\ncat-01.png,a cat,cat\ncar.png,,\n,,rest\ncat-01.png,a cat | a pet,cat\n"
    stimuli = read(folder, table)
    assert (stimuli.ids, stimuli.captions, stimuli.concepts) == (("cat-01", "car"), None, ())
    said = ("1 rows name a picture again", "line 4 names no picture", "1 of 2 pictures have no caption ('car' ...)")
    for line in (*said, "have no concept"):
        assert line in caplog.text
    assert read(folder, table.replace("car.png,", "car.png,a car")).captions == (("a cat", "a pet"), ("a car",))


def shown(folder: Path, image: Image.Image, name: str = "p.png", **options: object) -> list[list[int]]:
    """Save a picture of two pixels, and give what is read of them."""
    image.save(folder / name, **options)  # type: ignore[arg-type]
    (folder / "stimuli.csv").write_text(f"file\n{name}\n")
    return read_stimuli(folder, (255, 0, 0)).images[0, 0].tolist()


def test_what_is_transparent_shows_the_background(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Colours that nobody saw under full transparency do not come out, of any kind of transparency."""
    hidden = Image.fromarray(np.array([[[9, 99, 200, 0], [9, 99, 200, 255]]], np.uint8))
    assert shown(tmp_path, hidden) == [[255, 0, 0], [9, 99, 200]]
    assert "1 of 1 pictures are transparent in places, where RGB (255, 0, 0) shows (data.background)" in caplog.text
    half = Image.fromarray(np.array([[[0, 0, 100, 128], [0, 0, 100, 255]]], np.uint8))
    np.testing.assert_allclose(shown(tmp_path, half), [[127, 0, 50], [0, 0, 100]], atol=1)
    grey = Image.fromarray(np.array([[[50, 0], [60, 255]]], np.uint8), "LA")
    assert shown(tmp_path, grey) == [[255, 0, 0], [60, 60, 60]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    assert shown(tmp_path, palette, transparency=0) == [[255, 0, 0], [4, 5, 6]]
    assert shown(tmp_path, Image.fromarray(np.array([[7, 8]], np.uint8)), transparency=7) == [[255, 0, 0], [8, 8, 8]]
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert shown(tmp_path, deep, transparency=0) == [[255, 0, 0], [255, 255, 255]]
    caplog.clear()
    assert shown(tmp_path, Image.fromarray(np.array([[[1, 2, 3, 255]]], np.uint8))) == [[1, 2, 3]]
    assert "transparent" not in caplog.text
    shown(tmp_path, hidden)
    assert read_stimuli(tmp_path).images[0, 0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(
    ("values", "name", "grey"),
    [
        (np.array([[0, 32768]], np.uint16), "p.png", [0, 128]),
        (np.array([[257, 65535]], np.uint16), "p.png", [1, 255]),
        (np.array([[0, 32768]], np.uint16), "p.tif", [0, 128]), (np.array([[0, 32768]], np.int32), "p.tif", [0, 128]),
        (np.array([[0, 200]], np.int32), "p.tif", [0, 200]), (np.array([[0, 0.5]], np.float32), "p.tif", [0, 128]),
        (np.array([[0, 200.4]], np.float32), "p.tif", [0, 200]), (np.array([[3, 200]], np.uint8), "p.png", [3, 200]),
    ],
)  # fmt: skip
def test_grey_of_many_bits_is_scaled(tmp_path: Path, values: np.ndarray, name: str, grey: list[int]) -> None:
    """Grey of 16 bits is not white: its range becomes that of 8 bits."""
    assert shown(tmp_path, Image.fromarray(values), name) == [[value] * 3 for value in grey]


@pytest.mark.parametrize("values", [[0, np.nan], [-1, 3], [0, 1e9]])
def test_grey_without_a_white_is_refused(tmp_path: Path, values: list[float]) -> None:
    """Numbers of which nobody knows which is white are no picture."""
    with pytest.raises(StimulusError, match=r"p\.tif: grey from .* save it with 8 or 16 bits"):
        shown(tmp_path, Image.fromarray(np.array([values], np.float32)), "p.tif")


def test_photographs_and_animations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A photograph is turned as a camera says, of an animation the first frame is taken, four inks are mixed."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture = Image.fromarray(np.array([[[250, 0, 0], [0, 0, 250]]], np.uint8))
    assert shown(tmp_path, picture, exif=exif) == [[0, 0, 250], [250, 0, 0]]
    assert "1 of 1 pictures are turned as their EXIF data say" in caplog.text
    frames = [Image.new("RGB", (2, 1), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "p.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "stimuli.csv").write_text("file\np.gif\n")
    np.testing.assert_allclose(read_stimuli(tmp_path).images[0, 0, 0], RED, atol=8)
    assert "of several frames, of which the first is taken" in caplog.text
    assert shown(tmp_path, Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "p.tif") == [[255, 0, 0]] * 2


def test_a_clean_folder_says_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Plain pictures under plain names lead to no warning."""
    with caplog.at_level(logging.INFO):
        read(folder, TABLE)
    assert not caplog.records
