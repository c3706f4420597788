"""Pictures in a terminal, for people without a browser."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.console import Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from minddiffuser.archive.pictures import decode
from minddiffuser.errors import AppError
from stream.mqtt.wire_models import printable
from stream.tasks import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from stream.mqtt.frames import Frame

logger = logging.getLogger(__name__)

STAGES = {"original": "shown", "retrieved": "retrieved", "preview": "preview", "picture": "final"}
SMALLEST = 24
"""Columns below which a picture says nothing; then fewer stand side by side."""
RAMP = " .:-=+*#%@"
"""From dark to light, where there are no colours."""


class TerminalView:
    """Draws the newest window in place: the picture shown, the preview and the final picture side by side.

    Use as a context manager. On a terminal the drawing fits the window, whatever becomes of its size, with colours as
    far as the terminal has them (NO_COLOR and TERM are heeded); anywhere else each picture is a line of text. What its
    encoding lacks becomes '?', and a terminal that goes away ends the drawing and nothing else.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._drawing = console.is_terminal and not console.is_dumb_terminal
        self._gone = False
        self._has_blocks = self._encodable(Text("▀")).plain == "▀"
        self._key: tuple[str, str] | None = None
        self._pictures: dict[str, NDArray[np.uint8]] = {}

    def __enter__(self) -> Self:
        if self._drawing:
            self._guarded(self._live.start)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._drawing:
            self._guarded(self._live.stop)

    def draw(self, frame: Frame) -> None:
        """Show a frame; of a new window, the pictures of the last one go."""
        if not self._gone:
            self._guarded(lambda: self._draw(frame))

    def _guarded(self, draw: Callable[[], object]) -> None:
        """Draw, unless the terminal is gone: closed, hung up, or the other end of a pipe that ended."""
        try:
            draw()
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not self._console.file.closed:
                raise
            if not self._gone:
                words = "pictures are no longer drawn: the terminal cannot be written (%s)"
                logger.warning(words, one_line(error))
            self._gone = True

    def _draw(self, frame: Frame) -> None:
        if not self._drawing:
            self._console.print(self._encodable(caption(frame)))
            return
        if self._key != (frame.session, frame.window_id):
            self._key, self._pictures = (frame.session, frame.window_id), {}
        try:
            self._pictures |= {kind: decode(frame.pictures[kind]) for kind in frame.pictures if kind in STAGES}
        except AppError as error:
            self._live.update(self._encodable(Text(printable(str(error)))), refresh=True)
            return
        self._live.update(Group(self._drawn(), self._encodable(caption(frame))), refresh=True)

    def _encodable(self, text: Text) -> Text:
        """Replace the characters that the terminal's encoding lacks."""
        plain = text.plain.encode(self._console.encoding, errors="replace").decode(self._console.encoding)
        return Text(plain, no_wrap=text.no_wrap, overflow=text.overflow)

    def _drawn(self) -> RenderableType:
        width, height = self._console.size
        kinds = [kind for kind in STAGES if kind in self._pictures]
        while len(kinds) > 1 and (width - 2 * (len(kinds) - 1)) // len(kinds) < SMALLEST:
            kinds.pop(0)
        if not kinds:
            return Text("no picture")
        columns = max(1, min((width - 2 * (len(kinds) - 1)) // len(kinds), 2 * max(4, height - 4)))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(*(Text(STAGES[kind], Style(dim=True)) for kind in kinds))
        colours = self._console.color_system is not None and not self._console.no_color and self._has_blocks
        paint = half_blocks if colours else letters
        grid.add_row(*(paint(self._pictures[kind], columns) for kind in kinds))
        return grid


def caption(frame: Frame) -> Text:
    """Describe a frame in one line; what comes from outside cannot move the cursor."""
    meta = frame.meta
    event = meta.get("event")
    label = event.get("label") if isinstance(event, dict) else event
    words = [frame.session, label, frame.window_id]
    if frame.stage in STAGES:
        words.append(STAGES[frame.stage])
    else:
        words.append(f"no picture: {meta.get('reason') or 'abstained'}")
    if isinstance(confidence := meta.get("confidence"), float | int):
        words.append(f"confidence {confidence:.2f}")
    words.append(meta.get("data"))
    line = "  ".join(printable(str(word), 100) for word in words if word)
    return Text(line[:400], no_wrap=True, overflow="ellipsis")


def half_blocks(pixels: NDArray[np.uint8], columns: int) -> Text:
    """Draw a picture with upper half blocks, two pixels a character.

    Parameters
    ----------
    pixels : ndarray, shape (height, width, 3), uint8
    columns : int
        Characters a line.
    """
    small = _resized(pixels, columns)
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(small[0::2], small[1::2], strict=True):
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    return text


def letters(pixels: NDArray[np.uint8], columns: int) -> Text:
    """Draw a picture's luminance with letters, for terminals without colours; see `half_blocks`."""
    grey = _resized(pixels, columns).astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    rows = ((grey[0::2] + grey[1::2]) / 2 * (len(RAMP) - 1) / 255).round().astype(int)
    return Text("".join("".join(RAMP[level] for level in row) + "\n" for row in rows), no_wrap=True, end="")


def _resized(pixels: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Render a picture as wide as some characters, and at most four times as high as it is wide."""
    rows = max(1, round(columns * min(pixels.shape[0] / pixels.shape[1], 4) / 2))
    image = Image.fromarray(pixels).resize((columns, 2 * rows), Image.Resampling.LANCZOS)
    return np.asarray(image)
