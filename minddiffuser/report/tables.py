"""Answers for people: tables on stdout, figures with interval and chance, one line of verdict, the next command."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minddiffuser.evaluation.measures import Measure

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100
"""Columns where the output is no terminal: a file, a pipe."""


def text_of(parts: Iterable[RenderableType]) -> str:
    """Return what is printed, as wide and as coloured as stdout takes it.

    Parameters
    ----------
    parts : iterable of str or renderable
        A string is a line of its own that is never wrapped, so that commands in it can be copied; it holds no markup.
    """
    from rich.console import Console
    from rich.text import Text

    wide = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    out = io.StringIO()
    console = Console(file=out, width=wide, force_terminal=sys.stdout.isatty(), highlight=False)
    for number, part in enumerate(parts):
        if isinstance(part, Text | str):
            console.print(Text(part) if isinstance(part, str) else part, soft_wrap=True)
            continue
        if number and not out.getvalue().endswith("\n\n"):
            console.print()
        console.print(part)
        console.print()
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip()


def bold(line: str) -> RenderableType:
    """Return a line that stands out."""
    from rich.text import Text

    return Text(line, style="bold")


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> RenderableType:
    """Return a table without lines, so that any encoding can show it; its last `numbers` columns stand to the right."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, head in enumerate(heads):
        made.add_column(head, justify="right" if place >= len(heads) - numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return Group(Text(title, style="bold italic"), made)


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Write a figure with its interval, if it has one."""
    if value is None:
        return "-"
    ends = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{value:.3f}{ends}"


def chance_of(measure: Measure) -> str:
    """Write what chance reaches: a figure, or a range."""
    if measure.chance is None:
        return "-"
    return " to ".join(f"{end:.3f}" for end in dict.fromkeys(measure.chance))


def above(measure: Measure) -> str:
    """Write whether a measure is above chance; '-' where that cannot be said."""
    return {True: "yes", False: "no", None: "-"}[measure.above_chance]


PICTURE_HEADS = ("measure", "final [95 %]", "preview", "mean image", "chance", "above both")
FEATURE_HEADS = ("measure", "value [95 %]", "chance", "without the brain", "above chance")


def measure_table(title: str, measures: Sequence[Measure]) -> RenderableType:
    """Return the table of measures: of pictures with preview and mean image, of all else with chance alone."""
    if any(one.stage1 is not None for one in measures):
        rows = [
            (
                _label(one),
                figure(one.value, one.interval),
                figure(one.stage1),
                figure(one.mean_image),
                chance_of(one),
                above(one),
            )
            for one in measures
        ]
        return table(title, PICTURE_HEADS, rows, numbers=5)
    others = [
        (_label(one), figure(one.value, one.interval), chance_of(one), figure(one.mean_image), above(one))
        for one in measures
    ]
    return table(title, FEATURE_HEADS, others, numbers=4)


def _label(measure: Measure) -> str:
    """Return its label, with a star where the verdict counts it."""
    return measure.label + " *" * measure.counts


def verdict_lines(found: Mapping[str, Any] | None, nothing: str) -> list[RenderableType]:
    """Return the verdict in one line and the next step in another; `nothing` where there is no verdict."""
    if found is None:
        return [nothing]
    word, reason = str(found["word"]), str(found["reason"])
    joint = "; " if ":" in word else ": "
    return ["* counts for the verdict", bold(f"{word}{joint}{reason}"), f"Next: {found['next_step']}"]


def delay_line(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield by how much windows are later than their markers, where they are."""
    if delay := found.get("delay"):
        yield f"Windows are cut about the light, {1e3 * delay:.1f} ms after each marker (window.delay)."
