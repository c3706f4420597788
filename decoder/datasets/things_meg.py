"""THINGS-MEG: MEG of four people who saw 22,248 pictures of 1,854 concepts in twelve sessions (Hebart et al. 2023).

The folder 'things-meg' holds what OpenNeuro's ds004212 does, and the pictures of THINGS beside it:

    derivatives/preprocessed/preprocessed_P1-epo.fif (and its further parts, preprocessed_P1-epo-1.fif, ...)
    sourcedata/sample_attributes_P1.csv
    object_images/<concept>/<concept>_01b.jpg
"""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.datasets import Dataset, Selection, require
from decoder.datasets.sessions import normaliser
from decoder.datasets.things import concept_of, log_left_out, things_table
from decoder.datasets.timeline import epoch_recording
from decoder.errors import DatasetError
from stream.types.recording import Recording
from stream.types.windows import Channels

WHERE = "openneuro.org/datasets/ds004212, and its pictures from osf.io/jum2f, in a folder 'things-meg'"
N_SESSIONS = 12

Row = Mapping[str, Any]


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read one participant.

    The 200 test pictures were shown once a session; their epochs are averaged over the sessions. Training holds the
    single presentations of all other pictures but those of a test picture's concept. The epochs are z-scored by their
    baseline, as they were published, so their unit is 'z'.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'things-meg'.
    selection : Selection
        Its subject, sessions, repeats, per_session and side.

    Raises
    ------
    DatasetError
        If a file is missing or not as published.
    """
    root = require(data_dir / "things-meg", WHERE)
    epochs, rows = _read(root, selection.subject)
    n_sessions = selection.sessions or N_SESSIONS
    numbers = range(1, n_sessions + 1)
    session = np.array([int(float(row["session_nr"])) for row in rows])
    if missing := sorted(set(numbers) - set(session.tolist())):
        raise DatasetError(
            f"subject {selection.subject} has no epochs of session {missing[0]}; fetch them from {WHERE}"
        )
    kind = np.array([row["trial_type"] for row in rows])
    concepts = np.array([concept_of(row["image_path"]) for row in rows])
    unseen = set(concepts[kind == "test"].tolist())
    shown = (kind == "exp") & (session <= n_sessions)
    trained = shown & ~np.isin(concepts, sorted(unseen))
    log_left_out(int(shown.sum() - trained.sum()), int(shown.sum()), "they show a concept of the test")
    description = f"human MEG (THINGS-MEG, subject {selection.subject})"
    labels = np.array([Path(row["image_path"]).stem for row in rows])
    channels = Channels(tuple(epochs.ch_names), ("mag",) * len(epochs.ch_names), ("z",) * len(epochs.ch_names))
    recording = partial(epoch_recording, kind="MEG", channels=channels, times=epochs.times)
    repeats: dict[str, list[NDArray[np.float32]]] = {}
    train: list[Recording] = []
    for number in numbers:
        here = np.flatnonzero(trained & (session == number))
        test = np.flatnonzero((kind == "test") & (session == number))
        data = _data(epochs, here)
        apply = normaliser(data, selection.per_session)
        for label, epoch in zip(labels[test].tolist(), apply(_data(epochs, test)), strict=True):
            repeats.setdefault(label, []).append(epoch)
        name = f"things-meg session {number}"
        train.append(recording(name, description, data=apply(data), labels=labels[here].tolist()))
    means = np.stack([np.mean(repeats[label][: selection.repeats], axis=0) for label in sorted(repeats)])
    live = recording("things-meg test", description, data=means, labels=sorted(repeats))
    names = sorted(set(labels[trained].tolist())) + sorted(repeats)
    files = [root / "object_images" / concept_of(name) / f"{name}.jpg" for name in names]
    return Dataset("things-meg", description, tuple(train), live, things_table(files, selection.side, WHERE))


def _read(root: Path, subject: int) -> tuple[Any, Sequence[Row]]:
    """Open the epochs of a participant (data stay on disk), and read what each epoch showed."""
    import mne

    path = require(root / "derivatives" / "preprocessed" / f"preprocessed_P{subject}-epo.fif", WHERE)
    try:
        with mne.utils.use_log_level("error"):
            epochs = mne.read_epochs(path, preload=False)
            # The table says the same, and without metadata epochs are picked by row alone, which needs no pandas.
            epochs.metadata = None
    except Exception as error:  # what a half-fetched file makes of a foreign parser cannot be listed
        raise DatasetError(f"{path} cannot be read ({' '.join(str(error).split())}); fetch it from {WHERE}") from error
    table = require(root / "sourcedata" / f"sample_attributes_P{subject}.csv", WHERE)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != len(epochs):
        raise DatasetError(f"{path} holds {len(epochs)} epochs and {table.name} describes {len(rows)}; fetch both anew")
    if missing := {"trial_type", "session_nr", "image_path"} - set(rows[0]):
        raise DatasetError(f"{table} lacks the column {min(missing)!r}; fetch it anew from {WHERE}")
    return epochs, rows


def _data(epochs: Any, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Read some epochs from disk, shape (n, n_channels, n_times)."""
    if not len(rows):
        return np.empty((0, len(epochs.ch_names), len(epochs.times)), np.float32)
    return np.asarray(epochs[rows].get_data(verbose="error"), np.float32)
