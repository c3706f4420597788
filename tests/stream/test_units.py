"""Units and kinds as devices write them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import StreamError
from stream.units import channel_kind, distinct_names, is_no_voltage, si_unit, si_units


@pytest.mark.parametrize(
    ("text", "kind", "unit", "factor"),
    [
        ("uV", "eeg", "V", 1e-6),
        ("µV", "eeg", "V", 1e-6),
        ("microvolts", "eeg", "V", 1e-6),
        ("mV", "eeg", "V", 1e-3),
        ("V", "eeg", "V", 1.0),
        ("fT", "mag", "T", 1e-15),
        ("fT/cm", "grad", "T/m", 1e-13),
        ("-6", "eeg", "V", 1e-6),
        ("0", "eeg", "V", 1.0),
        ("Microvol", "eeg", "V", 1e-6),  # an EDF header has room for eight letters
        ("Mikrovolt", "eeg", "V", 1e-6),
        ("\u00e6V", "eeg", "V", 1e-6),
        ("z", "voxel", "z", 1.0),
        ("Count", "unit", "count", 1.0),
    ],
)
def test_known_units(text: str, kind: str, unit: str, factor: float) -> None:
    """A unit a device may write becomes its SI unit and the right factor."""
    name, found = si_unit(text, kind)
    assert name == unit
    assert found == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("text", ["", "parsec", "uA", "-6V", "99", "1", "3"])
def test_unknown_unit_is_refused(text: str) -> None:
    """A unit that is not known is named in the error and not guessed."""
    with pytest.raises(StreamError, match="not known"):
        si_unit(text, "eeg")


def test_power_of_ten_needs_a_kind() -> None:
    """A bare exponent means nothing for a channel without an SI unit."""
    with pytest.raises(StreamError):
        si_unit("-6", "voxel")


def test_kinds() -> None:
    """Device names of kinds become MNE's; what is not known is 'misc'."""
    assert [channel_kind(text) for text in ("EEG", "MEG", "MEGGRAD", "VOXEL", "whatever")] == [
        "eeg", "mag", "grad", "voxel", "misc",
    ]  # fmt: skip


SPELLED = {
    1e-6: ["u", "µ", "μ", "micro", "mc", "мк", "\u00c2\u00b5", "\u00ce\u00bc", "\x83\xca", "micro ", "micro-", "µ "],
    1e-3: ["m", "milli", "milli "],
    1e-9: ["n", "nano"],
    1.0: [""],
}


@settings(deadline=None)
@given(
    st.sampled_from(list(SPELLED)),
    st.data(),
    st.sampled_from(["V", "Volt", "volts"]),
    st.sampled_from(["{}", " {} ", "[{}]", "({})", "{}."]),
    st.sampled_from([str, str.lower, str.upper]),
    st.sampled_from([("", 1.0), ("0.1", 0.1), ("10 ", 10.0), ("1e-6 ", 1e-6)]),
)
def test_volts_in_any_spelling(
    factor: float, data: st.DataObject, word: str, around: str, case: object, number: tuple[str, float]
) -> None:
    """Prefix, word, case, brackets, blanks and a number before it make no other unit."""
    prefix = data.draw(st.sampled_from(SPELLED[factor]))
    # The bytes of mu in another encoding have no case.
    text = prefix + word if prefix[:1] in "\u00c2\u00ce\x83" and prefix else case(prefix + word)  # type: ignore[operator]
    unit, found = si_unit(around.format(number[0] + text), "eeg")
    assert unit == "V"
    assert found == pytest.approx(factor * number[1], rel=1e-12)


@pytest.mark.parametrize("text", ["uA", "V/m", "uV/cm", "0uV", "-6 V", "n/a", "Vs", "TV", "micro", "u"])
def test_what_only_looks_like_volts(text: str) -> None:
    """Another quantity is not taken for volts."""
    with pytest.raises(StreamError, match="not known"):
        si_unit(text, "eeg")


def test_units_of_a_file() -> None:
    """Channels without a known unit are numbers and named with what was written; a trigger has none."""
    units, factors, said = si_units(["a", "b", "c", "d"], ["eeg", "eeg", "stim", "misc"], ["uv", "foo", "uV", ""])
    assert units == ("V", "count", "count", "count")
    assert factors.tolist() == [1e-6, 1, 1, 1]
    (line,) = said
    assert "b ('foo')" in line
    assert " a" not in line.partition(":")[0].removeprefix("no known unit is stated")


def test_other_quantities() -> None:
    """Known units of something else than a voltage are told."""
    assert all(is_no_voltage(text) for text in ("°C", "degC", "uS", "bpm", "mmHg", "%", "kOhm"))
    assert not any(is_no_voltage(text) for text in ("", "uV", "count", "foo"))


def test_numbered_names() -> None:
    """A number that is another channel's name is passed over."""
    assert distinct_names(["Cz", "Pz", "Cz", "Cz-0"]) == ("Cz-1", "Pz", "Cz-2", "Cz-0")
