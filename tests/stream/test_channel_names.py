"""Names and kinds of channels by their labels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.types.channel_names import kind_of, name_channels

ELECTRODES = ("Fp1", "AFz", "T7", "C3", "Cz", "M1", "A2", "O2", "POz", "FCC1h", "E17", "LA1")


@settings(deadline=None)
@given(
    st.sampled_from(ELECTRODES),
    st.sampled_from(["", "EEG ", "eeg ", "EEG  ", "EEG_", "EEG-", "EEG:"]),
    st.sampled_from(["", "-REF", "-Ref", "-ref", "-LE", "-AVG", " REF", "_ref", ".", ".."]),
    st.sampled_from(["", "eeg"]),
)
def test_an_electrode_in_any_spelling(name: str, prefix: str, suffix: str, stated: str) -> None:
    """Prefix and reference are no part of an electrode's name."""
    found = name_channels([f" {prefix}{name}{suffix} "], [stated])
    assert (found.names, found.kinds, found.warnings) == ((name,), ("eeg",), ())


@pytest.mark.parametrize(
    ("label", "name", "kind"),
    [
        ("VEOG", "VEOG", "eog"), ("hEOG", "hEOG", "eog"), ("EOG left", "EOG left", "eog"), ("VEOL", "VEOL", "eog"),
        ("ECG", "ECG", "ecg"), ("EKG1-REF", "EKG1", "ecg"), ("EEG EKG1-LE", "EKG1", "ecg"),
        ("EMG chin", "EMG chin", "emg"), ("Resp nasal", "Resp nasal", "resp"), ("GSR1", "GSR1", "gsr"),
        ("Temp rectal", "Temp rectal", "temperature"), ("STATUS", "STATUS", "stim"),
        ("Trigger", "Trigger", "stim"), ("STI 014", "STI 014", "stim"), ("STI101", "STI101", "stim"),
        ("TRIG1", "TRIG1", "stim"), ("Markers", "Markers", "stim"), ("DIN4", "DIN4", "stim"),
        ("Timestamp", "Timestamp", "misc"), ("COUNTER", "COUNTER", "misc"),
        ("BatteryPercent", "BatteryPercent", "misc"), ("CQ_AF3", "CQ_AF3", "misc"),
        ("Right AUX", "Right AUX", "misc"), ("AccX", "AccX", "misc"), ("MLC11", "MLC11", "mag"),
        ("MEG 0111", "MEG 0111", "mag"), ("EEG 001", "EEG 001", "eeg"), ("EEG Fpz-Cz", "Fpz-Cz", "eeg"),
        ("EEG Fp1-REF-1", "Fp1-1", "eeg"), ("ramp", "ramp", "eeg"),
    ],
)  # fmt: skip
def test_labels_that_tell_a_kind(label: str, name: str, kind: str) -> None:
    """A label tells the kind, whether none is stated or 'eeg' is."""
    for stated in ("", "eeg"):
        found = name_channels([label], [stated])
        assert (found.names, found.kinds) == ((name,), (kind,))


def test_what_is_stated_rules_where_it_says_something() -> None:
    """A stated kind other than eeg and misc stays, and a label that overrules eeg is said."""
    found = name_channels(["HEOG", "ECG", "Cz", "Oz"], ["eeg", "bio", "misc", "seeg"])
    assert found.kinds == ("eog", "bio", "misc", "seeg")
    assert found.warnings == ("called eeg, and taken for what their names say: HEOG (eog)",)


def test_channels_that_differ_by_their_reference_alone() -> None:
    """Where leaving out the reference would make two names one, the whole labels stay."""
    assert name_channels(["EEG Fp1-REF", "EEG Fp1-LE", "EEG Cz-REF"], [""] * 3).names == (
        "EEG Fp1-REF",
        "EEG Fp1-LE",
        "Cz",
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from(["Cz", "Cz.", "EEG Cz-REF", "Pz", "Cz-0", "Cz-1", "", "EEG"]), max_size=12))
def test_no_two_channels_bear_one_name(labels: list[str]) -> None:
    """Names are distinct, whatever a file calls its channels, and doubled ones are said."""
    found = name_channels(labels, [""] * len(labels))
    assert len(set(found.names)) == len(labels)
    assert bool(found.warnings) == (len(set(labels)) < len(labels))


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_label(label: str) -> None:
    """No label is too strange."""
    assert isinstance(kind_of(label), str)
    assert len(name_channels([label, label], ["", ""]).names) == 2
