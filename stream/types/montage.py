"""How channels were recorded: where they sit, against what, and which are bad."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MILLI = 1e-3
"""XDF and LSL metadata have places in millimetres."""

Place = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Montage:
    """What a file or stream says about its channels beyond kind and unit.

    Attributes
    ----------
    places : tuple of (float, float, float) or None
        One entry a channel, in metres, in the recording system's own frame (EEG: the head's, MEG: the helmet's); None
        where it is not known. Empty: none is.
    reference : str
        What EEG was recorded against; empty where it is not known.
    bads : tuple of str
        Channels that whoever recorded marked as bad.
    """

    places: tuple[Place | None, ...] = ()
    reference: str = ""
    bads: tuple[str, ...] = ()

    def subset(self, picks: Sequence[int], names: Sequence[str]) -> "Montage":
        """Keep what concerns the channels at some places, which bear these names."""
        places = tuple(self.places[i] for i in picks) if self.places else ()
        return Montage(places, self.reference, tuple(name for name in self.bads if name in names))


NOTHING_KNOWN = Montage()


def side_by_side(parts: Sequence[tuple[Montage, int]]) -> Montage:
    """Merge montages of several streams, each with its number of channels; the reference is the first's."""
    places: list[Place | None] = []
    for montage, n in parts:
        places += montage.places or (None,) * n
    bads = tuple(name for montage, _ in parts for name in montage.bads)
    return Montage(tuple(places) if any(places) else (), parts[0][0].reference, bads)


def montage_of(
    names: Sequence[str], child: Callable[[int, str], str], location: Callable[[int, str], str], reference: str
) -> Montage:
    """Read a montage from LSL's metadata, as https://github.com/sccn/xdf/wiki/EEG-Meta-Data has them.

    Parameters
    ----------
    names : sequence of str
    child, location : callable
        Text of channel i's entry, and of its <location>'s entry, by name; empty where there is none.
    reference : str
    """
    places: list[Place | None] = []
    for i in range(len(names)):
        try:
            x, y, z = (float(location(i, axis)) * MILLI for axis in "XYZ")
        except ValueError:
            places.append(None)
        else:
            places.append((x, y, z) if np.isfinite([x, y, z]).all() else None)
    bads = tuple(name for i, name in enumerate(names) if child(i, "status").strip().lower() == "bad")
    return Montage(tuple(places) if any(places) else (), reference.strip(), bads)


def montage_of_raw(raw: Any, reference: str = "") -> Montage:
    """Read a montage from an mne.io.Raw."""
    places: list[Place | None] = []
    for channel in raw.info["chs"]:
        x, y, z = (float(value) for value in channel["loc"][:3])
        # mne fills what it does not know with NaN or 0.
        places.append((x, y, z) if np.isfinite([x, y, z]).all() and any((x, y, z)) else None)
    return Montage(tuple(places) if any(places) else (), reference, tuple(raw.info["bads"]))


def append_to(channel: Any, montage: Montage, i: int, name: str) -> None:
    """Write what is known of channel i into its LSL metadata."""
    if montage.places and (place := montage.places[i]):
        location = channel.append_child("location")
        for axis, metres in zip("XYZ", place, strict=True):
            location.append_child_value(axis, repr(metres / MILLI))
    if name in montage.bads:
        channel.append_child_value("status", "bad")


def to_plain(montage: Montage) -> dict[str, Any]:
    """Return a montage as plain values for JSON."""
    return {"places": montage.places, "reference": montage.reference, "bads": montage.bads}


def from_plain(content: dict[str, Any]) -> Montage:
    """Load a montage from what `to_plain` returned; an empty dict gives an empty one.

    Raises
    ------
    TypeError, ValueError, IndexError
        It is something else.
    """
    places = tuple(
        None if at is None else (float(at[0]), float(at[1]), float(at[2])) for at in content.get("places", ())
    )
    return Montage(places, str(content.get("reference", "")), tuple(map(str, content.get("bads", ()))))
