"""One recording in many forms: the same channels, units, values, events and labels, or what a form lacks is said."""

import numpy as np
import pytest

from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.files.registry import read
from stream.types.recording import RecordedStream, Recording
from tests.datafolder import data_set

pytestmark = pytest.mark.real

FORMS = {
    "bv_export_bv_txt_bin_multi.vhdr": 1e-12,
    "bv_export_bv_txt_bin_vector_16bit.vhdr": 0.5 * 0.35450548e-6,
    "bv_export_bv_txt_txt_multi.vhdr": 1e-9,
    "bv_export_bv_txt_bin_multi.set": 1e-12,
    "bv_export_bv_txt_bin_multi3.set": 1e-12,
    "bv_export_edf+.edf": 0.7e-6,
    "bv_export_edf.edf": 0.7e-6,
}
"""By form: how far its numbers may be from those of 32 bits, in volts."""
EOG = ("HEOG", "VEOG")
N = 4722
ONSETS = (141, 423, 744, 1302, 1583, 1875, 2373, 2653, 3017, 3530, 3811, 4164)
LABELS = ("s10", "s11", "s12") * 4


def of(name: str) -> Recording:
    """Read one of the forms."""
    return read(data_set("one_recording_many_formats") / name)


def reference() -> RecordedStream:
    """Read the form that loses nothing."""
    return of("bv_export_bv_txt_bin_multi.vhdr").streams[0]


@pytest.mark.parametrize("name", FORMS)
def test_channels_units_and_values(name: str) -> None:
    """34 channels of the same names, kinds and units, and the same volts to the form's precision."""
    stream, first = of(name).streams[0], reference()
    assert stream.channels.names == first.channels.names
    assert (len(stream.channels), stream.channels.names[0], stream.channels.names[-2:]) == (34, "Fp1", EOG)
    assert stream.channels.kinds == tuple("eog" if each in EOG else "eeg" for each in stream.channels.names)
    assert stream.channels.units == ("V",) * 34
    assert stream.sfreq == 512
    # EDF+'s exporter has lost the last sample.
    n = N - 1 if name == "bv_export_edf+.edf" else N
    assert np.abs(stream.data[:n] - first.data[:n]).max() <= FORMS[name] + 1e-9
    np.testing.assert_allclose(stream.times[:N], np.arange(N) / 512, atol=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_events_and_labels(name: str) -> None:
    """The same twelve events by the same labels on the same samples; plain EDF, which holds none, says so."""
    recording = of(name)
    if name == "bv_export_edf.edf":
        assert recording.events == ()
        assert any(line.startswith("no events") for line in recording.warnings)
        return
    assert tuple(event.label for event in recording.events) == LABELS
    assert [event.code for event in recording.events] == [10, 11, 12] * 4
    np.testing.assert_allclose([event.time for event in recording.events], np.array(ONSETS) / 512, atol=1e-9)
    windows = list(windows_of(recording, WindowSpec(tmin=0, tmax=0.2), FilterSpec()))
    assert len(windows) == 12
    assert not any(window.quality.rejected for window in windows)
    np.testing.assert_allclose(windows[3].data[0], reference().data[1302:1404, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["bv_export_edf+.edf", "bv_export_edf.edf"])
def test_what_edf_adds_to_fill_its_last_record_is_bad(name: str) -> None:
    """EDF holds whole records: what fills the last one is marked, said, and in no window."""
    recording = of(name)
    (segment,) = recording.streams[0].bad
    assert segment.start == pytest.approx(N / 512, abs=1.1 / 512)
    assert segment.start + segment.length == pytest.approx(10.0)
    assert any("fill" in line for line in recording.warnings)


def test_segments_are_joined_by_joints() -> None:
    """Twelve segments of half a second: eleven joints, the same labels, and none of the software's own marks."""
    recording = of("bv_segexport_bin.vhdr")
    (stream,) = recording.streams
    assert stream.channels == reference().channels
    assert tuple(event.label for event in recording.events) == LABELS
    assert [segment.start for segment in stream.bad] == [0.5 * i for i in range(1, 12)]
    assert {segment.length for segment in stream.bad} == {0.0}
    first = reference().data
    for i, onset in enumerate(ONSETS):
        np.testing.assert_allclose(stream.data[256 * i : 256 * (i + 1)], first[onset : onset + 256], atol=1e-9)


def test_signals_of_a_generator() -> None:
    """A file of test signals: 100 uV of a square wave, kinds by their labels, marks of start and end as events."""
    (stream,) = of("test_generator_2.edf").streams
    assert stream.channels.names[:4] == ("squarewave", "ramp", "pulse", "ECG")
    assert stream.channels.kinds.index("ecg") == 3
    assert np.abs(stream.data[:, 0]).max() == pytest.approx(1e-4, rel=1e-3)


def test_example_files_of_xdf() -> None:
    """Clock resets and footers of the makers' own example files are read; what they do not state is said."""
    recording = read(data_set("xdf_example_files") / "clock_resets.xdf")
    assert (len(recording.events), recording.events[0].stream) == (175, "MyMarkerStream")
    assert any("no known unit is stated for EEG001" in line for line in recording.warnings)
