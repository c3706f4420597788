"""Windows of brain data: what the decoder takes in."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream.types.events import Event
from stream.types.montage import NOTHING_KNOWN, Montage

Cause = Literal["limit", "flat", "level", "gap", "samples"]
"""Why a window is rejected: a channel is over its limit; too small to be a signal; the stream's levels are not those of
the calibration; samples are missing; samples are not finite, absurd or of doubtful time."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known against a window.

    Attributes
    ----------
    samples_lost : int
        Samples missing inside the window (0: no gap).
    interpolated : tuple of str
        Names of channels that were interpolated.
    rejected : str or None
        Why the window should not be trusted, or None.
    cause : Cause or None
        The same in one word, to count by.
    channels : tuple of str
        Channels that are over their limit or flat, where that is the cause.
    """

    samples_lost: int = 0
    interpolated: tuple[str, ...] = ()
    rejected: str | None = None
    cause: Cause | None = None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of a stream, in order.

    Attributes
    ----------
    names, kinds, units : tuple of str
        One entry a channel. Kinds are MNE's names ('eeg', 'mag', 'grad', 'eog', 'misc', 'voxel', 'unit');
        units are SI ('V', 'T', 'T/m') or a named pure number ('z', 'percent', 'count').
    montage : Montage
        Places, reference and bad channels, where they are known; says nothing about which channels these are, so it is
        left out of comparisons.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    units: tuple[str, ...]
    montage: Montage = field(default=NOTHING_KNOWN, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def against(self, reference: str) -> "Channels":
        """Return the same channels, recorded against `reference`."""
        return replace(self, montage=replace(self.montage, reference=reference))

    def subset(self, places: Sequence[int]) -> "Channels":
        """Choose some channels by their places, in that order."""
        return Channels(
            tuple(self.names[i] for i in places),
            tuple(self.kinds[i] for i in places),
            tuple(self.units[i] for i in places),
            self.montage.subset(places, [self.names[i] for i in places]),
        )


@dataclass(frozen=True, slots=True)
class Window:
    """A segment of brain data, ready to be decoded.

    Attributes
    ----------
    id : str
        Unique in the session and the same in every replay of the same recording.
    data : ndarray, shape (n_channels, n_times), float32
        In the channels' units. One vector a picture (spikes, fMRI betas) is (n_channels, 1).
    channels : Channels
    sfreq : float
        Samples a second; 0 for an irregular stream.
    onset : float
        LSL time of the event the window is locked to (sliding windows: of the first sample).
    tmin : float
        Time of the first sample relative to `onset`, in seconds.
    event : Event or None
    acquired : float
        LSL time of the window's last sample.
    ready : float
        LSL time at which the window was complete in memory.
    quality : Quality
    repeats : int
        How many presentations were averaged into `data`.
    number : int
        Of the window in its session, counted from 1.
    """

    id: str
    data: NDArray[np.float32]
    channels: Channels
    sfreq: float
    onset: float
    tmin: float
    event: Event | None
    acquired: float
    ready: float
    quality: Quality = field(default_factory=Quality)
    repeats: int = 1
    number: int = 1
