"""Background tasks: whoever dies is heard."""

import asyncio
import logging

import pytest

from stream.tasks import one_line, supervised


async def test_a_death_is_logged_and_told_to_the_owner(caplog: pytest.LogCaptureFixture) -> None:
    """The error reaches log and owner while the task is still held, in one line."""
    deaths: list[BaseException] = []

    async def work() -> None:
        raise KeyError("first\nsecond")

    task = supervised(work(), "reader", deaths.append)
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert [type(death) for death in deaths] == [KeyError]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("reader died: KeyError: ")
    assert "test_tasks.py:" in record.getMessage()
    assert "\n" not in record.getMessage()


async def test_an_end_and_a_cancellation_are_no_death(caplog: pytest.LogCaptureFixture) -> None:
    """A task that returns or is cancelled gives its value, and nobody is alarmed."""
    deaths: list[BaseException] = []

    async def work() -> int:
        return 7

    assert await supervised(work(), "worker", deaths.append) == 7
    waiting = supervised(asyncio.sleep(60), "waiter", deaths.append)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert deaths == []
    assert caplog.text == ""


def test_one_line_of_an_error_without_words() -> None:
    """An error without words is named by its type."""
    assert one_line(ValueError()) == "ValueError"
