"""The channels of a live stream, as its metadata have them: names, kinds, units in SI."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError, StreamError
from stream.montage import montage_of
from stream.units import UNIT_OF_KIND, channel_kind, distinct_names, number_name, si_unit
from stream.windows import Channels

_TRIGGER = re.compile(r"(trig\w*|trg\w*|status|sti(m\w*)?|ttl|din|markers?|events?)[ _-]*\d*", re.IGNORECASE)
_AUXILIARY = re.compile(
    r"time|timestamps?|stamps?|unix\w*|counter|packets?|package|sequence|seq|frame|battery\w*|charging|rssi|cq|rawcq"
    r"|quality|impedances?|valid|validation|checksum|interpolated|saturation|dropped|flags?|errors?|accel\w*|acc[xyz]"
    r"|gyr|gyro\w*|magnet\w*|imu|quaternion|rotation|orientation|marker\w*"
)
_DOUBTFUL = {"acc", "contact", "power", "voltage", "count", "cnt", "sample", "samples", "light", "index", "temp", "ppg"}
"""Words that name an electrode or a signal too: such a column is auxiliary without a unit, or with an axis beside."""
_AXES = {"x", "y", "z"}
_OVERRULED = {*UNIT_OF_KIND, "misc"}  # temperature, respiration and the like are what they say


@dataclass(frozen=True, slots=True)
class ChannelTable:
    """The channels of a stream.

    Attributes
    ----------
    channels : Channels
        SI units.
    factors : ndarray, shape (n_channels,)
        Multiply the stream's numbers by these to get SI units.
    units_given : tuple of str
        As the stream writes them.
    warnings : tuple of str
    """

    channels: Channels
    factors: NDArray[np.float64]
    units_given: tuple[str, ...]
    warnings: tuple[str, ...]


def read_channels(info: Any, unit: str | None, kind: str | None, needed: Sequence[str] | None) -> ChannelTable:
    """Read names, kinds and units of a stream's channels.

    Columns that are no signal by their label (time stamps, counters, battery, contact quality, accelerometers) are
    plain numbers of kind 'misc', whatever type they state; trigger columns likewise of kind 'stim'.

    Parameters
    ----------
    info : pylsl.StreamInfo
    unit : str or None
        Of all channels, where the metadata do not say.
    kind : str or None
        Of channels that do not say it, where the stream's type does not either.
    needed : sequence of str or None
        Names or kinds of the channels that must have a known unit; None: all.

    Raises
    ------
    SourceError
        A needed channel's unit is not known and `unit` is not given, or `unit` is no unit.
    """
    if unit is not None:
        try:
            si_unit(unit, "eeg")
        except StreamError as error:
            raise SourceError(f"source.unit: {error}") from None
    usual = channel_kind(info.type())
    if usual == "misc" and kind:
        usual = channel_kind(kind)
    nodes = []
    node = info.desc().child("channels").child("channel")
    for _ in range(info.channel_count()):
        nodes.append(node)
        node = node.next_sibling("channel")
    labels = [str(node.child_value("label")) or number_name(info.type(), i) for i, node in enumerate(nodes)]
    names = distinct_names(labels)
    units_given = tuple(str(node.child_value("unit")) for node in nodes)
    kinds, units, factors, unknown = [], [], [], []
    for name, label, node, text in zip(names, labels, nodes, units_given, strict=True):
        stated = channel_kind(str(node.child_value("type"))) if node.child_value("type") else usual
        one = kind_by_label(label, stated, text)
        si, factor = "count", 1.0
        # A code is no quantity, nor is a counter, whatever unit the whole stream states.
        plain = one == "stim" or (one == "misc" and _auxiliary(label, text))
        if not plain:
            try:
                si, factor = _unit(text, unit, one)
            except StreamError as error:
                if needed is None or name in needed or label in needed or one in needed:
                    raise SourceError(f"stream {info.name()!r}, channel {name}: {error} as source.unit") from None
                unknown.append(name)
                one = "misc"
        kinds.append(one)
        units.append(si)
        factors.append(factor)
    warnings = []
    if names != labels:
        doubled = dict.fromkeys(label for label in labels if labels.count(label) > 1)
        warnings.append(
            f"stream {info.name()!r} has channels of the same name ({', '.join(doubled)}): they are numbered from 0"
        )
    if unknown:
        warnings.append(
            f"stream {info.name()!r}: no known unit is stated for {', '.join(unknown)}: taken as plain numbers"
        )
    montage = montage_of(
        names,
        lambda i, key: str(nodes[i].child_value(key)),
        lambda i, axis: str(nodes[i].child("location").child_value(axis)),
        str(info.desc().child("reference").child_value("label")),
    )
    channels = Channels(tuple(names), tuple(kinds), tuple(units), montage)
    return ChannelTable(channels, np.array(factors), units_given, tuple(warnings))


def kind_by_label(label: str, stated: str, unit: str = "") -> str:
    """Return a column's kind: 'stim' or 'misc' where its label says that it is no signal, else the stated one.

    Parameters
    ----------
    label : str
    stated : str
        The kind by the column's own type, or the stream's.
    unit : str
        As the stream writes it.
    """
    if stated == "stim" or _TRIGGER.fullmatch(label.strip()):
        return "stim"
    return "misc" if stated in _OVERRULED and _auxiliary(label, unit) else stated


def _auxiliary(label: str, unit: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", label)]
    doubtful = not _DOUBTFUL.isdisjoint(words) and (not unit.strip() or not _AXES.isdisjoint(words))
    return doubtful or any(_AUXILIARY.fullmatch(word) for word in words)


def trigger_channel(channels: Channels) -> str | None:
    """Choose the trigger channel of a stream, as MNE does: STI101, else STI014, else the only one; None without any.

    Raises
    ------
    SourceError
        There are several; lists them.
    """
    names = [name for name, kind in zip(channels.names, channels.kinds, strict=True) if kind == "stim"]
    first = [name for wanted in ("STI101", "STI014") for name in names if name.replace(" ", "").upper() == wanted]
    if first:
        return first[0]
    if len(names) > 1:
        raise SourceError(
            f"several trigger channels ({', '.join(names)}): name one as source.markers: {{channel: {names[0]}}}"
        )
    return names[0] if names else None


def _unit(text: str, stated: str | None, kind: str) -> tuple[str, float]:
    """Take the stream's own unit if it is known, else the config's; other things than electrodes may have none."""
    try:
        return si_unit(text, kind)
    except StreamError:
        if kind not in UNIT_OF_KIND and kind not in {"unit", "voxel"} and (stated is None or text.strip()):
            return "count", 1.0
        return si_unit(stated or text, kind)
