"""A chart of figures, as SVG that takes the page's colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

WIDTH, STEP, FOOT = 480, 26, 50
LETTER = 6.6
"""Width of a letter of 12 pixels, on the wide side of what fonts have."""
KINDS = {"stage1": "stage 1", "stage2": "final", "mean_image": "mean image", "chance": "chance"}
STYLE = """
svg text { fill: var(--ink); font-size: 12px } svg line { stroke: var(--line) }
svg .stage1 { fill: var(--soft); stroke: var(--soft) } svg .stage2 { fill: var(--accent); stroke: var(--accent) }
svg .mean_image { fill: none; stroke: var(--ink); stroke-width: 1.5 }
svg .chance { stroke: var(--ink); stroke-width: 2 }
"""


def room(labels: Iterable[str]) -> int:
    """Give the width of a column that holds every label, in pixels, with a gap on either side."""
    return round(LETTER * max(map(len, labels), default=0)) + 24


def chart(found: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Draw one line a figure from 0 to 1: stages as dots with intervals, the mean image as a ring, chance as a bar.

    Parameters
    ----------
    found : mapping
        What `minddiffuser.quality.score` gave.
    names : mapping of str to str
        The figures to draw, and what they are called.
    """
    height = STEP * len(names) + FOOT
    parts = [_tick(tick, height) for tick in (0, 0.25, 0.5, 0.75, 1)]
    for row, (name, label) in enumerate(names.items()):
        y = 18 + STEP * row
        parts.append(f'<text x="-12" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        for kind, shift in zip(KINDS, (-4, 4, 0, 0), strict=True):
            parts.append(_mark(kind, _x(found[kind][name]), y + shift))
            if interval := found.get(f"{kind}_interval", {}).get(name):
                low, high = (_x(bound) for bound in interval)
                ends = f'x1="{low:.1f}" x2="{high:.1f}" y1="{y + shift}" y2="{y + shift}"'
                parts.append(f'<line class="{kind}" {ends}/>')
    for place, (kind, label) in enumerate(KINDS.items()):
        x = 110 * place
        parts.append(_mark(kind, x, height - 10) + f'<text x="{x + 10}" y="{height - 6}">{label}</text>')
    left = room(names.values())
    wide = left + WIDTH + 30
    size = f'width="{wide}" height="{height}" viewBox="{-left} 0 {wide} {height}"'
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Chart of the figures">'
        f'<svg role="img" aria-label="The figures of the table, drawn" {size}>{"".join(parts)}</svg></div>'
    )


def _x(value: float) -> float:
    return WIDTH * min(max(value, 0.0), 1.0)


def _tick(value: float, height: int) -> str:
    x = _x(value)
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{height - 40}"/>'
    return line + f'<text x="{x:.1f}" y="{height - 26}" text-anchor="middle">{value:g}</text>'


def _mark(kind: str, x: float, y: float) -> str:
    if kind == "chance":
        return f'<line class="chance" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{y + 8}"/>'
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="{5 if kind == "mean_image" else 4}"/>'
