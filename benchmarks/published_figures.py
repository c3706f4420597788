"""Published figures of public data sets, and the table that ours stand in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

METRICS = {
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "two_way_alexnet2": "two-way, AlexNet 2",
    "two_way_alexnet5": "two-way, AlexNet 5",
    "two_way_inception": "two-way, Inception",
    "two_way_clip": "two-way, CLIP",
    "distance_efficientnet": "distance, EfficientNet (lower is better)",
    "distance_swav": "distance, SwAV (lower is better)",
}
"""Of reconstructions, in the order in which the field prints them."""
TOLD = {
    "retrieved_top1": "which of the test pictures, top-1",
    "retrieved_top5": "which of the test pictures, top-5",
    "retrieved_two_way": "two-way, decoded embedding",
}
"""Of retrieval."""
RETRIEVAL = ("things-eeg2", "things-meg")
"""Data sets of which the field tells which picture was seen."""
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "things-eeg2": {
        "NICE (Song et al. 2024)": {"retrieved_top1": 0.156, "retrieved_top5": 0.428},
        "ATM-S (Li et al. 2024)": {"retrieved_top1": 0.261, "retrieved_top5": 0.553},
        "UBP (Wu et al. 2025)": {"retrieved_top1": 0.509, "retrieved_top5": 0.797},
        "best of AAAI 2026": {"retrieved_top1": 0.800, "retrieved_top5": 0.969},
    },
    "things-meg": {},
    "nsd": {
        "MindEye1 (Scotti et al. 2023)": {
            "pixcorr": 0.309,
            "ssim": 0.323,
            "two_way_alexnet2": 0.947,
            "two_way_alexnet5": 0.978,
        },
        "MindEye2 (Scotti et al. 2024)": {
            "pixcorr": 0.322,
            "ssim": 0.431,
            "two_way_alexnet2": 0.961,
            "two_way_alexnet5": 0.986,
            "two_way_inception": 0.954,
            "two_way_clip": 0.930,
            "distance_efficientnet": 0.619,
            "distance_swav": 0.344,
        },
    },
}
"""Means over participants (THINGS-EEG2: ten, each with a model of its own; NSD: 1, 2, 5 and 7, 40 sessions), as their
papers print them, by data set, method and metric. MindEye2's were checked against the table of a later paper that
prints them again; MindEye1's other figures could not be checked, and are left out until they are."""
PROTOCOL = (
    "Ours: brackets are 95 % intervals, bootstrapped over test windows of one participant; means over participants "
    "have none. Retrieval: cosine of deviations from the mean training picture, among all test pictures; test pictures "
    "average all presentations unless said otherwise. Reconstructions: PixCorr at 425 x 425; SSIM at 425 x 425 of grey "
    "values, Gaussian window of sigma 1.5, data range 1; two-way identification and 1 - correlation by the networks "
    "that Ozcelik & VanRullen 2023 name, but CLIP, which is the engine's own. A dash: not computed here, or not in "
    "the paper."
)


def table_of(dataset: str, found: Mapping[str, Mapping[str, Any]], protocol: str) -> str:
    """Write the table: a row a figure, ours by participant and in the mean, then what is published.

    Parameters
    ----------
    dataset : str
        A key of `PUBLISHED`.
    found : mapping of str to mapping
        By participant: 'data', 'pictures', perhaps 'gallery', and each metric as [value, low, high].
    protocol : str
        Stands below the table.
    """
    methods = PUBLISHED[dataset]
    first = next(iter(found.values()))
    several = len(found) > 1
    heads = ["figure", *(f"ours, {who}" for who in found), *(["ours, mean"] if several else []), *methods]
    lines = [f"# {first['data']}" if not several else f"# {dataset}", ""]
    lines += [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    for key, label in {**TOLD, **METRICS}.items():
        ours = [own.get(key) for own in found.values()]
        theirs = [own.get(key) for own in methods.values()]
        if any(one is not None for one in [*ours, *theirs]):
            known = [one[0] for one in ours if one is not None]
            mean = [f"{np.mean(known):.3f}" if len(known) == len(ours) else "-"] if several else []
            cells = [label, *map(_ours, ours), *mean, *("-" if one is None else f"{one:.3f}" for one in theirs)]
            lines.append(f"| {' | '.join(cells)} |")
    counts = {f"{own['pictures']} pictures reconstructed" for own in found.values()}
    counts |= {f"{own['gallery']} in the gallery" for own in found.values() if "gallery" in own}
    return "\n".join([*lines, "", "; ".join(sorted(counts)) + ".", "", protocol, ""])


def _ours(figure: list[float] | None) -> str:
    return "-" if figure is None else f"{figure[0]:.3f} [{figure[1]:.3f}, {figure[2]:.3f}]"
