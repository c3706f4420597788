"""Readers for recorded data sets, each with splits that cannot leak."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from decoder.errors import DatasetError
from decoder.stimuli import StimulusTable
from stream.recordings import Recording


@dataclass(frozen=True, slots=True)
class Dataset:
    """Recordings to train and to test on, and the pictures that their events name.

    Attributes
    ----------
    name : str
    description : str
        What it is, shown wherever the data is shown: 'simulated EEG', 'macaque V4 spikes'.
    train : tuple of Recording
        What a decoder is fitted to.
    live : Recording
        What it is tested on, offline and replayed as a live stream.
    stimuli : StimulusTable
        Pictures of all recordings; an event's label is a stimulus id.
    vocabulary : tuple of str
        What the pictures may show, for data whose pictures nobody described: CLIP chooses their captions from it
        (`decoder.datasets.captions.describe`).
    reported : mapping of str to float
        Cross-validated figures that come with the data, by the name of the score.
    sessions, subjects : mapping of str to str
        By a recording's name. One that is not named is a session of its own, all of one subject.
    """

    name: str
    description: str
    train: tuple[Recording, ...]
    live: Recording
    stimuli: StimulusTable
    vocabulary: tuple[str, ...] = ()
    reported: Mapping[str, float] = field(default_factory=dict)
    sessions: Mapping[str, str] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)


READERS = {
    "muse-faces": "decoder.datasets.muse:load",
    "muse-sides": "decoder.datasets.muse:load_sides",
    "ssvep-exo": "decoder.datasets.exo:load",
    "haxby": "decoder.datasets.haxby:load",
    "v4-photos": "decoder.datasets.v4:load",
    "miyawaki": "decoder.datasets.miyawaki:load",
}


def load(name: str, data_dir: Path, *, seed: int = 0) -> Dataset:
    """Read a recorded data set.

    Parameters
    ----------
    name : str
        A key of `READERS`.
    data_dir : Path
        Folder that holds the data sets' own folders.
    seed : int
        Of random splits.

    Raises
    ------
    DatasetError
        If there is no reader of that name, or the data are not there or not as published.
    """
    if name not in READERS:
        raise DatasetError(f"no data set is called {name!r}; known are {', '.join(READERS)}")
    module, function = READERS[name].split(":")
    reader: Callable[[Path, int], Dataset] = getattr(import_module(module), function)
    return reader(data_dir, seed)


def require(path: Path, where: str) -> Path:
    """Give `path` back if it exists.

    Raises
    ------
    DatasetError
        If it does not; the message says where the public finds the data (`where`).
    """
    if not path.exists():
        raise DatasetError(f"{path} is missing; the data come from {where}")
    return path
