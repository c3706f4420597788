"""The page of maps: one file that holds its figures."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from minddiffuser.mapfigures import write_figures
from minddiffuser.page import how_made, html, table
from stream.atomic import write_whole

if TYPE_CHECKING:
    from decoder.bundle import Bundle
    from minddiffuser.maps import Maps

TITLES = {"c": "c, text embedding", "z": "z, image latent", "category": "category"}


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
    write_whole(page, _html(maps, bundle, figures, command))
    return page, [file for pair in figures.values() for file in pair.values()]


def _html(maps: Maps, bundle: Bundle, figures: dict[str, dict[str, Path]], command: str) -> str:
    found = maps.decodability
    where = "regions" if maps.centres is None else "latencies"
    data = str(bundle.meta["data"])
    parts = [
        f"<h1>Maps: {escape(data)}</h1>",
        f"<p>{maps.n_windows} windows of {maps.n_pictures} pictures, {len(maps.channels)} channels.</p>",
        f"<h2>Which {where} tell</h2>",
        _figure("decodability", figures["decodability"], f"Held-out correlation of each feature over {where}"),
        f"<p>Cross-validated ridge on one part of the window at a time ({escape(maps.split)}): held-out correlation "
        "over a feature's eight leading principal components, weighted by variance. Chance is 0. Grey: where 95 % of "
        f"{found.n_permutations} permutations of {escape(maps.permuted)} lie, part by part. Dashed: what the best of "
        f"all {where} and features stays below in 95 % of permutations ({found.threshold:.3f}; family-wise error 5 %). "
        "A feature rises where it is above that line twice in a row.</p>",
        _table(maps),
        "<h2>Patterns</h2>",
        "<p>How the signal moves with what the decoder says (Haufe et al. 2014), not how the decoder weights it. "
        "Strength: how much of the signal's standard deviation moves with the five leading components of the decoded "
        "feature. Component 1: signal for one standard deviation of the first; its sign is arbitrary. Computed on the "
        "windows that the decoder was trained on; no test of significance.</p>",
    ]
    if maps.centres is not None:
        parts.append('<p class="soft">Latencies contain the delay of the causal filters that live decoding needs.</p>')
    for name in maps.patterns:
        title = TITLES.get(name, f"{name}, CLIP block {name[1:]}")
        parts += [f"<h3>{escape(title)}</h3>", _figure(title, figures[f"pattern-{name}"], f"Pattern of {title}")]
    parts.append(how_made([("Data", data)], command, bundle.meta.get("versions", {}).items()))
    return html(f"Maps: {data}", parts)


def _figure(name: str, files: dict[str, Path], alt: str) -> str:
    light, dark = (
        "data:image/png;base64," + base64.b64encode(files[t].read_bytes()).decode() for t in ("light", "dark")
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}"><picture>'
        f'<source srcset="{dark}" media="(prefers-color-scheme: dark)"><img src="{light}" alt="{escape(alt)}">'
        "</picture></div>"
    )


def _table(maps: Maps) -> str:
    timed = maps.centres is not None
    rows = []
    for name, one in maps.summary().items():
        cells = [name, f"{one['best']:.3f}", one["best_at"]]
        if timed:
            rises, peak = one["rise_s"], one.get("pattern_peak_s")
            cells += ["-" if rises is None else f"{rises:.3f} s", "-" if peak is None else f"{peak:.3f} s"]
        rows.append(cells)
    heads = ["feature", "best", "at", *(["rises at", "pattern peaks at"] if timed else [])]
    return table("Figures", heads, rows)
