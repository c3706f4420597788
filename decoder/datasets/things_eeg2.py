"""THINGS-EEG2: EEG of ten people who saw 16,540 pictures of 1,654 concepts, and 200 of others (Gifford et al. 2022).

The folder 'things-eeg2' is laid out as the publishers' own code has it (github.com/gifale95/eeg_encoding):

    image_set/image_metadata.npy, training_images/<concept>/, test_images/<concept>/
    eeg_dataset/preprocessed_data/sub-01/preprocessed_eeg_{training,test}.npy         17 channels at 100 Hz
    eeg_dataset/raw_data/sub-01/ses-01/raw_eeg_{training,test}.npy                    63 channels at 1000 Hz
    eeg_dataset/source_data/sub-01/ses-01/{eeg,beh}/sub-01_ses-01_task-*              BrainVision, as recorded
    Preprocessed_data_250Hz/sub-01/preprocessed_eeg_{training,test}.npy               63 channels at 250 Hz, by others
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.datasets import Dataset, Selection, require
from decoder.datasets.pickled import read_pickled
from decoder.datasets.things import concept_of, things_table
from decoder.datasets.things_eeg2_raw import read_sessions
from decoder.datasets.timeline import epoch_recording, join_recordings
from decoder.errors import DatasetError
from stream.types.recording import Recording
from stream.types.windows import Channels

WHERE = "osf.io/3jk45 (Gifford et al. 2022), in a folder 'things-eeg2'"
PARTS = ("training", "test")
FOLDERS = {
    "preprocessed": Path("eeg_dataset/preprocessed_data"),
    "preprocessed-250hz": Path("Preprocessed_data_250Hz"),
    "raw": Path("eeg_dataset/raw_data"),
    "source": Path("eeg_dataset/source_data"),
}
IMAGE_SETS = ("image_set", "images_set")


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read one participant.

    Training holds single presentations of the training pictures. Of the test pictures, whose concepts are none of the
    training's, the preprocessed forms give one epoch each, the mean of its repeats; the raw forms give the recordings
    as they ran, one after the other, for a replay.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'things-eeg2'.
    selection : Selection
        Its form, subject, repeats (preprocessed forms), sessions and per_session (raw forms), side.

    Raises
    ------
    DatasetError
        If a file is missing or not as published, or the selection does not go with the form.
    """
    root = require(data_dir / "things-eeg2", WHERE)
    files = {part: _pictures(root, part) for part in PARTS}
    if both := {concept_of(f.name) for f in files["training"]} & {concept_of(f.name) for f in files["test"]}:
        raise DatasetError(
            f"{root}: concepts {sorted(both)[:3]} are shown in training and in the test; use the published split"
        )
    folder = require(root / FOLDERS[selection.form] / f"sub-{selection.subject:02d}", WHERE)
    description = f"human EEG (THINGS-EEG2, subject {selection.subject})"
    labels = {part: tuple(file.stem for file in files[part]) for part in PARTS}
    if selection.form.startswith("preprocessed"):
        train, live = _epochs(folder, description, labels, selection)
    else:
        if selection.repeats is not None:
            raise DatasetError("raw recordings are replayed as they ran; leave data.repeats out and set window.repeats")
        train, tests = read_sessions(folder, description, labels, selection, WHERE)
        live = join_recordings("things-eeg2 test", tests)
    stimuli = things_table([*files["training"], *files["test"]], selection.side, WHERE)
    return Dataset("things-eeg2", description, tuple(train), live, stimuli)


def _pictures(root: Path, part: str) -> list[Path]:
    """Find a part's pictures, in the order of their numbers."""
    folder = next((root / name for name in IMAGE_SETS if (root / name).exists()), root / IMAGE_SETS[0])
    path = require(folder / "image_metadata.npy", WHERE)
    metadata, start = read_pickled(path), part.removesuffix("ing")
    try:
        names = zip(metadata[f"{start}_img_concepts"], metadata[f"{start}_img_files"], strict=True)
        return [folder / f"{part}_images" / str(concept) / str(file) for concept, file in names]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} lacks lists of concepts and files ({error}); fetch it from {WHERE}") from None


def _epochs(
    folder: Path, description: str, labels: dict[str, tuple[str, ...]], selection: Selection
) -> tuple[list[Recording], Recording]:
    if selection.sessions is not None or selection.per_session != "none":
        raise DatasetError(
            "the preprocessed THINGS-EEG2 is whitened by session, and its sessions are shuffled together; "
            "leave data.sessions and data.per_session out, or read data.form 'raw'"
        )
    recordings = []
    for part in PARTS:
        path = require(folder / f"preprocessed_eeg_{part}.npy", WHERE)
        data, channels, times = _preprocessed(path, len(labels[part]))
        names = list(labels[part])
        if part == "test":
            epochs = data[:, : selection.repeats].mean(axis=1, dtype=np.float32)
        else:
            # Straight to single precision: ten gigabytes in double, at 250 Hz, are not copied first.
            epochs = np.concatenate(list(np.moveaxis(data, 1, 0)), dtype=np.float32, casting="same_kind")
            names *= data.shape[1]
        recordings.append(
            epoch_recording(
                f"things-eeg2 {part}",
                description,
                kind="EEG",
                channels=channels,
                times=times,
                data=epochs,
                labels=names,
            )
        )
    return recordings[:1], recordings[1]


def _preprocessed(path: Path, n: int) -> tuple[NDArray[Any], Channels, NDArray[np.float64]]:
    """Read (pictures, repeats, channels, times) of one part, in units of noise, with channels and times."""
    content = read_pickled(path)
    try:
        data, names = content["preprocessed_eeg_data"], tuple(map(str, content["ch_names"]))
        # The 250 Hz files keep the times of the 0.2 s before the picture, whose samples they leave out.
        times = np.asarray(content["times"], np.float64)[-data.shape[-1] :]
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} lacks {error} of a preprocessed recording; fetch it from {WHERE}") from None
    if data.ndim != 4 or data.shape[0] != n or data.shape[2:] != (len(names), len(times)):
        raise DatasetError(
            f"{path} holds data of shape {data.shape}, wanted ({n} pictures, repeats, {len(names)} channels, "
            f"{len(times)} times); fetch it from {WHERE}"
        )
    return data, Channels(names, ("eeg",) * len(names), ("z",) * len(names)), times
