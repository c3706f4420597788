"""What each browser still has to get, and what is remembered for downloads."""

import asyncio
import contextlib
import struct
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from minddiffuser.archive.archive import ABOUT, FORMAT
from minddiffuser.archive.framefiles import files_of, picture_names
from minddiffuser.archive.windowtable import WINDOW_COLUMNS, WINDOWS, table, window_line
from stream.mqtt.frames import Frame
from stream.mqtt.messages import content_type, lsl_clock, to_json

QUEUE = 8  # frames that may wait for one viewer before it is caught up with the newest
QUEUE_BYTES = 64 * 2**20  # and bytes of them
MEMORY = 32 * 2**20  # bytes of pictures that are remembered for downloads, of all sessions together


class Viewer:
    """One browser: what it still has to get."""

    def __init__(self) -> None:
        self.skipped = 0
        self._frames: deque[Frame] = deque()
        self._notes: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        self._sent: OrderedDict[tuple[str, str], set[str]] = OrderedDict()
        self._wake = asyncio.Event()

    @property
    def waits(self) -> bool:
        """Return whether something has not been handed over yet."""
        return bool(self._notes or self._frames)

    def note(self, note: dict[str, Any]) -> None:
        """Queue a small message; a newer one of its type and session takes its place."""
        self._notes[note["type"], note.get("session", "")] = note
        self._wake.set()

    def frame(self, frame: Frame) -> None:
        """Queue a frame; a viewer that is too far behind goes straight to this one."""
        if len(self._frames) >= QUEUE or sum(waiting.size for waiting in self._frames) > QUEUE_BYTES:
            self.skipped += len(self._frames)
            self._frames.clear()
        self._frames.append(frame)
        self._wake.set()

    async def send_to(self, socket: web.WebSocketResponse) -> None:
        """Send until cancelled, or until the browser is gone; waiting here holds up nobody else."""
        with contextlib.suppress(ConnectionError):
            await self._send_to(socket)

    async def _send_to(self, socket: web.WebSocketResponse) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._notes or self._frames:
                while self._notes:
                    _, note = self._notes.popitem(last=False)
                    await socket.send_str(to_json(note).decode())
                if self._frames:
                    await socket.send_bytes(self._packed(self._frames.popleft()))

    def _packed(self, frame: Frame) -> bytes:
        sent = self._sent.setdefault((frame.session, frame.window_id), set())
        while len(self._sent) > 4 * QUEUE:
            self._sent.popitem(last=False)
        parts = {kind: payload for kind, payload in frame.pictures.items() if frame.digest(kind) not in sent}
        sent.update(digest for kind in parts if (digest := frame.digest(kind)))
        header = to_json(
            {
                "type": "frame",
                "session": frame.session,
                "window_id": frame.window_id,
                "stage": frame.stage,
                "meta": frame.meta,
                "age": _age(frame),
                "skipped": self.skipped,
                "parts": [
                    {
                        "kind": kind,
                        "sha256": frame.digest(kind),
                        "content_type": content_type(payload),
                        "bytes": len(payload),
                    }
                    for kind, payload in parts.items()
                ],
            }
        )
        return b"".join([struct.pack(">I", len(header)), header, *parts.values()])


class Memory:
    """The newest frames of all sessions, up to a number of bytes: what a download holds where nothing is archived."""

    def __init__(self, limit: int = MEMORY) -> None:
        self._limit = limit
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._forgotten: dict[str, int] = {}

    def add(self, frame: Frame) -> None:
        """Remember a frame, and forget the oldest where there is no room."""
        self._frames.append(frame)
        self._bytes += _weight(frame)
        while self._bytes > self._limit and len(self._frames) > 1:
            oldest = self._frames.popleft()
            self._bytes -= _weight(oldest)
            if oldest.stage == "picture":
                self._forgotten[oldest.session] = self._forgotten.get(oldest.session, 0) + 1

    def entries(self, session: str, status: Mapping[str, Any] | None = None) -> Iterator[tuple[str, bytes]]:
        """Return what is remembered of a session, and what its last status says of it, as the files of an archive."""
        frames = [frame for frame in self._frames if frame.session == session]
        about = {
            "session": session,
            "data": frames[-1].meta.get("data", "") if frames else "",
            "config": {"name": frames[-1].meta.get("config", "") if frames else ""},
            "removed": self._forgotten.get(session, 0),
            **{key: status[key] for key in ("started", "participant", "versions") if status and key in status},
        }
        files: dict[str, bytes] = {}
        for frame in frames:
            files |= files_of(frame)
        lines = [
            window_line(frame, {kind: name for kind, name in picture_names(frame).items() if name in files})
            for frame in frames
            if frame.stage in ("picture", "abstained")
        ]
        files = {ABOUT: to_json({**FORMAT, **about}), WINDOWS: table(WINDOW_COLUMNS, lines), **files}
        return iter(files.items())


def _weight(frame: Frame) -> int:
    """Return what a frame adds in bytes: its other pictures are those of earlier frames."""
    return frame.size - sum(len(payload) for kind, payload in frame.pictures.items() if kind != frame.stage)


def _age(frame: Frame) -> float | None:
    """Seconds since the frame was published; both ends read the LSL clock, so across machines it is unknown."""
    published = (frame.meta.get("times") or {}).get("published")
    age = lsl_clock() - published if published is not None else None
    return age if age is not None and age >= 0 else None
