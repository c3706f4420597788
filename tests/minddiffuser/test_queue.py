"""Back-pressure."""

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.live.queue import WindowQueue
from stream.types.windows import Channels, Window


def window(number: int) -> Window:
    """Make a small window."""
    channels = Channels(("Oz",), ("eeg",), ("V",))
    return Window(str(number), np.zeros((1, 1), np.float32), channels, 100.0, 0.0, 0.0, None, 0.0, 0.0)


@given(length=st.integers(1, 5), steps=st.lists(st.booleans(), max_size=60))
def test_every_window_is_handed_out_in_order_or_counted_as_dropped(length: int, steps: list[bool]) -> None:
    """Put and taken in any interleaving, windows come out newest-kept and in order, and none is unaccounted for."""

    async def run() -> None:
        queue = WindowQueue(length)
        put, taken = 0, []
        for is_put in steps:
            if is_put:
                full = len(queue) == length
                gone = queue.put(window(put))
                assert (gone is not None) == full
                put += 1
                assert len(queue) <= length
            elif len(queue):
                got = await queue.get()
                assert got is not None
                assert int(got.id) == len(taken) + queue.dropped
                taken.append(int(got.id))
        queue.close()
        while (got := await queue.get()) is not None:
            taken.append(int(got.id))
        assert taken == sorted(taken)
        assert len(taken) + queue.dropped == put
        if put:
            assert taken[-1] == put - 1

    asyncio.run(run())


async def test_get_waits_for_a_window_and_ends_when_closed() -> None:
    """A reader of an empty queue wakes up on a window, and gets None once the queue is closed."""
    queue = WindowQueue(1)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(window(7))
    got = await waiting
    assert got is not None
    assert got.id == "7"
    queue.close()
    assert await queue.get() is None


async def test_cleared_windows_are_counted() -> None:
    """A stop that abandons waiting windows says how many."""
    queue = WindowQueue(3)
    for number in range(3):
        queue.put(window(number))
    assert [one.id for one in queue.clear()] == ["0", "1", "2"]
    assert queue.dropped == 3
    assert len(queue) == 0
