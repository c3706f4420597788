"""Which levels a channel of a kind can have: what shows that numbers were taken for another unit than they are in."""

import math

import numpy as np
from numpy.typing import NDArray

from stream.types.units import listing
from stream.types.windows import Channels

BLOCK_S = 1.0
BLOCKS = 60
"""Blocks looked at, evenly spread over the samples."""
PLAUSIBLE: dict[tuple[str, str], tuple[float, float, float]] = {
    ("eeg", "V"): (1e-7, 2e-5, 5e-3),
    ("eog", "V"): (2e-7, 1e-4, 1e-2),
    ("ecg", "V"): (1e-6, 3e-4, 5e-2),
    ("emg", "V"): (2e-7, 5e-5, 2e-2),
    ("seeg", "V"): (1e-7, 1e-4, 2e-2),
    ("ecog", "V"): (1e-7, 1e-4, 2e-2),
    ("dbs", "V"): (1e-7, 1e-4, 2e-2),
    ("mag", "T"): (1e-15, 3e-13, 1e-8),
    ("ref_meg", "T"): (1e-15, 1e-11, 1e-6),
    ("grad", "T/m"): (1e-14, 1e-11, 1e-8),
}
"""By kind and SI unit: the lowest and the usual root mean square of a second, and the highest, with mains hum."""
_NAMED = {
    "V": {0: "volts", -3: "millivolts", -6: "microvolts", -9: "nanovolts"},
    "T": {0: "tesla", -9: "nanotesla", -12: "picotesla", -15: "femtotesla"},
    "T/m": {0: "T/m", -10: "pT/cm", -13: "fT/cm", -15: "fT/m"},
}


def levels(data: NDArray[np.floating], sfreq: float) -> NDArray[np.float64]:
    """Compute each channel's level: the median over blocks of a second of the deviation within each.

    An offset or a slow drift is no part of it, nor is a short artefact; samples that are not finite are left out.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels)
    sfreq : float
        0 for an irregular stream: blocks of 64 samples.

    Returns
    -------
    ndarray, shape (n_channels,)
        In the unit of the data; NaN where no block holds two finite samples.
    """
    size = min(max(2, round(BLOCK_S * sfreq) if sfreq else 64), max(2, len(data)))
    starts = np.arange(0, max(len(data) - size, 0) + 1, size)
    if len(starts) > BLOCKS:
        starts = starts[np.linspace(0, len(starts) - 1, BLOCKS).astype(int)]
    channels = np.full((len(starts), data.shape[1]), np.nan)
    for row, start in enumerate(starts):
        block = np.asarray(data[start : start + size], dtype=np.float64)
        finite = np.isfinite(block)
        n = finite.sum(axis=0)
        some = n > 1
        mean = np.divide(np.where(finite, block, 0.0).sum(axis=0), n, where=some, out=np.zeros(len(n)))
        square = np.where(finite, block - mean, 0.0) ** 2
        channels[row, some] = np.sqrt(square.sum(axis=0)[some] / n[some])
    out = np.full(data.shape[1], np.nan)
    known = np.isfinite(channels).any(axis=0)
    out[known] = np.nanmedian(channels[:, known], axis=0)
    return out


def implausible(kind: str, unit: str, level: float) -> str | None:
    """Return what is wrong with a level that no channel of a kind has, in its SI unit.

    Parameters
    ----------
    kind, unit : str
        As `Channels` has them.
    level : float
        As `levels` computes it. 0 (a flat channel) and NaN tell nothing about the unit.

    Returns
    -------
    str or None
        '12 V rms, which no eeg has: taken for volts, written in microvolts?'; None where it is plausible, or nothing is
        known of the kind and unit.
    """
    bounds = PLAUSIBLE.get((kind, unit))
    if bounds is None or not (math.isfinite(level) and level > 0) or bounds[0] <= level <= bounds[2]:
        return None
    # Numbers in a smaller unit were taken for the SI unit, or the other way round.
    power = math.log10(bounds[1] / level)
    names = _NAMED[unit]
    nearest = min((p for p in names if p), key=lambda p: abs(abs(power) + p))
    taken, written = (names[0], names[nearest]) if power < 0 else (names[nearest], names[0])
    return f"{level:.2g} {unit} rms, which no {kind.upper()} has: taken for {taken}, written in {written}?"


def unlikely(channels: Channels, data: NDArray[np.floating], sfreq: float) -> tuple[str, ...]:
    """List the channels whose level cannot be, those of one kind in one line.

    Parameters
    ----------
    channels : Channels
    data : ndarray, shape (n, n_channels)
        In the channels' units.
    sfreq : float
    """
    if not any(pair in PLAUSIBLE for pair in zip(channels.kinds, channels.units, strict=True)):
        return ()
    groups: dict[tuple[str, str, bool], list[tuple[str, float]]] = {}
    level = levels(data, sfreq)
    for name, kind, unit, each in zip(channels.names, channels.kinds, channels.units, level.tolist(), strict=True):
        if implausible(kind, unit, each):
            groups.setdefault((kind, unit, each > PLAUSIBLE[kind, unit][1]), []).append((name, each))
    lines = []
    for (kind, unit, _), members in groups.items():
        middle = float(np.median([each for _, each in members]))
        lines.append(f"{listing([name for name, _ in members])}: {implausible(kind, unit, middle)}")
    return tuple(lines)
