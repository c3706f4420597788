"""Channels that nothing can be learned from: flat, doubled, or not finite. They are named, and left out."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError
from decoder.preprocessing.session_moments import MOST_CHANNELS
from stream.types.windows import Channels, Window

LARGEST = 1e15
"""A number beyond this is no measurement in any unit, and its square no float32."""
FLAT = 1e-5
"""A channel with less than this share of the median spread of its unit's channels is flat."""
DOUBLED = 1e-9
"""Two channels of which less than this share of the variance differs, but for a factor, are one: rounding errors."""
MOST_WINDOWS = 2000
"""So many windows, evenly spread, tell what is flat or doubled."""
MOST_NAMED = 8

logger = logging.getLogger(__name__)


def readable(data: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Check which windows, shape (n, n_channels, n_times), hold finite numbers of a size that can be computed with."""
    return np.asarray((np.abs(data) < LARGEST).all(axis=(1, 2)))  # false of NaN, too


def without_bad_channels(windows: Sequence[Window]) -> tuple[list[Window], dict[str, str]]:
    """Leave out the channels from which nothing can be learned, and name them in a warning.

    Parameters
    ----------
    windows : sequence of Window
        Of one kind; otherwise they are returned as they are.

    Returns
    -------
    windows : list of Window
    left_out : dict of str to str
        By channel, the reason.

    Raises
    ------
    TrainingError
        If no channel is left.
    """
    left_out = find_bad_channels(windows)
    if not left_out:
        return list(windows), {}
    channels = windows[0].channels
    said = [f"{name} ({reason})" for name, reason in left_out.items()][:MOST_NAMED]
    named = ", ".join(said) + (f" and {len(left_out) - len(said)} more" if len(left_out) > len(said) else "")
    kept = [place for place, name in enumerate(channels.names) if name not in left_out]
    if not kept:
        raise TrainingError(f"no channel can be learned from: {named}; see to the recording")
    logger.warning("%d of %d channels are left out of training: %s", len(left_out), len(channels), named)
    subset = channels.subset(kept)
    return [replace(window, data=window.data[kept], channels=subset) for window in windows], left_out


def find_bad_channels(windows: Sequence[Window]) -> dict[str, str]:
    """Find the channels from which nothing can be learned.

    Parameters
    ----------
    windows : sequence of Window

    Returns
    -------
    reasons : dict of str to str
        By channel; none of windows that differ in channels or shape. Rejected windows do not count.
    """
    if not windows:
        return {}
    channels, shape = windows[0].channels, windows[0].data.shape
    if any(window.channels != channels or window.data.shape != shape for window in windows):
        return {}
    windows = [window for window in windows if window.quality.rejected is None]
    if not windows:
        return {}
    broken = np.stack([~(np.abs(window.data) < LARGEST).all(axis=1) for window in windows])
    partly = broken[~broken.all(axis=1)]  # where no channel is finite, it is not the channels' fault
    counts = partly.sum(axis=0)
    out = {
        channels.names[place]: f"not finite in {counts[place]} of {len(windows)} windows"
        for place in np.flatnonzero(2 * counts > len(partly))
    }
    alive = np.array([name not in out for name in channels.names])
    sound = [window.data for window, own in zip(windows, broken, strict=True) if not own[alive].any()]
    if not sound or not alive.any():
        return out
    step = -(-len(sound) // MOST_WINDOWS)
    data = np.stack(sound[::step]).transpose(1, 0, 2).reshape(len(channels), -1).astype(np.float64)
    data[~alive] = 0
    data -= data.mean(axis=1, keepdims=True)
    spread = data.std(axis=1)
    flat = alive & (spread <= FLAT * _usual(spread, channels, alive))
    out |= {channels.names[place]: "flat" for place in np.flatnonzero(flat)}
    return out | _doubled(data, spread, alive & ~flat, channels)


def _usual(spread: NDArray[np.float64], channels: Channels, alive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median spread of each channel's unit, of channels that move at all."""
    units, usual = np.asarray(channels.units), np.zeros(len(spread))
    for unit in np.unique(units):
        own = alive & (units == unit) & (spread > 0)
        if own.any():
            usual[units == unit] = np.median(spread[own])
    return usual


def _doubled(
    data: NDArray[np.float64], spread: NDArray[np.float64], alive: NDArray[np.bool_], channels: Channels
) -> dict[str, str]:
    """Find channels that are an earlier one, perhaps times a factor; not among so many that they are voxels."""
    places = np.flatnonzero(alive)
    if data.shape[1] < 3 or not 2 <= len(places) <= MOST_CHANNELS:
        return {}
    unit = data[places] / (spread[places, None] * np.sqrt(data.shape[1]))
    same = np.triu(1 - (unit @ unit.T) ** 2 < DOUBLED, k=1)
    out: dict[str, str] = {}
    for column in np.flatnonzero(same.any(axis=0)):
        first = channels.names[places[int(same[:, column].argmax())]]
        out[channels.names[places[column]]] = f"the same as {first}"
    return out
