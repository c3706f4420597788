"""The experimenter's notes as LSL markers, so that whatever records the signal records them, too."""

import os
import socket
from typing import Any

from stream.lsl.discovery import load_lsl
from stream.types.source_spec import NOTES

__all__ = ["NOTES", "NoteOutlet"]


class NoteOutlet:
    """The marker stream of a session's notes; no session takes its markers for events.

    Parameters
    ----------
    session : str
    """

    def __init__(self, session: str) -> None:
        lsl = load_lsl()
        source_id = f"{NOTES}-{session}-{socket.gethostname()}-{os.getpid()}"
        info = lsl.StreamInfo(NOTES, "Markers", 1, 0.0, "string", source_id)
        info.desc().append_child_value("session", session)
        self._outlet: Any = lsl.StreamOutlet(info)

    def push(self, text: str, time: float) -> None:
        """Send a note, stamped with an LSL time of this machine."""
        self._outlet.push_sample([text], time)
