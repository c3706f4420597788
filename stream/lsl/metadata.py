"""The channels of a live stream, as its metadata have them: names, kinds, units in SI; read, and written of our own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError, StreamError
from stream.types.channel_names import configured_names, kind_of, name_channels
from stream.types.montage import append_to, montage_of
from stream.types.units import UNIT_OF_KIND, channel_kind, number_name, si_unit
from stream.types.windows import Channels

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


def read_channels(
    info: Any, unit: str | None, kind: str | None, needed: Sequence[str] | None, names: Sequence[str] = ()
) -> ChannelTable:
    """Read names, kinds and units of a stream's channels.

    Kinds and names are those of `stream.types.channel_names.name_channels`, as in a file. Columns that are no signal by
    their label (time stamps, counters, battery, contact quality, accelerometers) may have no unit: they are plain
    numbers then, as trigger columns always are.

    Parameters
    ----------
    info : pylsl.StreamInfo
    unit : str or None
        Of all channels, where the metadata do not say.
    kind : str or None
        Of channels that do not say it, where the stream's type does not either.
    needed : sequence of str or None
        Names or kinds of the channels that must have a known unit; None: all.
    names : sequence of str
        Of all columns, where the metadata do not name them (`source.channel_names`).

    Raises
    ------
    SourceError
        `names` are more or fewer than the columns.
        A needed channel's unit is not known and `unit` is not given, or `unit` is no unit.
    """
    if unit is not None:
        try:
            si_unit(unit, "eeg")
        except StreamError as error:
            raise SourceError(f"source.unit: {error}") from None
    nodes, entries = _nodes(info)
    labels = [str(node.child_value("label")) or number_name(info.type(), i) for i, node in enumerate(nodes)]
    labels = list(names) or labels
    units_given = tuple(str(node.child_value("unit")) for node in nodes)
    stated = [
        _stated(str(node.child_value("type")), info.type(), kind, text)
        for node, text in zip(nodes, units_given, strict=True)
    ]
    try:
        table = configured_names(names, stated, info.name()) if names else name_channels(labels, stated)
    except StreamError as error:
        raise SourceError(str(error)) from None
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


def stream_info(
    lsl: Any, name: str, stream_type: str, channels: Channels, rate: float, source_id: str, description: str
) -> Any:
    """Describe a stream of samples, channels and all.

    Parameters
    ----------
    lsl : module
    name, stream_type, source_id : str
    channels : Channels
        Units as the samples are sent in.
    rate : float
        Samples a second of the LSL clock.
    description : str
        What is measured, and of whom or what: desc/description.

    Returns
    -------
    info : pylsl.StreamInfo
        Of float32.
    """
    info = lsl.StreamInfo(name, stream_type, len(channels), rate, "float32", source_id)
    desc = info.desc()
    desc.append_child_value("description", description)
    listed = desc.append_child("channels")
    for i, (label, kind, unit) in enumerate(zip(channels.names, channels.kinds, channels.units, strict=True)):
        channel = listed.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("type", kind.upper())
        channel.append_child_value("unit", unit)
        append_to(channel, channels.montage, i, label)
    if channels.montage.reference:
        desc.append_child("reference").append_child_value("label", channels.montage.reference)
    return info


def channel_nodes(info: Any) -> list[Any]:
    """Return the metadata of each channel that a stream describes, as pylsl's XML elements."""
    nodes, node = [], info.desc().child("channels").child("channel")
    while not node.empty():
        nodes.append(node)
        node = node.next_sibling("channel")
    return nodes


def _nodes(info: Any) -> tuple[list[Any], int]:
    """Return each channel's metadata, empty ones where they are of another number, and how many are described."""
    nodes, count = channel_nodes(info), info.channel_count()
    empty = info.desc().child("channels").child("no such channel")
    return (nodes if len(nodes) == count else [empty] * count), len(nodes)


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


def _unit(text: str, stated: str | None, kind: str, *, by_label: bool) -> tuple[str, float]:
    """Return the stream's own unit if it is known, else the config's; other things than electrodes may have none."""
    if kind == "stim":
        return "count", 1.0  # a code is no quantity, whatever unit the whole stream states
    try:
        return si_unit(text, kind)
    except StreamError:
        may = kind not in UNIT_OF_KIND and kind not in {"unit", "voxel"}
        if may and (by_label or stated is None or text.strip()):
            return "count", 1.0
        return si_unit(stated or text, kind)
