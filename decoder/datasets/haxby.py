"""Human fMRI, eight kinds of picture in blocks (Haxby et al. 2001, subject 1): part of one slice, 12 runs."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset, Selection, require, require_known
from decoder.datasets.cards import cards
from decoder.datasets.vectors import numbered_channels
from decoder.errors import DatasetError
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording

WHERE = "github.com/PyMVPA/PyMVPA at commit 20f0335, mvpa2/data, in a folder 'haxby2001_pymvpa_slice'"
DESCRIPTION = "human fMRI (Haxby 2001, one slice), blocks of pictures"
TR = 2.5
CAPTIONS = {
    "bottle": ("bottle",),
    "cat": ("cat",),
    "chair": ("chair",),
    "face": ("face", "person"),
    "house": ("house", "building"),
    "scissors": ("scissors",),
    "scrambledpix": ("noise", "texture"),
    "shoe": ("shoe",),
}
REST = "rest"


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read the runs, in the order in which they were recorded: the last one is for testing.

    Every run is a recording of its own, with an event at the first volume of each block. Which pictures a block showed
    was not given, so a stimulus is a category, and its picture a card with the category's name.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'haxby2001_pymvpa_slice'.
    selection : Selection
        Nothing is chosen here.

    Raises
    ------
    DatasetError
        If files are missing or do not go together.
    """
    del selection
    root = require(data_dir / "haxby2001_pymvpa_slice", WHERE)
    labels, runs = _attributes(require(root / "attributes_literal.txt", WHERE))
    volumes = _voxels(require(root / "bold.nii.gz", WHERE), require(root / "mask.nii.gz", WHERE))
    if len(volumes) != len(labels):
        raise DatasetError(f"{root} holds {len(volumes)} volumes and labels of {len(labels)}; fetch it from {WHERE}")
    require_known(f"{root} has labels", frozenset(labels.tolist()), frozenset((*CAPTIONS, REST)))
    recordings = [
        _run(int(number), volumes[runs == number], labels[runs == number]) for number in np.unique(runs).tolist()
    ]
    names = tuple(CAPTIONS)
    stimuli = StimulusTable(names, cards(names), tuple(CAPTIONS.values()))
    return Dataset("haxby", DESCRIPTION, tuple(recordings[:-1]), recordings[-1], stimuli, reported={"accuracy": 0.458})


def _attributes(path: Path) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """Read label and run of each volume."""
    table = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
    try:
        return np.array([label for label, _ in table]), np.array([int(run) for _, run in table], dtype=np.intp)
    except ValueError:
        raise DatasetError(f"{path} is not a table of label and run; fetch it from {WHERE}") from None


def _voxels(scan: Path, mask: Path) -> NDArray[np.float32]:
    """Read the volumes within the mask, shape (n_volumes, n_voxels)."""
    import nibabel

    inside = np.asarray(nibabel.load(mask).dataobj) > 0
    bold = np.asarray(nibabel.load(scan).dataobj, dtype=np.float32)
    if bold.shape[:-1] != inside.shape:
        raise DatasetError(f"{scan} holds volumes of shape {bold.shape[:-1]} and {mask.name} one of {inside.shape}")
    return np.ascontiguousarray(bold[inside].T)


def _run(number: int, volumes: NDArray[np.float32], labels: NDArray[np.str_]) -> Recording:
    name = f"haxby run {number + 1}"
    channels = numbered_channels("voxel", volumes.shape[1], "scanner units")
    times = TR * np.arange(len(volumes), dtype=np.float64)
    stream = RecordedStream(name, "fMRI", f"replay-{name}", channels, 1 / TR, times, volumes)
    begins = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    events = tuple(Event(float(times[row]), str(labels[row])) for row in begins if labels[row] != REST)
    return Recording(name, DESCRIPTION, (stream,), events)
