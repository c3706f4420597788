"""Pictures in a terminal."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from minddiffuser.terminal import TerminalView, caption, half_blocks, letters
from stream.frames import Frame

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
    names = [name for name in ("shown", "stage 1", "stage 2") if name in text.split("confidence")[0].split("lab")[0]]
    assert names == ["shown", "stage 1", "stage 2"][-side_by_side:]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_pipe_and_a_dumb_terminal_get_lines(terminal: bool) -> None:
    """Where nothing can be drawn, a frame is one line of text without control characters."""
    text = shown(100, {"TERM": "dumb"}, frame(), terminal=terminal)
    assert text == "lab  cat  w  stage 2  confidence 0.50  simulated EEG\n"


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
