"""What a picture seems to show: its nearest names in CLIP's joint space of pictures and texts, a guess.

The names are the concepts (else the captions) of the pictures that are shown, and those that the models' folder knows:
`vocabulary.txt`, one name a line, in the CLIP's folder or the one above it, or the index of the desk models' drawings.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from engine.models.loading import Models

logger = logging.getLogger(__name__)

TOLD = 3
"""Names told of a picture."""
LONGEST = 60
"""Characters of a name; a longer caption is none."""
MOST_NAMES = 20_000
MOST_MS = 60.0
"""What naming a picture may take; where it takes longer, pictures have no names: they must not wait for them."""
TRIES = 9


class Namer:
    """Names pictures, and counts how often the first name was right where the truth is known.

    Parameters
    ----------
    models : Models
    names : sequence of str
    concepts : mapping of str to str
        What each picture shows, by event label; a concept that is not among the names is never told right.

    Attributes
    ----------
    chance : float
        How often one of the names, drawn at random, is the true one.
    took_ms : float
        What naming a picture takes here, the fastest of a few tries: what else runs is not the models' fault.

    Raises
    ------
    ModelError
        The models have no CLIP that takes texts and pictures.
    """

    def __init__(self, models: Models, names: list[str], concepts: Mapping[str, str]) -> None:
        self._embed, self._names, self._concepts = models.embed_images, names, dict(concepts)
        self._texts = models.embed_texts(names)
        self.chance = 1 / len(names)
        self._right = self._of = 0
        side = models.image_size
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        self.nearest(noise)  # the first one loads
        self.took_ms = min(self._timed(noise) for _ in range(TRIES))

    def _timed(self, pixels: NDArray[np.uint8]) -> float:
        began = time.perf_counter()
        self.nearest(pixels)
        return (time.perf_counter() - began) * 1e3

    def nearest(self, pixels: NDArray[np.uint8]) -> list[str]:
        """Return the names nearest to a picture (height, width, 3), uint8: `TOLD` of them, the nearest first."""
        similarity = self._texts @ self._embed(pixels[None])[0]
        return [self._names[i] for i in np.argsort(-similarity, kind="stable")[:TOLD]]

    def about(
        self, pixels: NDArray[np.uint8], label: str | None, categories: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Return what a picture's metadata say of its names, and count whether they are right.

        Parameters
        ----------
        pixels : ndarray, shape (height, width, 3), uint8
        label : str or None
            Of the window's event.
        categories : mapping of str to float, optional
            What a decoder of categories says: these are its names, and the label is the truth.

        Returns
        -------
        dict
            `names`; where the truth is known also `truth`, `right` and `told` (`right` of `of` so far, and `chance`).
        """
        if categories:
            names = sorted(categories, key=lambda name: -categories[name])[:TOLD]
            truth, chance = (label if label in categories else None), 1 / len(categories)
        else:
            names, truth, chance = self.nearest(pixels), self._concepts.get(label or ""), self.chance
        if truth is None:
            return {"names": names}
        right = names[0] == truth
        self._of, self._right = self._of + 1, self._right + right
        told = {"right": self._right, "of": self._of, "chance": round(chance, 5)}
        return {"names": names, "truth": truth, "right": right, "told": told}


def namer_of(models: Models, stimuli: StimulusTable | None = None) -> Namer | None:
    """Return what names pictures; None, with a line in the log, where the models cannot, or not quickly enough.

    Parameters
    ----------
    models : Models
    stimuli : StimulusTable, optional
        The pictures shown.
    """
    concepts = dict(zip(stimuli.ids, stimuli.concepts, strict=True)) if stimuli is not None and stimuli.concepts else {}
    captions = [text for own in (stimuli.captions or ()) for text in own] if stimuli is not None else []
    names = sorted({*(concepts.values() or captions), *vocabulary_of(models)})
    names = [name for name in names if name.strip() and len(name) <= LONGEST][:MOST_NAMES]
    if "clip" not in models.parts or len(names) < 2:
        logger.info("pictures have no names: %s", "no CLIP" if names else "no vocabulary beside the models")
        return None
    try:
        namer = Namer(models, names, concepts)
    except ModelError as error:
        logger.info("pictures have no names: %s", error)
        return None
    if namer.took_ms > MOST_MS:
        words = "pictures have no names: that takes %.0f ms a picture here, and they would wait for it"
        logger.warning(words, namer.took_ms)
        return None
    logger.info("names of pictures: %d, %.1f ms a picture", len(names), namer.took_ms)
    return namer


def vocabulary_of(models: Models) -> list[str]:
    """Return the names that the models' folder knows; empty where it knows none, or they cannot be read."""
    if (clip := models.parts.get("clip")) is None:
        return []
    for path in (clip / "vocabulary.txt", clip.parent / "vocabulary.txt", clip.parent / "emoji" / "index.json"):
        try:
            return _names_in(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s holds no names: %s", path, str(error).splitlines()[0])
    return []


def _names_in(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return [str(concept["name"]) for concept in json.loads(text)["concepts"]]
    return [line.strip() for line in text.splitlines() if line.strip()]
