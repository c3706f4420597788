"""The page of an evaluation: figures beside chance and baseline, and pictures from the best to the worst."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from decoder import metrics
from minddiffuser.chart import KINDS, chart
from minddiffuser.chart import STYLE as CHART_STYLE
from minddiffuser.page import how_made, html, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoder.stimuli import StimulusTable
    from minddiffuser.archive import Received

LABELS = {
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "two_way": "two-way, pixels",
    "two_way_features": "two-way, simple features",
    "two_way_clip": "two-way, CLIP",
    "two_way_clip1": "two-way, CLIP block 1 (stage 2's own target)",
    "two_way_alexnet2": "two-way, AlexNet 2",
    "two_way_alexnet5": "two-way, AlexNet 5",
    "two_way_inception": "two-way, Inception",
    "distance_efficientnet": "distance, EfficientNet (lower is better)",
    "distance_swav": "distance, SwAV (lower is better)",
    "retrieval_top1": "retrieval, first",
    "retrieval_top5": "retrieval, first five",
    "concept_top1": "concept, first",
    "concept_top5": "concept, first five",
}
METHODS = (
    "PixCorr and SSIM at 425 x 425 pixels; SSIM on grey values, Gaussian window (sigma 1.5), data range 1. Two-way "
    "identification: how often a reconstruction is more like its own picture than like another, by correlation; "
    "chance is .5. Retrieval: own picture among the most similar of all shown, by CLIP. Concept: own concept's name "
    "among the nearest of all names shown, by CLIP. CLIP is the one the engine uses: its first blocks are what stage "
    "2 optimises. Simple features: contrast, luminance, colour and edges in cells. Mean image: the mean of the "
    "training pictures in place of every reconstruction. Chance: each final picture held against a picture that was "
    "not shown. Brackets: 95 % bootstrap over reconstructions. p: how probable it is by chance that the final pictures "
    "are identified as well; 1,000 permutations of the pictures, and the figure itself counted among them."
)
CHECKS = {
    "hard_two_way": "Two-way identification by CLIP against the five pictures most like the true one; chance .5. "
    "A decoder that knows clusters of pictures and nothing within them falls to .5.",
    "collapse_c": "Effective dimension of decoded c in shares of the true; far below 1, the decoder says much the same "
    "of all pictures.",
    "collapse_z": "The same of z.",
    "overlap_nearest_train": "Median cosine similarity (CLIP) of a test picture to the nearest training picture.",
    "overlap_nearest_test": "The same to the nearest other test picture.",
    "overlap_inside": "Share of test pictures that have a training picture nearer than any other test picture.",
    "concepts_seen": "Share of test pictures whose concept was shown in training.",
}
N_SHOWN = 6
SIDE = 128
STYLE = """
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; padding: 0; margin: 0 }
.grid li { list-style: none } .grid img { width: 100%; display: block; }
.trio { display: grid; grid-template-columns: repeat(3, 1fr); gap: 2px }
"""


def report_page(
    title: str,
    data: str,
    figures: Mapping[str, Mapping[str, Any]],
    received: Sequence[Received],
    stimuli: StimulusTable,
    *,
    agreement: Mapping[str, Any] | None = None,
    checks: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    command: str = "",
) -> str:
    """Return a page of HTML that needs nothing beside it.

    Parameters
    ----------
    title : str
    data : str
        What the pictures were decoded from, with its species or 'simulated'.
    figures : mapping
        By name ('offline', 'live'), what `minddiffuser.quality.score` or the category figures gave.
    received : sequence of Received
        With 'preview' and 'picture'.
    stimuli : StimulusTable
        Pictures that were shown, by the label of their event.
    agreement : mapping, optional
        Of live with offline pictures, from `minddiffuser.agreement`.
    checks : mapping, optional
        From `minddiffuser.checks.spurious_checks`.
    versions : mapping, optional
    command : str
    """
    parts = [f"<h1>{escape(title)}</h1>", f"<p>Decoded from {escape(data)}.</p>"]
    for name, found in figures.items():
        parts += [f"<h2>Figures, {escape(name)}</h2>", *_figures(found)]
    if any("stage2" in found for found in figures.values()):
        parts.append(f'<p class="soft">{escape(METHODS)}</p>')
    if agreement:
        parts.append(f"<h2>Live equals offline: {'yes' if agreement['equal'] else 'no'}</h2>")
        parts.append(f"<p>{_agreement(agreement)}</p>")
    if checks:
        parts += [
            "<h2>Are they good for the right reason?</h2>",
            table("Checks", ("figure", "meaning"), _checks(checks)),
        ]
    parts += _pictures(received, stimuli)
    parts.append(how_made([("Data", data)], command, (versions or {}).items()))
    return html(title, parts, CHART_STYLE + STYLE)


def _figures(found: Mapping[str, Any]) -> list[str]:
    if "stage2" not in found:
        rows = [
            (name.replace("_", " "), _short(value)) for name, value in found.items() if isinstance(value, float | int)
        ]
        return [table("Figures", ("figure", "value"), rows)]
    names = [name for name in LABELS if name in found["stage2"]]
    head = f"<p>{found['n']} reconstructions of {found['pictures']} pictures.</p>"
    cells = [
        [LABELS[name], *(_cell(found, kind, name) for kind in KINDS), _gain(found, name), _p(found, name)]
        for name in names
    ]
    return [
        head,
        chart(found, {name: LABELS[name] for name in names if not name.startswith("distance")}),
        table("Figures", ("figure", *KINDS.values(), "gain of stage 2", "p"), cells),
    ]


def _cell(found: Mapping[str, Any], kind: str, name: str) -> str:
    value = _short(found[kind][name])
    interval = found.get(f"{kind}_interval", {}).get(name)
    return value if interval is None else f"{value} [{_short(interval[0])}, {_short(interval[1])}]"


def _gain(found: Mapping[str, Any], name: str) -> str:
    gain = found.get("gain", {}).get(name)
    if gain is None:
        return "-"
    low, high = gain["interval"]
    return f"{gain['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _p(found: Mapping[str, Any], name: str) -> str:
    p = found.get("p", {}).get(name)
    return "-" if p is None else f"{p:.3f}"


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _agreement(found: Mapping[str, Any]) -> str:
    return (
        f"{found['windows']} windows have pictures on both sides: {found['same_seed']} drawn from the same seed, "
        f"{found['identical']} with the same pixels at every stage, once the offline picture is encoded as the live "
        f"one was (largest difference {found['largest_difference']} of 255). {len(found['missing'])} have a picture "
        f"only offline, {len(found['extra'])} only live. Encoding alone changes "
        f"{found['encoding_difference']:.2f} of 255 on average."
    )


def _checks(checks: Mapping[str, Any]) -> Iterator[str]:
    for name, value in checks.items():
        nested = {f"{name}_{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {name: value}
        for key, one in nested.items():
            yield f"<dt>{_short(one)}</dt><dd>{escape(CHECKS[key])}</dd>"


def _pictures(received: Sequence[Received], stimuli: StimulusTable) -> Iterator[str]:
    """Show the best, those around the median and the worst by PixCorr of the final picture: never the best alone."""
    known = [one for one in received if one.label in stimuli.ids and {"preview", "picture"} <= set(one.stages)]
    if not known or known[0].meta.get("categories"):
        return
    truth = stimuli.images[stimuli.rows(one.label for one in known)]
    scores = metrics.pixcorr(truth, np.stack([one.stages["picture"] for one in known]))
    order = np.argsort(-scores, kind="stable")
    n = min(N_SHOWN, len(order))
    middle = max((len(order) - n) // 2, 0)
    groups = {"Best": order[:n], "Around the median": order[middle : middle + n], "Worst": order[-n:]}
    yield "<h2>Pictures</h2><p>From left to right: shown, stage 1, final. Sorted by PixCorr of the final picture.</p>"
    for name, rows in groups.items():
        yield f'<h3>{name}</h3><ul class="grid">'
        for row in rows.tolist():
            one = known[row]
            trio = zip(("shown", "stage 1", "final"), (truth[row], *_stages(one)), strict=True)
            images = "".join(f'<img src="{_webp(image)}" alt="{what}: {escape(one.label)}">' for what, image in trio)
            yield f'<li><div class="trio">{images}</div><span class="soft">{scores[row]:.3f}</span></li>'
        yield "</ul>"


def _stages(one: Received) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return one.stages["preview"], one.stages["picture"]


def _webp(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(metrics.resize(image[None], SIDE)[0]).save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
