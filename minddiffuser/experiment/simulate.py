"""`minddiffuser simulate`: a simulated participant as a live amplifier, who looks at what markers name.

Of the program that shows the pictures it knows nothing but its markers; of a picture, its file.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from minddiffuser.errors import AppError
from minddiffuser.experiment.amplifier import Account, Amplifier
from minddiffuser.experiment.marker_watch import MarkerWatch
from stream.errors import SourceError
from stream.lsl.discovery import LOOK_S, describe_streams, load_lsl, matching_streams
from stream.lsl.metadata import stream_info
from stream.types.montage import Montage
from stream.types.source_spec import MarkerSelector, StreamSelector
from stream.types.windows import Channels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoder.data.stimuli import StimulusTable
    from decoder.simulation.eeg import Participant
    from decoder.simulation.ongoing import Misbehaviour
    from minddiffuser.config.spec import Config
    from stream.types.labels import LabelMatcher

Modality = Literal["eeg", "meg"]
UNITS = {"eeg": ("microvolts", 1e6), "meg": ("fT", 1e15)}
"""What amplifiers send, and how much of it is one V or T."""
LINGER_S = 0.5
"""An outlet takes with it what was not fetched yet."""


@dataclass(frozen=True, slots=True)
class SimulationSpec:
    """Who is simulated, and how.

    Attributes
    ----------
    modality : {'eeg', 'meg'} or None
        None: as the config's source says, else EEG.
    preset : {'thingslike', 'demo'} or None
    seed : int or None
        Of the participant; both: None takes the config's.
    run : int or None
        Seeds noise and variability; None: another one each time.
    sfreq : float
        Hz.
    channels : tuple of str
        Electrodes; empty: those that the config names, else 63 of a usual cap.
    """

    modality: Modality | None = None
    preset: Literal["thingslike", "demo"] | None = None
    seed: int | None = None
    run: int | None = None
    sfreq: float = 250.0
    channels: tuple[str, ...] = ()


def modality_of(config: Config, stated: Modality | None) -> Modality:
    """Return what is simulated: as stated, else as the config's data set or source says, else EEG.

    Raises
    ------
    AppError
        The data set is simulated fMRI, which no amplifier sends.
    """
    if stated:
        return stated
    if config.data.dataset == "simulated-fmri" or (config.source.type or "").strip().casefold() == "fmri":
        raise AppError(
            f"config {config.name}: a simulated amplifier sends EEG or MEG, no fMRI; use `minddiffuser demo`"
        )
    words = {config.data.dataset.removeprefix("simulated-"), (config.source.type or "").strip().casefold()}
    return "meg" if "meg" in words else "eeg"


def pictures_of(config: Config) -> tuple[StimulusTable, int]:
    """Return the pictures that markers may name, and how many of them, from the first, set the participant's tuning.

    Raises
    ------
    AppError
        The config names none.
    """
    from engine.composing.compose import load_test_stimuli
    from minddiffuser.training.data import calibration_stimuli, shown_pictures, stimulus_table

    if config.data.dataset.startswith("simulated-"):
        calibration = calibration_stimuli(config.data)
        return stimulus_table([*calibration, *load_test_stimuli()]), len(calibration)
    pictures = shown_pictures(config.data)
    if not len(pictures):
        raise AppError(
            f"config {config.name}: no pictures that a participant could look at; name a folder as data.stimuli"
        )
    return pictures, len(pictures)


def electrodes_of(config: Config, stated: Sequence[str]) -> tuple[str, ...]:
    """Return the electrodes of an EEG cap: those stated, else those that the config names, else a usual cap's."""
    from decoder.simulation.eeg import EEG_CHANNELS
    from decoder.simulation.headmodel import has_place

    by_filters = tuple(name for name in config.filters.channels or () if has_place(name))
    return tuple(stated) or config.source.channel_names or by_filters or EEG_CHANNELS


@dataclass(frozen=True, slots=True, eq=False)
class Rehearsal:
    """All that a simulated amplifier needs, made before it begins to send.

    Attributes
    ----------
    config : Config
    spec : SimulationSpec
    participant : Participant
    amplitudes : dict of str to ndarray, shape (n_sources,)
        What each picture evokes, by its id.
    labels : LabelMatcher
    markers : tuple of MarkerSelector
        Whose markers are listened to.
    """

    config: Config
    spec: SimulationSpec
    participant: Participant
    amplitudes: dict[str, NDArray[np.float32]]
    labels: LabelMatcher
    markers: tuple[MarkerSelector, ...]


def prepare(
    config: Config, spec: SimulationSpec, meanings_of: Callable[[StimulusTable], NDArray[np.float32]]
) -> Rehearsal:
    """Make the participant, and compute what each picture evokes.

    Parameters
    ----------
    config : Config
        Names the stream as `live` looks for it, its markers, and the pictures.
    spec : SimulationSpec
    meanings_of : callable
        Returns what pictures mean, an embedding of each, see `minddiffuser.experiment.meanings`; called when all else
        is well.

    Raises
    ------
    AppError, DecoderError, StreamError
        The config names no pictures or a trigger channel, the pictures do not differ, or a channel is no electrode.
    """
    from decoder.simulation.eeg import Participant
    from decoder.simulation.headmodel import check_electrodes
    from minddiffuser.training.data import matcher_of

    modality, markers = modality_of(config, spec.modality), marker_selectors(config)
    pictures, tuning = pictures_of(config)
    labels = matcher_of(pictures, config.labels)
    electrodes = electrodes_of(config, spec.channels)
    check_electrodes(electrodes)
    meanings = meanings_of(pictures)
    # As `training.data.record_waves`: offline and live, a seed is one participant.
    seed = spec.seed if spec.seed is not None else config.data.seed + config.data.subject[0] - 1
    participant = Participant(
        modality,
        spec.preset or config.data.preset,
        seed,
        pictures.images[:tuning],
        meanings[:tuning],
        channels=electrodes,
    )
    amplitudes = dict(zip(pictures.ids, participant.code(pictures.images, meanings), strict=True))
    return Rehearsal(config, spec, participant, amplitudes, labels, markers)


def simulate(
    rehearsal: Rehearsal,
    misbehaviour: Misbehaviour,
    *,
    seconds: float | None = None,
    stop: threading.Event | None = None,
    on_start: Callable[[Any], None] | None = None,
) -> Account:
    """Send a simulated participant's EEG or MEG until `stop` is set or `seconds` are over.

    Parameters
    ----------
    rehearsal : Rehearsal
    misbehaviour : Misbehaviour
    seconds : float, optional
    stop : threading.Event, optional
    on_start : callable, optional
        Called with the pylsl.StreamInfo when samples begin to be sent.

    Raises
    ------
    SourceError
        A stream of that name is there already, or there are several marker streams.
    """
    from decoder.simulation.live import LiveParticipant

    config, spec, stop = rehearsal.config, rehearsal.spec, stop or threading.Event()
    lsl = load_lsl(config.source.peers)
    info = announced(lsl, rehearsal)
    _check_alone(lsl, info)
    outlet = lsl.StreamOutlet(info)
    amplifier = Amplifier(
        LiveParticipant(rehearsal.participant, spec.sfreq, spec.run, misbehaviour),
        rehearsal.amplitudes,
        rehearsal.labels,
        begin=lsl.local_clock(),
        factor=UNITS[rehearsal.participant.modality][1],
        misbehaviour=misbehaviour,
        rng=np.random.default_rng(spec.run),
    )
    watches = [MarkerWatch(lsl, each, amplifier.mark, stop, config.source.buffer_s) for each in rehearsal.markers]
    for watch in watches:
        watch.start()
    if on_start:
        on_start(info)
    try:
        _send(lsl, outlet, amplifier, stop, seconds)
    finally:
        stop.set()
        for watch in watches:
            watch.join()
    if errors := [watch.error for watch in watches if watch.error]:
        raise errors[0]
    return amplifier.account


def announced(lsl: Any, rehearsal: Rehearsal) -> Any:
    """Return the pylsl.StreamInfo of a simulated amplifier: what the config looks for, and that it is simulated."""
    source, participant = rehearsal.config.source, rehearsal.participant
    modality = participant.modality
    sensors = channels_of(participant.info, UNITS[modality][0])
    name = source.name or f"simulated-{modality}"
    info = stream_info(
        lsl,
        name,
        source.type or modality.upper(),
        sensors,
        rehearsal.spec.sfreq,
        source.source_id or f"simulated-{modality}-{name}",
        f"simulated {modality.upper()}",
    )
    info.desc().append_child_value("simulated", "true")
    for path, value in source.properties.items():
        first, *between, last = path.split("/")
        if first == "desc":
            node = info.desc()
            for part in between:
                node = node.append_child(part) if node.child(part).empty() else node.child(part)
            node.append_child_value(last, value)
    return info


def channels_of(info: Any, unit: str) -> Channels:
    """Return the channels of an mne.Info, which are sent in a unit."""
    names = tuple(info["ch_names"])
    places = tuple((float(x), float(y), float(z)) for x, y, z in (channel["loc"][:3] for channel in info["chs"]))
    kinds = tuple(info.get_channel_types())
    return Channels(names, kinds, (unit,) * len(names), Montage(places))


def marker_selectors(config: Config) -> tuple[MarkerSelector, ...]:
    """Return whose markers are listened to: the config's marker streams, else any.

    Raises
    ------
    AppError
        The config names a trigger channel of the amplifier, which a simulated one has not.
    """
    markers = config.source.markers
    if channel := next((each.channel for each in markers if each.channel is not None), None):
        raise AppError(
            f"config {config.name}: source.markers names channel {channel!r} of the amplifier; a simulated one has no "
            "trigger channel: rehearse with markers that are a stream of their own, in a copy of the config"
        )
    return tuple(each for each in markers if each.names_stream) or (MarkerSelector(type="Markers"),)


def _check_alone(lsl: Any, info: Any) -> None:
    """Check that no stream is there that the simulated one would be taken for.

    Raises
    ------
    SourceError
        There is one.
    """
    selector = StreamSelector(name=info.name(), type=info.type())
    if there := matching_streams(lsl.resolve_streams(LOOK_S), selector, lsl=lsl):
        raise SourceError(
            f"a stream {info.name()!r} is running already, and a simulated one beside it would be taken for it: "
            f"{describe_streams(there)}; stop it, or give the simulated one another source.name"
        )


def _send(lsl: Any, outlet: Any, amplifier: Amplifier, stop: threading.Event, seconds: float | None) -> None:
    """Push what falls due; the schedule is the LSL clock's own, so that it cannot drift against it."""
    end = math.inf if seconds is None else lsl.local_clock() + seconds
    while not stop.is_set() and lsl.local_clock() < end:
        for data, stamps in amplifier.due(lsl.local_clock()):
            outlet.push_chunk(data, stamps.tolist())
        stop.wait(max(0.0, min(amplifier.next_at(), end) - lsl.local_clock()))
    stop.wait(LINGER_S)
