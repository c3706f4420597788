"""The channels of a live stream, as its metadata have them: names, kinds, units in SI."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.channel_names import is_auxiliary, named
from stream.errors import SourceError, StreamError
from stream.montage import montage_of
from stream.units import UNIT_OF_KIND, channel_kind, number_name, si_unit
from stream.windows import Channels


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
    units_given = tuple(str(node.child_value("unit")) for node in nodes)
    stated = [channel_kind(str(node.child_value("type"))) if node.child_value("type") else usual for node in nodes]
    described = named(labels, stated, units_given)
    names = described.names
    kinds, units, factors, unknown = [], [], [], []
    for name, label, one, text in zip(names, labels, described.kinds, units_given, strict=True):
        kind_read, si, factor = one, "count", 1.0
        # A code is no quantity, nor is a counter, whatever unit the whole stream states.
        plain = one == "stim" or (one == "misc" and is_auxiliary(label, text))
        if not plain:
            try:
                si, factor = _unit(text, unit, one)
            except StreamError as error:
                if needed is None or name in needed or label in needed or one in needed:
                    raise SourceError(f"stream {info.name()!r}, channel {name}: {error} as source.unit") from None
                unknown.append(name)
                kind_read = "misc"
        kinds.append(kind_read)
        units.append(si)
        factors.append(factor)
    warnings = [f"stream {info.name()!r}: {warning}" for warning in described.warnings]
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
