"""Readers for recorded data sets, each with splits that cannot leak."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Literal

from decoder.data.stimuli import StimulusTable
from decoder.errors import DatasetError
from stream.types.recording import Recording


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


PerSession = Literal["none", "zscore", "whiten"]
Form = Literal["preprocessed", "preprocessed-250hz", "raw", "source"]


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a data set is read, and how.

    Attributes
    ----------
    seed : int
        Of random splits.
    subject : int
        Participant, counted from 1.
    sessions : int or None
        Only the first so many; None: all there should be.
    session : str or None
        The one that is read, by its name; None: all, of v4-photos, whose sessions are sets of their own, 201025.
    per_session : {'none', 'zscore', 'whiten'}
        How each session is normalised, by its own training trials.
    repeats : int or None
        Presentations of a test picture that are averaged, the first so many; None: all.
    form : str
        Which of the published forms of the data.
    region : str
        Which region's voxels.
    side : int
        Pixels of a side to which photographs are resized.
    """

    seed: int = 0
    subject: int = 1
    sessions: int | None = None
    session: str | None = None
    per_session: PerSession = "none"
    repeats: int | None = None
    form: Form = "preprocessed"
    region: str = "nsdgeneral"
    side: int = 128


def together(by_subject: Mapping[str, Dataset]) -> Dataset:
    """Join participants of one data set, to be trained on together.

    Parameters
    ----------
    by_subject : mapping of str to Dataset
        What each saw, by the participant's name; it goes before the names of recordings and sessions.

    Returns
    -------
    dataset : Dataset
        With everybody's training recordings; `live` is the first participant's.

    Raises
    ------
    DatasetError
        If two participants saw different pictures of one id.
    """
    first = next(iter(by_subject.values()))
    train: list[Recording] = []
    sessions, subjects = {}, {}
    stimuli, live = first.stimuli, first.live
    for subject, own in by_subject.items():
        for recording in (*own.train, own.live):
            name = f"{subject} {recording.name}"
            sessions[name] = f"{subject} {own.sessions.get(recording.name, recording.name)}"
            subjects[name] = subject
            named = replace(recording, name=name)
            if recording is own.live:
                live = named if own is first else live
            if any(recording is one for one in own.train):
                train.append(named)
        stimuli = stimuli.union(own.stimuli)
    descriptions = dict.fromkeys(own.description for own in by_subject.values())
    return replace(
        first,
        description="; ".join(descriptions),
        train=tuple(train),
        live=live,
        stimuli=stimuli,
        sessions=sessions,
        subjects=subjects,
    )


READERS = {
    "muse-faces": "decoder.datasets.muse:load_faces",
    "muse-sides": "decoder.datasets.muse:load_sides",
    "muse-gratings": "decoder.datasets.muse:load_gratings",
    "muse-targets": "decoder.datasets.muse:load_targets",
    "muse-flicker": "decoder.datasets.muse:load_flicker",
    "ssvep-exo": "decoder.datasets.exo:load",
    "haxby": "decoder.datasets.haxby:load",
    "v4-photos": "decoder.datasets.v4:load",
    "miyawaki": "decoder.datasets.miyawaki:load",
    "things-eeg2": "decoder.datasets.things_eeg2:load",
    "things-meg": "decoder.datasets.things_meg:load",
    "nsd": "decoder.datasets.nsd:load",
}

SELECTED: dict[str, frozenset[str]] = {
    "simulated-eeg": frozenset({"subject"}),
    "simulated-meg": frozenset({"subject"}),
    "things-eeg2": frozenset({"subject", "sessions", "per_session", "repeats", "form"}),
    "things-meg": frozenset({"subject", "sessions", "per_session", "repeats"}),
    "v4-photos": frozenset({"session"}),
    **dict.fromkeys(
        ("muse-faces", "muse-sides", "muse-gratings", "muse-targets", "muse-flicker", "ssvep-exo"),
        frozenset({"subject", "sessions", "session"}),
    ),
    "nsd": frozenset({"subject", "sessions", "per_session", "repeats", "region"}),
}
"""What may be chosen of a data set, besides the seed."""
FIRST_SUBJECT = {"ssvep-exo": 3}
"""Who is read where nobody is chosen, if not participant 1."""
ONE_MONTAGE = ("simulated-eeg", "simulated-meg", "things-eeg2", "things-meg")
"""Data sets whose participants have the same channels, and may be trained on together."""


def load(name: str, data_dir: Path, selection: Selection | None = None) -> Dataset:
    """Read a recorded data set.

    Parameters
    ----------
    name : str
        A key of `READERS`.
    data_dir : Path
        Folder that holds the data sets' own folders.
    selection : Selection, optional
        Left out: of the first participant, all.

    Raises
    ------
    DatasetError
        If there is no reader of that name, or the data are not there or not as published.
    """
    if name not in READERS:
        raise DatasetError(f"no data set is called {name!r}; known are {', '.join(READERS)}")
    module, function = READERS[name].split(":")
    reader: Callable[[Path, Selection], Dataset] = getattr(import_module(module), function)
    return reader(data_dir, selection or Selection(subject=FIRST_SUBJECT.get(name, 1)))


def require(path: Path, where: str) -> Path:
    """Return `path` if it exists.

    Raises
    ------
    DatasetError
        If it does not; the message says where the public finds the data (`where`).
    """
    if not path.exists():
        raise DatasetError(f"{path} is missing; the data come from {where}")
    return path


def chosen_sessions(sessions: Mapping[str, Path], folder: Path, selection: Selection, where: str) -> dict[str, Path]:
    """Choose among a person's sessions, by their names in the order in which they were recorded.

    Parameters
    ----------
    sessions : mapping of str to Path
        All that the person's `folder` holds.
    selection : Selection
        One by its name, or the first so many; neither: all.

    Raises
    ------
    DatasetError
        If there are none, or fewer than are asked for.
    """
    if not sessions:
        raise DatasetError(f"{folder} holds no recordings; fetch it from {where}")
    if selection.session is not None:
        if selection.session not in sessions:
            raise DatasetError(f"{folder} holds no session {selection.session!r}; it holds {', '.join(sessions)}")
        return {selection.session: sessions[selection.session]}
    n = selection.sessions or len(sessions)
    if n > len(sessions):
        raise DatasetError(f"{folder} holds {len(sessions)} sessions, not {n}: {', '.join(sessions)}")
    return dict(list(sessions.items())[:n])


def require_known(what: str, found: frozenset[object], known: frozenset[object]) -> None:
    """Refuse labels that an experiment does not have; `what` names the file and its labels.

    Raises
    ------
    DatasetError
        If some of `found` are not `known`.
    """
    if strange := found - known:
        raise DatasetError(f"{what} {sorted(map(str, strange))}; this experiment has {sorted(map(str, known))}")
