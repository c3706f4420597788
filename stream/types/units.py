"""Channel kinds and units: from what devices write to SI and MNE's names."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.errors import StreamError

_PREFIX = {
    "": 0, "kilo": 3, "k": 3, "milli": -3, "m": -3, "micro": -6, "mikro": -6, "mc": -6, "mk": -6, "u": -6,
    "nano": -9, "n": -9, "pico": -12, "p": -12, "femto": -15, "f": -15,
}  # fmt: skip
"""Power of ten; letters of either case, since nobody records brains in megavolts."""
_SPELLED = re.compile(
    r"(?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?)?(?P<prefix>kilo|milli|mi[ck]ro|nano|pico|femto|mc|mk|[kmunpf])?"
    r"(?P<unit>v(?:ol(?:ts?)?)?|t(?:eslas?)?)(?:/(?P<per>c?m))?"
)
_MICRO = re.compile("\u00c2\u00b5|\u00ce\u00bc|\x83\xca|\u00e6(?=V)|[\u00b5\u03bc\u039c]")
"""Mu, as Unicode has it twice, its capital, as UTF-8 read as Latin-1, as Shift-JIS and as DOS leave it."""
_CYRILLIC = str.maketrans("мквнп", "mkvnp")
_PURE = dict.fromkeys(("count", "counts", "spikes", "adccounts", "bits", "boolean"), "count") | {
    "z": "z", "percent": "percent", "%": "percent",
}  # fmt: skip
_OTHER = {
    "c", "degc", "celsius", "f", "degf", "k", "s", "sec", "seconds", "ms", "us", "ns", "siemens", "usiemens",
    "microsiemens", "ohm", "ohms", "kohm", "kohms", "ω", "kω", "a", "ma", "ua", "bpm", "mmhg", "db", "g", "mg", "m/s2",
    "m/s/s", "rad/s", "deg/s", "deg", "lux", "pa", "kpa", "hpa", "hz", "l/min", "l/s", "n", "aru", "m", "mm", "cm",
}  # fmt: skip
KINDS = {
    "eeg", "mag", "grad", "ref_meg", "eog", "ecg", "emg", "resp", "stim", "misc", "voxel", "unit", "seeg", "ecog",
    "dbs", "bio", "hbo", "hbr", "temperature", "gsr",
}  # fmt: skip
"""Of channels, as MNE names them."""
_ALIASES = {
    "meg": "mag", "megmag": "mag", "meggrad": "grad", "meggradaxial": "mag", "meggradplanar": "grad", "spikes": "unit",
    "fmri": "voxel", "aux": "misc", "heog": "eog", "veog": "eog", "ekg": "ecg", "respiration": "resp", "eda": "gsr",
    "temp": "temperature", "trig": "stim", "trigger": "stim", "triggers": "stim", "status": "stim", "stimulus": "stim",
    "marker": "stim", "markers": "stim", "event": "stim", "events": "stim", "ieeg": "seeg",
}  # fmt: skip
UNKNOWN = "no known unit is stated for"
"""Begins the warning about units that are not known."""
UNIT_OF_KIND = {"mag": "T", "grad": "T/m", "ref_meg": "T"} | dict.fromkeys(
    ("eeg", "eog", "ecg", "emg", "seeg", "ecog", "dbs"), "V"
)
"""The SI unit MNE keeps channels of a kind in."""

FOR_PEOPLE = {"V": (1e6, "uV"), "T": (1e15, "fT"), "T/m": (1e13, "fT/cm")}
"""By SI unit: what a number in it is multiplied by for people to read, and the name of that unit."""
USUAL = (0.01, 1e4)
"""Sizes in that unit that people read as they are; others get another prefix."""
_PREFIXES = ("", "m", "u", "n", "p", "f")


_LARGE = {"billion": 1e9, "million": 1e6, "thousand": 1e3}


def for_people(value: float, unit: str) -> str:
    """Write a size in the unit that people know it in, or by another prefix where that would be unreadable.

    Examples
    --------
    >>> for_people(1.8e-4, "V"), for_people(5.79, "V"), for_people(3.2e-12, "T"), for_people(12, "count")
    ('180 uV', '5.79 V', '3200 fT', '12 count')
    """
    factor, name = FOR_PEOPLE.get(unit, (1.0, unit))
    size = value * factor
    if unit in FOR_PEOPLE and size and not USUAL[0] <= abs(size) < USUAL[1]:
        base = name[1:]
        size *= 10.0 ** _PREFIX[name[0]]
        prefix = next((p for p in _PREFIXES if abs(size) >= 0.9995 * 10.0 ** _PREFIX[p]), _PREFIXES[-1])
        size, name = size / 10.0 ** _PREFIX[prefix], prefix + base
    return f"{size:.0f} {name}" if 100 <= abs(size) < 1e6 else f"{size:.3g} {name}"


def times(ratio: float) -> str:
    """Write how a size compares: 6 times, 58 million times, a million times, 0.05 times, a millionth of, 1/1,200 of."""
    rounded = float(f"{max(ratio, 1 / ratio) if ratio > 0 else 0.0:.2g}")
    if rounded < 100:
        return f"{ratio:.2g} times"
    word, power = next((each for each in _LARGE.items() if rounded >= each[1]), ("", 1.0))
    if ratio < 1:
        return f"a {word}th of" if rounded == power > 1 else f"1/{rounded:,.0f} of"
    number = "a" if rounded == power > 1 else f"{rounded / power:,g}"
    return " ".join(filter(None, (number, word, "times")))


def si_unit(unit: str, kind: str = "") -> tuple[str, float]:
    """Return the SI unit of `unit` and the factor that takes numbers there.

    Parameters
    ----------
    unit : str
        As a device writes it, in any case and spelling: 'uV', 'µV', 'UV', 'uVolts', 'micro volt', '[mV]', '0.1uV',
        'fT/cm', 'z', or a power of ten of the kind's SI unit ('-6' and '0': mne-lsl writes those).
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
    if kind in UNIT_OF_KIND and re.fullmatch(r"0|-\d{1,2}", text) and int(text) >= -15:
        return UNIT_OF_KIND[kind], 10.0 ** int(text)
    raise StreamError(
        f"unit {unit!r} is not known; state one of V, mV, uV, nV, T, pT, fT, T/m, fT/cm, z, percent, count"
    )


def is_known(unit: str, kind: str = "") -> bool:
    """Return whether `si_unit` knows a unit."""
    try:
        si_unit(unit, kind)
    except StreamError:
        return False
    return True


def si_units(
    names: Sequence[str], kinds: Sequence[str], texts: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.float64], list[str]]:
    """Return the SI units of a file's channels; an unknown one makes plain numbers ('count'), with a warning.

    Parameters
    ----------
    names, kinds, texts : sequence of str
        One a channel; units as the file writes them. Trigger channels are numbers whatever it writes.

    Returns
    -------
    units : tuple of str
    factors : ndarray, shape (n_channels,)
        Multiply by these.
    warnings : list of str
    """
    units, factors, unknown = [], [], []
    for name, kind, text in zip(names, kinds, texts, strict=True):
        try:
            unit, factor = ("count", 1.0) if kind == "stim" else si_unit(text, kind)
        except StreamError:
            unit, factor = "count", 1.0
            unknown += (
                [f"{name} ({text!r})" if text else name]
                if kind in UNIT_OF_KIND or text.strip().casefold() not in {"", "n/a"}
                else []
            )
        units.append(unit)
        factors.append(factor)
    warning = f"{UNKNOWN} {listing(unknown)}: taken as plain numbers ('count'); state it as source.unit"
    return tuple(units), np.array(factors), [warning] if unknown else []


def listing(names: Sequence[str], most: int = 6) -> str:
    """Join names for a message; of many, the first ones and how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def is_no_voltage(unit: str) -> bool:
    """Return whether a unit is a known one of something else: temperature, conductance, time, pressure, sound ..."""
    text = re.sub(r"[\s_\[\]().^°]", "", _MICRO.sub("u", unit)).casefold()
    return bool(text) and (text in _OTHER or _PURE.get(text) == "percent")


def channel_kind(text: str) -> str:
    """Return MNE's name of a channel kind as devices write it ('EEG', 'MEG', 'EOG', ...); 'misc' if there is none."""
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    return name if name in KINDS else "misc"


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Add numbers to names that occur more than once, as MNE does: 'Cz-0', 'Cz-1'; live and in files.

    A number that another channel bears already is passed over.
    """
    often = Counter(names)
    used = {name for name, n in often.items() if n == 1}
    distinct = []
    for name in names:
        endings = (f"{name}-{number}" for number in itertools.count())
        distinct.append(name if often[name] == 1 else next(each for each in endings if each not in used))
        used.add(distinct[-1])
    return tuple(distinct)


def number_name(stream_type: str, i: int) -> str:
    """Return the name of channel i of a stream that does not name it, the same live and in a file."""
    return f"{stream_type or 'channel'}{i + 1:03d}"


MOST_OF_UNIT = {"V": 10.0, "T": 1e-3, "T/m": 1e-3, "z": 1e6, "percent": 1e6}
"""The largest number, in an SI unit or a named pure one, that a single sample can be: no amplifier takes in 10 V, the
earth's field is 5e-5 T. Channels that stay beyond it are badly scaled rather than absurd."""
MOST_OF_OTHERS = 1e12
"""The same for counts and whatever else."""
