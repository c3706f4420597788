"""A chart of what each part is worth, as an SVG file that follows light and dark."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, STEP, TOP, FOOT = 420, 20, 34, 30
LETTER = 6.6
"""Width of a letter of 12 pixels, on the wide side of what fonts have."""
KEY = "pixcorr"
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1b1f24 } .group { font-weight: 600 } line { stroke: #d5dae1 }
.zero { stroke: #566070 } .own { stroke: #1f6feb; stroke-width: 2 } circle { fill: #1f6feb }
@media (prefers-color-scheme: dark) { text { fill: #e6e9ee } line { stroke: #3a424d } .zero { stroke: #a5afbd }
  .own { stroke: #6cb0ff } circle { fill: #6cb0ff } }
"""


def chart(answers: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> str:
    """Draw the difference in PixCorr of every variant from its full setup.

    Parameters
    ----------
    answers : sequence of mapping
        Of the ablation steps.
    groups : mapping of str to str
        What each group is called.
    """
    lines: list[tuple[str, Mapping[str, Any] | None]] = []
    for answer in answers:
        lines.append((groups[answer["group"]], None))
        lines += [
            (f"{row['name']} ({row['n']})", row["differences"][KEY])
            for row in answer["rows"][1:]
            if row["differences"][KEY]["interval"] is not None
        ]
    ends = [0.0, *(bound for _, found in lines if found for bound in found["interval"])]
    low, high = min(ends), max(ends)
    scale = WIDTH / ((high - low) or 1)

    def x(value: float) -> str:
        return f"{(value - low) * scale:.1f}"

    left = round(LETTER * max((len(label) for label, _ in lines), default=0)) + 24
    height = TOP + STEP * len(lines) + FOOT
    parts = [f'<text x="{WIDTH}" y="16" text-anchor="end">PixCorr, difference from the full setup</text>']
    for tick in sorted({round(low, 2), 0.0, round(high, 2)}):
        kind = ' class="zero"' if tick == 0 else ""
        parts.append(f'<line{kind} x1="{x(tick)}" x2="{x(tick)}" y1="{TOP - 8}" y2="{height - FOOT}"/>')
        parts.append(f'<text x="{x(tick)}" y="{height - 10}" text-anchor="middle">{tick:+.2f}</text>')
    for number, (label, found) in enumerate(lines):
        y = TOP + STEP * number + 8
        if found is None:
            parts.append(f'<text class="group" x="{8 - left}" y="{y + 4}">{escape(label)}</text>')
            continue
        bounds = [x(bound) for bound in found["interval"]]
        parts.append(f'<text x="-10" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<line class="own" x1="{bounds[0]}" x2="{bounds[1]}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle cx="{x(found["mean"])}" cy="{y}" r="4"/>')
    wide = left + WIDTH + 40
    size = f'width="{wide}" height="{height}" viewBox="{-left} 0 {wide} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="What each part is worth" {size}>'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )
