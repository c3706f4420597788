"""Which measurement of a clock's offset is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.offset import believed


@given(st.floats(-3, 3), st.floats(0, 1))
def test_a_machine_is_never_moved_against_itself(error: float, round_trip: float) -> None:
    """Whatever a stall does to a measurement within its round trip, streams of this machine keep their times."""
    offset = error * round_trip / 6
    assert believed(offset, round_trip, 0.0, one_machine=True) == 0.0


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
    assert believed(offset, round_trip, known, one_machine=False) == expected


def test_two_machines_of_one_name() -> None:
    """Clones of a machine share a name, not a clock."""
    assert believed(3600.0, 0.0003, None, one_machine=True) == 3600.0
