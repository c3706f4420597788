"""Names and kinds of channels, from the labels that devices and file formats give them: one rule, live and in files."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stream.errors import StreamError
from stream.types.units import channel_kind, distinct_names

_PREFIX = re.compile(r"(?:EEG|SEEG|ECOG)[ _:-]+(?=.*[a-z])", re.IGNORECASE)
"""Of EDF's labels ('EEG Fp1-REF'); 'EEG 001', where only a number would be left, keeps it."""
_REFERENCE = re.compile(r"[-_ ](?:ref|le|ar|avg|ave|av|car)(?=(?:-\d+)?$)", re.IGNORECASE)
"""What names a common reference; a bipolar channel ('Fpz-Cz') keeps its second electrode."""
_BY_NAME = (
    ("eog", re.compile(r".*eog.*|[hv]eo[glrud]?|loc|roc")),
    ("ecg", re.compile(r".*(ecg|ekg).*")),
    ("emg", re.compile(r".*emg.*|chin.*")),
    ("gsr", re.compile(r"gsr|eda|scr|scl|galvanic.*|skincond.*")),
    ("resp", re.compile(r"resp.*|breath.*|airflow.*")),
    ("temperature", re.compile(r"temp|temperature.*|temprectal")),
    (
        "stim",
        re.compile(r"status|sti|stim(ulus)?|(event|stim|hardware)?(trig(ger)?|trg|marker)s?|markerhardware|"
                   r"(trigger|stim(ulus)?|event)(channel|in|input|code|stream)?|events|ttl|din|digital(in(put)?|ios?)"),
    ),
    (
        "misc",
        re.compile(r"(time|sample)?(stamp|count|counter|index|number)s?|time|samples?|packet.*|sequence.*|battery.*|"
                   r"cq.*|rawcq|(contact|signal|link)?quality.*|validation.*|impedance.*|interpolated?|acc[xyz]?|accel.*|gyro.*|(right|left)?aux.*|"
                   r"audio.*|mic(rophone)?|photo(diode|sensor|cell)?|light.*|ppg.*|plet(h.*)?|s[ap]o|heartrate|erg"),
    ),
)  # fmt: skip
"""What the letters of a label tell, after 'EEG ' and the reference are off; the first that fits."""
_CTF = re.compile(r"M[LRZ][CFOPT]\d\d(-\d+)?")
_OPEN = {"", "eeg", "misc"}
"""Kinds that say little: many formats and devices call every channel so."""


_ELECTRODE = re.compile(
    r"(n|fp|af|f|ft|fc|c|t|tp|cp|p|po|o|i|afp|aff|fft|ffc|ftt|fcc|ttp|ccp|tpp|cpp|ppo|poo|oi|a|m)(z|\d{1,2}h?)"
    r"|(eeg|ch|chan|channel|elec|electrode|e)[ _-]?\d+",
    re.IGNORECASE,
)
"""Of the 10-05 system, or a number."""


@dataclass(frozen=True, slots=True)
class ChannelNames:
    """Channels by their labels.

    Attributes
    ----------
    names, kinds : tuple of str
        One entry a channel; no name occurs twice.
    warnings : tuple of str
        In plain words; empty where labels and stated kinds agree.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def is_electrode(label: str) -> bool:
    """Return whether a label is an electrode's of the 10-05 system ('Fp1', 'EEG Cz-REF'), or numbers one ('E17')."""
    return _ELECTRODE.fullmatch(_short(label)) is not None


def kind_of(label: str) -> str:
    """Return the kind that a channel's label tells ('HEOG', 'EKG1-REF', 'STI 014', 'Battery'); '' where it does not."""
    if _CTF.fullmatch(label.strip()):
        return "mag"
    letters = re.sub(r"[^a-z]", "", _short(label).casefold())
    prefix = channel_kind(label.split(maxsplit=1)[0]) if len(label.split()) > 1 else "misc"
    by_name = next((kind for kind, pattern in _BY_NAME if pattern.fullmatch(letters)), "")
    return by_name or ("" if prefix == "misc" else prefix)


def configured_names(names: Sequence[str], kinds: Sequence[str], stream: str) -> ChannelNames:
    """Return the columns of a stream, named as its config states (`source.channel_names`).

    Parameters
    ----------
    names : sequence of str
        Electrodes of the 10-05 system are EEG, others what their names tell.
    kinds : sequence of str
        Of the columns, as the stream states them.
    stream : str

    Raises
    ------
    StreamError
        There are not as many names as columns.
    """
    if len(names) != len(kinds):
        raise StreamError(
            f"source.channel_names names {len(names)} columns, and stream {stream!r} has {len(kinds)}: name each, "
            "in order"
        )
    channels = name_channels(
        names, ["eeg" if is_electrode(n) and k in _OPEN else k for n, k in zip(names, kinds, strict=True)]
    )
    return ChannelNames(channels.names, channels.kinds)


def name_channels(labels: Sequence[str], stated_kinds: Sequence[str]) -> ChannelNames:
    """Return the names and kinds of channels.

    'EEG Fp1-REF' and 'Fp1.' become 'Fp1'; a name that occurs several times is numbered, see `distinct_names`. A label
    that tells a kind rules over a stated 'eeg' or 'misc', which devices give to all of their channels.

    Parameters
    ----------
    labels : sequence of str
        One a channel, as the file or the stream has them.
    stated_kinds : sequence of str
        Kind of each channel as the file or the stream states it; '' where it does not: then it is 'eeg' unless its
        label tells another.
    """
    labels = [" ".join(label.split()) for label in labels]
    short = [_short(label) for label in labels]
    of_label, of_short = Counter(labels), Counter(short)
    # Two channels that differ only by what was left out keep their whole labels.
    chosen = [name if of_label[label] == of_short[name] else label for name, label in zip(short, labels, strict=True)]
    names = distinct_names(chosen)
    warnings = []
    if duplicates := sorted(name for name, n in Counter(chosen).items() if n > 1):
        warnings.append(f"channels of the same name are numbered: {', '.join(duplicates)}")
    kinds, renamed = [], []
    for name, label, kind in zip(names, labels, stated_kinds, strict=True):
        by_label = kind_of(label) if kind in _OPEN else ""
        kinds.append(by_label or kind or "eeg")
        renamed += [f"{name} ({by_label})"] if kind == "eeg" and kinds[-1] != "eeg" else []
    if renamed:
        warnings.append(f"called eeg, and taken for what their names say: {', '.join(renamed)}")
    return ChannelNames(names, tuple(kinds), tuple(warnings))


def _short(label: str) -> str:
    """Remove from a label what is no part of the electrode's name."""
    bare = _PREFIX.sub("", _REFERENCE.sub("", label.strip()), count=1).rstrip(". ")
    return bare or label.strip()
