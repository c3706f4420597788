"""The screen: what is drawn on it, and when it showed that, frame by frame.

The time of a flip is that of the LSL clock at which the graphics driver has finished it (`glFinish` after the swap of
buffers). On a screen that holds swaps for its retrace that is the beginning of the frame; what comes after it, the
screen's own processing and the way down to the row of pixels that is looked at, only a light sensor knows
(`present --timing`). Where swaps are not held, as on a virtual screen, frames are paced here.
"""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minddiffuser.config.experiment import ExperimentSpec, rgb
from minddiffuser.errors import AppError
from stream.lsl.discovery import load_lsl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

USUAL_HZ = 60.0
"""Frames a second where a screen neither tells its rate nor holds flips for its retrace."""
MEASURED = 40
"""Flips by which it is found whether the screen holds them."""
FASTEST_HZ = 500.0
"""Flips that return faster were not held by any screen."""
SPIN_S = 0.002
"""Before a frame that is paced here, which sleeping would miss."""
WINDOW = (1024, 768)
"""Pixels of a window that is not full screen, at most."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where things lie on a screen, in pixels from its lower left corner.

    Attributes
    ----------
    picture : (float, float, float, float)
        x, y, width, height of the picture.
    patch : (float, float, float) or None
        x, y and length of the sides of the patch.
    """

    picture: tuple[float, float, float, float]
    patch: tuple[float, float, float] | None


def geometry(spec: ExperimentSpec, size: tuple[int, int], screen_px: int, picture: tuple[int, int]) -> Geometry:
    """Compute where picture and patch lie.

    Parameters
    ----------
    spec : ExperimentSpec
    size : (int, int)
        Width and height of the window in pixels.
    screen_px : int
        Pixels of the whole screen from left to right, which are `spec.screen_cm`.
    picture : (int, int)
        Width and height of the pictures' files, whose proportions are kept.

    Raises
    ------
    AppError
        The picture does not fit, or lies over the patch.
    """
    per_cm = screen_px / spec.screen_cm
    longer = 2 * spec.distance_cm * math.tan(math.radians(spec.size_deg) / 2) * per_cm
    width, height = (longer * each / max(picture) for each in picture)
    if width > size[0] or height > size[1]:
        raise AppError(
            f"experiment.size_deg {spec.size_deg:g} is {width:.0f} x {height:.0f} pixels here, more than the "
            f"{size[0]} x {size[1]} there are: smaller pictures, a larger distance_cm, or the true screen_cm"
        )
    left, bottom = (size[0] - width) / 2, (size[1] - height) / 2
    if spec.patch is None:
        return Geometry((left, bottom, width, height), None)
    side = max(spec.patch_cm * per_cm, 1.0)
    if side > left and side > bottom:
        raise AppError(
            f"the patch of {spec.patch_cm:g} cm ({side:.0f} pixels) is covered by pictures of {spec.size_deg:g} "
            "degrees: make patch_cm or size_deg smaller"
        )
    x = 0.0 if spec.patch.endswith("left") else size[0] - side
    y = 0.0 if spec.patch.startswith("bottom") else size[1] - side
    return Geometry((left, bottom, width, height), (x, y, side))


class Screen:
    """A window, or a whole screen, that shows one thing a frame.

    Parameters
    ----------
    spec : ExperimentSpec
    background : str
        Colour, where `spec` has none of its own.
    picture : (int, int)
        Width and height of the pictures' files in pixels.
    number : int
        Which screen, from 0.
    windowed : bool
        A window instead of the whole screen.

    Attributes
    ----------
    period : float
        Seconds a frame.
    held : bool
        Whether the screen holds flips for its retrace; if not, frames are paced here.
    dropped : int
        Frames missed so far.

    Raises
    ------
    AppError
        There is no screen, not that one, no OpenGL, or what is to be shown does not fit.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        background: str = "#808080",
        picture: tuple[int, int] = (1, 1),
        *,
        number: int = 0,
        windowed: bool = False,
    ) -> None:
        self._clock = load_lsl().local_clock
        self._window, size, screen_px, rate = _open(number, windowed=windowed)
        try:
            check_key(spec)
            self.geometry = geometry(spec, size, screen_px, picture)
        except AppError:
            self._window.close()
            raise
        from pyglet import gl, shapes, text
        from pyglet.window import key

        self._gl, self._key = gl, key
        self._textures: dict[str, Any] = {}
        grey = rgb(spec.background or background)
        red, green, blue = (each / 255 for each in grey)
        gl.glClearColor(red, green, blue, 1.0)
        x, y, width, height = self.geometry.picture
        middle = (x + width / 2, y + height / 2)
        self._dot = [
            shapes.Circle(*middle, max(radius, 1.5), color=colour)
            for radius, colour in ((width / 60, (255, 255, 255)), (width / 120, (200, 0, 0)))
        ]
        self._fixation = spec.fixation
        self._patch = {
            lit: shapes.Rectangle(*patch[:2], patch[2], patch[2], color=(255 * lit,) * 3)
            for lit in (False, True)
            if (patch := self.geometry.patch)
        }
        dark = sum(grey) < 3 * 128
        self._label = text.Label(
            "", x=middle[0], y=middle[1], anchor_x="center", anchor_y="center", align="center", multiline=True,
            width=int(size[0] * 0.8), font_size=max(size[1] // 40, 8),
            color=(255, 255, 255, 255) if dark else (0, 0, 0, 255),
        )  # fmt: skip
        self._presses: list[tuple[str, float]] = []
        self._window.push_handlers(on_key_press=self._pressed, on_close=self._closed)
        self._window.set_mouse_visible(windowed)
        self.dropped = 0
        self.held, self.period = True, 1 / (spec.refresh_hz or rate or USUAL_HZ)
        self._last = self._due = 0.0
        self._find_period(known=bool(spec.refresh_hz or rate))

    def close(self) -> None:
        """Close the window and restore the screen."""
        self._window.close()

    def load(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Have the graphics driver hold these pictures, and no longer those before.

        Parameters
        ----------
        pictures : mapping
            Id -> uint8 RGB, shape (height, width, 3).
        """
        from pyglet.image import ImageData

        for name in [name for name in self._textures if name not in pictures]:
            self._textures.pop(name).delete()
        for name, pixels in pictures.items():
            if name not in self._textures:
                height, width = pixels.shape[:2]
                # Rows go from the top down in an array, and from the bottom up in OpenGL.
                image = ImageData(width, height, "RGB", np.ascontiguousarray(pixels).tobytes(), -3 * width)
                self._textures[name] = image.get_texture()
                # What is drawn for the first time takes longer than a frame; nobody sees it before a flip.
                self.draw(name, lit=True)
        self._gl.glFinish()

    def draw(self, picture: str | None = None, *, lit: bool = False, text: str = "") -> None:
        """Draw the next frame.

        Parameters
        ----------
        picture : str, optional
            Id of one that is loaded.
        lit : bool
            Whether the patch is white.
        text : str
            In the middle, in place of the fixation dot.
        """
        self._window.switch_to()
        self._window.clear()
        if picture is not None:
            x, y, width, height = self.geometry.picture
            self._textures[picture].blit(x, y, 0, width, height)
        if text:
            if self._label.text != text:
                self._label.text = text
            self._label.draw()
        elif self._fixation:
            for disc in self._dot:
                disc.draw()
        if self._patch:
            self._patch[lit].draw()

    def flip(self) -> float:
        """Show what was drawn with the next frame; return the LSL time at which it was there, in seconds.

        Frames that passed since the flip before are counted in `dropped`.
        """
        if not self.held:
            self._wait_for_tick()
        self._window.flip()
        self._gl.glFinish()
        now = float(self._clock())
        self.dropped += self.missed(now)
        self._last = now
        return now

    def missed(self, now: float) -> int:
        """Return how many frames passed unseen between the last flip and one at `now`."""
        return max(0, round((now - self._last) / self.period) - 1) if self._last else 0

    @property
    def due(self) -> float:
        """LSL time at which the next frame is due."""
        return self._last + self.period

    def rest(self) -> None:
        """Forget the last flip: what passes before the next one is no dropped frame."""
        self._last = 0.0

    def presses(self) -> list[tuple[str, float]]:
        """Return the keys pressed since the last call, by name, with the LSL times at which they were heard of.

        They are heard of once a frame. Closing the window is a press of 'escape'.
        """
        self._window.dispatch_events()
        out, self._presses = self._presses, []
        return out

    def _pressed(self, symbol: int, _modifiers: int) -> bool:
        self._presses.append((self._key.symbol_string(symbol).lower(), float(self._clock())))
        return True  # pyglet itself would close the window on escape

    def _closed(self) -> bool:
        self._presses.append(("escape", float(self._clock())))
        return True

    def _wait_for_tick(self) -> None:
        """Wait for the next whole period since the first frame."""
        now = float(self._clock())
        self._due = self._due + self.period if self._due else now
        if now > self._due:
            self._due += math.ceil((now - self._due) / self.period) * self.period
        time.sleep(max(0.0, self._due - now - SPIN_S))
        while self._clock() < self._due:
            pass

    def _find_period(self, *, known: bool) -> None:
        """Hold the rate that the screen tells against its flips; pace frames here where it does not hold them."""
        times = []
        for _ in range(MEASURED):
            self.draw()
            times.append(self.flip())
            self.presses()
        measured = float(np.median(np.diff(times)))
        if measured < max(0.75 * self.period if known else 0.0, 1 / FASTEST_HZ):
            self.held = False
            logger.warning(
                "the screen does not hold frames for its retrace (it took one each %.1f ms): they are paced here, at "
                "%g a second; on a real screen switch vertical synchronisation on",
                *(measured * 1e3, round(1 / self.period, 2)),
            )
        elif not known or measured > 1.2 * self.period:
            if known:
                logger.warning(
                    "the screen tells %.1f frames a second and shows %.1f: the latter counts",
                    *(1 / self.period, 1 / measured),
                )
            self.period = measured
        self.dropped = 0
        self.rest()


def check_screen(spec: ExperimentSpec, picture: tuple[int, int] = (1, 1), *, number: int, windowed: bool) -> None:
    """Check that a screen is there and that what is to be shown fits on it; nothing is opened.

    Parameters
    ----------
    spec : ExperimentSpec
    picture : (int, int)
        Width and height of the pictures' files in pixels.
    number : int
        Which screen, from 0.
    windowed : bool

    Raises
    ------
    AppError
        There is none, not this one, pictures are too large or cover the patch, or the task's key is none.
    """
    screen = _screen(number)
    check_key(spec)
    geometry(spec, _window_size(screen) if windowed else (screen.width, screen.height), screen.width, picture)


def check_key(spec: ExperimentSpec) -> None:
    """Check that the task's key is one that can be pressed, by the name that its presses have.

    Raises
    ------
    AppError
        It is not, or ends the presentation.
    """
    from pyglet.window import key

    name = spec.task.key.lower() if spec.task else "space"
    code = getattr(key, name.upper(), None)
    called = key.symbol_string(code).lower() if isinstance(code, int) else ""
    if called != name or name == "escape":
        why = "ends the presentation" if name == "escape" else f"is called {called!r}" if called else "is no key"
        raise AppError(f"experiment.task.key {name!r} {why}; such as space, enter, f, left, _1, num_1 are there")


def _window_size(screen: Any) -> tuple[int, int]:
    return min(WINDOW[0], screen.width), min(WINDOW[1], screen.height)


def _screen(number: int) -> Any:
    """Find a screen.

    Raises
    ------
    AppError
        There is none, or not this one.
    """
    try:
        import pyglet
    except ModuleNotFoundError:
        raise AppError(
            "`present` draws by pyglet, which is not installed: pip install 'minddiffuser[present]'"
        ) from None
    # A second, hidden window would ask for a screen while pyglet is only being imported.
    pyglet.options.shadow_window = False
    try:
        from pyglet.display import get_display

        screens = get_display().get_screens()
    except Exception as error:  # each platform has its own
        display = os.environ.get("DISPLAY", "")
        raise AppError(f"there is no screen to present on ({_reason(error)}; DISPLAY is {display!r})") from None
    if not 0 <= number < len(screens):
        known = ", ".join(f"{n}: {each.width} x {each.height}" for n, each in enumerate(screens))
        raise AppError(f"--screen {number}: no such screen; there are {known}")
    return screens[number]


def _open(number: int, *, windowed: bool) -> tuple[Any, tuple[int, int], int, float]:
    """Open a window; return it, its size, the screen's width in the same pixels and its frames a second (0: unknown).

    Raises
    ------
    AppError
        There is no screen, not this one, or no OpenGL.
    """
    screen = _screen(number)
    size = _window_size(screen) if windowed else (None, None)
    try:
        from pyglet.window import Window

        window = Window(*size, fullscreen=not windowed, screen=screen, vsync=True, caption="minddiffuser present")
        window.activate()
    except Exception as error:  # of the window system or of OpenGL, each with its own kinds
        raise AppError(f"screen {number} cannot be drawn on by OpenGL ({_reason(error)})") from None
    rate = float(getattr(screen.get_mode(), "rate", 0) or 0)
    return window, window.get_size(), screen.width, rate if rate > 1 else 0.0


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
