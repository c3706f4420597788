"""Online steps on samples, in one chain."""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.errors import StreamError
from stream.signal.bad_samples import BAD, GOOD, LOST, States
from stream.signal.interpolate import InterpolateSpec, Interpolator, placed
from stream.signal.resample import Resampler, ratio
from stream.signal.running import Drift, PercentSignal
from stream.types.windows import Channels

logger = logging.getLogger(__name__)
LONGEST_MEMORY_S = 1e6
"""Seconds of running statistics."""
NYQUIST_SHARE = 0.4
"""Edge of the automatic anti-alias filter, as a share of the rate after decimation."""


class FilterSpec(BaseModel):
    """What is done to samples before windows are cut.

    In this order: highpass, lowpass, notch, decimate or resample, interpolate, reference, percent_signal, drift.
    Everything is causal, keeps its state between chunks and begins anew after a gap.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    channels: tuple[str, ...] | None = None
    """Channels kept, by name or kind ('eeg', 'mag'), in the stream's order; all when left out."""
    reference: Literal["average"] | tuple[str, ...] | None = None
    """'average' (over EEG channels) or names whose mean is subtracted from EEG channels."""
    highpass: float | None = Field(None, gt=0)
    """Lower edge in Hz (Butterworth)."""
    lowpass: float | None = Field(None, gt=0)
    """Upper edge in Hz (Butterworth)."""
    order: int = Field(4, ge=1, le=8)
    """Order of each Butterworth edge."""
    notch: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Mains frequencies to take out, in Hz."""
    notch_quality: float = Field(30.0, gt=0, le=10_000)
    """Centre over width of a notch."""
    decimate: int = Field(1, ge=1)
    """Keep one sample in so many; a low-pass at 0.4 of the new rate is added where none is set."""
    resample: float | None = Field(None, gt=0)
    """New rate in Hz, by a polyphase filter that stops what would alias; samples come out 10 samples of the slower
    rate later, stamped with their own time. Instead of `decimate`."""
    interpolate: InterpolateSpec | None = None
    """Bad EEG channels, replaced by spherical splines."""
    percent_signal: float | None = Field(None, gt=0, le=LONGEST_MEMORY_S)
    """fMRI: percent change against the running mean, which forgets over so many seconds."""
    drift: float | None = Field(None, gt=0, le=LONGEST_MEMORY_S)
    """Slow streams (fMRI): take out the straight line that fits the past best, which forgets over so many seconds."""
    reject_peak_to_peak: Literal["calibration"] | dict[str, float] = "calibration"
    """Largest peak-to-peak in a window, above which it is rejected: 'calibration' takes each channel's own limit from
    the calibration, by robust statistics, and interpolates single EEG channels over it where the places of all are
    known; numbers by channel kind in SI units (200 uV: {eeg: 200.0e-6}) are taken as they are; {} sets none."""
    flat: dict[str, float] = Field(default_factory=dict)
    """Smallest peak-to-peak in a window by channel kind, in SI units; below it the window is rejected."""
    levels: Literal["reject", "warn"] = "reject"
    """What becomes of windows while the stream's levels or spectrum are none of the calibration's (a wrong unit, gain
    or filter, mains hum): rejected, or decoded all the same with a line in the log and on the page."""

    @model_validator(mode="after")
    def _edges_in_order(self) -> Self:
        if self.highpass and self.lowpass and self.highpass >= self.lowpass:
            raise ValueError(f"highpass {self.highpass:g} Hz must be below lowpass {self.lowpass:g} Hz")
        if self.resample and self.decimate > 1:
            raise ValueError("set resample or decimate, not both")
        return self


def with_bads(spec: FilterSpec, channels: Channels) -> FilterSpec:
    """Interpolate also the EEG channels that a recording or stream marks as bad, where anything is interpolated."""
    bads = channels.montage.bads
    marked = tuple(
        name for name, kind in zip(channels.names, channels.kinds, strict=True) if name in bads and kind == "eeg"
    )
    if not marked:
        return spec
    if spec.interpolate is None:
        logger.warning(
            "marked as bad but used as they are: %s; filters.interpolate would replace them", ", ".join(marked)
        )
        return spec
    places = zip(marked, placed(marked, spec.interpolate.montage), strict=True)
    names = dict.fromkeys((*spec.interpolate.channels, *(name for name, here in places if here)))
    interpolate = spec.interpolate.model_copy(update={"channels": tuple(names)})
    return spec.model_copy(update={"interpolate": interpolate})


def design(spec: FilterSpec, sfreq: float) -> NDArray[np.float64]:
    """Return the second-order sections of a spec's filters at a rate.

    Returns
    -------
    sos : ndarray, shape (n_sections, 6)
        Empty where nothing is filtered.

    Raises
    ------
    StreamError
        A frequency does not fit the rate.
    """
    from scipy import signal

    lowpass = spec.lowpass
    if spec.decimate > 1:
        ceiling = 0.5 * sfreq / spec.decimate
        lowpass = lowpass or NYQUIST_SHARE * sfreq / spec.decimate
        if lowpass >= ceiling:
            raise StreamError(
                f"lowpass {lowpass:g} Hz aliases: decimate {spec.decimate} at {sfreq:g} Hz needs under {ceiling:g} Hz"
            )
    edges = [edge for edge in (spec.highpass, lowpass, *spec.notch) if edge]
    if edges and not sfreq:
        raise StreamError("an irregular stream cannot be filtered; leave highpass, lowpass, notch and decimate out")
    if edges and max(edges) >= sfreq / 2:
        key = next(
            name for name in ("highpass", "lowpass", "notch") if max(edges) in np.atleast_1d(getattr(spec, name))
        )
        raise StreamError(
            f"filters.{key}: {max(edges):g} Hz cannot be filtered at {sfreq:g} Hz; stay below {sfreq / 2:g} Hz"
        )
    parts = [np.empty((0, 6))]
    if spec.highpass:
        parts.append(signal.butter(spec.order, spec.highpass, "highpass", fs=sfreq, output="sos"))
    if lowpass:
        parts.append(signal.butter(spec.order, lowpass, "lowpass", fs=sfreq, output="sos"))
    parts += [signal.tf2sos(*signal.iirnotch(mains, spec.notch_quality, fs=sfreq)) for mains in spec.notch]
    sections = np.concatenate(parts)
    poles = [np.abs(np.roots(section[3:])) for section in sections]
    if not np.isfinite(sections).all() or any((each >= 1 - 1e-9).any() for each in poles):
        raise StreamError(
            f"{', '.join(f'{edge:g} Hz' for edge in edges)} cannot be filtered at {sfreq:g} Hz: so low a frequency "
            "needs a lower order or rate, or no filter"
        )
    return sections


@dataclass(frozen=True, slots=True)
class FilteredChunk:
    """What came out of the chain for some samples.

    Attributes
    ----------
    data : ndarray, shape (n_kept, n_channels_out), float32
    newest : slice or ndarray of int
        For each row, which of the samples that went in completed it.
    ahead : float or ndarray, shape (n_kept,)
        Each row's own time minus that sample's, in seconds of the source (resampling: mostly negative).
    states : ndarray of int8, shape (n_kept, n_channels_out), or None
        Of each channel at each row, see `stream.signal.bad_samples`; interpolated ones are good. None where all are.
    interpolated : tuple of (int, tuple of str)
        From which row on which channels were interpolated, where that changed.
    """

    data: NDArray[np.float32]
    newest: slice | NDArray[np.intp]
    ahead: float | NDArray[np.float64]
    states: States | None
    interpolated: tuple[tuple[int, tuple[str, ...]], ...] = ()


class FilterChain:
    """The spec's steps on one stream, with their state.

    Any chunking gives the same result, bit for bit, as the whole signal at once.

    Parameters
    ----------
    spec : FilterSpec
    channels : Channels
        Of the samples that come in.
    sfreq : float

    Attributes
    ----------
    channels : Channels
        Of the samples that go out.
    sfreq : float
        After decimation or resampling.
    factor : Fraction
        `sfreq` over the rate that comes in.
    delay : float
        Seconds of the source by which rows come out after their own time.
    interpolated : tuple of str
        Channels that are interpolated from the start.
    needed : Channels
        Of the samples that come in, those that anything hangs on: chosen, referenced to, or interpolated from.
    restarts : int
        How often a channel's filters began anew because they could not have forgotten where it had been.

    Raises
    ------
    StreamError
        A named channel is not there, or a frequency does not fit the rate.
    """

    def __init__(self, spec: FilterSpec, channels: Channels, sfreq: float) -> None:
        spec = with_bads(spec, channels)
        picks, reference, eeg = _pick(spec.channels, channels), _reference(spec, channels), _eeg(channels)
        # Filters come before the mixing of channels (both are linear), so that only what is needed is mixed, and late.
        needed = sorted({*picks, *(reference or ()), *(eeg if spec.interpolate else ())})
        place = {channel: i for i, channel in enumerate(needed)}
        self.needed = here = channels.subset(needed)
        self.restarts = 0
        self._since_kept = np.zeros(len(needed), np.int8)
        self._needed = None if len(needed) == len(channels) else needed
        self._picks = None if picks == needed else [place[i] for i in picks]
        self._reference = None if reference is None else [place[i] for i in reference]
        self._referenced = np.array([float(kind == "eeg") for kind in here.kinds])
        self._sos = design(spec, sfreq)
        self._steady = _steady(self._sos)
        self._state: NDArray[np.float64] | None = None
        self.factor = ratio(sfreq, spec.resample) if spec.resample else Fraction(1, spec.decimate)
        self.sfreq = sfreq * float(self.factor) if spec.resample else sfreq / spec.decimate
        self._period = 1.0 / sfreq if sfreq else 0.0
        self._resampler = Resampler(self.factor, len(needed)) if spec.resample and self.factor != 1 else None
        self.delay = self._resampler.delay * self._period if self._resampler else 0.0
        self._interpolator = Interpolator(spec.interpolate, here, self.sfreq) if spec.interpolate else None
        self.interpolated = self._interpolator.names if self._interpolator else ()
        self._running = _running(spec, self.sfreq)
        self.channels = _outgoing(channels.subset(picks), spec)

    def reset(self) -> None:
        """Forget the signal so far: the next sample is taken for the level it always had."""
        self._state = None
        for step in (self._resampler, self._interpolator, *self._running):
            if step:
                step.reset()

    @property
    def mended(self) -> tuple[str, ...]:
        """Channels that are interpolated at present."""
        return self._interpolator.names if self._interpolator else ()

    def begin_anew(self, channel: int, level: float) -> None:
        """Set a needed channel's state as if it had always been at a level."""
        self.restarts += 1
        logger.warning("filters of channel %s begin anew at %.3g", self.needed.names[channel], level)
        if self._state is not None:
            self._state[:, channel] = self._steady[:, 0] * level

    def pick(self, data: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the needed channels of samples, shape (n, n_channels_in)."""
        return data if self._needed is None else data[:, self._needed]

    def feed(self, data: NDArray[np.float64], index: int) -> FilteredChunk:
        """Filter samples; see `feed_needed`.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels_in), float64
        index : int
        """
        return self.feed_needed(self.pick(data), index)

    def feed_needed(self, data: NDArray[np.float64], index: int, states: States | None = None) -> FilteredChunk:
        """Filter the needed channels of samples.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels_needed), float64
            Finite; consecutive to the last call's, unless `reset` was called.
        index : int
            Grid place of the first: decimation keeps the places that divide.
        states : ndarray of int8, shape (n, n_channels_needed), optional
            What each channel is worth at each sample; left out, all are good.
        """
        if len(self._sos) and len(data):
            data = self._filter(data)
        newest: slice | NDArray[np.intp]
        ahead: float | NDArray[np.float64] = 0.0
        if self._resampler:
            data, newest, ahead, resampled = self._resampler.feed(data, index, states)
            ahead = ahead * self._period
            states = resampled if resampled.any() else None
        else:
            newest = slice(-index % self.factor.denominator, None, self.factor.denominator)
            data, states = data[newest], self._worst(states, newest, len(data))
        changes: tuple[tuple[int, tuple[str, ...]], ...] = ()
        if self._interpolator:
            names = self._interpolator.names
            data, changes = self._interpolator.feed(data, None if states is None else states == BAD)
            states = self._mended(states, [(0, names), *changes])
        data, states = self._mix(data, states)
        for step in self._running:
            data = step.feed(data)
        return FilteredChunk(data.astype(np.float32), newest, ahead, states, changes)

    def _filter(self, data: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy import signal

        if self._state is None:
            # The steady state of the first sample: an electrode's offset would ring for seconds otherwise.
            self._state = self._steady * data[0][None, :, None]
        filtered, self._state = signal.sosfilt(self._sos, np.ascontiguousarray(data.T), axis=1, zi=self._state)
        result: NDArray[np.float64] = filtered.T
        return result

    def _worst(self, states: States | None, newest: slice, n: int) -> States | None:
        """Assign to each sample that is kept the worst state of those since the one kept before it."""
        if self.factor.denominator == 1 or (states is None and not self._since_kept.any()):
            return states
        states = np.zeros((n, len(self.needed)), np.int8) if states is None else states
        ends = np.arange(n)[newest] + 1
        pieces = [part.max(axis=0, initial=0) for part in np.split(states, ends)]
        pieces[0] = np.maximum(pieces[0], self._since_kept)
        self._since_kept = pieces[-1]
        return np.array(pieces[:-1], np.int8).reshape(len(ends), len(self.needed))

    def _mended(self, states: States | None, changes: Sequence[tuple[int, tuple[str, ...]]]) -> States | None:
        """Mark channels as good where they are interpolated: `changes` has the row from which on each is."""
        if states is None:
            return None
        states = states.copy()
        for (start, names), stop in zip(changes, [*(at for at, _ in changes[1:]), len(states)], strict=True):
            places = [self.needed.names.index(name) for name in names]
            part = states[start:stop, places]
            states[start:stop, places] = np.where(part == LOST, part, GOOD)
        return states

    def _mix(self, data: NDArray[np.float64], states: States | None) -> tuple[NDArray[np.float64], States | None]:
        """Subtract the reference and pick the channels that go out."""
        if self._reference is not None:
            # Contiguous rows: the order of summation must not hang on the chunk.
            reference = np.ascontiguousarray(data[:, self._reference])
            if states is None:
                data = data - reference.mean(axis=1, keepdims=True) * self._referenced
            else:
                good = states == GOOD
                part = good[:, self._reference]
                count = part.sum(axis=1, keepdims=True)
                mean = np.where(part, reference, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
                # What is not good is neither part of the reference nor referenced: a flat channel stays flat.
                data = data - mean * (self._referenced * good)
                states = np.where((count == 0) & (self._referenced > 0), np.maximum(states, BAD), states)
        if self._picks is None:
            return data, states
        return data[:, self._picks], None if states is None else states[:, self._picks]


def _steady(sos: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the state of second-order sections in which an input of 1 for ever leaves them, shape (n, 1, 2)."""
    from scipy import signal

    if not len(sos):
        return np.empty((0, 1, 2))
    steady: NDArray[np.float64] = signal.sosfilt_zi(sos)[:, None, :]
    return steady


def _running(spec: FilterSpec, sfreq: float) -> list[PercentSignal | Drift]:
    steps = ((PercentSignal, spec.percent_signal), (Drift, spec.drift))
    if not sfreq and any(seconds for _, seconds in steps):
        raise StreamError("an irregular stream has no running statistics; leave percent_signal and drift out")
    return [step(max(1.0, seconds * sfreq)) for step, seconds in steps if seconds]


def _outgoing(channels: Channels, spec: FilterSpec) -> Channels:
    """Return the channels after the chain: their units, and what they are referenced to."""
    if spec.reference:
        channels = channels.against(spec.reference if isinstance(spec.reference, str) else "+".join(spec.reference))
    return replace(channels, units=("percent",) * len(channels)) if spec.percent_signal else channels


def _eeg(channels: Channels) -> list[int]:
    return [i for i, kind in enumerate(channels.kinds) if kind == "eeg"]


def _pick(selection: tuple[str, ...] | None, channels: Channels) -> list[int]:
    if selection is None:
        return list(range(len(channels)))
    labels = set(channels.names) | set(channels.kinds)
    if missing := [name for name in selection if name not in labels]:
        near = difflib.get_close_matches(missing[0].casefold(), {name.casefold(): name for name in labels}, 1)
        hint = f" (did you mean {next(name for name in labels if name.casefold() == near[0])}?)" if near else ""
        raise StreamError(
            f"filters: no channel or kind {', '.join(missing)}{hint}; the stream has {', '.join(channels.names)}, "
            f"of kind {', '.join(sorted(set(channels.kinds)))}"
        )
    return [
        i
        for i, (name, kind) in enumerate(zip(channels.names, channels.kinds, strict=True))
        if {name, kind} & {*selection}
    ]


def _reference(spec: FilterSpec, channels: Channels) -> list[int] | None:
    """Find the channels whose mean is subtracted; those marked as bad are not averaged unless they are interpolated."""
    reference = spec.reference
    if reference is None:
        return None
    eeg = _eeg(channels)
    if not eeg:
        raise StreamError(
            f"reference {reference!r} needs EEG channels; the stream has {', '.join(sorted(set(channels.kinds)))}"
        )
    if reference != "average":
        return _pick(reference, channels)
    mended = spec.interpolate.channels if spec.interpolate else ()
    good = [i for i in eeg if channels.names[i] not in channels.montage.bads or channels.names[i] in mended]
    return good or eeg
