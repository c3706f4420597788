"""A marker names its picture in any spelling, and never another one."""

import logging
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.epochs.ingest import Ingest
from stream.errors import StreamError
from stream.signal.filters import FilterSpec
from stream.types.events import Event, event_of
from stream.types.labels import ALIKE, LabelMatcher, Spellings, mismatch
from stream.types.recording import Recording, with_original_labels
from stream.types.window_spec import WindowSpec
from stream.types.windows import Channels

CAT = LabelMatcher(("cat-01", "7", "r\u00e4v"))

NAMES = st.text(st.sampled_from("abAB019-_ .\u00e9e\u0301"), min_size=1, max_size=6).filter(
    lambda text: bool(text.strip(" ."))
)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "composed": lambda name: unicodedata.normalize("NFC", name),
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
    "case": str.swapcase,
    "ending": lambda name: f"{name}.png",
    "ENDING": lambda name: f"{name}.JPG",
    "path": lambda name: f"images/{name}",
    "windows": lambda name: f"C:\\pictures\\{name}",
    "url": lambda name: f"https://lab.example/set/{name}",
    "type": lambda name: f"Stimulus/{name}",
    "zero": lambda name: f"{name}\0\0",
    "quotes": lambda name: f'"{name}"',
    "blanks": lambda name: f"  {name} \n",
}
"""From the inside out."""


@pytest.mark.parametrize(
    ("label", "picture"),
    [
        ("images/cat-01.png", "cat-01"), ("images\\cat-01.PNG", "cat-01"), ("Stimulus/cat-01", "cat-01"),
        ("C:\\exp\\images\\Cat-01.jpeg", "cat-01"), ("file:///C:/my%20exp/cat-01.png", "cat-01"),
        ("https://x.org/a/cat-01.webp?v=3#top", "cat-01"), ("'cat-01'", "cat-01"), ("stim: cat-01", "cat-01"),
        (" 7 ", "7"), ("S  7", "7"), ("Stimulus/S  7", "7"), ("7.0", "7"), ("007", "7"), ("7,0", "7"), ("DIN7", "7"),
        ("condition 7", "7"), ("Trigger#7", "7"), ("ra\u0308v", "r\u00e4v"), ("pics/RA\u0308V.tif", "r\u00e4v"),
        ("R  7", None), ("Response/R  7", None), ("Response/7", None), ("S 77", None), ("cat-1", None), ("", None),
        ("cat-01.v2", None), ("\ud800", None), ("x" * 100_000, None), ("-7", None),
    ],
)  # fmt: skip
def test_a_picture_is_found_by_its_spellings(label: str, picture: str | None) -> None:
    """Blanks, folder, ending, type, case, Unicode form and form of number do not matter; a key that is pressed does."""
    assert CAT.match(label) == picture


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.data())
def test_no_spelling_of_a_picture_names_another(names: list[str], data: st.DataObject) -> None:
    """Whatever a label is dressed in, it names its picture or none; and its own where no other is spelled alike."""
    matcher = LabelMatcher(tuple(names))
    name = data.draw(st.sampled_from(names))
    label = name
    chosen = data.draw(st.sets(st.sampled_from(sorted(SPELLINGS)), max_size=5))
    for how in (each for each in SPELLINGS if each in chosen):
        label = SPELLINGS[how](label)
    tolerant = ALIKE[-1]
    alike = [other for other in names if tolerant(other) == tolerant(name)]
    if alike == [name] and tolerant(name):
        assert matcher.match(label) == name
    else:
        assert matcher.match(label) in {*alike, None}
    assert [matcher.match(other) for other in names] == names


def test_pictures_that_fall_together_stay_apart() -> None:
    """The exact name comes first; a spelling that fits two pictures names neither, unless folders tell them apart."""
    matcher = LabelMatcher(("7", "007", "Cat", "cat", "animals/dog", "toys/dog", "S5", "5"))
    exact = {name: matcher.match(name) for name in matcher.ids}
    assert exact == {name: name for name in matcher.ids}
    assert [matcher.match(label) for label in ("7.0", "S  7", "CAT", "dog.png", "zoo/dog", "S  5")] == [None] * 6
    assert matcher.match("C:\\stim\\toys\\DOG.png") == "toys/dog"


def test_a_file_names_its_picture() -> None:
    """A file's name with its ending names the picture of that file; without, or where an id says otherwise, not."""
    matcher = LabelMatcher(("first", "2", "third"), ("images/1.png", "images/7.png", "images/2.png"))
    assert matcher.match("1.png") == "first"
    assert matcher.match("D:\\x\\IMAGES\\7.PNG") == "2"
    assert matcher.match("2.png") == "2"
    assert matcher.match("1") is None


def test_codes_stand_for_pictures() -> None:
    """A table of codes rules, in any spelling of the code and of the picture; one that names no picture is refused."""
    matcher = LabelMatcher(("cat-01", "car", "8"), table={"8": "images/cat-01.png", "9.0": "CAR"})
    labels = ["8", "S  8", "Stimulus/S  9", "9", "car.png", "10"]
    assert [matcher.match(label) for label in labels] == ["cat-01", "cat-01", "car", "car", "car", None]
    with pytest.raises(
        StreamError, match=r"codes\.csv: 1 of 2 codes stand for no picture.*'9': 'dog'.*'cat-01'"
    ) as error:
        LabelMatcher(("cat-01",), table={"8": "cat-01", "9": "dog"}, origin="codes.csv")
    assert "\n" not in str(error.value)
    assert LabelMatcher((), table={"8": "images/cat-01.png"}).match("8") == "cat-01"


def test_an_event_keeps_what_was_sent() -> None:
    """A named event bears the picture's id, and still what its marker said, which goes out again in a replay."""
    events = (Event(1.0, "Stimulus/S  7"), Event(2.0, "other"), Event(3.0, "7", 7))
    recording = Recording("r", "d", (), events)
    named = recording.name_events(CAT)
    assert [(event.label, event.original_label, event.code) for event in named.events] == [
        ("7", "Stimulus/S  7", None), ("other", "", None), ("7", "", 7),
    ]  # fmt: skip
    assert with_original_labels(named).events == recording.events
    row = Event(1.0, "12/cat-01.png", columns=(("trial", "12"), ("image", "cat-01.png")))
    assert CAT.name_event(row).label == "cat-01"
    both = Event(1.0, "7/cat-01.png", columns=(("block", "7"), ("image", "cat-01.png")))
    assert CAT.name_event(both) is both


def test_a_mismatch_shows_both_sides() -> None:
    """Counts, and two examples of each side, in one line; nothing where all labels are pictures."""
    line = mismatch(["cat-01", "foo.png", "foo.png", "a\nb", "x" * 999], CAT.ids)
    assert line is not None
    assert line.startswith(
        "4 of 5 markers name no picture: 'foo.png', 'a\\nb', ...; pictures without a marker: '7', 'r\u00e4v'"
    )
    assert "\n" not in line
    assert len(line) < 400
    assert mismatch(["7", "cat-01"], CAT.ids) is None


def test_the_ingest_names_its_markers(caplog: pytest.LogCaptureFixture) -> None:
    """Live, a window's label is the picture's id; a marker of none is counted, and named with the way out at once."""
    channels = Channels(("a",), ("eeg",), ("V",))
    spec = WindowSpec(tmin=0, tmax=0.1, baseline=None, repeats=2, events="(?!skip).*")
    ingest = Ingest(channels, 100.0, spec, FilterSpec(), labels=CAT, now=lambda: 20.0)
    sent = ["images/cat-01.png", "skip", "CAT-01", "foo.png", "two\nlines", "x" * 100_000, ""]
    for place, label in enumerate(sent):
        event = event_of(1.0 + place, label)
        assert event is not None
        ingest.event(event)
    times = np.arange(1000) / 100
    windows = ingest.samples(np.random.default_rng(0).normal(size=(1000, 1)) * 1e-6, times) + ingest.release()
    labels = [window.event.label for window in windows if window.event]
    assert labels == ["cat-01", "cat-01", "foo.png", "two\nlines", "x" * 100_000, ""]
    assert [window.repeats for window in windows[:2]] == [1, 2]
    assert windows[0].id == "00000-cat-01"
    assert all(window.id.isprintable() and len(window.id) < 120 for window in windows)
    stats = ingest.account()
    assert (stats.events, stats.unmatched, stats.ignored) == (6, 4, 1)
    (problem,) = [line for line in stats.problems if "picture" in line]
    assert problem.startswith("4 of 6 markers name no picture, such as 'foo.png', 'two\\nlines'; pictures are called")
    assert "'cat-01', '7': say in `labels`" in problem
    ingest.account()
    (told,) = [record for record in caplog.records if "picture" in record.message]
    assert (told.levelno, told.message) == (logging.WARNING, problem)


def test_many_pictures_are_found_quickly() -> None:
    """A marker is looked up, not compared with every picture: 20,000 pictures are no burden."""
    spellings = Spellings(tuple(f"n{i:05d}/img_{i:06d}" for i in range(20_000)))
    assert spellings.find("x/IMG_012345.JPEG") == (12345,)
