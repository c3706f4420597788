"""Counts of windows by what became of their samples, and the line that says them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.quality.rejection import Rejection, rejection_of
from stream.types.events import Event
from stream.types.windows import Channels, Quality, Window

CHANNELS = Channels(("Oz", "TP9"), ("eeg", "eeg"), ("V", "V"))
OVER = "over its limit"


def window(label: str = "cat", **quality: object) -> Window:
    """Make a window that matters by its label and quality only."""
    data = np.zeros((2, 4), np.float32)
    return Window("0", data, CHANNELS, 100.0, 0.0, 0.0, Event(0.0, label), 1.0, 1.0, Quality(**quality))  # type: ignore[arg-type]


def test_line_tells_what_was_used_and_why_the_rest_was_not() -> None:
    """Markers, used windows, limits in microvolts with channels by frequency, and the other causes in one line."""
    windows = [
        *[window() for _ in range(5)],
        window(interpolated=("Oz",)),
        *[window(rejected=OVER, cause="limit", channels=("Oz",)) for _ in range(3)],
        window(rejected=OVER, cause="limit", channels=("TP9", "Oz")),
        window(rejected="3 samples lost", cause="gap", samples_lost=3),
        window("dog"),
    ]
    answer = rejection_of(windows, {"cat"}, {"eeg": ("V", [150e-6, 180e-6])})
    assert answer == Rejection(
        text="12 markers, 6 used; 4 over 150-180 uV (Oz 4, TP9 1); 1 with samples missing; 1 named no picture; "
        "1 of the used with a channel interpolated",
        markers=12,
        used=6,
        rejected={"limit": 4, "gap": 1},
        unmatched=1,
        interpolated=1,
        channels={"Oz": 4, "TP9": 1},
        limits={"eeg": {"unit": "uV", "lowest": 150.0, "highest": 180.0}},
    )
    assert list(answer.channels) == ["Oz", "TP9"]


@given(st.lists(st.sampled_from(["used", "limit", "flat", "level", "gap", "samples", "unmatched"])))
def test_every_window_is_counted_once(fates: list[str]) -> None:
    """Used, rejected and unmatched windows add up to the markers."""
    windows = [
        window("dog" if fate == "unmatched" else "cat")
        if fate in {"used", "unmatched"}
        else window(rejected=fate, cause=fate)
        for fate in fates
    ]
    answer = rejection_of(windows, {"cat"})
    assert answer.markers == len(fates) == answer.used + sum(answer.rejected.values()) + answer.unmatched
    assert answer.used == fates.count("used")
    assert answer.text.startswith(f"{len(fates)} marker")
