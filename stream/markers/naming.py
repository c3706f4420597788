"""The pictures that markers name as they come in, and the account of those that name none."""

from stream.types.events import Event
from stream.types.labels import LabelMatcher, quote

EXAMPLES = 2
"""Labels that a message names."""
ID_LENGTH = 80
"""Characters of a label in a window's id."""


def printable(label: str) -> str:
    """Return the start of a label, what does not print replaced: a window's id goes into logs and file names."""
    return "".join(c if c.isprintable() else "_" for c in label[:ID_LENGTH])


class Naming:
    """Name events by their pictures, and count those that name none.

    Parameters
    ----------
    labels : LabelMatcher or None
        None leaves all labels as they are.

    Attributes
    ----------
    unmatched : int
        Events that name no picture, where the pictures are known.
    """

    def __init__(self, labels: LabelMatcher | None) -> None:
        self._labels = labels
        self._examples: dict[str, None] = {}
        self._events = 0
        self.unmatched = 0

    def name_event(self, event: Event) -> Event:
        """Return the event under its picture's id; as it is where it names none."""
        if self._labels is None:
            return event
        event = self._labels.name_event(event)
        self._events += 1
        if self._labels.ids and not self._labels.knows(event.label):
            self.unmatched += 1
            if len(self._examples) < EXAMPLES:
                self._examples[quote(event.label)] = None
        return event

    def problems(self) -> dict[str, str]:
        """Return which markers name no picture, under a key that stays while the figures change."""
        if self._labels is None or not self.unmatched:
            return {}
        examples, pictures = ", ".join(self._examples), ", ".join(map(quote, self._labels.ids[:EXAMPLES]))
        return {
            "unmatched": f"{self.unmatched} of {self._events} markers name no picture, such as {examples}; pictures "
            f"are called {pictures}: say in `labels` which picture a code stands for, or leave other markers out by "
            f"window.events ({self._events - self.unmatched} markers match)"
        }
