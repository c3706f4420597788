"""The Natural Scenes Dataset: 7 T fMRI of eight people who saw 10,000 photographs each (Allen et al. 2022).

The folder 'nsd' is laid out as the bucket natural-scenes-dataset is, with the captions of COCO beside it:

    nsddata/experiments/nsd/{nsd_expdesign.mat,nsd_stim_info_merged.csv}
    nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz (or another region)
    nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5, ...
    nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5
    annotations/captions_{train,val}2017.json
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset, Selection, require
from decoder.datasets.photographs import squared
from decoder.datasets.sessions import normaliser
from decoder.datasets.vectors import vector_recording
from decoder.errors import DatasetError
from stream.types.recording import Recording
from stream.types.windows import Channels

WHERE = "naturalscenesdataset.org (captions: cocodataset.org), in a folder 'nsd'"
SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
"""How many each participant did."""
TRIALS = 750
"""Of a session."""
SCALE = 300
"""Betas are published as percent signal change, times this, in whole numbers."""
AT_ONCE = 50
"""Trials read together: bounds memory."""


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read one participant: single trials of the pictures that only this participant saw, session by session.

    The test is the 1,000 pictures that all participants saw, each the mean of its trials in the sessions read.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'nsd'.
    selection : Selection
        Its subject, sessions, repeats, per_session ('none' or 'zscore'), region and side.

    Raises
    ------
    DatasetError
        If a file is missing or not as published, or the selection asks for what there is not.
    """
    root = require(data_dir / "nsd", WHERE)
    subject = f"subj{selection.subject:02d}"
    n_sessions = _n_sessions(selection)
    shown, shared = _design(root, selection.subject, n_sessions)
    mask, names = _voxels(root / "nsddata/ppdata" / subject / "func1pt8mm/roi" / f"{selection.region}.nii.gz")
    unit = "z" if selection.per_session == "zscore" else "percent"
    channels = Channels(names, ("voxel",) * len(names), (unit,) * len(names))
    description = f"human fMRI (NSD, subject {selection.subject})"
    folder = root / "nsddata_betas/ppdata" / subject / "func1pt8mm/betas_fithrf_GLMdenoise_RR"
    files = [require(folder / f"betas_session{number:02d}.hdf5", WHERE) for number in range(1, n_sessions + 1)]
    train: list[Recording] = []
    repeats: dict[int, list[NDArray[np.float32]]] = {}
    for number, file in enumerate(files, start=1):
        own = shown[(number - 1) * TRIALS : number * TRIALS]
        test = np.isin(own, shared)
        betas = _betas(file, mask)
        betas = normaliser(betas[~test][:, :, None], selection.per_session)(betas[:, :, None])[:, :, 0]
        for picture, beta in zip(own[test].tolist(), betas[test], strict=True):
            repeats.setdefault(picture, []).append(beta)
        name = f"nsd {subject} session {number}"
        train.append(_recording(name, description, channels, own[~test], betas[~test]))
    tested = sorted(repeats)
    if not tested:
        raise DatasetError(f"the first {n_sessions} sessions of {subject} show no shared picture; read more sessions")
    means = np.stack([np.mean(repeats[picture][: selection.repeats], axis=0) for picture in tested])
    live = _recording(f"nsd {subject} shared pictures", description, channels, np.array(tested), means)
    stimuli = _stimuli(root, np.unique(shown), selection.side)
    return Dataset("nsd", description, tuple(train), live, stimuli)


def _n_sessions(selection: Selection) -> int:
    if not 1 <= selection.subject <= len(SESSIONS):
        raise DatasetError(f"NSD has participants 1 to {len(SESSIONS)}, not {selection.subject}")
    if selection.per_session == "whiten":
        raise DatasetError("thousands of voxels are not whitened; set data.per_session to zscore or none")
    done = SESSIONS[selection.subject - 1]
    if (selection.sessions or 0) > done:
        raise DatasetError(
            f"{selection.sessions} sessions are wanted; NSD's participant {selection.subject} did {done}"
        )
    return selection.sessions or done


def _design(root: Path, subject: int, n_sessions: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Read what each trial showed, and what all participants saw; ids of pictures count from 0, as in nsdId."""
    from scipy.io import loadmat

    path = require(root / "nsddata/experiments/nsd/nsd_expdesign.mat", WHERE)
    content: dict[str, NDArray[Any]] = loadmat(path)
    try:
        place = content["masterordering"].ravel().astype(np.intp) - 1
        pictures = content["subjectim"][subject - 1].astype(np.intp) - 1
        shared = content["sharedix"].ravel().astype(np.intp) - 1
    except (KeyError, IndexError) as error:
        raise DatasetError(f"{path} lacks {error}; fetch it anew from {WHERE}") from None
    return pictures[place[: n_sessions * TRIALS]], shared


def _voxels(path: Path) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Read a region: its mask (x, y, z), and its voxels' names."""
    import nibabel

    mask = np.asarray(nibabel.load(require(path, WHERE)).dataobj) > 0
    if not mask.any():
        raise DatasetError(f"{path} holds no voxel; fetch it anew from {WHERE}")
    return mask, tuple("v{}-{}-{}".format(*place) for place in np.argwhere(mask).tolist())


def _betas(path: Path, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Read a session's betas within a mask, in percent signal change; shape (750, n_voxels)."""
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            volumes = file["betas"]
            # MATLAB wrote (x, y, z, trials), which HDF5 for others is the other way round.
            if volumes.shape != (TRIALS, *mask.shape[::-1]):
                raise DatasetError(
                    f"{path} holds betas of shape {volumes.shape}, the region wants {(TRIALS, *mask.shape[::-1])}"
                )
            parts = [
                volumes[start : start + AT_ONCE].transpose(0, 3, 2, 1)[:, mask] for start in range(0, TRIALS, AT_ONCE)
            ]
    except (OSError, KeyError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); fetch it anew from {WHERE}") from None
    return np.concatenate(parts).astype(np.float32) / np.float32(SCALE)


def _stimuli(root: Path, pictures: NDArray[np.intp], side: int) -> StimulusTable:
    h5py = _h5py()
    path = require(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", WHERE)
    try:
        with h5py.File(path, "r") as file:
            images = np.stack([squared(file["imgBrick"][picture], side) for picture in pictures.tolist()])
    except (OSError, KeyError, IndexError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); fetch it anew from {WHERE}") from None
    return StimulusTable(_ids(pictures), images, _captions(root, pictures))


def _captions(root: Path, pictures: NDArray[np.intp]) -> tuple[tuple[str, ...], ...]:
    """Look up what people wrote of each picture in COCO."""
    path = require(root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", WHERE)
    with path.open(newline="", encoding="utf-8") as file:
        known = {int(row["nsdId"]): (int(row["cocoId"]), row["cocoSplit"]) for row in csv.DictReader(file)}
    if missing := set(pictures.tolist()) - set(known):
        raise DatasetError(f"{path} does not know picture {min(missing)}; fetch it anew from {WHERE}")
    chosen = [known[picture] for picture in pictures.tolist()]
    captions: dict[int, list[str]] = {}
    for split in sorted({split for _, split in chosen}):
        annotations = require(root / "annotations" / f"captions_{split}.json", WHERE)
        for entry in json.loads(annotations.read_text("utf-8"))["annotations"]:
            captions.setdefault(entry["image_id"], []).append(" ".join(entry["caption"].split()))
    if bare := [coco for coco, _ in chosen if coco not in captions]:
        raise DatasetError(f"COCO's picture {bare[0]} has no caption in {root / 'annotations'}; fetch it from {WHERE}")
    return tuple(tuple(captions[coco]) for coco, _ in chosen)


def _ids(pictures: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(f"nsd{picture:05d}" for picture in pictures.tolist())


def _recording(
    name: str, description: str, channels: Channels, pictures: NDArray[np.intp], data: NDArray[np.float32]
) -> Recording:
    labels: Sequence[str] = _ids(pictures)
    return vector_recording(name, description, kind="fMRI", channels=channels, labels=labels, data=data)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise DatasetError("NSD is read by h5py, which is not installed: pip install 'minddiffuser[nsd]'") from None
    return h5py
