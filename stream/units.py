"""Channel kinds and units: from what devices write to SI and MNE's names."""

from stream.errors import StreamError

_SI_PREFIX = {"": 1.0, "k": 1e3, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
_WORDS = {
    "volt": "V", "volts": "V", "millivolt": "mV", "millivolts": "mV", "microvolt": "uV", "microvolts": "uV",
    "nanovolts": "nV", "tesla": "T", "femtotesla": "fT", "picotesla": "pT",
}  # fmt: skip
_PURE = {"z": "z", "percent": "percent", "%": "percent", "count": "count", "counts": "count", "spikes": "count"}
_GRADIENT = {"T/m": 1.0, "fT/cm": 1e-13, "pT/cm": 1e-10, "fT/m": 1e-15}
_KINDS = {
    "eeg", "mag", "grad", "ref_meg", "eog", "ecg", "emg", "resp", "stim", "misc", "voxel", "unit", "seeg", "ecog",
    "dbs", "bio", "hbo", "hbr", "temperature", "gsr",
}  # fmt: skip
_ALIASES = {"meg": "mag", "megmag": "mag", "meggrad": "grad", "spikes": "unit", "fmri": "voxel", "aux": "misc"}
UNIT_OF_KIND = {"mag": "T", "grad": "T/m", "ref_meg": "T"} | dict.fromkeys(
    ("eeg", "eog", "ecg", "emg", "seeg", "ecog", "dbs"), "V"
)
"""The SI unit MNE keeps channels of a kind in."""


def si_unit(unit: str, kind: str = "") -> tuple[str, float]:
    """Name the SI unit of `unit` and the factor that takes numbers there.

    Parameters
    ----------
    unit : str
        As a device writes it: 'uV', 'microvolts', 'fT/cm', 'z', or a power of ten of the kind's SI unit ('-6':
        mne-lsl writes those).
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
    text = unit.strip().replace("µ", "u").replace("μ", "u")
    text = _WORDS.get(text.lower(), text)
    if text in _GRADIENT:
        return "T/m", _GRADIENT[text]
    if text.lower() in _PURE:
        return _PURE[text.lower()], 1.0
    if text and text[-1] in "VT" and text[:-1] in _SI_PREFIX:
        return text[-1], _SI_PREFIX[text[:-1]]
    if kind in UNIT_OF_KIND and text.lstrip("-").isdecimal() and abs(int(text)) <= 15:
        return UNIT_OF_KIND[kind], 10.0 ** int(text)
    raise StreamError(
        f"unit {unit!r} is not known; state one of V, mV, uV, nV, T, pT, fT, T/m, fT/cm, z, percent, count"
    )


def channel_kind(text: str) -> str:
    """MNE's name of a channel kind as a device writes it ('EEG', 'MEG', 'EOG', ...); 'misc' where there is none."""
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    return name if name in _KINDS else "misc"


def number_name(stream_type: str, i: int) -> str:
    """Name channel i of a stream that does not name it, the same live and in a file."""
    return f"{stream_type or 'channel'}{i + 1:03d}"


MOST_OF_UNIT = {"V": 10.0, "T": 1e-3, "T/m": 1e-3, "z": 1e6, "percent": 1e6}
"""The largest number, in an SI unit or a named pure one, that a single sample can be: no amplifier takes in 10 V, the
earth's field is 5e-5 T. Channels that stay beyond it are badly scaled rather than absurd."""
MOST_OF_OTHERS = 1e12
"""The same for counts and whatever else."""
