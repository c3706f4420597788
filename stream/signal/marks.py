"""Segments of a stream that should not be trusted, each with its reason."""

from dataclasses import dataclass

MOST = 10_000


@dataclass(slots=True)
class Mark:
    """What is wrong with the rows start..stop: a reason, or the channel whose samples there are of no use."""

    start: int
    stop: int
    reason: str = ""
    channel: str = ""


class Marks:
    """What is known against the rows of a ring; of more than `MOST` marks the oldest go, their rows are in doubt."""

    def __init__(self) -> None:
        self._marks: list[Mark] = []
        self._newest: dict[tuple[str, str], Mark] = {}
        self._unknown = 0  # before this row marks were let go

    def add(self, start: int, stop: int, reason: str = "", channel: str = "") -> None:
        """Mark rows; what follows on the newest mark of the same kind makes it longer."""
        newest = self._newest.get((reason, channel))
        if newest and newest.start <= start <= newest.stop:
            newest.stop = max(newest.stop, stop)
            return
        self._newest[reason, channel] = mark = Mark(start, stop, reason, channel)
        self._marks.append(mark)
        if len(self._marks) > MOST:
            self._unknown = max(self._unknown, self._marks.pop(0).stop)

    def within(self, start: int, stop: int) -> list[Mark]:
        """Find the marks that touch the rows start..stop."""
        marks = [mark for mark in self._marks if mark.start < stop and mark.stop > start]
        return [Mark(start, self._unknown, "too much is wrong"), *marks] if start < self._unknown else marks

    def forget(self, start: int) -> None:
        """Let go what lies before a row."""
        if self._marks and self._marks[0].stop <= start:
            self._marks = [mark for mark in self._marks if mark.stop > start]
            self._newest = {kind: mark for kind, mark in self._newest.items() if mark.stop > start}
