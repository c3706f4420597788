"""Which measurement of a clock's offset is believed."""

from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.lsl.discovery import load_lsl
from stream.lsl.offset import WRITTEN_FOR, choose_offset, time_correction


def test_the_inner_names_of_pylsl_are_those_of_this_version() -> None:
    """What `time_correction` uses inside pylsl is there, and tells what pylsl's own call tells; look again when not."""
    assert version("pylsl").startswith(f"{WRITTEN_FOR}.")
    lsl = load_lsl(("127.0.0.1",))
    outlet = lsl.StreamOutlet(lsl.StreamInfo("offset-test", "EEG", 1, 100, "float32", "offset-test"))
    (info,) = lsl.resolve_byprop("source_id", "offset-test", 1, 10.0)
    inlet = lsl.StreamInlet(info, recover=False)
    offset, round_trip = time_correction(lsl, inlet)
    assert abs(offset - inlet.time_correction(5.0)) <= round_trip + 1e-3
    inlet.close_stream()
    del outlet


@given(st.floats(-3, 3), st.floats(0, 1))
def test_a_machine_is_never_moved_against_itself(error: float, round_trip: float) -> None:
    """Whatever a stall does to a measurement within its round trip, streams of this machine keep their times."""
    offset = error * round_trip / 6
    assert choose_offset(offset, round_trip, 0.0, one_machine=True) == 0.0


@pytest.mark.parametrize(
    ("offset", "round_trip", "known", "expected"),
    [
        (120.5, 0.0003, None, 120.5),  # the first one
        (120.5002, 0.0003, 120.5, 120.5002),  # a crystal that drifts
        (120.9, 1.0, 120.5, 120.5),  # a stall
        (90.0, 1.0, 120.5, 90.0),  # a machine that was started again, however rough
    ],
)
def test_another_machine_is_followed_but_not_through_a_stall(
    offset: float, round_trip: float, known: float | None, expected: float
) -> None:
    """A good measurement replaces the last one; a rough one only where its own error does not explain it."""
    assert choose_offset(offset, round_trip, known, one_machine=False) == expected


def test_two_machines_of_one_name() -> None:
    """Clones of a machine share a name, not a clock."""
    assert choose_offset(3600.0, 0.0003, None, one_machine=True) == 3600.0
