"""Levels and spectrum of a stream, second by second, held against those of the calibration."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.quality.signal_profile import BANDS, SignalProfile, SignalRecorder
from stream.signal.ring import Ring
from stream.types.units import for_people, times
from stream.types.windows import Channels

BLOCK_S = 1.0
SLOWEST_HZ = 20.0
"""Slower streams have no spectrum to speak of."""
JUDGED = 5
"""Newest seconds whose median counts: a blink or a movement is not the stream's level..."""
FEWEST = 3
"""...and the fewest, so that what is wrong from the start is named within 5 s."""
LEVEL_TIMES = 20.0
"""Between days, levels of real recordings differ by up to 2.7, over 3 s by up to 6; wrong units by 1000 and more."""
UNIT_TIMES = 5.0
"""Within so many times of a power of a thousand, it is the unit that is taken to be wrong."""
BAND_TIMES = 10.0
"""A band, besides the level of all: between real recordings of one setup it differs by up to 6 over 3 s."""
TILT_TIMES = 20.0
"""How much more a band may rise than another: between real recordings up to 9 over 3 s."""
STATES = ("8-13 Hz", "45-65 Hz")
"""Bands that rise and fall with closed eyes and with the mains: of no use to tell a tilted spectrum by."""
POWER_SHARE = 0.02
"""Of the calibration's power: a band with less is next to nothing, and of no use to tell spectra apart by its fall."""
LOUD = 0.5
"""Share of the power now, above which a band that has risen is most of what there is."""
REMEMBERED = 600
"""Blocks of which the verdict is kept, for windows that are cut late."""
TINY = 1e-30

Floats = NDArray[np.float64]


def second(data: NDArray[np.float32], sfreq: float) -> tuple[Floats, Floats]:
    """Compute the level and the spectrum of each channel in a segment of a second.

    Parameters
    ----------
    data : ndarray, shape (n_channels, n_times)
    sfreq : float

    Returns
    -------
    level : ndarray, shape (n_channels,)
        Root mean square about the mean.
    bands : ndarray, shape (n_channels, n_bands)
        Root mean square within each of `BANDS` that lies below the Nyquist frequency (Hann window).
    """
    centred = data - data.mean(axis=1, keepdims=True, dtype=np.float64)
    n = centred.shape[1]
    window = np.hanning(n)
    power = 2 * np.abs(np.fft.rfft(centred * window, axis=1)) ** 2 / (n * (window**2).sum())
    frequencies = np.fft.rfftfreq(n, 1 / sfreq)
    bands = [
        power[:, (frequencies >= low) & (frequencies < high)].sum(axis=1)
        for low, high in BANDS.values()
        if low < 0.48 * sfreq
    ]
    return centred.std(axis=1), np.sqrt(np.stack(bands, axis=1))


@dataclass(frozen=True, slots=True)
class _Group:
    """Channels of one kind, and what they were like in the calibration."""

    kind: str
    unit: str
    rows: list[int]
    level: Floats
    bands: Floats


class LevelWatch:
    """Watch one stream.

    Parameters
    ----------
    channels : Channels
        After the filters.
    sfreq : float
        After the filters.
    profile : SignalProfile, optional
        What the stream is held against.
    recorder : SignalRecorder, optional
        Gets every second's levels: how a profile is learned.
    """

    def __init__(
        self,
        channels: Channels,
        sfreq: float,
        profile: SignalProfile | None = None,
        recorder: SignalRecorder | None = None,
    ) -> None:
        self._channels, self._sfreq, self._recorder = channels, sfreq, recorder
        self._size = max(2, round(BLOCK_S * sfreq))
        self._next = 0  # row at which the next block begins
        self._groups = list(_groups(channels, profile)) if profile else []
        self._watching = sfreq >= SLOWEST_HZ and bool(self._groups or recorder)
        self._seconds: deque[tuple[Floats, Floats]] = deque(maxlen=JUDGED)
        self._verdicts: deque[tuple[int, str | None]] = deque(maxlen=REMEMBERED)

    def advance(self, ring: Ring) -> None:
        """Look at the whole seconds that a stream's ring holds since the last call; those with a gap are left out."""
        while self._watching and ring.stop >= self._next + self._size:
            start, self._next = self._next, self._next + self._size
            segment = ring.read(start, self._next) if start >= ring.start else None
            if segment is None or not segment.present.all():
                continue
            level, bands = second(np.ascontiguousarray(segment.data.T), self._sfreq)
            if self._recorder:
                self._recorder.add_second(self._channels, level, bands)
            if self._groups:
                self._seconds.append((level, bands))
                self._verdicts.append((self._next, self._judge()))

    def problem(self, row: int | None = None) -> str | None:
        """Return what is wrong with the levels up to a row, by the newest whole second before it; None: at present."""
        if not self._verdicts:
            return None
        if row is None:
            return self._verdicts[-1][1]
        return next((reason for at, reason in reversed(self._verdicts) if at <= row), None)

    def _judge(self) -> str | None:
        if len(self._seconds) < FEWEST:
            return None
        level = np.median([each for each, _ in self._seconds], axis=0)
        bands = np.median([each for _, each in self._seconds], axis=0)
        return "; ".join(line for group in self._groups if (line := _unlike(group, level, bands))) or None


def _groups(channels: Channels, profile: SignalProfile) -> Iterator[_Group]:
    """Find the channels of a stream that a profile knows, by kind and unit."""
    if not profile.level:
        return
    known = {name: row for row, name in enumerate(profile.names)}
    pairs = dict.fromkeys(zip(channels.kinds, channels.units, strict=True))
    for kind, unit in pairs:
        rows = [
            row
            for row, name in enumerate(channels.names)
            if (channels.kinds[row], channels.units[row]) == (kind, unit)
            and name in known
            and (profile.kinds[known[name]], profile.units[known[name]]) == (kind, unit)
        ]
        if rows:
            own = [known[channels.names[row]] for row in rows]
            bands = np.array(list(profile.bands.values()), np.float64)
            yield _Group(kind, unit, rows, np.array(profile.level)[own], bands[:, own].T)


def _unlike(group: _Group, level: Floats, bands: Floats) -> str | None:
    """Return how channels differ from the calibration: all of another size, or of another spectrum."""
    size = np.maximum(level[group.rows], TINY)
    n = min(bands.shape[1], group.bands.shape[1])
    now, then = np.maximum(bands[group.rows, :n], TINY), np.maximum(group.bands[:, :n], TINY)
    ratio = float(np.median(size / np.maximum(group.level, TINY)))
    by_band = np.median(now / then, axis=0)
    gain = float(np.median(by_band))
    if not 1 / LEVEL_TIMES <= gain <= LEVEL_TIMES:
        return _level_line(group, gain, float(np.median(size)))
    if line := _spectrum_line(by_band / gain, now, then):
        return line
    if not 1 / LEVEL_TIMES <= ratio <= LEVEL_TIMES:
        return _level_line(group, ratio, float(np.median(size)))
    return None


def _level_line(group: _Group, ratio: float, size: float) -> str:
    then = for_people(float(np.median(group.level)), group.unit)
    sizes = f"{for_people(size, group.unit)} rms, in the calibration {then}"
    power = round(math.log10(ratio) / 3) * 3
    if power and 1 / UNIT_TIMES < ratio / 10.0**power < UNIT_TIMES:
        about = times(10.0**power)
        return f"{group.kind.upper()} levels are about {about} the calibration's: wrong unit? ({sizes})"
    return (
        f"{group.kind.upper()} levels are {times(ratio)} the calibration's: another gain or reference, or no "
        f"contact with the skin? ({sizes})"
    )


def _spectrum_line(by_band: Floats, now: Floats, then: Floats) -> str | None:
    """Return which band has risen above all others, or is missing; `by_band` is how it changed besides the level."""
    names = list(BANDS)
    share_now, share_then = (np.median(each**2 / (each**2).sum(axis=1, keepdims=True), axis=0) for each in (now, then))
    loud = int(np.argmax(share_now))
    if by_band[loud] > BAND_TIMES and share_now[loud] > LOUD and names[loud] != "8-13 Hz":
        what = (
            "mains hum?" if names[loud] == "45-65 Hz" else "another filter or reference, or no contact with the skin?"
        )
        return (
            f"the spectrum is not the calibration's: {share_now[loud]:.0%} of the power is at {names[loud]}, there "
            f"{share_then[loud]:.1%}: {what}"
        )
    missing = np.flatnonzero((by_band < 1 / BAND_TIMES) & (share_then > POWER_SHARE))
    if len(missing):
        listed = ", ".join(names[k] for k in missing)
        return (
            f"the spectrum is not the calibration's: {listed} has {by_band[missing].max():.2g} of the amplitude it had "
            "there, beside the other bands: another filter in the amplifier?"
        )
    steady = [k for k in range(len(by_band)) if names[k] not in STATES]
    high, low = max(steady, key=by_band.__getitem__), min(steady, key=by_band.__getitem__)
    if by_band[high] > TILT_TIMES * by_band[low]:
        return (
            f"the spectrum is not the calibration's: {names[high]} has {by_band[high] / by_band[low]:.2g} times the "
            f"amplitude it had there beside {names[low]}: another filter or reference, or no contact with the skin?"
        )
    return None


class LevelWatches:
    """Watch all streams of an ingest.

    Parameters
    ----------
    names : sequence of str
    streams : sequence of (Channels, float)
        Channels and rate of each, after its filters.
    profile, recorder
        As `LevelWatch` has them.
    """

    def __init__(
        self,
        names: Sequence[str],
        streams: Sequence[tuple[Channels, float]],
        profile: SignalProfile | None,
        recorder: SignalRecorder | None,
    ) -> None:
        self._names = tuple(names)
        self._watches = [LevelWatch(channels, sfreq, profile, recorder) for channels, sfreq in streams]

    def advance(self, stream: int, ring: Ring) -> None:
        """Look at what has come of a stream."""
        self._watches[stream].advance(ring)

    def reason(self, row: int) -> str | None:
        """Return what is wrong at a row of the first stream, or with another at present."""
        first, *others = self._watches
        return "; ".join(line for line in (first.problem(row), *(each.problem() for each in others)) if line) or None

    def problems(self) -> dict[str, str]:
        """Return which streams' levels are unlike the calibration's, a line by key."""
        several = len(self._names) > 1
        return {
            f"{name} levels": f"stream {name!r}: {line}" if several else line
            for name, watch in zip(self._names, self._watches, strict=True)
            if (line := watch.problem())
        }
