"""Channels of what mne has read: names, kinds and units as the file means them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.files.brainvision import read_header
from stream.files.edf import EdfFile, read_edf
from stream.types.channel_names import ChannelNames, name_channels
from stream.types.montage import montage_of_raw
from stream.types.units import UNIT_OF_KIND, is_known, is_no_voltage, listing, si_units
from stream.types.windows import Channels

_MNE_SCALES = {
    "EDF": {"\u03bcV": 1e-6, "\u00b5V": 1e-6, "\x83\xcaV": 1e-6, "uV": 1e-6, "mV": 1e-3},
    "BrainVision": {"µV": 1e-6, "uV": 1e-6, "mV": 1e-3, "nV": 1e-9, "µS": 1e-6, "uS": 1e-6},
    "EEGLAB": {"µV": 1e-6},
}
"""What mne 1.13 multiplies by, by a header's unit; by 1 where it is not listed."""
_FIFF_UNITS = {107: "V", 112: "T", 201: "T/m"}


@dataclass(frozen=True, slots=True)
class RawFile:
    """What is known of a file beside what mne made of it.

    Attributes
    ----------
    form : str
        'EDF' (BDF too), 'BrainVision', 'EEGLAB' or ''.
    units : tuple of str
        As the header writes them; microvolts for EEGLAB, whose files have none; empty for FIF, which is in SI.
    edf : EdfFile or None
    """

    form: str
    units: tuple[str, ...]
    edf: EdfFile | None


def raw_file(raw: Any, path: Path) -> RawFile:
    """Read what mne leaves out of the file that it has read."""
    name = raw.__class__.__name__
    if name in {"RawEDF", "RawBDF"}:
        edf = read_edf(path)
        return RawFile("EDF", edf.units if len(edf.units) == len(raw.ch_names) else (), edf)
    if name == "RawBrainVision":
        units = read_header(path).units
        return RawFile("BrainVision", units if len(units) == len(raw.ch_names) else ("µV",) * len(raw.ch_names), None)
    if name == "RawEEGLAB":
        return RawFile("EEGLAB", ("µV",) * len(raw.ch_names), None)
    return RawFile("", (), None)


def raw_channels(
    raw: Any, file: RawFile, stated: Mapping[str, str], *, typed: bool, reference: str
) -> tuple[Channels, NDArray[np.float64], list[str], list[str]]:
    """Return the channels, and the factors that take mne's numbers to their units.

    Returns
    -------
    channels : Channels
    factors : ndarray, shape (n_channels,)
    unit_texts : list of str
        Units as the file writes them.
    problems : list of str
    """
    types = raw.get_channel_types()
    unit_texts = list(file.units) or [_FIFF_UNITS.get(int(one["unit"]), "") for one in raw.info["chs"]]
    # mne makes up types of these forms: eeg, and misc without a place or with a unit that it does not know.
    made_up = {"EDF": {"eeg", "misc"}, "BrainVision": {"eeg", "misc"}, "EEGLAB": {"eeg"}}.get(file.form, set())
    kinds = ["" if kind in made_up and not typed else kind for kind in types]
    kinds = ["misc" if not kind and is_no_voltage(text) else kind for kind, text in zip(kinds, unit_texts, strict=True)]
    named_channels = name_channels(raw.ch_names, kinds)
    problems = list(named_channels.warnings)
    si, factors, unknown = _units(raw, file, types, named_channels, unit_texts, stated)
    problems += unknown
    slow = [
        f"{name} ({rate:g} Hz)"
        for name, rate in zip(named_channels.names, file.edf.rates if file.edf else (), strict=False)
        if rate < raw.info["sfreq"] - 1e-6
    ]
    if slow:
        problems.append(f"recorded at lower rates, and resampled to {raw.info['sfreq']:g} Hz: {listing(slow)}")
    montage = montage_of_raw(raw, reference)
    names = dict(zip(raw.ch_names, named_channels.names, strict=True))
    montage = replace(montage, bads=tuple(names[name] for name in montage.bads))
    return Channels(named_channels.names, named_channels.kinds, si, montage), factors, unit_texts, problems


def _units(
    raw: Any, file: RawFile, types: Sequence[str], said: ChannelNames, given: Sequence[str], stated: Mapping[str, str]
) -> tuple[tuple[str, ...], NDArray[np.float64], list[str]]:
    """Return SI units, and the factors from mne's numbers; the header's unit decides, then the one that is stated."""
    if not file.units:
        si = tuple(
            UNIT_OF_KIND.get(kind, "count") if kind == had or text == UNIT_OF_KIND.get(kind) else "count"
            for kind, had, text in zip(said.kinds, types, given, strict=True)
        )
        known = ["" if unit == "count" else unit for unit in si]
        return si, np.ones(len(si)), si_units(said.names, said.kinds, known)[2]
    texts = [
        text if is_known(text, kind) else stated.get(name, text)
        for name, text, kind in zip(raw.ch_names, given, said.kinds, strict=True)
    ]
    si, factors, unknown = si_units(said.names, said.kinds, texts)
    # Back to the numbers as the header means them, then to SI by our own rule.
    scales = _MNE_SCALES[file.form]
    by_mne = [
        1.0 if had == "stim" and file.form == "EDF" else scales.get(text, 1.0)
        for had, text in zip(types, given, strict=True)
    ]
    return si, factors / np.array(by_mne), unknown
