"""What a person sees in the terminal: progress bars and one-line messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import progress as rich_progress
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn

from stream.types.progress import Progress

console = Console(stderr=True)
"""Everything for people goes to stderr; stdout is for answers, JSON among them."""


def print_line(text: str) -> None:
    """Print a line as it is: brackets are no markup, nothing is coloured, and a narrow terminal breaks no path."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_page(before: str, urls: Sequence[str], after: str = "") -> None:
    """Print where the page is: each address whole on a line of its own, however narrow the terminal."""
    first, *others = urls
    console.print(f"{before} [bold]{escape(first)}[/bold]{after}", soft_wrap=True)
    for url in others:
        console.print(f"  or at [bold]{escape(url)}[/bold]", soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show a progress bar for each thing that the block reports on."""
    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with rich_progress.Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if not total:  # nothing of the kind is to be done
                return
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def set_up_logging(verbose: bool, *, quiet: bool = False) -> None:
    """Send the log to the terminal: warnings unless `quiet`, everything of ours with `verbose`."""
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    for package in ("minddiffuser", "stream", "decoder", "engine"):
        logging.getLogger(package).setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
