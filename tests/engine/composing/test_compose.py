"""Composed stimuli: reproducible, true, and never the test's."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.composing.compose import (
    BACKGROUNDS,
    COLOURS,
    SIZE,
    compose,
    compose_one,
    images,
    load_test_stimuli,
    paint_background,
    place,
    position_words,
    size_word,
    true_captions,
)
from engine.composing.pack import DESK, Concept, PackError, load_pack

PACK = load_pack()
THRESHOLDS = (0.43, 0.57)


@pytest.fixture(scope="module")
def held_out():
    """Read the held-out stimuli once."""
    return load_test_stimuli()


@pytest.fixture(scope="module")
def composed():
    """Compose a calibration set once."""
    return compose(PACK, 1000, seed=7)


def test_same_seed_same_pictures(composed):
    """A stimulus depends on seed and number only: alone, in a shorter list or in a longer one."""
    alone = compose_one(PACK, 7, 42)
    assert np.array_equal(alone.image, composed[42].image)
    assert alone.captions == composed[42].captions
    assert not np.array_equal(images(compose(PACK, 5, seed=8)), images(composed[:5]))


def test_pictures_are_stacked_for_the_models(composed):
    """Pictures come as uint8 (n, 128, 128, 3), and ids are unique."""
    pixels = images(composed[:8])
    assert pixels.shape == (8, SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert len({stimulus.name for stimulus in composed}) == 1000


def test_the_recipe_is_followed(composed):
    """Sizes span 0.4 to 0.9, 70 % are turned by up to 35 degrees, half mirrored, and all backgrounds occur."""
    sizes = [s.size for s in composed]
    turned = [s.rotation for s in composed if s.rotation]
    assert 0.4 <= min(sizes) < 0.42
    assert 0.88 < max(sizes) <= 0.9
    assert abs(len(turned) / 1000 - 0.7) < 0.06
    assert 33 < max(map(abs, turned)) <= 35
    assert abs(np.mean([s.flipped for s in composed]) - 0.5) < 0.07
    assert {s.background for s in composed} == set(BACKGROUNDS)
    assert {name for s in composed for name in s.colours} == set(COLOURS)


def test_no_composed_picture_is_a_test_picture(composed, held_out):
    """Nothing shown in calibration comes near any picture of the test: 2 grey levels away on average at the least."""
    test = images(held_out)[:, ::4, ::4].reshape(300, -1).astype(np.float32)
    nearest = [np.abs(test - s.image[::4, ::4].reshape(-1).astype(np.float32)).mean(1).min() for s in composed]
    assert min(nearest) > 2


def test_the_test_pictures_are_read_with_their_truth(held_out):
    """300 stimuli, each of another concept, with the truth of the file's row."""
    first = held_out[0]
    assert len({s.concept for s in held_out}) == 300
    assert (first.name, first.concept, first.style) == ("stim_000", "goat", "noto")
    assert (first.x, first.y, first.size, first.rotation) == (0.411, 0.339, 0.709, -0.9)
    assert first.colours == ("red", "red")
    assert all(len(set(s.captions)) == 3 for s in held_out)


def test_test_pictures_are_drawn_again_from_their_truth(held_out):
    """Every test picture on a plain background is remade from the pack and its truth: correlation above 0.97."""
    plain = [s for s in held_out if s.background == "plain"]
    for s in plain:
        border = np.concatenate([s.image[0], s.image[-1], s.image[:, 0], s.image[:, -1]])
        colours, counts = np.unique(border, axis=0, return_counts=True)
        canvas = Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in colours[counts.argmax()]))
        drawing = place(PACK.art(s.concept, s.style), s.x, s.y, s.size, s.rotation, flipped=s.flipped)
        canvas.paste(drawing, mask=drawing)
        assert np.corrcoef(np.asarray(canvas).ravel(), s.image.ravel())[0, 1] > 0.97, s.name
    assert len(plain) == 90


def test_first_captions_are_worded_as_in_the_test(held_out):
    """From the truth the file's own captions come out, articles and rounding at a border aside."""
    compared = 0
    for s in held_out:
        if min(abs(v - t) for v in (s.x, s.y) for t in THRESHOLDS) < 1e-3:
            continue
        written = true_captions(PACK.concepts[s.concept], s.x, s.y, s.size, s.colours)[0]
        assert written.removeprefix("an ").removeprefix("a ") == s.captions[0].removeprefix("an ").removeprefix("a ")
        compared += 1
    assert compared > 280


@settings(max_examples=60, deadline=None)
@given(
    drawing=st.sampled_from(PACK.drawings),
    x=st.floats(0.46, 0.54),
    y=st.floats(0.46, 0.54),
    size=st.floats(0.4, 0.9),
    flipped=st.booleans(),
)
def test_the_drawing_lies_where_the_truth_says(drawing, x, y, size, flipped):
    """The visible box of an upright drawing has the stated centre and longest side, to 1.5 px."""
    alpha = np.asarray(place(PACK.art(*drawing), x, y, size, 0, flipped=flipped))[..., 3] > 8
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    centre = ((columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2)
    longest = max(np.ptp(columns), np.ptp(rows)) + 1
    assert math.isclose(centre[0], x * SIZE, abs_tol=1.5)
    assert math.isclose(centre[1], y * SIZE, abs_tol=1.5)
    assert math.isclose(longest, size * SIZE, abs_tol=2)


def test_rotation_is_clockwise_and_after_the_mirror():
    """An arm that points up points right after 90 degrees; one at the left moves right when mirrored."""
    arm = Image.new("RGBA", (120, 120))
    arm.paste((255, 255, 255, 255), (50, 0, 70, 60))
    alpha = np.asarray(place(arm, 0.5, 0.5, 0.8, 90, flipped=False))[..., 3]
    assert alpha[:, 64:].sum() > 50 * max(1, alpha[:, :60].sum())
    left = Image.new("RGBA", (120, 120))
    left.paste((255, 255, 255, 255), (0, 40, 60, 80))
    assert np.asarray(place(left, 0.5, 0.5, 0.8, 0, flipped=True))[..., 3][:, :60].sum() == 0


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_have_the_named_colours(kind):
    """Plain has one colour, two-tone exactly two, a gradient runs from near the first to near the second."""
    pixels = np.asarray(paint_background(kind, ("red", "blue"), np.random.default_rng(3))).reshape(-1, 3).astype(int)
    distinct = len(np.unique(pixels, axis=0))
    assert distinct == {"plain": 1, "two-tone": 2}.get(kind, distinct)
    assert np.abs(pixels - COLOURS["red"]).max(1).min() <= 21
    if kind != "plain":
        assert np.abs(pixels - COLOURS["blue"]).max(1).min() <= 21
    if kind == "gradient":
        assert distinct > 50


def test_words_for_place_and_size():
    """Words follow the borders of the held-out table."""
    assert [position_words(x, 0.5) for x in (0.2, 0.5, 0.8)] == ["on the left", "in the center", "on the right"]
    assert [position_words(x, 0.2) for x in (0.2, 0.5)] == ["at the top left", "at the top"]
    assert [size_word(s) for s in (0.53, 0.6, 0.75)] == ["small", "medium", "large"]


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("open book", "an open book in the center"),
        ("unicorn", "a unicorn in the center"),
        ("cactus", "a cactus in the center"),
        ("jeans", "jeans in the center"),
        ("compass", "a compass in the center"),
        ("spaghetti", "spaghetti in the center"),
    ],
)
def test_captions_are_english(name, caption):
    """Articles fit singular, plural and uncounted names."""
    assert true_captions(Concept(name, "0", ()), 0.5, 0.5, 0.6, ("red", "red"))[0] == caption


def test_true_captions_are_all_there_are():
    """A large hot dog has two names, said with or without size, with position, background or neither: 12 captions."""
    captions = true_captions(Concept("hot dog", "0", ("hotdog",)), 0.2, 0.2, 0.8, ("red", "blue"))
    assert len(set(captions)) == 12
    assert captions[:3] == (
        "a large hot dog at the top left",
        "a large hot dog on a red and blue background",
        "a large hot dog",
    )
    assert captions[-1] == "a hotdog"


def test_captions_are_words_the_desk_clip_was_trained_on(composed):
    """Captions fit the desk CLIP's 16 tokens, and every token's embedding differs from the untrained tokens' one."""
    from open_clip.tokenizer import SimpleTokenizer
    from safetensors.torch import load_file

    encode = SimpleTokenizer(context_length=16).encode
    rows = load_file(DESK / "clip" / "open_clip_model.safetensors")["token_embedding.weight"]
    untrained = (rows == rows[encode("champagne")[0]]).all(1)
    assert untrained.sum() == 49408 - 705
    names = [name for concept in PACK.concepts.values() for name in (concept.name, *concept.synonyms)]
    longest = [f"a large {name} on a turquoise and orange background" for name in names]
    for caption in (*longest, *(caption for s in composed[:200] for caption in s.captions)):
        tokens = encode(caption)
        assert len(tokens) <= 14, caption
        assert not untrained[tokens].any(), caption


def test_a_missing_test_picture_is_named(tmp_path):
    """A table that names a picture which isn't there gives one message with the folder."""
    with (DESK / "stimuli" / "stimuli.csv").open(newline="") as file:
        header, row = list(csv.reader(file))[:2]
    (tmp_path / "stimuli.csv").write_text(",".join(header) + "\n" + ",".join(row) + "\n")
    with pytest.raises(PackError, match="stim_000"):
        load_test_stimuli(tmp_path)
