"""Human V1: fMRI responses of 967 voxels to 20 figures of 10 x 10 patches (Miyawaki et al. 2008, subject 1)."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset, Selection, require
from decoder.datasets.vectors import numbered_channels, vector_recording
from decoder.errors import DatasetError

WHERE = "github.com/braindecoding/LDM at commit be70055, data, in a folder 'miyawaki2008_figures_v1'"
DESCRIPTION = "human V1 fMRI (Miyawaki 2008), figures"
SIDE, PIXELS = 28, 784
N_FIGURES = 20
SCALE = 4
"""Pixels of a figure are enlarged so many times, without smoothing: 112 x 112."""
WORDS = (
    "white square button; black square button; white circle; black circle; cross mark; plus; minus; heart suit; "
    "chess pawn; film frames; door; window; letter"
)
"""Words for figures; at the low strength that suits these data they change next to nothing."""


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read all 119 trials, in the order in which they were measured.

    The file's own split has every test figure in training. Here one recording holds all trials, for training and for
    testing, and a decoder must hold out whole figures (`hold_out: groups`): then each trial is decoded by weights that
    never saw its figure.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'miyawaki2008_figures_v1'.
    selection : Selection
        Nothing is chosen here.

    Raises
    ------
    DatasetError
        If the file is missing or not as published.
    """
    from scipy.io import loadmat

    del selection
    path = require(data_dir / "miyawaki2008_figures_v1" / "miyawaki_structured_28x28.mat", WHERE)
    content: dict[str, NDArray[Any]] = loadmat(path)
    try:
        place = np.concatenate([content["train_indices"].ravel(), content["test_indices"].ravel()]).astype(np.intp)
        responses = np.concatenate([content["fmriTrn"], content["fmriTest"]]).astype(np.float32)
        shown = np.concatenate([content["stimTrn"], content["stimTest"]])
    except KeyError as error:
        raise DatasetError(f"{path} lacks {error.args[0]!r}; fetch it anew from {WHERE}") from None
    order = np.argsort(place)
    figures, rows = np.unique(np.round(shown * 255).astype(np.uint8)[order], axis=0, return_inverse=True)
    if figures.shape != (N_FIGURES, PIXELS):
        raise DatasetError(f"{path} holds figures of shape {figures.shape}, not {(N_FIGURES, PIXELS)}")
    ids = tuple(f"figure{number:02d}" for number in range(1, N_FIGURES + 1))
    recording = vector_recording(
        "miyawaki figures",
        DESCRIPTION,
        kind="fMRI",
        channels=numbered_channels("voxel", responses.shape[1], "z"),
        labels=[ids[row] for row in rows.ravel()],
        data=responses[order],
    )
    stimuli = StimulusTable(ids, _enlarged(figures))
    words, reported = tuple(WORDS.split("; ")), {"pixcorr": 0.881, "top1": 0.622}
    return Dataset("miyawaki", DESCRIPTION, (recording,), recording, stimuli, words, reported)


def _enlarged(figures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey figures (n, 784) as RGB pictures (n, 112, 112, 3)."""
    grey = figures.reshape(-1, SIDE, SIDE).repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return np.repeat(grey[..., None], 3, axis=-1)
