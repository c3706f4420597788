"""Raw samples for whoever watches, and nothing for nobody."""

import numpy as np
import pytest

from stream.lsl import tap as module
from stream.lsl.tap import Tap


def chunk(start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples that hold their own number, in two channels, at 100 Hz."""
    rows = np.arange(start, start + n, dtype=np.float64)
    return np.stack([rows, -rows], axis=1), rows / 100


def test_nothing_is_kept_while_nobody_watches() -> None:
    """Before the first look nothing is kept; from then on each sample is, as it came."""
    tap = Tap()
    tap.sfreq = 100.0
    tap.feed(*chunk(0, 50))
    assert not tap.watched
    assert tap.watch() is None
    tap.feed(*chunk(50, 30))
    tap.feed(*chunk(80, 0))
    tap.feed(*chunk(80, 20))
    ring = tap.watch()
    assert ring is not None
    segment = ring.read(0, ring.stop)
    assert segment is not None
    np.testing.assert_array_equal(segment.data[:, 0], np.arange(50, 100))
    np.testing.assert_array_equal(segment.data[:, 1], -np.arange(50, 100))
    np.testing.assert_array_equal(segment.times, np.arange(50, 100) / 100)


def test_a_watcher_who_is_gone_costs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seconds after the last look the memory is given back, and the next look begins anew."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    tap = Tap()
    tap.sfreq = 100.0
    tap.watch()
    tap.feed(*chunk(0, 10))
    now[0] += module.UNWATCHED_S - 0.1
    tap.feed(*chunk(10, 10))
    assert tap.watched
    now[0] += 0.2
    tap.feed(*chunk(20, 10))
    assert not tap.watched
    assert tap.watch() is None
    tap.feed(*chunk(30, 10))
    ring = tap.watch()
    assert ring is not None
    assert ring.stop == 10
