"""Recipes by headset: the start of a config, with its reasons."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minddiffuser.config.yamlfile import read_yaml
from minddiffuser.errors import AppError
from minddiffuser.shipped import CONFIGS
from stream.types.channel_names import is_electrode

if TYPE_CHECKING:
    pass


HEADSETS = CONFIGS / "headsets"


STREAMS = {
    "Muse*": "muse", "EmotivDataStream-EEG": "emotiv", "UN-????.??.??": "unicorn", "Unicorn*": "unicorn",
    "g.USBamp": "g-usbamp", "BrainVision RDA": "brainvision-rda", "BrainAmpSeries-*": "brainamp",
    "LiveAmpSN-*": "liveamp", "eegoSports*": "eego", "BioSemi": "biosemi", "WS-default": "dsi",
    "obci_eeg?": "openbci-cyton",
}  # fmt: skip
"""What the apps of the recipes call their streams."""


GANGLION = 4
"""Channels of the one OpenBCI board; the GUI calls the streams of all boards alike."""


Reasons = dict[tuple[str, ...], str]


@dataclass(slots=True)
class Draft:
    """A config that is not written yet.

    Attributes
    ----------
    values : dict
        As a config file has them.
    reasons : dict of tuple of str to str
        By key: why it is set so.
    about : list of str
        What stands at the top, a paragraph an entry.
    mains : int or None
        As measured.
    electrodes : int or None
        How many there are, where that is known.
    markers : tuple of str
        Names of the marker streams that ran.
    """

    values: dict[str, Any]
    reasons: Reasons = field(default_factory=dict)
    about: list[str] = field(default_factory=list)
    mains: int | None = None
    electrodes: int | None = None
    markers: tuple[str, ...] = ()

    def set(self, part: str, key: str, value: object, reason: str = "") -> None:
        """Set a value of a part of the config, or take it out where it is None."""
        section = self.values.setdefault(part, {})
        section.pop(key, None)
        self.reasons.pop((part, key), None)
        if value is not None:
            section[key] = value
            if reason:
                self.reasons[part, key] = reason


def headsets() -> list[str]:
    """Return the names of the recipes."""
    return sorted(path.stem for path in HEADSETS.glob("*.yaml"))


def from_headset(name: str) -> Draft:
    """Draft a config from the recipe of a headset.

    Raises
    ------
    AppError
        There is none of that name.
    """
    import difflib

    if name not in headsets():
        near = difflib.get_close_matches(name, headsets(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise AppError(f"--headset {name}: no such recipe{hint}; there are {', '.join(headsets())}")
    path = HEADSETS / f"{name}.yaml"
    comments = [line.removeprefix("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
    values = read_yaml(path).values
    named = values["source"].get("channel_names", ())
    return Draft(values, {}, [" ".join(comments)], electrodes=sum(map(is_electrode, named)) or None)


def recipe_of(stream: str, columns: int) -> str | None:
    """Return the recipe whose app calls its stream so; None where none is known to."""
    name = next((recipe for pattern, recipe in STREAMS.items() if fnmatch.fnmatchcase(stream, pattern)), None)
    return "openbci-ganglion" if name == "openbci-cyton" and columns == GANGLION else name
