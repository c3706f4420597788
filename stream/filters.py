"""Online steps on samples: re-reference, causal filters, decimation, and what makes a window unfit."""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.errors import StreamError
from stream.windows import Channels

NYQUIST_SHARE = 0.4  # where the automatic anti-alias filter sits, as a share of the rate after decimation


class FilterSpec(BaseModel):
    """What is done to samples before windows are cut. Everything is causal and keeps its state between chunks."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

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
    notch: tuple[float, ...] = ()
    """Mains frequencies to take out, in Hz."""
    notch_quality: float = Field(30.0, gt=0)
    """Centre over width of a notch."""
    decimate: int = Field(1, ge=1)
    """Keep one sample in so many; a low-pass at 0.4 of the new rate is added where none is set."""
    reject_peak_to_peak: dict[str, float] = Field(default_factory=dict)
    """Largest peak-to-peak in a window by channel kind, in SI units; above it the window is rejected."""
    flat: dict[str, float] = Field(default_factory=dict)
    """Smallest peak-to-peak in a window by channel kind, in SI units; below it the window is rejected."""

    @model_validator(mode="after")
    def _edges_in_order(self) -> Self:
        if self.highpass and self.lowpass and self.highpass >= self.lowpass:
            raise ValueError(f"highpass {self.highpass:g} Hz must be below lowpass {self.lowpass:g} Hz")
        return self


def design(spec: FilterSpec, sfreq: float) -> NDArray[np.float64]:
    """Second-order sections of a spec's filters at a rate.

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
        raise StreamError(f"{max(edges):g} Hz cannot be filtered at {sfreq:g} Hz; stay below {sfreq / 2:g} Hz")
    parts = [np.empty((0, 6))]
    if spec.highpass:
        parts.append(signal.butter(spec.order, spec.highpass, "highpass", fs=sfreq, output="sos"))
    if lowpass:
        parts.append(signal.butter(spec.order, lowpass, "lowpass", fs=sfreq, output="sos"))
    parts += [signal.tf2sos(*signal.iirnotch(mains, spec.notch_quality, fs=sfreq)) for mains in spec.notch]
    return np.concatenate(parts)


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
        After decimation.

    Raises
    ------
    StreamError
        A named channel is not there, or a frequency does not fit the rate.
    """

    def __init__(self, spec: FilterSpec, channels: Channels, sfreq: float) -> None:
        self._picks = _pick(spec.channels, channels)
        self.channels = Channels(
            tuple(channels.names[i] for i in self._picks),
            tuple(channels.kinds[i] for i in self._picks),
            tuple(channels.units[i] for i in self._picks),
        )
        self._reference, self._referenced = _reference(spec.reference, channels)
        self._sos = design(spec, sfreq)
        self._decimate = spec.decimate
        self._state: NDArray[np.float64] | None = None
        self.sfreq = sfreq / spec.decimate

    def reset(self) -> None:
        """Forget the signal so far: the next sample is taken for the level it always had."""
        self._state = None

    def feed(self, data: NDArray[np.float64], index: int) -> tuple[NDArray[np.float32], slice]:
        """Pass samples through.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels_in), float64
            Finite; consecutive to the last call's, unless `reset` was called.
        index : int
            Grid place of the first: decimation keeps the places that divide.

        Returns
        -------
        data : ndarray, shape (n_kept, n_channels_out), float32
        kept : slice
            Which of the n samples were kept.
        """
        if self._reference is not None:
            data = data - data[:, self._reference].mean(axis=1, keepdims=True) * self._referenced
        data = data[:, self._picks]
        if len(self._sos) and len(data):
            data = self._filter(data)
        kept = slice(-index % self._decimate, None, self._decimate)
        return data[kept].astype(np.float32), kept

    def _filter(self, data: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy import signal

        if self._state is None:
            # The steady state of the first sample: an electrode's offset would ring for seconds otherwise.
            self._state = signal.sosfilt_zi(self._sos)[:, None, :] * data[0][None, :, None]
        filtered, self._state = signal.sosfilt(self._sos, np.ascontiguousarray(data.T), axis=1, zi=self._state)
        result: NDArray[np.float64] = filtered.T
        return result


def _pick(wanted: tuple[str, ...] | None, channels: Channels) -> list[int]:
    if wanted is None:
        return list(range(len(channels)))
    known = set(channels.names) | set(channels.kinds)
    if missing := [name for name in wanted if name not in known]:
        raise StreamError(f"no channel or kind {', '.join(missing)}; the stream has {', '.join(channels.names)}")
    return [
        i for i, (name, kind) in enumerate(zip(channels.names, channels.kinds, strict=True)) if {name, kind} & {*wanted}
    ]


def _reference(
    wanted: Literal["average"] | tuple[str, ...] | None, channels: Channels
) -> tuple[list[int] | None, NDArray[np.float64]]:
    eeg = [i for i, kind in enumerate(channels.kinds) if kind == "eeg"]
    mask = np.zeros(len(channels))
    mask[eeg] = 1.0
    if wanted is None:
        return None, mask
    if not eeg:
        raise StreamError(
            f"reference {wanted!r} needs EEG channels; the stream has {', '.join(sorted(set(channels.kinds)))}"
        )
    return (eeg if wanted == "average" else _pick(wanted, channels)), mask


def unfit(data: NDArray[np.float32], channels: Channels, spec: FilterSpec) -> str | None:
    """Say why a window should not be trusted, by peak-to-peak amplitude.

    Parameters
    ----------
    data : ndarray, shape (n_channels, n_times)

    Returns
    -------
    str or None
        The first channel that breaks a limit, with the limit.
    """
    if not (spec.reject_peak_to_peak or spec.flat):
        return None
    spans = np.ptp(data, axis=1)
    for name, kind, unit, span in zip(channels.names, channels.kinds, channels.units, spans.tolist(), strict=True):
        if span > spec.reject_peak_to_peak.get(kind, np.inf):
            return f"{name}: peak-to-peak {span:.3g} {unit} above {spec.reject_peak_to_peak[kind]:g}"
        if span < spec.flat.get(kind, -np.inf):
            return f"{name}: flat, peak-to-peak {span:.3g} {unit} below {spec.flat[kind]:g}"
    return None
