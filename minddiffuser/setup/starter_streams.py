"""What streams now, as far as a new config needs to know it: what each stream is, and the mains hum in it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.setup.recipes import from_headset, recipe_of
from stream.errors import SourceError
from stream.lsl.discovery import LOOK_S, SAMPLED, Source, describe, duplicates_of, is_markers, load_lsl
from stream.lsl.metadata import channel_nodes
from stream.types.levels import PLAUSIBLE, levels

if TYPE_CHECKING:
    from collections.abc import Sequence

MAINS = (50, 60)
HUM = 4.0
"""How many times the power beside it the mains frequency must have to be seen."""
BESIDE_HZ = (2.0, 5.0)
"""From where to where, on both sides, the spectrum beside it is taken."""
AT_HZ = 0.75


@dataclass(frozen=True, slots=True)
class Running:
    """A data stream that runs.

    Attributes
    ----------
    source : Source
        Its channels in SI units; where it states no unit, as if in `unit`.
    unit : str
        The unit that its numbers must be in where it states none; '' where it states one.
    data : ndarray, shape (n, n_channels)
        What it sent while it was listened to, in the channels' units; without rows where it sent nothing.
    mains : int or None
        50 or 60, where a hum of it is seen in `data`.
    names : tuple of str
        What its columns are called by the recipe of its app, where it does not name them itself.
    twin_names : bool
        Whether another data stream bears its name.
    """

    source: Source
    unit: str
    data: NDArray[np.float64] = field(repr=False)
    mains: int | None
    names: tuple[str, ...] = ()
    twin_names: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its channels that windows are cut from: of electrodes and sensors, else all but the rest."""
        counts = Counter(self.source.channels.kinds)
        sampled = [kind for kind in counts if kind in SAMPLED]
        return tuple(sampled or [kind for kind in counts if kind not in {"misc", "stim"}])

    def __str__(self) -> str:
        kinds = Counter(self.source.channels.kinds)
        parts = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        return f"{self.source.name} (type {self.source.type or 'not stated'}, {parts}, {self.source.sfreq:g} Hz)"


def look(
    seconds: float, peers: tuple[str, ...] = ("127.0.0.1",), stop: threading.Event | None = None
) -> tuple[list[Running], list[str]]:
    """Listen to all streams that run.

    Parameters
    ----------
    seconds : float
        How long, for the spectrum.
    peers : tuple of str
        Machines asked directly, where multicast does not reach.
    stop : threading.Event, optional

    Returns
    -------
    streams : list of Running
        Data streams, the likeliest source first.
    markers : list of str
        Names of marker streams.

    Raises
    ------
    SourceError
        liblsl is not installed, or two data streams carry one source id.
    """
    lsl = load_lsl(peers)
    found = lsl.resolve_streams(LOOK_S) or lsl.resolve_streams(LOOK_S)
    data = [info for info in found if not is_markers(info)]
    for info in data:
        if len(duplicates_of(info, found)) > 1:
            raise SourceError(f"two streams carry source_id {info.source_id()!r}, their samples would mix; stop one")
    inlets = [(info, lsl.StreamInlet(info, max_buflen=30, recover=False)) for info in data]
    try:
        listened = _listen(inlets, seconds, stop or threading.Event(), lsl)
    finally:
        for _, inlet in inlets:
            inlet.close_stream()
    names = Counter(info.name() for info in data)
    streams = [_running(info, rows, twins=names[info.name()] > 1) for info, rows in listened if info is not None]
    markers = sorted(info.name() for info in found if is_markers(info))
    return sorted(streams, key=_likelihood, reverse=True), markers


def _listen(
    inlets: Sequence[tuple[Any, Any]], seconds: float, stop: threading.Event, lsl: Any
) -> list[tuple[Any, NDArray[np.float64]]]:
    """Collect what each stream sends; its full metadata, and its numbers."""
    infos = []
    for _, inlet in inlets:
        try:
            infos.append(inlet.info(5.0))
            inlet.open_stream(5.0)
        except (lsl.util.TimeoutError, lsl.util.LostError):
            infos.append(None)
    rows: list[list[list[float]]] = [[] for _ in inlets]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not stop.wait(0.02):
        for own, info, (_, inlet) in zip(rows, infos, inlets, strict=True):
            if info is not None:
                own.extend(inlet.pull_chunk(timeout=0.0, max_samples=4096)[0])
    return [
        (info, np.array(own, dtype=np.float64).reshape(len(own), resolved.channel_count()))
        for (resolved, _), info, own in zip(inlets, infos, rows, strict=True)
    ]


def _running(info: Any, rows: NDArray[np.float64], *, twins: bool) -> Running:
    """Describe a stream; what it does not state is taken from the recipe of its app, else from its numbers."""
    recipe = recipe_of(info.name(), info.channel_count())
    known = from_headset(recipe).values["source"] if recipe else {}
    labelled = any(node.child_value("label") for node in channel_nodes(info)[:1])
    names = tuple(known.get("channel_names", ()))
    names = names if not labelled and len(names) == info.channel_count() else ()
    rate = float(info.nominal_srate())
    try:
        source, unit = describe(info, needed=tuple(SAMPLED), names=names), ""
    except SourceError:
        unit = known.get("unit") or likely_unit(rows, rate)
        source = describe(info, unit, sfreq=rate or 1.0, needed=(), names=names)
    data = rows * source.factors
    places = [i for i, kind in enumerate(source.channels.kinds) if kind in SAMPLED]
    return Running(source, unit, data, hum(data[:, places], source.sfreq), names=names, twin_names=twins)


def _likelihood(stream: Running) -> tuple[bool, bool, int]:
    kinds = Counter(stream.source.channels.kinds)
    return bool(SAMPLED & set(kinds)), stream.source.type.casefold() in {"eeg", "meg"}, len(stream.source.channels)


def likely_unit(rows: NDArray[np.float64], sfreq: float) -> str:
    """Guess the unit of EEG from its level: of V, mV, uV and nV the one in which it is nearest to what EEG usually has.

    Parameters
    ----------
    rows : ndarray, shape (n, n_channels)
        As the stream sends them.
    sfreq : float
    """
    found = levels(rows, sfreq) if len(rows) > 1 else np.empty(0)
    found = found[np.isfinite(found) & (found > 0)]
    if not len(found):
        return "uV"
    usual, level = PLAUSIBLE["eeg", "V"][1], float(np.median(found))
    factors = {"uV": 1e-6, "mV": 1e-3, "V": 1.0, "nV": 1e-9}
    return min(factors, key=lambda unit: abs(np.log10(level * factors[unit] / usual)))


def hum(data: NDArray[np.float64], sfreq: float) -> int | None:
    """Find the mains frequency whose hum is in a signal.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels)
    sfreq : float
        0 for an irregular stream.

    Returns
    -------
    int or None
        50 or 60 Hz, the one that stands out more over the spectrum beside it; None where neither does, the signal is
        shorter than a second, or the rate is too low to tell.
    """
    finite = data[:, np.isfinite(data).all(axis=0)] if len(data) else data
    if not sfreq or len(finite) < sfreq or not finite.shape[1]:
        return None
    window = np.hanning(len(finite))[:, None]
    power = np.abs(np.fft.rfft((finite - finite.mean(axis=0)) * window, axis=0)) ** 2
    frequencies = np.fft.rfftfreq(len(finite), 1 / sfreq)
    heights = {}
    for mains in MAINS:
        distance = np.abs(frequencies - mains)
        at, beside = distance <= AT_HZ, (distance >= BESIDE_HZ[0]) & (distance <= BESIDE_HZ[1])
        if frequencies[-1] < mains + BESIDE_HZ[0] or not at.any():
            continue
        floor = power[beside].mean(axis=0)
        height = np.divide(power[at].max(axis=0), floor, where=floor > 0, out=np.zeros(len(floor)))
        heights[mains] = float(np.median(height))
    best = max(heights, key=lambda mains: heights[mains], default=None)
    return best if best is not None and heights[best] >= HUM else None
