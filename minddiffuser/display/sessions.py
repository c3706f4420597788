"""Which sessions a display shows, and what it holds of each."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minddiffuser.archive.pictures import check
from stream.errors import WireError
from stream.mqtt.frames import Assembler, Frame, keep_within
from stream.mqtt.messages import Message
from stream.mqtt.refusals import Refusals
from stream.mqtt.topics import JSON_TOPICS

MAX_SESSIONS = 32
ENDED = ("offline", "ended")
"""States of a session that publishes no more."""
OVER, SILENT, RUNS = range(3)
SILENT_S = 30.0
"""Seconds after which a session that says nothing may lose its place; one that runs sends metrics every second."""
HISTORY_BYTES = 32 * 2**20
"""Bytes of the pictures of one session that a new browser is caught up with."""
CATCH_UP = 8
"""Frames that a new browser starts with."""
UNSHOWN_S = 10.0
"""Seconds for which a session that found no place is said to run."""


class SessionView:
    """What a browser that comes late is told of one session: its last words and its last pictures."""

    def __init__(self, history: int, refusals: Refusals) -> None:
        self.assembler = Assembler(check, refusals)
        self.notes: dict[str, dict[str, Any]] = {}
        self.frames: deque[Frame] = deque(maxlen=history)
        self.latest: Frame | None = None
        self.heard: float | None = None  # when it last said something itself, not the broker what it had kept

    def remember(self, frame: Frame) -> None:
        """Store a frame for browsers that connect later."""
        self.latest = frame
        if frame.stage == "picture":
            self.frames.append(frame)
            while len(self.frames) > 1 and sum(frame.size for frame in self.frames) > HISTORY_BYTES:
                self.frames.popleft()

    def catch_up(self) -> list[Frame]:
        """Return the frames a new browser starts with, oldest first."""
        latest = [self.latest] if self.latest and self.latest not in self.frames else []
        return [*self.frames, *latest][-CATCH_UP:]

    def runs(self) -> bool:
        """Check whether it has spoken and has not said that it is over."""
        return self.heard is not None and self.notes.get("status", {}).get("status", {}).get("state") not in ENDED

    def rank(self, now: float) -> int:
        """Return how much it deserves its place: `OVER` (or only remembered by the broker), `SILENT` or `RUNS`."""
        state = self.notes.get("status", {}).get("status", {}).get("state")
        if state in ENDED or (state is None and self.heard is None):
            return OVER
        return RUNS if self.heard is not None and now - self.heard < SILENT_S else SILENT


class Sessions(Mapping[str, SessionView]):
    """The sessions a display shows: `MAX_SESSIONS` at most, and its own always among them.

    Where all places are taken, a session that runs takes the place of one that is over or silent, and one that may run
    that of one of which the broker keeps old messages only.

    Parameters
    ----------
    history : int
        Pictures of each that are kept for new browsers.
    own : str, optional
        Session that always has a place.
    refusals : Refusals
        Counts what does not fit.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    own : str or None
    unshown : int
        Sessions that ran lately and found no place.
    """

    def __init__(
        self, history: int, own: str | None, refusals: Refusals, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.own, self._history, self._refusals, self._clock = own, history, refusals, clock
        self._views: dict[str, SessionView] = {}
        self._unshown: OrderedDict[str, float] = OrderedDict()

    def __getitem__(self, name: str) -> SessionView:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @property
    def unshown(self) -> int:
        """Number of sessions that ran lately and found no place."""
        now = self._clock()
        return sum(now - heard < UNSHOWN_S for heard in self._unshown.values())

    def take(self, message: Message) -> dict[str, Any] | Frame | None:
        """Process a message; return the note or the frame that browsers get, if they get one.

        Raises
        ------
        PublishError
            It does not fit, or its session has no place.
        """
        name = message.session
        view = self._views.get(name) or SessionView(self._history, self._refusals)
        now = self._clock()
        if message.kind in JSON_TOPICS:
            note = {"type": message.kind, "session": name, message.kind: message.json()}
            view.notes[message.kind] = note
            taken: dict[str, Any] | Frame | None = note
        else:
            taken = view.assembler.take(message)
        if not message.retained:
            view.heard = now
        if name not in self._views:
            self._admit(name, view, now)
        if isinstance(taken, Frame):
            view.remember(taken)
        keep_within([one.assembler for one in self._views.values()])
        return taken

    def _admit(self, name: str, view: SessionView, now: float) -> None:
        if len(self._views) >= MAX_SESSIONS:
            others = {one: self._views[one].rank(now) for one in self._views if one != self.own}
            lowest = min(others, key=lambda one: (others[one], self._views[one].heard or 0.0))
            rank = view.rank(now)
            if name != self.own and others[lowest] >= rank:
                if rank == RUNS:
                    self._unshown[name] = now
                if len(self._unshown) > 8 * MAX_SESSIONS:
                    self._unshown.popitem(last=False)
                raise WireError("no place", f"session {name}: a display shows {MAX_SESSIONS} sessions at most")
            del self._views[lowest]
        self._views[name] = view
        self._unshown.pop(name, None)
