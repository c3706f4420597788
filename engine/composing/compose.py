"""Stimuli composed from the emoji pack: one drawing on a background, with the truth about everything in the picture."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.composing.pack import DESK, Concept, Pack, PackError

SIZE = 128
"""Side of a picture, px."""
COLOURS = {
    "red": (210, 48, 44),
    "orange": (243, 146, 42),
    "yellow": (240, 212, 68),
    "green": (70, 164, 72),
    "turquoise": (66, 190, 184),
    "blue": (60, 112, 218),
    "purple": (135, 70, 176),
    "pink": (242, 152, 190),
    "brown": (126, 88, 48),
    "black": (34, 28, 32),
    "white": (244, 244, 240),
    "gray": (132, 136, 142),
}
BACKGROUNDS = ("plain", "gradient", "two-tone")
_BACKGROUND_SHARES = (0.3, 0.45, 0.25)
_JITTER = 20
_OVERHANG = 0.04
_MASS = frozenset({"bacon", "bread", "broccoli", "spaghetti"})


@dataclass(frozen=True, slots=True, eq=False)
class Stimulus:
    """A picture and the truth about it.

    Attributes
    ----------
    name : str
        Unique id; the label of the event that announces the picture.
    concept, style : str
        The drawing, as in the pack.
    x, y : float
        Centre of the drawing's box in shares of the picture's side, from the left and from the top.
    size : float
        Longest side of the drawing before it is turned, in shares of the picture's side.
    rotation : float
        Degrees, clockwise.
    flipped : bool
        Mirrored left to right (before it is turned).
    background : str
        'plain', 'gradient' or 'two-tone'.
    colours : tuple of (str, str)
        Names of the background's colours; a plain one has the same twice.
    captions : tuple of str
        Three, all different; the first is '[a] [size] concept position', the others are drawn from `true_captions`.
    image : ndarray, shape (128, 128, 3), uint8, RGB
    """

    name: str
    concept: str
    style: str
    x: float
    y: float
    size: float
    rotation: float
    flipped: bool
    background: str
    colours: tuple[str, str]
    captions: tuple[str, ...]
    image: NDArray[np.uint8]


def compose(pack: Pack, n: int, seed: int) -> list[Stimulus]:
    """Compose stimuli; number i depends on `seed` and i only, so a longer list begins with the shorter one.

    Parameters
    ----------
    pack : Pack
    n : int
        How many; about 2 ms and 50 kB each.
    seed : int
        Not negative.
    """
    return [compose_one(pack, seed, i) for i in range(n)]


def compose_one(pack: Pack, seed: int, index: int) -> Stimulus:
    """Compose stimulus number `index` of `seed`: sizes 0.4 to 0.9, 70 % turned by up to 35 degrees, half mirrored."""
    rng = np.random.default_rng([seed, index])
    concept, style = pack.drawings[rng.integers(len(pack.drawings))]
    size = float(rng.uniform(0.4, 0.9))
    reach = 0.5 + _OVERHANG - size / 2
    x, y = (0.5 + rng.uniform(-reach, reach, 2)).tolist()
    rotation = float(rng.uniform(-35, 35)) if rng.random() < 0.7 else 0.0
    flipped = bool(rng.random() < 0.5)
    background = str(rng.choice(BACKGROUNDS, p=_BACKGROUND_SHARES))
    first, second = (str(name) for name in rng.choice(list(COLOURS), 2))
    colours = (first, first if background == "plain" else second)
    canvas = paint_background(background, colours, rng)
    drawing = place(pack.art(concept, style), x, y, size, rotation, flipped=flipped)
    canvas.paste(drawing, mask=drawing)
    captions = _three(true_captions(pack.concepts[concept], x, y, size, colours), rng)
    name = f"composed-{seed}-{index:06d}"
    image = np.asarray(canvas)
    return Stimulus(name, concept, style, x, y, size, rotation, flipped, background, colours, captions, image)


def images(stimuli: Sequence[Stimulus]) -> NDArray[np.uint8]:
    """Stack the pictures: uint8, shape (n, 128, 128, 3)."""
    return np.stack([stimulus.image for stimulus in stimuli])


def place(art: Image.Image, x: float, y: float, size: float, rotation: float, *, flipped: bool) -> Image.Image:
    """Paste a drawing onto an empty picture, to the nearest pixel; what hangs over the edge is cut off.

    Parameters
    ----------
    art : PIL.Image.Image
        RGBA, cropped to its alpha box.
    x, y, size, rotation, flipped
        As in `Stimulus`.

    Returns
    -------
    layer : PIL.Image.Image
        RGBA, 128 x 128.
    """
    if flipped:
        art = ImageOps.mirror(art)
    scale = size * SIZE / max(art.size)
    art = art.resize((max(1, round(art.width * scale)), max(1, round(art.height * scale))), Image.Resampling.LANCZOS)
    if rotation:
        art = art.rotate(-rotation, Image.Resampling.BICUBIC, expand=True)
    layer = Image.new("RGBA", (SIZE, SIZE))
    layer.paste(art, (round(x * SIZE - art.width / 2), round(y * SIZE - art.height / 2)))
    return layer


def alpha_of(pack: Pack, stimulus: Stimulus) -> NDArray[np.uint8]:
    """Return the alpha of a stimulus's drawing where it lies in the picture, shape (128, 128)."""
    where = (stimulus.x, stimulus.y, stimulus.size, stimulus.rotation)
    layer = place(pack.art(stimulus.concept, stimulus.style), *where, flipped=stimulus.flipped)
    alpha: NDArray[np.uint8] = np.asarray(layer)[..., 3]
    return alpha


def paint_background(kind: str, colours: tuple[str, str], rng: np.random.Generator) -> Image.Image:
    """Paint 128 x 128 px in one colour, a gradient across the picture, or two parts; each colour is varied a little."""
    first, second = (
        np.clip(np.array(COLOURS[name]) + rng.integers(-_JITTER, _JITTER + 1, 3), 0, 255).astype(float)
        for name in colours
    )
    if kind == "plain":
        share = np.zeros((SIZE, SIZE))
    else:
        angle = rng.uniform(0, 2 * np.pi)
        axis = np.linspace(-0.5, 0.5, SIZE)
        along = (np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]) / (
            abs(np.cos(angle)) + abs(np.sin(angle))
        )
        share = along + 0.5 if kind == "gradient" else (along > rng.uniform(-0.2, 0.2)).astype(float)
    blend = first + share[..., None] * (second - first)
    return Image.fromarray(blend.round().astype(np.uint8))


def position_words(x: float, y: float) -> str:
    """Describe where the centre lies, by thirds whose middle one is narrow: 'at the top left', 'in the center', ..."""
    row = "top" if y < 0.43 else "bottom" if y > 0.57 else ""
    column = "left" if x < 0.43 else "right" if x > 0.57 else ""
    if row:
        return f"at the {row} {column}".strip()
    return f"on the {column}" if column else "in the center"


def size_word(size: float) -> str:
    """Describe the size: 'small' below 0.54, 'large' from 0.74, else 'medium'."""
    return "small" if size < 0.54 else "medium" if size < 0.74 else "large"


def true_captions(concept: Concept, x: float, y: float, size: float, colours: tuple[str, str]) -> tuple[str, ...]:
    """Every caption that the captions' grammar has for a picture, of at most 14 words.

    A name or a synonym, with or without the size (never said of a medium one), and the position, the background or
    neither. The first is the name with size and position, as in the held-out stimuli.
    """
    word = size_word(size)
    ground = colours[0] if colours[0] == colours[1] else f"{colours[0]} and {colours[1]}"
    told = (position_words(x, y), f"on {_article(ground)} {ground} background", "")
    adjectives = ("",) if word == "medium" else (word, "")
    names = (concept.name, *concept.synonyms)
    return tuple(_phrase(name, adjective, where) for name in names for adjective in adjectives for where in told)


def _three(captions: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    return (captions[0], *(captions[1 + i] for i in rng.choice(len(captions) - 1, 2, replace=False)))


def _phrase(name: str, adjective: str, where: str) -> str:
    plural = name.endswith("s") and not name.endswith(("ss", "us", "americas"))
    words = " ".join(filter(None, (adjective, name)))
    return " ".join(filter(None, ("" if plural or name in _MASS else _article(words), words, where)))


def _article(words: str) -> str:
    sounds_like_you = words.startswith(("uni", "ute"))
    return "an" if (words[0] in "aeiou" and not sounds_like_you) or words.startswith("hour") else "a"


def load_test_stimuli(path: Path = DESK / "stimuli") -> list[Stimulus]:
    """Read the 300 held-out stimuli: one drawing of 300 concepts each, never seen by the desk models' training.

    Their captions are the file's own and two more, written as for composed stimuli.

    Raises
    ------
    PackError
        If the folder lacks its table or a picture.
    """
    stimuli = []
    try:
        with (path / "stimuli.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            with Image.open(path / row["file"]) as picture:
                image = np.asarray(picture.convert("RGB"))
            stimuli.append(_held_out(row, image))
    except (OSError, KeyError, ValueError) as error:
        msg = f"cannot read the held-out stimuli in {path} ({type(error).__name__}: {error})"
        raise PackError(msg) from error
    return stimuli


def _held_out(row: dict[str, str], image: NDArray[np.uint8]) -> Stimulus:
    x, y, size = (float(row[key]) for key in ("x", "y", "size"))
    colours = (row["colour1"], row["colour2"])
    rng = np.random.default_rng(int(row["composition"]))
    captions = true_captions(Concept(row["concept"], row["codepoint"], ()), x, y, size, colours)
    return Stimulus(
        name=Path(row["file"]).stem,
        concept=row["concept"],
        style=row["style"],
        x=x,
        y=y,
        size=size,
        rotation=float(row["rotation_deg"]),
        flipped=row["flipped"] == "1",
        background=row["background"],
        colours=colours,
        captions=(row["caption"], *_three(captions, rng)[1:]),
        image=image,
    )
