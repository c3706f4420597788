"""Raw traces and their spectrum for a page on the session's own machine; they are sent nowhere else."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stream.lsl.tap import Tap
    from stream.signal.ring import Ring
    from stream.types.windows import Channels

DRAWN_HZ = 128.0
"""Points a second that are drawn at most."""
MOST_CHANNELS = 64
FIRST_S = 2.0
"""Seconds of the past that whoever comes gets first, and that a frame holds at most."""
SPECTRUM_S, SEGMENT_S = 4.0, 2.0
"""Seconds that a spectrum is of, and of the segments that are averaged in it: half a hertz apart."""
SPECTRUM_EVERY_S = 0.5
HIGHEST_HZ = 100.0
MAINS = (50.0, 60.0)
STANDS_OUT_DB = 6.0
"""How far above its neighbours a line must be to be taken for the mains."""
MICRO = {"V": (1e6, "µV"), "T": (1e15, "fT"), "T/m": (1e13, "fT/cm")}
"""Units for people: factor and name."""


class Traces:
    """Cuts what a tap holds into frames for drawing; safe in any thread.

    Parameters
    ----------
    tap : Tap
    channels : Channels
        Of the stream that is tapped.
    decoded : collection of str
        Names of the channels that the decoder takes: these are drawn, and the first `MOST_CHANNELS` of them; all
        where it takes none of these.
    mains_hz : float, optional
        Where it is known; else it is looked for in the spectrum.
    """

    def __init__(
        self, tap: Tap, channels: Channels, decoded: Collection[str] = (), mains_hz: float | None = None
    ) -> None:
        self._tap, self._mains = tap, mains_hz
        chosen = [i for i, name in enumerate(channels.names) if name in decoded] or list(range(len(channels)))
        self._rows = np.array(chosen[:MOST_CHANNELS], dtype=np.intp)
        self._names = [channels.names[i] for i in self._rows]
        self._units = [channels.units[i] for i in self._rows]
        unit = Counter(self._units).most_common(1)[0][0] if self._units else ""
        self._alike = [i for i, each in enumerate(self._units) if each == unit]
        self._factor, self._unit = MICRO.get(unit, (1.0, unit))
        self._lock = threading.Lock()
        self._spectrum: dict[str, Any] | None = None
        self._computed = -math.inf

    def frame(self, after: int | None = None) -> dict[str, Any] | None:
        """Return what has come since the last frame.

        Parameters
        ----------
        after : int, optional
            `next` of the last frame; without it, the newest seconds.

        Returns
        -------
        dict or None
            JSON-able: `t` (LSL time of the newest point), `sfreq` (points a second), `next`, `channels` (names),
            `units` (SI), `data` (a list a channel; each point is a mean of samples, null where one is not finite),
            `spectrum` (None before a second is there; `hz`, `db` and `unit`: the median over channels) and `mains_hz`
            (None where neither known nor seen). None before the first sample: it is watched from now on.
        """
        ring = self._tap.watch()
        if ring is None:
            return None
        rate = self._tap.sfreq
        step = max(1, math.ceil(rate / DRAWN_HZ)) if rate else 1
        points, earliest = ring.stop // step, -(-ring.start // step)
        first = max(earliest, points - round(FIRST_S * (rate / step or DRAWN_HZ)))
        if after is not None and after <= points:
            first = max(first, after)
        segment = ring.read(first * step, points * step)
        if segment is None:  # overtaken while it was copied
            return None
        data = segment.data[:, self._rows].astype(np.float64)
        drawn = data.reshape(points - first, step, len(self._rows)).mean(axis=1)
        return {
            "t": float(segment.times[-1]) if len(segment.times) else None,
            "sfreq": rate / step,
            "next": points,
            "channels": self._names,
            "units": self._units,
            "data": [[_short(value) for value in channel] for channel in drawn.T.tolist()],
            "spectrum": self._newest_spectrum(ring, rate),
            "mains_hz": self._mains or (self._spectrum or {}).get("mains_hz"),
        }

    def _newest_spectrum(self, ring: Ring, rate: float) -> dict[str, Any] | None:
        """Compute the spectrum where the last one is old; one thread at a time, the others take what there is."""
        if self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._computed >= SPECTRUM_EVERY_S:
                    self._computed = time.monotonic()
                    self._spectrum = self._compute(ring, rate)
            finally:
                self._lock.release()
        return self._spectrum and {key: self._spectrum[key] for key in ("hz", "db", "unit")}

    def _compute(self, ring: Ring, rate: float) -> dict[str, Any] | None:
        stop = ring.stop
        start = max(ring.start, stop - round(SPECTRUM_S * rate))
        segment = ring.read(start, stop) if rate and stop - start >= rate else None
        if segment is None:
            return None
        hz, db = spectrum(segment.data[:, self._rows[self._alike]].T * self._factor, rate)
        unit = f"dB re 1 {self._unit}²/Hz" if self._unit else "dB"
        return {
            "hz": np.round(hz, 3).tolist(),
            "db": [round(value, 1) if math.isfinite(value) else None for value in db.tolist()],
            "unit": unit,
            "mains_hz": mains_of(hz, db),
        }


def spectrum(data: NDArray[np.floating[Any]], rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate a power spectrum (Welch), the median over channels.

    Parameters
    ----------
    data : ndarray, shape (n_channels, n)
        What is not finite is taken for 0.
    rate : float
        Samples a second.

    Returns
    -------
    hz : ndarray, shape (k,)
        Above 0, to `HIGHEST_HZ` or half the rate.
    db : ndarray, shape (k,)
        10 log10 of the density; -inf where there is nothing.
    """
    from scipy import signal

    data = np.nan_to_num(np.asarray(data, dtype=np.float64), posinf=0.0, neginf=0.0)
    hz, density = signal.welch(data, rate, nperseg=min(data.shape[1], round(SEGMENT_S * rate)))
    inside = (hz > 0) & (hz <= HIGHEST_HZ)
    with np.errstate(divide="ignore"):
        return hz[inside], 10 * np.log10(np.median(density[:, inside], axis=0))


def mains_of(hz: NDArray[np.float64], db: NDArray[np.float64]) -> float | None:
    """Return the mains frequency whose line stands out of a spectrum, None where none does."""
    above: dict[float, float] = {}
    for mains in MAINS:
        line, beside = np.abs(hz - mains) <= 1.0, (np.abs(hz - mains) > 2.0) & (np.abs(hz - mains) <= 5.0)
        if line.any() and beside.any() and hz[-1] > mains + 2.0 and np.isfinite(db[line | beside]).all():
            above[mains] = float(db[line].max() - np.median(db[beside]))
    highest = max(above, key=lambda mains: above[mains], default=None)
    return highest if highest is not None and above[highest] >= STANDS_OUT_DB else None


def _short(value: float) -> float | None:
    """Return a number with the digits that a single-precision sample has, None for one that is none."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def mains_in(notches: Sequence[float]) -> float | None:
    """Return the mains frequency that a config's notches name."""
    return next((mains for mains in MAINS if any(abs(notch - mains) < 1.0 for notch in notches)), None)
