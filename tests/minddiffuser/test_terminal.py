"""Pictures in a terminal."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from minddiffuser.viewing.terminal import TerminalView, caption, half_blocks, letters
from stream.mqtt.frames import Frame

RED_OVER_BLUE = np.zeros((4, 4, 3), np.uint8)
RED_OVER_BLUE[:2, :, 0] = RED_OVER_BLUE[2:, :, 2] = 255


def frame(stage: str = "picture", kinds: tuple[str, ...] = ("original", "preview", "picture"), **meta: object) -> Frame:
    """Make a frame with a small PNG of each kind."""
    buffer = io.BytesIO()
    Image.fromarray(RED_OVER_BLUE).save(buffer, "PNG")
    about = {"confidence": 0.5, "data": "simulated EEG", "event": {"label": "cat"}, **meta}
    return Frame("lab", "w", stage, about, dict.fromkeys(kinds, buffer.getvalue()))


def shown(width: int, environment: dict[str, str], shows: Frame, *, terminal: bool = True) -> str:
    """Give what a terminal of a width gets for a frame."""
    console = Console(
        file=io.StringIO(), width=width, height=40, force_terminal=terminal, _environ={"TERM": "xterm", **environment}
    )
    with TerminalView(console) as view:
        view.draw(shows)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_half_blocks_show_the_colours() -> None:
    """A picture, red above and blue below, becomes red and blue characters of the asked width."""
    text = half_blocks(RED_OVER_BLUE, columns=4)
    assert text.plain == "▀▀▀▀\n▀▀▀▀\n"
    first, last = text.spans[0].style, text.spans[-1].style
    assert str(first) == "#ff0000 on #ff0000"
    assert str(last) == "#0000ff on #0000ff"


def test_letters_follow_the_light() -> None:
    """Without colours, a bright half is a denser letter than a dark one."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 255
    assert letters(pixels, columns=4).plain.splitlines()[0].startswith(" ")
    assert letters(pixels, columns=4).plain.splitlines()[0].endswith("@")


def test_true_colour_where_the_terminal_has_it() -> None:
    """COLORTERM gives the very colours; with NO_COLOR there are letters and no colour at all."""
    assert "38;2;255;0;0" in shown(80, {"COLORTERM": "truecolor"}, frame())
    plain = shown(80, {"NO_COLOR": "1", "COLORTERM": "truecolor"}, frame())
    assert "38;" not in plain
    assert "48;" not in plain
    assert "▀" not in plain


@pytest.mark.parametrize(("width", "side_by_side"), [(120, 3), (60, 2), (30, 1)])
def test_pictures_fit_the_width(width: int, side_by_side: int) -> None:
    """As many pictures as fit stand side by side, the final one always, and no line is wider than the terminal."""
    text = shown(width, {"TERM": "xterm", "NO_COLOR": "1"}, frame())
    names = [name for name in ("shown", "preview", "final") if name in text.split("confidence")[0].split("lab")[0]]
    assert names == ["shown", "preview", "final"][-side_by_side:]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_pipe_and_a_dumb_terminal_get_lines(terminal: bool) -> None:
    """Where nothing can be drawn, a frame is one line of text without control characters."""
    text = shown(100, {"TERM": "dumb"}, frame(), terminal=terminal)
    assert text == "lab  cat  w  final  confidence 0.50  simulated EEG\n"


def test_an_abstained_window_says_why() -> None:
    """A window without a picture is told with its reason."""
    text = shown(100, {}, frame("abstained", (), reason="the signal was flat"))
    assert "no picture: the signal was flat" in text


@given(st.text(), st.binary(max_size=50))
def test_nothing_from_outside_reaches_the_terminal_raw(label: str, payload: bytes) -> None:
    """No label can move the cursor or ring the bell, and no bytes end the view."""
    hostile = Frame("lab", label, "picture", {"event": {"label": label}, "reason": label}, {"picture": payload})
    assert caption(hostile).plain.isprintable()
    shown(80, {}, hostile)


class Ascii(io.TextIOWrapper):
    """A terminal that knows ASCII only."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", write_through=True)

    def isatty(self) -> bool:
        """Return that it is one."""
        return True

    def text(self) -> str:
        """Return what was written."""
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode("ascii")


@pytest.mark.parametrize("terminal", [True, False])
def test_what_the_encoding_lacks_is_a_question_mark(terminal: bool) -> None:
    """On an ASCII terminal labels lose their accents and pictures are letters; nothing is raised."""
    file = Ascii()
    console = Console(file=file, width=200, height=40, force_terminal=terminal, _environ={"TERM": "xterm"})
    with TerminalView(console) as view:
        view.draw(frame(event={"label": "Größe ▀"}))
    assert "Gr??e ?" in file.text()
    assert bool(re.search(r"[.:=*#%@-]{20}", file.text())) == terminal


class Broken(io.StringIO):
    """A terminal that was hung up after its first lines."""

    written = 0

    def write(self, text: str) -> int:
        """Write the first lines."""
        self.written += 1
        if self.written > 3:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_that_goes_away_ends_the_drawing_only(terminal: bool, caplog: pytest.LogCaptureFixture) -> None:
    """After a hang-up nothing more is drawn, which is said once, and the caller goes on."""
    file = Broken()
    console = Console(file=file, width=80, height=40, force_terminal=terminal, _environ={"TERM": "xterm"})
    with TerminalView(console) as view:
        for _ in range(8):
            view.draw(frame())
    assert caplog.text.count("no longer drawn") == 1
    assert "Input/output error" in caplog.text


@pytest.mark.parametrize(("height", "width"), [(1, 4000), (4000, 1), (1, 1)])
@pytest.mark.parametrize("columns", [1, 5, 80])
def test_any_shape_is_drawn_within_bounds(height: int, width: int, columns: int) -> None:
    """A picture of one row or column, on a terminal of one column, is some characters and not thousands of lines."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    odd = Frame("lab", "w", "picture", {}, {"picture": buffer.getvalue()})
    console = Console(file=io.StringIO(), width=columns, height=20, force_terminal=True, _environ={"TERM": "xterm"})
    with TerminalView(console) as view:
        view.draw(odd)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("\n") < 250


def test_a_label_may_be_the_event() -> None:
    """An event that is a text and not an object is shown as well."""
    assert "  cat  " in caption(frame(event="cat")).plain
