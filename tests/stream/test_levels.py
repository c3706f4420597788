"""Levels that channels can have, and those that show a wrong unit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.types.levels import PLAUSIBLE, implausible, levels, unlikely
from stream.types.windows import Channels

RNG = np.random.default_rng(0)


@settings(deadline=None)
@given(st.floats(-1.0, 1.0), st.floats(1e-6, 1e-3), st.integers(0, 4), st.sampled_from([0.0, 100.0, 250.0]))
def test_an_offset_and_an_artefact_are_no_level(offset: float, spread: float, artefacts: int, sfreq: float) -> None:
    """Whatever the offset of an amplifier's input, and whatever a few seconds hold, the level is the signal's."""
    data = np.random.default_rng(1).normal(0, spread, (5000, 1)) + offset
    for i in range(artefacts):
        data[1000 * i + 500] += 1.0
    data[2000:2010] = np.nan
    assert levels(data, sfreq)[0] == pytest.approx(spread, rel=0.2)


def test_flat_and_empty_channels() -> None:
    """A flat channel has level 0, one without a number none; neither tells a unit."""
    data = np.stack([np.full(500, 3.0), np.full(500, np.nan), RNG.normal(0, 2e-5, 500)], axis=1)
    assert levels(data, 100.0)[0] == 0
    assert np.isnan(levels(data, 100.0)[1])
    assert unlikely(Channels(("a", "b", "c"), ("eeg",) * 3, ("V",) * 3), data, 100.0) == ()


@pytest.mark.parametrize("power", [-9, -6, -3, 3, 6])
@pytest.mark.parametrize("kind", ["eeg", "ecog", "mag"])
def test_a_unit_that_is_wrong_by_a_thousand_is_told(kind: str, power: int) -> None:
    """A usual level in another unit is implausible, and the text names the two units."""
    ((_, unit),) = [pair for pair in PLAUSIBLE if pair[0] == kind]
    usual = PLAUSIBLE[kind, unit][1]
    assert implausible(kind, unit, usual) is None
    text = implausible(kind, unit, usual * 10.0**power)
    if kind == "eeg":
        names = {
            3: "volts, written in millivolts",
            6: "volts, written in microvolts",
            -3: "millivolts, written in volts",
            -6: "microvolts, written in volts",
            -9: "nanovolts, written in volts",
        }
        assert text is not None
        assert names[power] in text
    elif abs(power) >= 6:
        assert text is not None


def test_channels_of_one_kind_share_a_line() -> None:
    """Many channels are one line, which names some."""
    n = 20
    channels = Channels(tuple(f"E{i}" for i in range(n)), ("eeg",) * n, ("V",) * n)
    (line,) = unlikely(channels, RNG.normal(0, 12, (1000, n)), 100.0)
    assert line.startswith("E0, E1, E2, E3, E4, E5 and 14 more: 12 V rms")


@pytest.mark.parametrize(
    ("kind", "unit"), [("eeg", "count"), ("voxel", "count"), ("misc", "V"), ("unit", "count"), ("eeg", "z")]
)
def test_what_has_no_unit_has_no_wrong_level(kind: str, unit: str) -> None:
    """Plain numbers may be of any size."""
    assert implausible(kind, unit, 1e9) is None
