"""Flickering lights: EEG of one person who looks at LEDs of three frequencies (Kalunga et al. 2016, subject 3)."""

from dataclasses import replace
from pathlib import Path

from decoder.datasets import Dataset, Selection, require, require_known, require_runs
from decoder.datasets.cards import cards
from decoder.stimuli import StimulusTable
from stream.events import Event
from stream.recordings import Recording, read

WHERE = "github.com/sylvchev/dataset-ssvep-exoskeleton at commit faf331c, in a folder 'ssvep_exo_kalunga2016'"
DESCRIPTION = "human EEG (8 occipital electrodes), flickering lights"
LABELS = {1: "rest", 2: "13 Hz", 3: "21 Hz", 4: "17 Hz"}
LIGHTS = ("13 Hz", "17 Hz", "21 Hz")
SUBJECT = "subject03"
N_SESSIONS = 2


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read the sessions, in the order in which they were recorded: the last one is for testing.

    The trials without a light ('rest') stay in the recordings as events but are no stimulus: they come first in every
    session, so that time alone would tell them.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'ssvep_exo_kalunga2016'.
    selection : Selection
        Nothing is chosen here.

    Raises
    ------
    DatasetError
        If files are missing, or events are not those of this experiment.
    """
    del selection
    root = require(data_dir / "ssvep_exo_kalunga2016", WHERE) / SUBJECT
    files = require_runs(root, "record-*_raw.fif", N_SESSIONS, WHERE)
    sessions = [_session(file, number) for number, file in enumerate(files, start=1)]
    captions = tuple((f"{name} light",) for name in LIGHTS)
    stimuli = StimulusTable(LIGHTS, cards(LIGHTS), captions)
    return Dataset("ssvep-exo", DESCRIPTION, tuple(sessions[:-1]), sessions[-1], stimuli, reported={"accuracy": 0.854})


def _session(file: Path, number: int) -> Recording:
    import mne

    recording = read(file)
    stream = recording.streams[0]
    table = mne.read_events(require(file.with_name(file.name.replace("_raw.fif", "-eve.fif")), WHERE), verbose="error")
    require_known(f"{file.name} has events", frozenset(table[:, 2].tolist()), frozenset(LABELS))
    # Sample numbers count from the start of the recording, which is where the stream's times count from.
    events = tuple(Event(sample / stream.sfreq, LABELS[code], code) for sample, _, code in table.tolist())
    return replace(recording, name=f"ssvep-exo session {number}", description=DESCRIPTION, events=events)
