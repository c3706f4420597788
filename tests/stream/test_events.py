"""Every source names its events by one rule, live and in files."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.markers.triggers import Triggers
from stream.types.events import Event, event_of


@pytest.mark.parametrize(
    ("value", "label", "code"),
    [
        ("face", "face", None), ("12", "12", 12), (3.0, "3", 3), (12345678, "12345678", 12345678), (0.5, "0.5", None),
        (1e6, "1000000", 1000000), (np.float32(0.1), "0.1", None), (float(np.float32(0.1)), "0.1", None),
        (np.int64(2**40), str(2**40), 2**40), (-7.0, "-7", -7), (b"B\xe4r", "B\u00e4r", None),
        ("9" * 30, "9" * 30, None),
    ],
)  # fmt: skip
def test_an_event_is_named(value: str | bytes | float, label: str, code: int | None) -> None:
    """Text and numbers become labels, with a code where they are whole numbers that fit 64 bits."""
    assert event_of(1.0, value) == Event(1.0, label, code)


@pytest.mark.parametrize(("time", "value"), [(math.nan, "a"), (math.inf, "a"), (1.0, math.nan), (1.0, -math.inf)])
def test_what_is_not_finite_is_no_event(time: float, value: str | float) -> None:
    """A marker without a time, or a number that is none, gives no event."""
    assert event_of(time, value) is None


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 255.0, math.nan]), max_size=30), st.integers(1, 7))
def test_triggers_are_the_same_in_any_chunking(values: list[float], size: int) -> None:
    """The steps of a trigger channel, and a sample that is no number between them, do not hang on the chunks."""
    column = np.array(values, dtype=np.float64)
    whole = Triggers().feed(column)
    steps = Triggers()
    parts = [
        (start + at, code)
        for start in range(0, len(column), size)
        for at, code in steps.feed(column[start : start + size])
    ]
    assert parts == whole
    held = 0.0
    expected = []
    for at, value in enumerate(values):
        if math.isfinite(value) and value != held:
            held = value
            if value:
                expected.append((at, int(value)))
    assert whole == expected


def test_flags_beside_the_trigger_are_left_out() -> None:
    """Of a BDF status word only the masked bits are the trigger, also where the word is negative."""
    word = np.array([0x10000, 0x10003, 0x30003, -0x800000 + 3, 0x10000], dtype=np.float64)
    assert Triggers(0xFFFF).feed(word) == [(1, 3)]
