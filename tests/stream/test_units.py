"""Units and kinds as devices write them."""

import pytest

from stream.errors import StreamError
from stream.units import channel_kind, si_unit


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
        ("z", "voxel", "z", 1.0),
        ("Count", "unit", "count", 1.0),
    ],
)
def test_known_units(text: str, kind: str, unit: str, factor: float) -> None:
    """A unit a device may write becomes its SI unit and the right factor."""
    name, found = si_unit(text, kind)
    assert name == unit
    assert found == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("text", ["", "parsec", "uA", "-6V", "99"])
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
