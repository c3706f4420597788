"""EEG of a Muse headband, recorded over LSL (muse-lsl): several tasks, people and sessions, runs of two minutes.

As published, a run lies in `<task>/subject<n>/session<n>/data_<date>.csv`, or packed, `.csv.gz`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset, Selection, chosen_sessions, require, require_known
from decoder.datasets.cards import cards
from decoder.errors import DatasetError
from stream.files.registry import read
from stream.types.recording import Recording

WHERE = "github.com/alexandrebarachant/muse-lsl at commit 53c07a3, data/visual, in a folder 'muse_eeg_visual'"
SIDE = 128
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Task:
    """What was shown, and how the files of it are laid out.

    Attributes
    ----------
    name, description : str
    folder : str
        In the published folder.
    labels : mapping of str to str
        Marker code -> what was shown.
    captions : mapping of str to tuple of str
        By what was shown.
    picture : callable
        Takes the data set's folder and what was shown, and returns a picture of it, shape (128, 128, 3).
    other_markers : str
        Regular expression of markers of this task that announce no stimulus; they are left out.
    reported : mapping of int to mapping of str to float
        Figures that come with the data, by subject.
    """

    name: str
    description: str
    folder: str
    labels: Mapping[str, str]
    captions: Mapping[str, tuple[str, ...]]
    picture: Callable[[Path, str], Image]
    other_markers: str = ""
    reported: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


def _mean_picture(folder: Path, pattern: str) -> Image:
    """Mean of a folder's photographs, shape (128, 128, 3)."""
    from PIL import Image as Pictures

    files = sorted(require(folder, WHERE).glob(pattern))
    if not files:
        raise DatasetError(f"{folder} holds no photographs {pattern}; fetch it from {WHERE}")
    total = np.zeros((SIDE, SIDE, 3))
    for file in files:
        with Pictures.open(file) as image:
            total += np.asarray(image.convert("RGB").resize((SIDE, SIDE), Pictures.Resampling.BICUBIC))
    return np.round(total / len(files)).astype(np.uint8)


def _face_or_house(root: Path, name: str) -> Image:
    return _mean_picture(root / "stimuli" / "face_house" / f"{name}s", "*.jpg")


def _cat_or_dog(root: Path, name: str) -> Image:
    return _mean_picture(root / "stimuli" / "cats_dogs", f"{name}-*.jpg")


def _grating(cycles: float, across: float = 0.0, radius: float = 0.2) -> Image:
    """Draw a round grating on a grey field, its middle so far right of the picture's; shape (128, 128, 3)."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    x = x - across
    wave = 0.5 + 0.5 * np.sin(4 * np.pi * cycles * x) * (np.hypot(y, x) < radius)
    return np.repeat(np.round(255 * wave).astype(np.uint8)[..., None], 3, axis=2)


FACES = Task(
    "muse-faces",
    "human EEG (Muse headband), faces and houses",
    "N170",
    # As the stimulus script of that day wrote them; the upstream notebook has them the other way round.
    {"1": "house", "2": "face"},
    {"face": ("face", "person", "man", "woman"), "house": ("house", "building")},
    _face_or_house,
    reported={1: {"auc": 0.727}},
)
SIDES = Task(
    "muse-sides",
    "human EEG (Muse headband), gratings on the left and on the right",
    "left-right",
    {"1": "left", "2": "right"},
    {"left": ("circle on the left",), "right": ("circle on the right",)},
    lambda _, name: _grating(8, -0.25 if name == "left" else 0.25),
    reported={1: {"auc": 0.859}},
)
GRATINGS = Task(
    "muse-gratings",
    "human EEG (Muse headband), coarse and fine gratings",
    "spatial_freq",
    {"1": "coarse", "2": "fine"},
    {"coarse": ("wide stripes",), "fine": ("thin stripes",)},
    lambda _, name: _grating(1 if name == "coarse" else 12, radius=0.5),
    other_markers=r"[34]|Marker\d=.*",  # a grating's end, and its contrast and orientation
    reported={1: {"auc": 0.67}},
)
TARGETS = Task(
    "muse-targets",
    "human EEG (Muse headband), cats among dogs",
    "P300",
    {"1": "nontarget", "2": "target"},
    {"nontarget": ("dog",), "target": ("cat",)},
    _cat_or_dog,
)
FLICKER = Task(
    "muse-flicker",
    "human EEG (Muse headband), gratings that flicker",
    "SSVEP",
    {"1": "30 Hz", "2": "20 Hz"},
    {"20 Hz": ("20 Hz light",), "30 Hz": ("30 Hz light",)},
    lambda _, name: cards([name])[0],
)


def load_faces(data_dir: Path, selection: Selection) -> Dataset:
    """Read faces and houses; as `load_task`.

    Which of the 24 photographs was shown was not recorded, only its category, so there are two stimuli: 'face' and
    'house', each the mean of its category's photographs. A picture made from them shows a category, and says nothing
    about the photograph that was seen.
    """
    return load_task(FACES, data_dir, selection)


def load_sides(data_dir: Path, selection: Selection) -> Dataset:
    """Read gratings on the left and on the right, drawn after the stimulus script; as `load_task`."""
    return load_task(SIDES, data_dir, selection)


def load_gratings(data_dir: Path, selection: Selection) -> Dataset:
    """Read gratings of two spatial frequencies, whatever their orientation; as `load_task`."""
    return load_task(GRATINGS, data_dir, selection)


def load_targets(data_dir: Path, selection: Selection) -> Dataset:
    """Read rare cats among dogs; as `load_task`."""
    return load_task(TARGETS, data_dir, selection)


def load_flicker(data_dir: Path, selection: Selection) -> Dataset:
    """Read gratings that flicker at two frequencies, of which cards name the frequency; as `load_task`."""
    return load_task(FLICKER, data_dir, selection)


def load_task(task: Task, data_dir: Path, selection: Selection) -> Dataset:
    """Read a person's runs, in the order in which they were recorded: the last run is for testing.

    Of a single run, which trains and tests alike, stretches are held out (`decoder.data.splits.category_folds`).

    Parameters
    ----------
    task : Task
    data_dir : Path
        Holds the folder 'muse_eeg_visual'.
    selection : Selection
        Its subject, the first so many of its sessions, or one session by its folder's name.

    Raises
    ------
    DatasetError
        If files are missing, or markers are not those of this task.
    """
    root = require(data_dir / "muse_eeg_visual", WHERE)
    person = require(root / task.folder / f"subject{selection.subject}", WHERE)
    folders = {path.name: path for path in sorted(person.glob("*"), key=_by_number) if _runs(path)}
    if selection.session is None:
        folders = {name: path for name, path in folders.items() if name.startswith("session")}
    folders = chosen_sessions(folders, person, selection, WHERE)
    runs: list[Recording] = []
    sessions: dict[str, str] = {}
    for session, folder in folders.items():
        for file in _runs(folder):
            runs.append(_named(read(file), task, len(runs) + 1))
            sessions[runs[-1].name] = session
    names = tuple(sorted(task.captions))
    pictures = np.stack([task.picture(root, name) for name in names])
    stimuli = StimulusTable(names, pictures, tuple(task.captions[name] for name in names))
    train = tuple(runs[:-1] or runs)
    whole = selection.session is None and selection.sessions is None
    reported = task.reported.get(selection.subject, {}) if whole else {}
    return Dataset(task.name, task.description, train, runs[-1], stimuli, reported=reported, sessions=sessions)


def _by_number(path: Path) -> tuple[int, str]:
    return int((re.findall(r"\d+$", path.name) or ["0"])[0]), path.name


def _runs(folder: Path) -> list[Path]:
    """Return a session's runs in the order of their dates; one that lies there packed and not is read once."""
    files = {file.name.removesuffix(".gz"): file for file in sorted(folder.glob("data_*.csv*"), reverse=True)}
    return [files[name] for name in sorted(files)]


def _named(recording: Recording, task: Task, number: int) -> Recording:
    markers = [event for event in recording.events if not re.fullmatch(task.other_markers, event.label)]
    labels = frozenset(event.label for event in markers)
    require_known(f"{recording.name} has markers", labels, frozenset(task.labels))
    events = tuple(replace(event, label=task.labels[event.label]) for event in markers)
    return replace(recording, name=f"{task.name} run {number}", description=task.description, events=events)
