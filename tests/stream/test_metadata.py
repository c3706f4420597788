"""What a live stream's metadata say of its channels, and what a config may say of it."""

import uuid

import numpy as np
import pytest
from pydantic import ValidationError

from stream.epochs.follower import FollowerSpec
from stream.errors import SourceError
from stream.lsl.discovery import describe, load_lsl
from stream.types.source_spec import MarkerSelector, SourceSpec, StreamSelector
from tests.stream.amp import outlet

HEADSET = ("Timestamp", "Counter", "Interpolated", "AF3", "O1", "RawCq", "Battery", "Accelerometer X", "MarkerHardware")


def name() -> str:
    """Name a stream as no other."""
    return f"m-{uuid.uuid4().hex[:12]}"


def test_columns_nobody_asked_for() -> None:
    """A headset that calls every column EEG: what is none by its label is misc, and may lack a unit."""
    units = ["microvolts" if label in {"AF3", "O1"} else "" for label in HEADSET]
    info = outlet(name(), labels=HEADSET, unit=units, types=("EEG",) * len(HEADSET)).get_info()
    source = describe(info)
    kinds = dict(
        zip(source.channels.names, zip(source.channels.kinds, source.channels.units, strict=True), strict=True)
    )
    assert kinds["AF3"] == kinds["O1"] == ("eeg", "V")
    assert kinds["MarkerHardware"] == ("stim", "count")
    assert {kinds[label] for label in HEADSET if label not in {"AF3", "O1", "MarkerHardware"}} == {("misc", "count")}
    np.testing.assert_allclose(source.factors, [1e-6 if label in {"AF3", "O1"} else 1.0 for label in HEADSET])
    assert source.units_given == tuple(units)


def test_only_needed_channels_must_have_a_unit() -> None:
    """Electrodes that the config names must have a unit; what else lacks one is plain numbers, and said."""
    info = outlet(name(), labels=("Cz", "Pz", "X1"), unit=("uV", "uV", "furlong"), types=("EEG",) * 3).get_info()
    source = describe(info, needed=("Cz", "Pz"))
    assert source.channels.kinds == ("eeg", "eeg", "misc")
    assert "X1" in source.warnings[0]
    for needed in (None, ("X1",), ("eeg",)):
        with pytest.raises(SourceError, match=r"channel X1.*'furlong'.*source\.unit"):
            describe(info, needed=needed)
    np.testing.assert_allclose(describe(info, "mV").factors, [1e-6, 1e-6, 1e-3])


def test_a_trigger_column_is_no_quantity() -> None:
    """A trigger column keeps its codes, whatever unit the stream or the config states."""
    info = outlet(name(), labels=("Cz", "TRIGGER"), types=("EEG", "EEG")).get_info()
    source = describe(info, "mV")
    assert (source.channels.kinds, source.channels.units) == (("eeg", "stim"), ("V", "count"))
    assert source.factors[1] == 1.0


def test_doubled_names_are_numbered() -> None:
    """Channels of the same name are numbered as in a file, and it is said."""
    source = describe(outlet(name(), labels=("Cz", "Cz", "Pz")).get_info())
    assert source.channels.names == ("Cz-0", "Cz-1", "Pz")
    assert any("same name" in text for text in source.warnings)


def test_a_description_of_other_channels_is_not_believed() -> None:
    """Of metadata that describe another number of channels than are sent, no label is given to a channel."""
    lsl = load_lsl()
    info = lsl.StreamInfo(name(), "EEG", 3, 250.0, "float32", "x")
    channels = info.desc().append_child("channels")
    for label in ("Cz", "Pz"):
        channels.append_child("channel").append_child_value("label", label)
    source = describe(lsl.StreamOutlet(info).get_info(), "uV")
    assert source.channels.names == ("EEG001", "EEG002", "EEG003")
    assert any("describes 2 channels and sends 3" in text for text in source.warnings)


@pytest.mark.parametrize("spec", [SourceSpec, FollowerSpec])
def test_an_invalid_unit_is_refused_whatever_the_stream_states(spec: type[SourceSpec]) -> None:
    """A config's unit that is none is an error of the config, and of whoever reads a stream with it."""
    with pytest.raises(ValidationError, match="'bananas' is not known"):
        spec(unit="bananas")
    with pytest.raises(SourceError, match=r"source\.unit: unit 'bananas' is not known"):
        describe(outlet(name()).get_info(), "bananas")


def test_markers_of_a_config() -> None:
    """A marker stream by any selector, several, a trigger channel; not two things at once, nor an unknown key."""
    of = SourceSpec.model_validate
    assert of({"markers": {"type": "Markers"}}).markers == (MarkerSelector(type="Markers"),)
    several = of({"markers": [{"name": "a", "column": "picture"}, {"channel": "TRG"}]}).markers
    assert [(one.name, one.column, one.channel) for one in several] == [("a", "picture", None), (None, None, "TRG")]
    assert SourceSpec(markers=StreamSelector(name="a")).markers == (MarkerSelector(name="a"),)
    assert of({"markers": "a"}).markers == (MarkerSelector(name="a"),)
    assert of({"markers": None}).markers == ()
    for wrong in ({"channel": "TRG", "name": "a"}, {"colum": 1}, {"stamps": "unix"}):
        with pytest.raises(ValidationError):
            of({"markers": wrong})
    for wrong in ({"sfreq": 0}, {"sfreq": -1}, {"sfreq": float("inf")}, {"stamps": "now"}):
        with pytest.raises(ValidationError):
            of(wrong)
