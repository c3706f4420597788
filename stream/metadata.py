"""The channels of a live stream, as its metadata have them: names, kinds, units in SI."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.channel_names import kind_of, named
from stream.errors import SourceError, StreamError
from stream.montage import montage_of
from stream.units import UNIT_OF_KIND, channel_kind, number_name, si_unit
from stream.windows import Channels

NO_TYPE = {"", "signal", "signals", "data", "raw", "timeseries", "unknown"}
"""Stream types that say nothing of what is measured."""


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

    Kinds and names are those of `stream.channel_names.named`, as in a file. Columns that are no signal by their label
    (time stamps, counters, battery, contact quality, accelerometers) may have no unit: they are plain numbers then, as
    trigger columns always are.

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
    nodes, entries = _nodes(info)
    labels = [str(node.child_value("label")) or number_name(info.type(), i) for i, node in enumerate(nodes)]
    units_given = tuple(str(node.child_value("unit")) for node in nodes)
    stated = [
        _stated(str(node.child_value("type")), info.type(), kind, text)
        for node, text in zip(nodes, units_given, strict=True)
    ]
    table = named(labels, stated)
    names, kinds = table.names, list(table.kinds)
    units, factors, unknown = [], [], []
    for i, (name, label, text) in enumerate(zip(names, labels, units_given, strict=True)):
        try:
            si, factor = _unit(text, unit, kinds[i], by_label=kind_of(label) == "misc")
        except StreamError as error:
            if needed is None or not {name, label, kinds[i]}.isdisjoint(needed):
                raise SourceError(f"stream {info.name()!r}, channel {name}: {error} as source.unit") from None
            unknown.append(name)
            kinds[i], si, factor = "misc", "count", 1.0
        units.append(si)
        factors.append(factor)
    warnings = [f"stream {info.name()!r}: {text}" for text in table.warnings]
    if entries not in {0, len(nodes)}:
        warnings.append(
            f"stream {info.name()!r} describes {entries} channels and sends {len(nodes)}: they are numbered instead"
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
    channels = Channels(names, tuple(kinds), tuple(units), montage)
    return ChannelTable(channels, np.array(factors), units_given, tuple(warnings))


def _nodes(info: Any) -> tuple[list[Any], int]:
    """Return each channel's metadata, empty ones where they are of another number, and how many are described."""
    nodes, node = [], info.desc().child("channels").child("channel")
    while not node.empty():
        nodes.append(node)
        node = node.next_sibling("channel")
    count = info.channel_count()
    return (nodes if len(nodes) == count else [node] * count), len(nodes)


def _stated(of_channel: str, of_stream: str, wanted: str | None, unit: str) -> str:
    """Return the kind that the metadata state; '' where nothing is stated of a column that has a unit of the body's."""
    if of_channel.strip():
        return channel_kind(of_channel)
    usual = channel_kind(of_stream)
    if usual == "misc" and wanted:
        usual = channel_kind(wanted)
    if usual == "misc" and of_stream.strip().casefold() in NO_TYPE:
        try:
            return "" if si_unit(unit)[0] == "V" else usual
        except StreamError:
            return usual
    return usual


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


def _unit(text: str, stated: str | None, kind: str, *, by_label: bool) -> tuple[str, float]:
    """Take the stream's own unit if it is known, else the config's; other things than electrodes may have none."""
    if kind == "stim":
        return "count", 1.0  # a code is no quantity, whatever unit the whole stream states
    try:
        return si_unit(text, kind)
    except StreamError:
        may = kind not in UNIT_OF_KIND and kind not in {"unit", "voxel"}
        if may and (by_label or stated is None or text.strip()):
            return "count", 1.0
        return si_unit(stated or text, kind)
