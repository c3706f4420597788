"""Names of pictures: the nearest in CLIP's space, right or not, beside chance; a guess that nobody waits for."""

import json
from pathlib import Path

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from engine.models.loading import Models
from minddiffuser.live import names as module
from minddiffuser.live.names import TOLD, Namer, namer_of, vocabulary_of

WORDS = ["bell", "cat", "dog", "hot dog", "pepper", "zebra"]


def picture(seed: int, side: int = 32) -> np.ndarray:
    """Make a picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def nearest(models: Models, pixels: np.ndarray) -> list[str]:
    """Sort the words by their cosine with a picture, by hand."""
    image = models.embed_images(pixels[None])[0].astype(np.float64)
    cosine = {word: float(models.embed_texts([word])[0].astype(np.float64) @ image) for word in WORDS}
    return sorted(WORDS, key=lambda word: -cosine[word])[:TOLD]


def test_names_are_the_nearest_and_counted_where_the_truth_is_known(tiny: Models) -> None:
    """The names are those of largest cosine; where the concept is known the first is right or not, and counted."""
    shown = picture(1)
    (first, *_) = expected = nearest(tiny, shown)
    wrong = next(word for word in WORDS if word != first)
    namer = Namer(tiny, WORDS, {"p1": first, "p2": wrong})
    chance = round(1 / len(WORDS), 5)
    assert namer.about(shown, "p1") == {
        "names": expected, "truth": first, "right": True, "told": {"right": 1, "of": 1, "chance": chance}
    }  # fmt: skip
    assert namer.about(shown, "unknown") == {"names": expected}
    assert namer.about(shown, None) == {"names": expected}
    assert namer.about(shown, "p2") == {
        "names": expected, "truth": wrong, "right": False, "told": {"right": 1, "of": 2, "chance": chance}
    }  # fmt: skip
    assert namer.took_ms > 0


def test_a_decoder_of_categories_has_told_its_own(tiny: Models) -> None:
    """Where categories are decoded, the likeliest is what was told, and the event's label is the truth."""
    namer = Namer(tiny, WORDS, {})
    odds = {"face": 0.2, "house": 0.5, "shoe": 0.3}
    told = {"right": 0, "of": 1, "chance": round(1 / 3, 5)}
    about = namer.about(picture(1), "face", odds)
    assert about == {"names": ["house", "shoe", "face"], "truth": "face", "right": False, "told": told}
    assert namer.about(picture(1), "nothing", odds) == {"names": ["house", "shoe", "face"]}


def stimuli(concepts: tuple[str, ...] = (), captions: tuple[tuple[str, ...], ...] | None = None) -> StimulusTable:
    """Make a table of two pictures."""
    return StimulusTable(("p1", "p2"), np.stack([picture(1), picture(2)]), captions, concepts=concepts)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (stimuli(("cat", "dog")), {"cat", "dog"}),
        (stimuli((), (("a cat", "x" * 100), ("a dog",))), {"a cat", "a dog"}),
        (stimuli(("cat", "dog"), (("a cat",), ("a dog",))), {"cat", "dog"}),
    ],
)
def test_the_pictures_shown_have_names(tiny: Models, table: StimulusTable, expected: set[str]) -> None:
    """Concepts are names; without them captions that are short enough."""
    namer = namer_of(tiny, table)
    assert namer is not None
    assert {*namer.nearest(picture(3))} == expected
    assert namer.chance == 0.5


def test_without_words_pictures_have_no_names(tiny: Models, caplog: pytest.LogCaptureFixture) -> None:
    """No vocabulary, or one word only, is no choice: nothing is told, and the log says why."""
    caplog.set_level("INFO")
    assert namer_of(tiny) is None
    assert namer_of(tiny, stimuli(("cat", "cat"))) is None
    assert caplog.text.count("pictures have no names") == 2


def test_what_takes_too_long_is_left_out(
    tiny: Models, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where naming would hold pictures up, there are none, and a warning with the time it takes."""
    monkeypatch.setattr(module, "MOST_MS", 0.0)
    assert namer_of(tiny, stimuli(("cat", "dog"))) is None
    assert "ms a picture here, and they would wait for it" in caplog.text


class WithClipAt:
    """Stands for models whose CLIP lies in a folder; only where it lies is looked at."""

    def __init__(self, clip: Path) -> None:
        self.parts = {"clip": clip}


def test_a_models_folder_knows_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A list beside the CLIP goes before one above it, and both before the index of drawings; rubbish is one line."""
    clip = tmp_path / "models" / "clip"
    clip.mkdir(parents=True)
    models = WithClipAt(clip)
    assert vocabulary_of(models) == []  # type: ignore[arg-type]
    (tmp_path / "models" / "emoji").mkdir()
    index = tmp_path / "models" / "emoji" / "index.json"
    index.write_text(json.dumps({"concepts": [{"name": "bell"}, {"name": "hot dog"}]}))
    assert vocabulary_of(models) == ["bell", "hot dog"]  # type: ignore[arg-type]
    (tmp_path / "models" / "vocabulary.txt").write_text("cat\n\n dog \n")
    assert vocabulary_of(models) == ["cat", "dog"]  # type: ignore[arg-type]
    (clip / "vocabulary.txt").write_text("zebra\n")
    assert vocabulary_of(models) == ["zebra"]  # type: ignore[arg-type]
    for path in (clip / "vocabulary.txt", tmp_path / "models" / "vocabulary.txt"):
        path.write_bytes(b"\xff")
    index.write_text('{"concepts": 3}')
    assert vocabulary_of(models) == []  # type: ignore[arg-type]
    assert [record.getMessage().count("\n") for record in caplog.records] == [0, 0, 0]


def test_the_desk_models_know_what_they_can_draw() -> None:
    """The models of the project name the 300 things they were trained on."""
    desk = Path(__file__).resolve().parents[2] / "models" / "desk" / "clip"
    words = vocabulary_of(WithClipAt(desk))  # type: ignore[arg-type]
    assert len(words) == 300
    assert {"bell", "hot dog", "volcano"} <= set(words)
