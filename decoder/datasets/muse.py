"""Faces and houses: EEG of a Muse headband, recorded over LSL (muse-lsl, one person, six runs of two minutes)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.datasets import Dataset, require
from decoder.errors import DatasetError
from decoder.stimuli import StimulusTable
from stream.recordings import Recording, read

WHERE = "github.com/alexandrebarachant/muse-lsl at commit 53c07a3, data/visual, in a folder 'muse_eeg_visual'"
DESCRIPTION = "human EEG (Muse headband), faces and houses"
LABELS = {"1": "house", "2": "face"}
"""Marker codes as the stimulus script of that day wrote them; the upstream notebook has them the other way round."""
PICTURES = {"face": "faces", "house": "houses"}
CAPTIONS = {"face": ("face", "person", "man", "woman"), "house": ("house", "building")}
SIDE = 128
N_RUNS = 6


def load(data_dir: Path, seed: int) -> Dataset:
    """Read the runs, in the order in which they were recorded: the last one is for testing.

    Which of the 24 photographs was shown was not recorded, only its category, so there are two stimuli: 'face' and
    'house', each the mean of its category's photographs. A picture made from them shows a category, and says nothing
    about the photograph that was seen.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'muse_eeg_visual'.
    seed : int
        Nothing is random here.

    Raises
    ------
    DatasetError
        If files are missing, or markers are not those of this task.
    """
    del seed
    root = require(data_dir / "muse_eeg_visual", WHERE)
    files = sorted((root / "N170" / "subject1").glob("session*/data_*.csv.gz"), key=lambda path: path.name)
    if len(files) != N_RUNS:
        raise DatasetError(f"{root / 'N170' / 'subject1'} holds {len(files)} runs, not {N_RUNS}; fetch it from {WHERE}")
    runs = [_named(read(file), number) for number, file in enumerate(files, start=1)]
    names = tuple(sorted(PICTURES))
    images = np.stack([_mean_picture(root / "stimuli" / "face_house" / PICTURES[name]) for name in names])
    stimuli = StimulusTable(names, images, tuple(CAPTIONS[name] for name in names))
    return Dataset("muse-faces", DESCRIPTION, tuple(runs[:-1]), runs[-1], stimuli)


def _named(recording: Recording, number: int) -> Recording:
    strange = {event.label for event in recording.events} - set(LABELS)
    if strange:
        raise DatasetError(f"{recording.name} has markers {sorted(strange)}; this task writes {sorted(LABELS)}")
    events = tuple(replace(event, label=LABELS[event.label]) for event in recording.events)
    return replace(recording, name=f"muse-faces run {number}", description=DESCRIPTION, events=events)


def _mean_picture(folder: Path) -> NDArray[np.uint8]:
    """Mean of a folder's photographs, shape (128, 128, 3)."""
    from PIL import Image

    files = sorted(require(folder, WHERE).glob("*.jpg"))
    if not files:
        raise DatasetError(f"{folder} holds no photographs; fetch it from {WHERE}")
    total = np.zeros((SIDE, SIDE, 3))
    for file in files:
        with Image.open(file) as image:
            total += np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return np.round(total / len(files)).astype(np.uint8)
