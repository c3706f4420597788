"""What the data sets with pictures of THINGS (Hebart et al. 2019) have in common."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from decoder.data.stimuli import StimulusTable
from decoder.datasets.photographs import read_photographs

logger = logging.getLogger(__name__)


def concept_of(file: str) -> str:
    """Return the concept that a picture shows: 'aircraft_carrier' of '.../aircraft_carrier_06s.jpg'."""
    return re.sub(r"_\d+[a-z]*$", "", Path(file).stem)


def caption_of(concept: str) -> str:
    """Return a concept in words: 'aircraft carrier'; the number that tells 'bat1' from 'bat2' says nothing."""
    return re.sub(r"\d+$", "", concept).replace("_", " ").strip()


def things_table(files: Sequence[Path], side: int, where: str) -> StimulusTable:
    """Read pictures of THINGS.

    A picture's id is its file's name without the ending, its caption the concept in words, and its group the concept:
    pictures of one concept never lie on both sides of a split, as the test concepts are none of the training's.
    """
    concepts = [concept_of(file.name) for file in files]
    return StimulusTable(
        tuple(file.stem for file in files),
        read_photographs(files, side, where),
        tuple((caption_of(concept),) for concept in concepts),
        groups=tuple(concepts),
        concepts=tuple(caption_of(concept) for concept in concepts),
    )


def log_left_out(n: int, of: int, why: str) -> None:
    """Log how many trials were left out of training."""
    if n:
        logger.info("%d of %d trials left out of training: %s", n, of, why)
