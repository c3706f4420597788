"""The page of maps: one file that holds its figures."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from decoder.data.feature_registry import feature_of
from decoder.features import block_of
from minddiffuser.maps.figures import write_figures
from minddiffuser.report.notes import numbered
from minddiffuser.report.page import begins, figure, milliseconds, render
from minddiffuser.report.report import made, species_of
from stream.atomic import write_whole

if TYPE_CHECKING:
    from decoder.models.bundle import Bundle
    from minddiffuser.maps.maps import Maps


def write_page(maps: Maps, bundle: Bundle, folder: Path, command: str) -> tuple[Path, list[Path]]:
    """Write figures (PNG) and `index.html`, which needs none of them.

    Returns
    -------
    page : Path
    figures : list of Path

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = write_figures(maps, folder)
    page = folder / "index.html"
    write_whole(page, map_page(maps, str(bundle.meta["data"]), figures, command, bundle.meta.get("versions", {})))
    return page, [file for pair in figures.values() for file in pair.values()]


def map_page(maps: Maps, data: str, figures: dict[str, dict[str, Path]], command: str, versions: dict[str, str]) -> str:
    """Return the page.

    Parameters
    ----------
    maps : Maps
    data : str
        What was recorded, with its species or 'simulated'.
    figures : dict
        From `minddiffuser.maps.figures.write_figures`.
    command : str
    versions : dict
    """
    found, timed = maps.decodability, maps.centres is not None
    heads, rows = _table(maps)
    return render(
        "maps.html",
        title=f"Maps: {data}",
        species=species_of(data),
        facts=[
            ("Data", data),
            ("Windows", f"{maps.n_windows} of {maps.n_pictures} pictures"),
            ("Channels", str(len(maps.channels))),
            ("Held out", maps.split),
        ],
        warnings=maps.too_early(),
        where="latencies" if timed else "regions",
        timed=timed,
        figures={name: {theme: _embedded(file) for theme, file in by.items()} for name, by in figures.items()},
        split=maps.split,
        n_permutations=found.n_permutations,
        permuted=maps.permuted,
        threshold=found.threshold,
        heads=heads,
        rows=rows,
        patterns=[(name, _title(name)) for name in maps.patterns],
        drive=[(name, _title(name)) for name in maps.drive],
        explained=maps.explained,
        notes=numbered(["score", *(["onset", "latency"] if timed else []), "pattern"]),
        made=made(data, command, versions),
    )


def _embedded(file: Path) -> str:
    """Return a figure as a data URI: as WebP, which takes a tenth of a PNG's room."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(file) as figure_drawn:
        figure_drawn.convert("RGB").save(buffer, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _title(name: str) -> str:
    """Return the heading of a decoded feature, or of the category."""
    feature, block = feature_of(name), block_of(name)
    if feature is None:
        return name
    return feature.title if block is None else f"{name}, CLIP block {block}"


def _table(maps: Maps) -> tuple[list[str], list[list[str]]]:
    timed = maps.centres is not None
    rows = []
    for name, one in maps.summary().items():
        cells = [name, figure(one["best"]), one["best_at"]]
        if timed:
            cells[2] = milliseconds(one["best_s"])
            cells += [begins(one["not_before_s"], one["rise_s"]), milliseconds(one.get("pattern_peak_s"))]
        rows.append(cells)
    return ["Feature", "Best score", "Best at", *(["Begins", "Pattern peaks at"] if timed else [])], rows
