"""THINGS-EEG2 as it was recorded: continuous EEG of four sessions, as NPY dictionaries or as BrainVision files."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.datasets import Selection, require
from decoder.datasets.pickled import read_pickled
from decoder.datasets.sessions import normaliser
from decoder.errors import DatasetError
from stream.files.registry import read
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels

N_SESSIONS = 4
N_PARTS = 5
"""Files of a session's training in the BrainVision form."""
TARGET = 99999
"""Code of the target of the participant's task, which is no stimulus."""
EPOCH = (-0.2, 0.8)
"""Seconds from a picture from which a session's noise is learned; the first 0.2 are the baseline."""
LEARNED_FROM = 1000
"""Epochs of a session that are enough to learn its noise."""

logger = logging.getLogger(__name__)


def read_sessions(
    folder: Path, description: str, labels: dict[str, tuple[str, ...]], selection: Selection, where: str
) -> tuple[list[Recording], list[Recording]]:
    """Read the sessions' training recordings, and their test recordings.

    Parameters
    ----------
    folder : Path
        Of the participant.
    description : str
    labels : dict
        Stimulus ids of 'training' and 'test', in the order of their codes, which count from 1.
    selection : Selection
        Its form, sessions and per_session.
    where : str
        Where the public finds the data.

    Raises
    ------
    DatasetError
        If a file is missing or not as published.
    """
    n_sessions = selection.sessions or N_SESSIONS
    if n_sessions > N_SESSIONS:
        raise DatasetError(f"{n_sessions} sessions of THINGS-EEG2 are wanted; there are {N_SESSIONS}")
    parts = _npy if selection.form == "raw" else _brainvision
    train: list[Recording] = []
    test: list[Recording] = []
    for session in range(1, n_sessions + 1):
        here = folder / f"ses-{session:02d}"
        own = {
            part: [
                _named(recording, f"things-eeg2 session {session} {part}", description, labels[part])
                for recording in parts(here, part, where)
            ]
            for part in labels
        }
        if selection.per_session != "none":
            own = _normalised(own, selection)
        train += own["training"]
        test += own["test"]
    return train, test


def _npy(session: Path, part: str, where: str) -> Iterator[Recording]:
    path = require(session / f"raw_eeg_{part}.npy", where)
    content = read_pickled(path)
    try:
        data, sfreq = content["raw_eeg_data"], float(content["sfreq"])
        is_eeg = np.array([kind == "eeg" for kind in content["ch_types"]])
        names = tuple(str(name) for name, eeg in zip(content["ch_names"], is_eeg, strict=True) if eeg)
        steps = data[list(content["ch_types"]).index("stim")]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} is not laid out as a raw recording ({error}); fetch it from {where}") from None
    rows = np.flatnonzero((steps != 0) & (np.diff(steps, prepend=0) != 0))
    events = tuple(Event(row / sfreq, "", int(steps[row])) for row in rows.tolist())
    samples = np.ascontiguousarray(data[is_eeg].T, dtype=np.float32)
    channels = Channels(names, ("eeg",) * len(names), ("V",) * len(names))
    yield _recording(path.name, channels, sfreq, samples, events)


def _recording(
    name: str, channels: Channels, sfreq: float, data: NDArray[np.float32], events: tuple[Event, ...]
) -> Recording:
    stream = RecordedStream(name, "EEG", f"replay-{name}", channels, sfreq, np.arange(len(data)) / sfreq, data)
    return Recording(name, "", (stream,), events)


def _brainvision(session: Path, part: str, where: str) -> Iterator[Recording]:
    """Read a session's files; what was shown is in the behavioural files, picture by picture."""
    subject = session.parent.name
    tasks = ["test"] if part == "test" else [f"train_part-{number:02d}" for number in range(1, N_PARTS + 1)]
    for task in tasks:
        stem = f"{subject}_{session.name}_task-{task}"
        recording = read(require(session / "eeg" / f"{stem}_eeg.vhdr", where))
        shown = _shown(require(session / "beh" / f"{stem}_beh.mat", where), where)
        marks = recording.events
        if len(marks) < len(shown):
            raise DatasetError(f"{stem} has {len(marks)} markers for {len(shown)} pictures; fetch it from {where}")
        if len(marks) > len(shown):
            logger.warning("%s: %d markers after the last picture", stem, len(marks) - len(shown))
        events = tuple(Event(mark.time, "", code or TARGET) for mark, code in zip(marks, shown, strict=False))
        yield replace(recording, events=events)


def _shown(path: Path, where: str) -> list[int]:
    """Read the numbers of the pictures that a run showed; 0 is the target."""
    from scipy.io import loadmat

    try:
        images: NDArray[Any] = loadmat(path)["data"][0, 0]["images"]
        return [int(np.squeeze(number)) for number in images["tot_img_number"].ravel()]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} lacks data.images.tot_img_number ({error}); fetch it from {where}") from None


def _named(recording: Recording, name: str, description: str, labels: tuple[str, ...]) -> Recording:
    """Name recording and stream, and label each event by the picture that its code numbers."""
    codes = [event.code or 0 for event in recording.events]
    strange = sorted({code for code in codes if not 1 <= code <= len(labels) and code != TARGET})
    if strange:
        raise DatasetError(f"{recording.name} has codes {strange[:5]}; its pictures are numbered 1 to {len(labels)}")
    events = tuple(
        replace(event, label="target" if code == TARGET else labels[code - 1])
        for event, code in zip(recording.events, codes, strict=True)
    )
    stream = replace(recording.streams[0], name=name, source_id=f"replay-{name}")
    return replace(recording, name=name, description=description, streams=(stream,), events=events)


def _normalised(own: dict[str, list[Recording]], selection: Selection) -> dict[str, list[Recording]]:
    """Normalise a session's recordings by the epochs of its training pictures."""
    apply = normaliser(np.concatenate([_epochs(one) for one in own["training"]]), selection.per_session)
    out: dict[str, list[Recording]] = {}
    for part, recordings in own.items():
        out[part] = []
        for recording in recordings:
            stream = recording.streams[0]
            units = replace(stream.channels, units=("z",) * len(stream.channels))
            data = np.ascontiguousarray(apply(stream.data.T).T)
            out[part].append(replace(recording, streams=(replace(stream, channels=units, data=data),)))
    return out


def _epochs(recording: Recording) -> NDArray[np.float32]:
    """Cut epochs about the pictures of a recording, less their baseline; shape (n, n_channels, n_times)."""
    stream = recording.streams[0]
    first, last = (round(edge * stream.sfreq) for edge in EPOCH)
    rows = np.array([round(event.time * stream.sfreq) for event in recording.events if event.code != TARGET])
    rows = rows[(rows + first >= 0) & (rows + last <= len(stream.data))]
    rows = rows[:: max(1, len(rows) // LEARNED_FROM)]
    if not len(rows):
        raise DatasetError(
            f"{recording.name} holds no whole epoch from {EPOCH[0]} to {EPOCH[1]} s to learn its noise from"
        )
    epochs: NDArray[np.float32] = stream.masked_data[rows[:, None] + np.arange(first, last)].transpose(0, 2, 1)
    epochs = epochs[np.isfinite(epochs).all(axis=(1, 2))]  # none over a bad segment or a joint
    epochs -= epochs[:, :, :-first].mean(axis=2, keepdims=True)
    return epochs
