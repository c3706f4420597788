"""Flickering lights: EEG of twelve people who look at LEDs of three frequencies (Kalunga et al. 2016)."""

import logging
from dataclasses import replace
from pathlib import Path

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset, Selection, chosen_sessions, require, require_known
from decoder.datasets.cards import cards
from stream.files.registry import read
from stream.types.events import Event
from stream.types.recording import Recording

logger = logging.getLogger(__name__)

WHERE = "github.com/sylvchev/dataset-ssvep-exoskeleton at commit faf331c, in a folder 'ssvep_exo_kalunga2016'"
DESCRIPTION = "human EEG (8 occipital electrodes), flickering lights"
LABELS = {1: "rest", 2: "13 Hz", 3: "21 Hz", 4: "17 Hz"}
LIGHTS = ("13 Hz", "17 Hz", "21 Hz")
LEFT_OUT = {
    (7, "2012.07.11-15.33.08"): "is subject 3's",
    (8, "2013.04.06-16.22.32"): "was left out by the authors",
    (10, "2014.02.26-15.10.48"): "was left out by the authors",
    (10, "2014.02.26-15.50.09"): "was left out by the authors",
    (11, "2014.02.24-17.56.37"): "was left out by the authors",
    (11, "2014.02.24-18.02.40"): "was left out by the authors",
}
"""Sessions that are read only where they are chosen, and why: the authors' README names those with protocol issues."""
REPORTED = {3: {"accuracy": 0.854}}


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read a person's sessions, in the order in which they were recorded: the last one is for testing.

    The trials without a light ('rest') stay in the recordings as events but are no stimulus: they come first in every
    session, so that time alone would tell them. Of a single session, which trains and tests alike, stretches are held
    out.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'ssvep_exo_kalunga2016'.
    selection : Selection
        Its subject, the first so many of its sessions, or one session by its date, such as '2012.07.11-15.25.23'.

    Raises
    ------
    DatasetError
        If files are missing, or events are not those of this experiment.
    """
    subject = selection.subject
    root = require(data_dir / "ssvep_exo_kalunga2016", WHERE)
    person = require(root / f"subject{subject:02d}", WHERE)
    files = {path.name.removeprefix("record-[").removesuffix("]_raw.fif"): path for path in person.glob("*_raw.fif")}
    if selection.session is None:
        for date in sorted(files):
            if (why := LEFT_OUT.get((subject, date))) is not None:
                logger.warning("subject %d: session %s %s; data.session reads it", subject, date, why)
                del files[date]
    files = chosen_sessions(dict(sorted(files.items())), person, selection, WHERE)
    sessions = [_session(file, number) for number, file in enumerate(files.values(), start=1)]
    captions = tuple((f"{name} light",) for name in LIGHTS)
    stimuli = StimulusTable(LIGHTS, cards(LIGHTS), captions)
    whole = selection.session is None and selection.sessions is None
    reported = REPORTED.get(subject, {}) if whole else {}
    return Dataset("ssvep-exo", DESCRIPTION, tuple(sessions[:-1] or sessions), sessions[-1], stimuli, reported=reported)


def _session(file: Path, number: int) -> Recording:
    import mne

    recording = read(file)
    stream = recording.streams[0]
    table = mne.read_events(require(file.with_name(file.name.replace("_raw.fif", "-eve.fif")), WHERE), verbose="error")
    require_known(f"{file.name} has events", frozenset(table[:, 2].tolist()), frozenset(LABELS))
    # Sample numbers count from the start of the recording, which is where the stream's times count from.
    events = tuple(Event(sample / stream.sfreq, LABELS[code], code) for sample, _, code in table.tolist())
    return replace(recording, name=f"ssvep-exo session {number}", description=DESCRIPTION, events=events)
