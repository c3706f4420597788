"""The ring buffer."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.ring import Ring


@given(st.integers(1, 40), st.lists(st.integers(0, 60), max_size=12), st.integers(0, 300), st.integers(1, 40))
def test_reads_what_was_written_or_says_no(capacity: int, chunks: list[int], start: int, n: int) -> None:
    """Any stretch that is still there comes back exactly; any other is None, and an overrun if it was once there."""
    ring, total = Ring(capacity, 2), 0
    for size in chunks:
        values = np.arange(total, total + size)
        ring.write(np.stack([values, -values], axis=1).astype(np.float32), values / 10, present=size % 2 == 0)
        total += size
    out = ring.read(start, start + n)
    if max(0, total - capacity) <= start and start + n <= total:
        assert out is not None
        np.testing.assert_array_equal(out.data[:, 0], np.arange(start, start + n))
        np.testing.assert_array_equal(out.times, np.arange(start, start + n) / 10)
    else:
        assert out is None
        assert ring.overruns == (start + n <= total)


def test_position() -> None:
    """A time is found between its samples, before the first by extrapolation, after the last not yet."""
    ring = Ring(8, 1)
    ring.write(np.zeros((20, 1), np.float32), np.arange(20) * 0.5 + 100)
    assert ring.start == 12
    assert ring.position(107.25) == pytest.approx(14.5)
    assert ring.position(109.5) == pytest.approx(19)
    assert ring.position(105.0) == pytest.approx(10)
    assert ring.position(109.6) == np.inf
    assert Ring(8, 1).position(0.0) == np.inf


def test_a_reader_beside_the_writer_never_sees_a_torn_stretch() -> None:
    """While another thread writes, a stretch is either whole and true, or None."""
    ring, done = Ring(500, 4), threading.Event()

    def write() -> None:
        for k in range(3000):
            values = np.arange(k * 50, k * 50 + 50)
            ring.write(np.repeat(values[:, None], 4, axis=1).astype(np.float32), values.astype(float))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    whole = 0
    while not done.is_set():
        start = max(0, ring.start)
        out = ring.read(start, start + 100)
        if out is not None:
            whole += 1
            np.testing.assert_array_equal(out.data, np.repeat(np.arange(start, start + 100)[:, None], 4, axis=1))
    thread.join()
    assert whole + ring.overruns > 0
