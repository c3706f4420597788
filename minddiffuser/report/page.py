"""Pages of one file, made of the templates beside this module, in which every value is escaped, once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        autoescape=True,
        loader=PackageLoader("minddiffuser.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["figure"] = figure
    templates.filters["span"] = span
    return templates


def render(template: str, **values: Any) -> str:
    """Return a page that needs nothing beside it.

    Parameters
    ----------
    template : str
        Name of a file in `minddiffuser/templates`.
    **values
        What it shows. Text is escaped there: none of it is HTML.
    """
    return _templates().get_template(template).render(**values)


def figure(value: float | None, signed: bool = False) -> str:
    """Return a figure with three decimals, a count as it is, and a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def span(interval: tuple[float, float] | None, signed: bool = False) -> str:
    """Return an interval in brackets, and nothing for none."""
    return "" if interval is None else f"[{figure(interval[0], signed)}, {figure(interval[1], signed)}]"


def milliseconds(seconds: float | None) -> str:
    """Return a latency as people say it, and a dash for none."""
    return "-" if seconds is None else f"{1e3 * seconds:.0f} ms"


def begins(not_before: float | None, told_by: float | None) -> str:
    """Return when a feature begins to be told, as a range; see `decoder.evaluation.timecourse.Onset`."""
    if told_by is None:
        return "never"
    if not_before is not None and told_by > 0:
        not_before = max(not_before, 0.0)  # a picture tells nothing before it is there
    return f"by {milliseconds(told_by)}" if not_before is None else f"{1e3 * not_before:.0f} to {milliseconds(told_by)}"
