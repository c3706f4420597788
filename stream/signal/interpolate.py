"""Bad EEG channels, named or found, replaced by spherical splines of the others."""

import logging

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stream.errors import StreamError
from stream.types.windows import Channels

logger = logging.getLogger(__name__)
BLOCK_S = 1.0
"""Seconds; channels are judged once in so many."""
FORGIVE = 10
"""Blocks in a row that a bad channel must behave before it counts as good again."""
USELESS = 0.5
"""Share of a block's samples without information above which a channel is bad."""
MOST = 0.25
"""Share of the EEG channels that may be found bad; beyond it the median itself is in doubt."""


class InterpolateSpec(BaseModel):
    """Which EEG channels are replaced by what the others say about their place on the head."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    channels: tuple[str, ...] = ()
    """Always these."""
    find: bool = False
    """Also those found flat or noisy in the last second, by their standard deviation after the filters."""
    noisy: float = Field(5.0, gt=1)
    """Found noisy above so many times the median of all EEG channels."""
    flat: float = Field(0.05, gt=0, lt=1)
    """Found flat below this share of the median."""
    montage: str = "easycap-M1"
    """MNE's name of the montage that knows the channels' places."""


def spline_weights(names: tuple[str, ...], bad: tuple[str, ...], montage: str) -> NDArray[np.float64]:
    """Compute the weights of the good channels in each bad one (Perrin et al. 1989, as MNE computes them).

    Returns
    -------
    weights : ndarray, shape (n_bad, n_good)
        Both in the order of `names`.

    Raises
    ------
    StreamError
        The montage is not known or lacks a channel.
    """
    import mne

    info = mne.create_info(list(names), 1000.0, "eeg")
    try:
        info.set_montage(montage, match_case=False, verbose="error")
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise StreamError(f"filters.interpolate: montage {montage!r} does not do ({reason})") from None
    good = [i for i, name in enumerate(names) if name not in bad]
    # One unit impulse a good channel: what MNE makes of them in the bad ones are the weights.
    impulses = np.zeros((len(names), len(good)))
    impulses[good, np.arange(len(good))] = 1.0
    raw = mne.io.RawArray(impulses, info, verbose="error")
    raw.info["bads"] = list(bad)
    raw.interpolate_bads(reset_bads=True, method={"eeg": "spline"}, verbose="error")
    weights: NDArray[np.float64] = raw.get_data()[[i for i, name in enumerate(names) if name in bad]]
    return weights


def placed(names: tuple[str, ...], montage: str) -> list[bool]:
    """Check that the montage has each channel's place.

    Raises
    ------
    StreamError
        MNE has no such montage.
    """
    import mne

    try:
        known = {name.lower() for name in mne.channels.make_standard_montage(montage).ch_names}
    except ValueError:
        raise StreamError(
            f"filters.interpolate: MNE has no montage {montage!r}; easycap-M1 knows the 10-10 system"
        ) from None
    return [name.lower() in known for name in names]


def odd(spread: NDArray[np.float64], noisy: float, flat: float) -> NDArray[np.bool_]:
    """Find the channels whose standard deviation is out of proportion to the median; none where too many are."""
    middle = float(np.median(spread)) if len(spread) else 0.0
    strange: NDArray[np.bool_] = (spread > noisy * middle) | (spread < flat * middle) | (spread == 0)
    if strange.sum() > MOST * len(spread):
        return np.zeros_like(strange)
    return strange


class Interpolator:
    """Replace bad EEG channels in a stream; in any chunking the same bits.

    Parameters
    ----------
    spec : InterpolateSpec
    channels : Channels
    sfreq : float

    Attributes
    ----------
    names : tuple of str
        Channels replaced at present.

    Raises
    ------
    StreamError
        A named channel is not there, is no EEG channel, or has no place on the head.
    """

    def __init__(self, spec: InterpolateSpec, channels: Channels, sfreq: float) -> None:
        self._spec = spec
        eeg = [i for i, kind in enumerate(channels.kinds) if kind == "eeg"]
        known = placed(tuple(channels.names[i] for i in eeg), spec.montage)
        self._places = np.array([i for i, here in zip(eeg, known, strict=True) if here], dtype=np.intp)
        self._names = tuple(channels.names[i] for i in self._places)
        if absent := [name for name in spec.channels if name not in self._names]:
            raise StreamError(
                f"filters.interpolate: {', '.join(absent)} is no EEG channel of the stream with a place in montage "
                f"{spec.montage!r}; those are {', '.join(self._names) or 'none'}"
            )
        self._stated = set(spec.channels)
        self._good_blocks = np.full(len(self._names), FORGIVE)
        self._block = np.empty((max(2, round(BLOCK_S * sfreq)), len(self._names)))
        self._filled = 0
        self._useless = np.zeros(len(self._names), np.int64)  # bad samples of each channel in the block
        self._weights: dict[tuple[str, ...], tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]] = {}
        self.names: tuple[str, ...] = ()
        self._set(np.zeros(len(self._names), np.bool_))

    def reset(self) -> None:
        """Begin a new second of judging; what is bad stays so."""
        self._filled = 0
        self._useless[:] = 0

    def feed(
        self, data: NDArray[np.float64], bad: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], tuple[tuple[int, tuple[str, ...]], ...]]:
        """Replace bad channels.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
        bad : ndarray, shape (n, n_channels), bool, optional
            Samples that are of no use whatever they look like: a channel with many is found.

        Returns
        -------
        data : ndarray, shape (n, n_channels)
        changes : tuple of (int, tuple of str)
            From which row on which channels were replaced, where that changed.
        """
        if not self._spec.find:
            return self._replace(data), ()
        parts, changes, at = [], [], 0
        while at < len(data):
            part = data[at : at + len(self._block) - self._filled]
            self._block[self._filled : self._filled + len(part)] = part[:, self._places]
            self._filled += len(part)
            if bad is not None:
                self._useless += bad[at : at + len(part), self._places].sum(axis=0)
            parts.append(self._replace(part))
            at += len(part)
            if self._filled == len(self._block) and self._judge():
                changes.append((at, self.names))
        return (np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else data), tuple(changes)

    def _judge(self) -> bool:
        self._filled = 0
        strange = odd(self._block.std(axis=0), self._spec.noisy, self._spec.flat)
        useless = self._useless > USELESS * len(self._block)
        self._useless[:] = 0
        if useless.sum() <= MOST * len(useless):
            strange = strange | useless
        self._good_blocks = np.where(strange, 0, self._good_blocks + 1)
        return self._set(self._good_blocks < FORGIVE)

    def _set(self, bads: NDArray[np.bool_]) -> bool:
        names = tuple(name for name, bad in zip(self._names, bads, strict=True) if bad or name in self._stated)
        if len(self._names) - len(names) < 3 and names:
            raise StreamError(f"filters.interpolate: too few good EEG channels to replace {', '.join(names)}")
        changed = names != self.names
        if changed:
            logger.warning("channels replaced by interpolation: %s", ", ".join(names) or "none any more")
        if names and names not in self._weights:
            bad = np.array([name in names for name in self._names])
            weights = spline_weights(self._names, names, self._spec.montage)
            self._weights[names] = (self._places[bad], self._places[~bad], weights)
        self.names = names
        return changed

    def _replace(self, data: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.names or not len(data):
            return data
        bad, good, weights = self._weights[self.names]
        out, sources = data.copy(), np.ascontiguousarray(data[:, good])
        for place, row in zip(bad, weights, strict=True):
            # A plain product and sum, not BLAS: its order of summation must not hang on the chunk.
            out[:, place] = (sources * row).sum(axis=1)
        return out
