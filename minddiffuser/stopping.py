"""How a command is asked to end, by Ctrl-C, SIGTERM, a terminal that hangs up or a parent that is gone.

From the first moment one of these ends the program in one line and with exit code 130. What a command makes on its way
must not be left behind, so once it works, a request is a KeyboardInterrupt, or sets what it waits for; and once its
answer is ready, the answer is said first. A second Ctrl-C ends the program at once, whatever it does.

Nothing heavy is imported here: this is loaded before everything else.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from stream.system import HANG_UP, ask_self_to_end, stop_signals

STOPPED = 130
"""Exit code of a command that was stopped before it was done."""

GRACE = 10.0
"""Seconds a child has to end after it was asked to."""

TIED = "MINDDIFFUSER_TIED"
"""Set in the environment of a child that ends when its stdin closes, as it does when its parent is gone."""


def _leave() -> None:
    os._exit(STOPPED)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _ignore() -> None:
    pass


def _hang_up(terminals: list[int]) -> None:
    """Replace a terminal that is gone by the null device, so that writing to it is no error."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in terminals:
        os.dup2(null, descriptor)
    os.close(null)


def _say(word: str) -> None:
    """Print a line at once, past every buffer; Ctrl-C has left '^C' on the terminal's."""
    line = "\n" * os.isatty(2) + f"minddiffuser: {word}\n"
    try:
        os.write(2, line.encode())
    except OSError:  # nobody is there to read it
        return


class Stopping:
    """The requests to end this process, and what they lead to.

    Attributes
    ----------
    asked : bool
        Whether there was one.
    """

    def __init__(self) -> None:
        self.asked = False
        self._listening = self._quiet = False
        self._terminals: list[int] = []
        self._react: Callable[[], None] = _leave
        self._word = "stopped"

    def listen(self) -> None:
        """Handle requests from now on; until another reaction is set, one ends the program at once."""
        self._listening = True
        self._quiet = TIED in os.environ  # our parent has said it
        self._terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
        for number in stop_signals():
            if number != HANG_UP or signal.getsignal(number) != signal.SIG_IGN:  # nohup is respected
                signal.signal(number, self._heard)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt on a request from now on, so that what was begun is cleared away."""
        self._to(_interrupt, "stopping")

    def notify(self, react: Callable[[], None]) -> None:
        """Call `react` on a request from now on; at once if there was one already."""
        self._to(react, "stopping")

    def finish(self) -> None:
        """Ignore requests from now on: the work is done, and its answer is still to be said."""
        if self._listening:
            self._react, self._word = _ignore, ""

    def _to(self, react: Callable[[], None], word: str) -> None:
        if self._listening:
            self._react, self._word = react, word
            if self.asked:
                react()

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if number == HANG_UP:
            _hang_up(self._terminals)
        if self.asked:
            if number == signal.SIGINT:
                os._exit(STOPPED)
            return
        self.asked = True
        if self._word and not self._quiet:
            _say(self._word)
        self._react()


stopping = Stopping()
"""Of this process; a command that does not run as a program of its own, as in tests, never listens."""


def end_with_parent() -> None:
    """End this process once stdin is closed: as SIGTERM would, and at once if that has not helped in `GRACE` seconds.

    Whatever ends a parent, SIGKILL among it, closes its end of the pipe.
    """

    def watch() -> None:
        while os.read(0, 4096):
            pass
        ask_self_to_end()
        time.sleep(GRACE)
        os._exit(1)

    os.environ.pop(TIED, None)
    threading.Thread(target=watch, name="parent", daemon=True).start()
