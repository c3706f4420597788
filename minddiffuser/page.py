"""Pages of one file: what those that show results share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5dae1; --soft: #566070; --accent: #1f6feb }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171b; --line: #3a424d; --soft: #a5afbd;
  --accent: #6cb0ff } }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.5rem; line-height: 1.2 } h2 { font-size: 1.15rem; margin-top: 2rem }
p, dd { overflow-wrap: anywhere } .soft, dt { color: var(--soft) } dd { margin: 0 0 .4rem }
.wide { overflow-x: auto; margin: 1rem 0 } .wide img { display: block; max-width: 100%; min-width: 34rem; height: auto }
table { border-collapse: collapse } th, td { text-align: left; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; white-space: nowrap }
"""


def html(title: str, parts: Iterable[str], style: str = "") -> str:
    """Give a whole page; `parts` are HTML, the title is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{STYLE}{style}</style>'
        f"</head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def table(name: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table of plain texts that scrolls where the page is narrow."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}"><table><thead><tr>'
        f"{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def how_made(facts: Iterable[tuple[str, str]], command: str, versions: Iterable[tuple[str, str]]) -> str:
    """Say by which command, from which data and with which versions a page was made."""
    lines = [(name, escape(value)) for name, value in facts]
    lines += [("Command", f"<code>{escape(command)}</code>")]
    lines += [("Versions", escape(", ".join(f"{name} {version}" for name, version in versions)))]
    return (
        "<h2>How this was made</h2><dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in lines)
        + "</dl>"
    )
