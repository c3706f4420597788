"""`minddiffuser present --timing`: how long after its marker the light comes, by a photodiode on the patch.

The photodiode's stream and the markers go through the program's own recorder and reader, so the delay that comes out is
the one between a marker and its light in the windows that a decoder gets, whatever it is made of: the way from the
graphics driver to the glass, and how late an amplifier stamps its samples.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.config.edit import set_value
from minddiffuser.errors import AppError
from minddiffuser.experiment.present import LINGER_S, MarkerOutlet
from stream.lsl.discovery import find, load_lsl

if TYPE_CHECKING:
    from minddiffuser.config.spec import Config
    from minddiffuser.experiment.screen import Screen
    from stream.types.source_spec import StreamSelector

logger = logging.getLogger(__name__)

MARKERS = "minddiffuser-timing"
FLASH = "flash"
LIT, DARK = (3, 8), (6, 12)
"""Frames of light and of dark, the fewest and the most: drawn anew each time, so that neither another flash nor the
end of one can be taken for its beginning."""
FARTHEST_S = 0.5
"""Between a marker and its light, in either direction."""
NEAR_S = 0.05
"""A flash belongs to a marker if it is no farther from where the delay of most puts it."""
ENOUGH = 0.9
"""Share of flashes that must have been seen before anything is said of the delay."""
SPURIOUS = 1.3
"""Onsets of light for each flash; more are noise, or the flicker of other light."""
SETTLE_S = 0.5
"""Between the first and the last flash and the ends of the recording."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What a photodiode says of the markers.

    Attributes
    ----------
    flashes, seen : int
        Shown, and found in the photodiode's channel.
    delay_ms, sd_ms : float
        Median and standard deviation of light minus marker.
    range_ms : (float, float)
        The smallest and the largest.
    frames, dropped : int
    frame_ms : float
    steady : bool
        Whether 95 % of the delays lie within one frame (and sample).
    verdict : str
    """

    flashes: int
    seen: int
    delay_ms: float
    sd_ms: float
    range_ms: tuple[float, float]
    frames: int
    dropped: int
    frame_ms: float
    steady: bool
    verdict: str


def onsets(times: NDArray[np.float64], light: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Find when a signal rises through the middle between dark and light.

    Parameters
    ----------
    times : ndarray, shape (n,)
    light : ndarray, shape (n,)
        Numbers of any unit; between flashes it must fall below a quarter of its height again.

    Returns
    -------
    ndarray, shape (n_onsets,)
        Interpolated between samples.
    """
    dark, lit = np.percentile(light, [10, 90])
    if not lit > dark:
        return np.empty(0)
    height = (light - dark) / (lit - dark)
    found, armed = [], False
    for place in np.flatnonzero((height < 0.25) | (height >= 0.5)):
        if height[place] < 0.25:
            armed = True
        elif armed:
            low, high = height[place - 1], height[place]
            share = (0.5 - low) / (high - low) if high > low else 1.0
            found.append(times[place - 1] + share * (times[place] - times[place - 1]))
            armed = False
    return np.array(found)


def delays(stamps: NDArray[np.float64], lights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Match markers with flashes of light at the delay that fits the most of them.

    Parameters
    ----------
    stamps, lights : ndarray
        Times of markers and of onsets of light, in seconds.

    Returns
    -------
    ndarray, shape (n_seen,)
        Light minus marker of each marker whose flash was found.
    """
    differences = lights[None, :] - stamps[:, None]
    near = differences[np.abs(differences) <= FARTHEST_S]
    if not len(near):
        return np.empty(0)
    counts = [np.count_nonzero(np.abs(near - each) < NEAR_S / 5) for each in near]
    common = float(np.median(near[np.abs(near - near[int(np.argmax(counts))]) < NEAR_S / 5]))
    closest: NDArray[np.float64] = differences[np.arange(len(stamps)), np.abs(differences - common).argmin(axis=1)]
    return closest[np.abs(closest - common) < NEAR_S]


def judge(
    stamps: NDArray[np.float64],
    times: NDArray[np.float64],
    light: NDArray[np.floating[Any]],
    *,
    frame_s: float,
    frames: int,
    dropped: int,
    where: str = "the photodiode's channel",
) -> Timing:
    """Compute delays from markers to light, and say what they are worth.

    Parameters
    ----------
    stamps : ndarray, shape (n_flashes,)
        Times of the markers.
    times, light : ndarray, shape (n_samples,)
        The photodiode; light may raise or lower its numbers.
    frame_s : float
        Seconds a frame.
    frames, dropped : int
    where : str
        Names the channel in errors.

    Raises
    ------
    AppError
        The light of too many flashes is not in the channel.
    """
    lights = [onsets(times, sign * light) for sign in (1, -1)]
    both = [delays(stamps, each if len(each) <= SPURIOUS * len(stamps) else np.empty(0)) for each in lights]
    # The end of a flash follows its beginning by a drawn number of frames, and so fits fewer markers.
    steadier = max(both, key=lambda found: (len(found) >= ENOUGH * len(stamps), -np.std(found) if len(found) else 0.0))
    if len(steadier) < ENOUGH * len(stamps):
        raise AppError(
            f"{len(steadier)} of {len(stamps)} flashes are to be seen in {where}: is the photodiode over the patch, "
            "nothing covering it, and is this its channel?"
        )
    sample = float(np.median(np.diff(times)))
    low, high = np.percentile(steadier, [2.5, 97.5])
    steady = bool(high - low <= frame_s + sample)
    median = float(np.median(steadier))
    words = (
        f"steady: light comes {abs(median) * 1e3:.1f} ms {'after' if median >= 0 else 'before'} its marker, and 95 % "
        f"of flashes lie within {(high - low) * 1e3:.1f} ms"
    )
    if not steady:
        words = (
            f"not steady: the delay varies by {(high - low) * 1e3:.1f} ms, more than a frame ({frame_s * 1e3:.1f} ms), "
            "which no correction mends: full screen, vertical synchronisation on, no compositor, no other program"
        )
    if dropped:
        words += f"; {dropped} of {frames} frames were dropped"
    return Timing(
        flashes=len(stamps),
        seen=len(steadier),
        delay_ms=round(median * 1e3, 3),
        sd_ms=round(float(np.std(steadier)) * 1e3, 3),
        range_ms=(round(float(steadier.min()) * 1e3, 3), round(float(steadier.max()) * 1e3, 3)),
        frames=frames,
        dropped=dropped,
        frame_ms=round(frame_s * 1e3, 3),
        steady=steady,
        verdict=words,
    )


def photodiode_of(config: Config) -> tuple[StreamSelector, str]:
    """Return stream and channel of the photodiode, once both are there.

    Raises
    ------
    AppError, stream.errors.SourceError
        The config names none, its stream is not there, or has no such channel.
    """
    from stream.lsl.metadata import read_channels
    from stream.types.source_spec import StreamSelector

    if config.experiment.photodiode is None:
        raise AppError(
            "no photodiode is named: set experiment.photodiode: {channel: NAME} (and stream: {name: ...}, where it is "
            "not the source's) in the config"
        )
    spec, source = config.experiment.photodiode, config.source
    own = spec.stream is None
    selector = spec.stream or StreamSelector(**source.model_dump(include=set(StreamSelector.model_fields)))
    lsl = load_lsl(source.peers)
    info = find(selector, source.timeout_s, lsl=lsl)
    inlet = lsl.StreamInlet(info)
    try:
        full = inlet.info(source.timeout_s)
    finally:
        inlet.close_stream()
    table = read_channels(full, source.unit if own else None, None, (), source.channel_names if own else ())
    if spec.channel not in table.channels.names:
        names = ", ".join(table.channels.names[:12])
        raise AppError(
            f"stream {info.name()!r} has no channel {spec.channel!r} (experiment.photodiode); it has {names}"
        )
    return StreamSelector(name=info.name(), source_id=info.source_id() or None), spec.channel


def measure(config: Config, screen: Screen, flashes: int, stop: threading.Event) -> Timing:
    """Flash the patch, record markers and photodiode, and compute their delays.

    Raises
    ------
    AppError, stream.errors.StreamError
        See `photodiode_of` and `judge`; or stopped before the end.
    """
    from stream.files.formats.mne_files import apply_reading_spec
    from stream.files.registry import read
    from stream.recording.record import record
    from stream.types.recording import choose_streams
    from stream.types.source_spec import StreamSelector

    selector, channel = photodiode_of(config)
    outlet = MarkerOutlet(MARKERS)
    with tempfile.TemporaryDirectory(prefix="minddiffuser-timing-") as folder:
        file = Path(folder) / "timing.xdf"
        over, failed = threading.Event(), list[Exception]()

        def work() -> None:
            try:
                record(file, [selector, StreamSelector(name=MARKERS)], stop=over, peers=config.source.peers)
            except Exception as error:  # raised again where it is waited for
                failed.append(error)

        recording = threading.Thread(target=work)
        recording.start()
        try:
            frames = _flash(screen, flashes, outlet.push, lambda: outlet.read or bool(failed), stop)
        finally:
            over.set()
            recording.join()
        if failed:
            raise failed[0]
        if stop.is_set():
            raise AppError("stopped before the timing was measured; nothing is changed")
        content = read(file)
        if config.experiment.photodiode and config.experiment.photodiode.stream is None:
            content = apply_reading_spec(content, config.source)
    stream = choose_streams(content, selector)[0]
    light = stream.data[:, stream.channels.names.index(channel)]
    stamps = np.array([event.time for event in content.events if event.label == FLASH])
    where = f"channel {channel!r} of stream {stream.name!r}"
    return judge(stamps, stream.times, light, frame_s=screen.period, frames=frames, dropped=screen.dropped, where=where)


def record_delay(config_file: Path, timing: Timing) -> None:
    """Set `window.delay` of a config file to the median delay.

    Raises
    ------
    minddiffuser.errors.ConfigError
        The file leaves no place for it; names the line to add by hand.
    """
    comment = f"s from marker to light, median of {timing.seen} flashes by present --timing"
    set_value(config_file, "window", "delay", round(timing.delay_ms / 1e3, 4), comment)


def _flash(
    screen: Screen,
    flashes: int,
    push: Callable[[str, float], None],
    ready: Callable[[], bool],
    stop: threading.Event,
) -> int:
    """Flash the patch once somebody records; return how many frames that took."""
    rng = np.random.default_rng()
    while not ready() and not stop.wait(0.02):
        screen.draw()
        screen.flip()
        screen.presses()
    plan = [(lit, int(rng.integers(*span))) for _ in range(flashes) for lit, span in ((False, DARK), (True, LIT))]
    quiet = round(SETTLE_S / screen.period)
    plan = [(False, quiet), *plan, (False, quiet)]
    for lit in (True, False):
        screen.draw(lit=lit)
    screen.rest()
    screen.dropped = 0
    for lit, frames in plan:
        for frame in range(frames):
            screen.draw(lit=lit)
            time = screen.flip()
            if lit and frame == 0:
                push(FLASH, time)
            if any(name == "escape" for name, _ in screen.presses()):
                stop.set()
        if stop.is_set():
            break
    stop.wait(LINGER_S)
    return sum(frames for _, frames in plan)
