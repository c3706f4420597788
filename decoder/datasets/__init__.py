"""Readers for recorded data sets, each with splits that cannot leak."""

from dataclasses import dataclass

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
    """

    name: str
    description: str
    train: tuple[Recording, ...]
    live: Recording
    stimuli: StimulusTable
