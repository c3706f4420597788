"""Units and kinds as devices write them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import StreamError
from stream.types.units import channel_kind, distinct_names, for_people, is_no_voltage, si_unit, si_units, times


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


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1.8e-4, "V", "180 uV"), (2e-5, "V", "20 uV"), (5.79, "V", "5.79 V"), (5.8e-2, "V", "58 mV"),
        (0.9999, "V", "1 V"), (5.79e-12, "V", "5.79 pV"), (0.0, "V", "0 uV"), (-5.79, "V", "-5.79 V"),
        (85e-15, "T", "85 fT"), (3.2e-12, "T", "3200 fT"), (3.2e-6, "T", "3.2 uT"), (2.5e-12, "T/m", "25 fT/cm"),
        (2.5e-6, "T/m", "25 nT/cm"), (12.0, "count", "12 count"), (3e7, "count", "3e+07 count"),
    ],
)  # fmt: skip
def test_sizes_are_written_as_people_know_them(value: float, unit: str, words: str) -> None:
    """The field's own unit where numbers are of its size, another prefix where they are a thousand times off."""
    assert for_people(value, unit) == words


@given(st.floats(1e-15, 1e4), st.sampled_from(["V", "T"]))
def test_no_size_that_a_device_can_send_is_written_with_an_exponent(value: float, unit: str) -> None:
    """Whatever its unit was taken for, a level is a short number with a prefix, and the same number."""
    number, name = for_people(value, unit).split(" ")
    assert "e" not in number
    assert float(number) * si_unit(name)[1] == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (6.0, "6 times"), (0.05, "0.05 times"), (1e3, "a thousand times"), (1e6, "a million times"),
        (5.8e7, "58 million times"), (1e9, "a billion times"), (240.0, "240 times"), (1e-3, "a thousandth of"),
        (1e-6, "a millionth of"), (1 / 1200, "1/1,200 of"), (0.0, "0 times"), (0.9994e6, "a million times"),
    ],
)  # fmt: skip
def test_ratios_are_written_in_words(ratio: float, words: str) -> None:
    """Powers of a thousand are the words that people have for them."""
    assert times(ratio) == words
