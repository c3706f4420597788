"""What is refused is counted to the last, and does not fill the log."""

import logging

import pytest

from stream.errors import PublishError, WireError
from stream.mqtt.refusals import Refusals


def test_all_are_counted_and_few_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each kind and reason is named once at once; of a thousand more there is a count and no line each."""
    refusals = Refusals()
    for number in range(1000):
        refusals.add("meta", WireError("times", f"meta {number}: times is wrong"))
        refusals.add("status", WireError("not JSON", f"status {number}"))
    refusals.add("picture", PublishError("no place"), logging.ERROR)
    assert refusals.total == 2001
    assert refusals.as_dict() == {"meta: times": 1000, "picture: refused": 1, "status: not JSON": 1000}
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == ["refused: meta 0: times is wrong", "refused: status 0"]
    assert lines[-1] == "refused: no place; 1998 more since the last line"
    assert len(lines) == 3
    assert caplog.records[-1].levelno == logging.ERROR
