"""EEG of a Muse headband, recorded over LSL (muse-lsl, one person a task, runs of two minutes)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.datasets import Dataset, Selection, require, require_known, require_runs
from decoder.errors import DatasetError
from decoder.stimuli import StimulusTable
from stream.recordings import Recording, read

WHERE = "github.com/alexandrebarachant/muse-lsl at commit 53c07a3, data/visual, in a folder 'muse_eeg_visual'"
SIDE = 128


@dataclass(frozen=True, slots=True)
class Task:
    """What was shown, and how the files of it are laid out.

    Attributes
    ----------
    name, description : str
    folder : str
        In the published folder.
    labels : dict of str to str
        Marker code -> what was shown.
    n_runs : int
    """

    name: str
    description: str
    folder: str
    labels: dict[str, str]
    n_runs: int


FACES = Task(
    "muse-faces",
    "human EEG (Muse headband), faces and houses",
    "N170/subject1",
    # As the stimulus script of that day wrote them; the upstream notebook has them the other way round.
    {"1": "house", "2": "face"},
    6,
)
SIDES = Task(
    "muse-sides",
    "human EEG (Muse headband), gratings on the left and on the right",
    "left-right/subject1",
    {"1": "left", "2": "right"},
    5,
)
PICTURES = {"face": "faces", "house": "houses"}
CAPTIONS = {"face": ("face", "person", "man", "woman"), "house": ("house", "building")}
SIDE_CAPTIONS = {"left": ("circle on the left",), "right": ("circle on the right",)}
GRATING_CYCLES = 8


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read faces and houses, run by run in the order in which they were recorded: the last run is for testing.

    Which of the 24 photographs was shown was not recorded, only its category, so there are two stimuli: 'face' and
    'house', each the mean of its category's photographs. A picture made from them shows a category, and says nothing
    about the photograph that was seen.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'muse_eeg_visual'.
    selection : Selection
        Nothing is chosen here.

    Raises
    ------
    DatasetError
        If files are missing, or markers are not those of this task.
    """
    del selection
    root, runs = _runs(data_dir, FACES)
    names = tuple(sorted(PICTURES))
    images = np.stack([_mean_picture(root / "stimuli" / "face_house" / PICTURES[name]) for name in names])
    stimuli = StimulusTable(names, images, tuple(CAPTIONS[name] for name in names))
    return Dataset(FACES.name, FACES.description, tuple(runs[:-1]), runs[-1], stimuli, reported={"auc": 0.727})


def load_sides(data_dir: Path, selection: Selection) -> Dataset:
    """Read gratings on the left and on the right, as `load`; their pictures are drawn after the stimulus script."""
    del selection
    _, runs = _runs(data_dir, SIDES)
    names = tuple(SIDE_CAPTIONS)
    images = np.stack([_grating(-1 if name == "left" else 1) for name in names])
    stimuli = StimulusTable(names, images, tuple(SIDE_CAPTIONS[name] for name in names))
    return Dataset(SIDES.name, SIDES.description, tuple(runs[:-1]), runs[-1], stimuli, reported={"auc": 0.859})


def _runs(data_dir: Path, task: Task) -> tuple[Path, list[Recording]]:
    root = require(data_dir / "muse_eeg_visual", WHERE)
    files = require_runs(root / task.folder, "session*/data_*.csv.gz", task.n_runs, WHERE)
    return root, [_named(read(file), task, number) for number, file in enumerate(files, start=1)]


def _named(recording: Recording, task: Task, number: int) -> Recording:
    markers = frozenset(event.label for event in recording.events)
    require_known(f"{recording.name} has markers", markers, frozenset(task.labels))
    events = tuple(replace(event, label=task.labels[event.label]) for event in recording.events)
    return replace(recording, name=f"{task.name} run {number}", description=task.description, events=events)


def _grating(side: int) -> NDArray[np.uint8]:
    """Draw a round grating left (-1) or right (1) of the middle of a grey field, shape (128, 128, 3)."""
    down, across = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    across = across - 0.25 * side
    wave = 0.5 + 0.5 * np.sin(4 * np.pi * GRATING_CYCLES * across) * (np.hypot(down, across) < 0.2)
    return np.repeat(np.round(255 * wave).astype(np.uint8)[..., None], 3, axis=2)


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
