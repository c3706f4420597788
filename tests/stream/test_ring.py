"""The ring buffer."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.signal.ring import Ring


@given(st.integers(1, 40), st.lists(st.integers(0, 60), max_size=12), st.integers(0, 300), st.integers(1, 40))
def test_reads_what_was_written_or_says_no(capacity: int, chunks: list[int], start: int, n: int) -> None:
    """Any segment that is still there comes back exactly; any other is None, and an overrun if it was once there."""
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


@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50), st.integers(0, 40)), min_size=5, max_size=60),
)
def test_readers_that_lag_lose_what_is_counted(capacity: int, steps: list[tuple[int, int, int]]) -> None:
    """Of one writer and three readers, each reader gets every sample once and in order, or an overrun is counted."""
    ring, written, overruns = Ring(capacity, 1), 0, 0
    at, seen, skipped = [0, 0, 0], [0, 0, 0], [0, 0, 0]
    for reader, size, wanted in steps:
        values = np.arange(written, written + size)
        ring.write(values[:, None].astype(np.float32), values.astype(float))
        written += size
        stop = min(at[reader] + wanted, written)
        out = ring.read(at[reader], stop)
        if at[reader] < written - capacity:
            assert out is None
            overruns += 1
            skipped[reader] += ring.start - at[reader]
            at[reader] = ring.start
            continue
        assert out is not None
        np.testing.assert_array_equal(out.data[:, 0], np.arange(at[reader], stop))
        np.testing.assert_array_equal(out.times, np.arange(at[reader], stop))
        seen[reader] += stop - at[reader]
        at[reader] = stop
    assert ring.overruns == overruns
    assert at == [each + lost for each, lost in zip(seen, skipped, strict=True)]


@given(st.integers(2, 30), st.lists(st.floats(1e-3, 5), min_size=2, max_size=60), st.floats(-5, 300))
def test_position_is_between_its_neighbours(capacity: int, steps: list[float], wanted: float) -> None:
    """A time within what is held lies between the samples before and after it, in any ring at any fill."""
    ring, times = Ring(capacity, 1), np.cumsum(steps)
    ring.write(np.zeros((len(times), 1), np.float32), times)
    position = ring.position(wanted)
    if wanted > times[-1]:
        assert position == np.inf
    elif wanted < times[ring.start]:
        assert position < ring.start
    else:
        low = int(np.floor(position))
        assert times[low] <= wanted
        assert low == len(times) - 1 or wanted <= times[low + 1] * (1 + 1e-12)


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


def test_readers_beside_the_writer_never_see_a_torn_segment() -> None:
    """While another thread writes, segments of three readers are whole and true, or None and counted, exactly."""
    ring, done = Ring(500, 4), threading.Event()
    counts: list[tuple[int, int]] = []
    wrong: list[int] = []

    def write() -> None:
        for k in range(3000):
            values = np.arange(k * 50, k * 50 + 50)
            ring.write(np.repeat(values[:, None], 4, axis=1).astype(np.float32), values.astype(float))
        done.set()

    def read() -> None:
        whole = missed = 0
        while not done.is_set() and not wrong:
            start = ring.start
            stop = min(start + 100, ring.stop)  # so it has been there: None can only mean that the writer passed
            out = ring.read(start, stop)
            whole, missed = whole + (out is not None), missed + (out is None)
            if out is not None and not (out.data == np.arange(start, stop)[:, None]).all():
                wrong.append(start)
        counts.append((whole, missed))

    threads = [threading.Thread(target=work) for work in (read, read, read, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(counts) == 3
    assert sum(missed for _, missed in counts) == ring.overruns
    assert all(whole + missed > 0 for whole, missed in counts)
