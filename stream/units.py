"""Channel kinds and units: from what devices write to SI and MNE's names."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from stream.errors import StreamError

_PREFIX = {
    "": 0, "kilo": 3, "k": 3, "milli": -3, "m": -3, "micro": -6, "mc": -6, "mk": -6, "u": -6, "nano": -9, "n": -9,
    "pico": -12, "p": -12, "femto": -15, "f": -15,
}  # fmt: skip
"""Power of ten; letters of either case, since nobody records brains in megavolts."""
_SPELLED = re.compile(
    r"(?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?)?(?P<prefix>kilo|milli|micro|nano|pico|femto|mc|mk|[kmunpf])?"
    r"(?P<unit>v(?:olts?)?|t(?:eslas?)?)(?:/(?P<per>c?m))?"
)
_MICRO = re.compile("\u00c2\u00b5|\u00ce\u00bc|\x83\xca|\u00b5|\u03bc")
"""Mu, as Unicode has it twice, as UTF-8 read as Latin-1 and as Shift-JIS leave it."""
_CYRILLIC = str.maketrans("мквнп", "mkvnp")
_PURE = dict.fromkeys(("count", "counts", "spikes", "adccounts", "bits", "boolean"), "count") | {
    "z": "z", "percent": "percent", "%": "percent",
}  # fmt: skip
_KINDS = {
    "eeg", "mag", "grad", "ref_meg", "eog", "ecg", "emg", "resp", "stim", "misc", "voxel", "unit", "seeg", "ecog",
    "dbs", "bio", "hbo", "hbr", "temperature", "gsr",
}  # fmt: skip
_ALIASES = {
    "meg": "mag", "megmag": "mag", "meggrad": "grad", "meggradaxial": "mag", "meggradplanar": "grad", "spikes": "unit",
    "fmri": "voxel", "aux": "misc", "heog": "eog", "veog": "eog", "ekg": "ecg", "respiration": "resp", "eda": "gsr",
    "temp": "temperature", "trig": "stim", "trigger": "stim", "triggers": "stim", "status": "stim", "stimulus": "stim",
    "marker": "stim", "markers": "stim", "event": "stim", "events": "stim", "ieeg": "seeg",
}  # fmt: skip
UNIT_OF_KIND = {"mag": "T", "grad": "T/m", "ref_meg": "T"} | dict.fromkeys(
    ("eeg", "eog", "ecg", "emg", "seeg", "ecog", "dbs"), "V"
)
"""The SI unit MNE keeps channels of a kind in."""


def si_unit(unit: str, kind: str = "") -> tuple[str, float]:
    """Name the SI unit of `unit` and the factor that takes numbers there.

    Parameters
    ----------
    unit : str
        As a device writes it, in any case and spelling: 'uV', 'µV', 'UV', 'uVolts', 'micro volt', '[mV]', '0.1uV',
        'fT/cm', 'z', or a power of ten of the kind's SI unit ('-6': mne-lsl writes those).
    kind : str
        Channel kind; only needed for powers of ten.

    Returns
    -------
    unit : str
        'V', 'T', 'T/m' or a pure number's name.
    factor : float
        Multiply by this.

    Raises
    ------
    StreamError
        The unit is not known.
    """
    text = _MICRO.sub("u", unit).casefold().translate(_CYRILLIC)
    text = re.sub(r"[\s_\[\]()]|(?<=[a-z])-(?=[a-z])|\.$", "", text)
    if text in _PURE:
        return _PURE[text], 1.0
    if spelled := _SPELLED.fullmatch(text):
        number, prefix, name, per = spelled.group("number", "prefix", "unit", "per")
        power = _PREFIX[prefix or ""] + (2 if per == "cm" else 0)
        factor = float(number or 1) * float(f"1e{power}")
        if factor and (name[0] == "t" or not per):
            return name[0].upper() + ("/m" if per else ""), factor
    if kind in UNIT_OF_KIND and re.fullmatch(r"-?\d{1,2}", text) and abs(int(text)) <= 15:
        return UNIT_OF_KIND[kind], 10.0 ** int(text)
    raise StreamError(
        f"unit {unit!r} is not known; state one of V, mV, uV, nV, T, pT, fT, T/m, fT/cm, z, percent, count"
    )


def channel_kind(text: str) -> str:
    """MNE's name of a channel kind as a device writes it ('EEG', 'MEG', 'EOG', ...); 'misc' where there is none."""
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    return name if name in _KINDS else "misc"


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Number the names that occur more than once, as MNE does: 'Cz-0', 'Cz-1'; live and in files.

    A number that another channel bears already is passed over.
    """
    often = Counter(names)
    taken = {name for name, n in often.items() if n == 1}
    distinct = []
    for name in names:
        endings = (f"{name}-{number}" for number in itertools.count())
        distinct.append(name if often[name] == 1 else next(each for each in endings if each not in taken))
        taken.add(distinct[-1])
    return tuple(distinct)


def number_name(stream_type: str, i: int) -> str:
    """Name channel i of a stream that does not name it, the same live and in a file."""
    return f"{stream_type or 'channel'}{i + 1:03d}"
