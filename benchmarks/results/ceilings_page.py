"""What the page of ablations says of ceilings: one table of figures, what holds them back, and what is lost before."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.results.setups import FULL
from decoder.evaluation.metric_registry import PICTURE_METRICS, POSE_METRICS

Answer = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
Write = Callable[[float | None], str]
CHANCE, BASELINE = "chance: the picture of another window", "baseline: the mean image"
AUTOENCODER = "no diffusion: the true z through the autoencoder"
TOLD = ("pixcorr", "two_way_clip", "position")
"""Figures of which the sentence tells."""


def truth_of(name: str) -> str:
    """Name the variant in which some features ('s', or 'c, z, s') are true."""
    return f"true {name}"


def _variants(answer: Answer) -> dict[str, Mapping[str, float | None]]:
    return {row["name"]: row["values"] for row in answer["rows"]}


def _features(answer: Answer) -> tuple[list[str], str]:
    """Name the variants with one true feature, and the one with all."""
    names = [name for name in _variants(answer) if name.startswith(truth_of("")) and ":" not in name]
    return [name for name in names if "," not in name], next(name for name in names if "," in name)


def parts(answer: Answer, heads: Mapping[str, str], write: Write, table: Table) -> list[str]:
    """Make the paragraphs and tables that stand above the variants."""
    found = _variants(answer)
    ones, every = _features(answer)
    columns = [CHANCE, BASELINE, "stage 1", FULL, *ones, every, AUTOENCODER]
    names = ["chance", "baseline: mean image", "stage 1", "**ours**", *ones, f"**ceiling**: {every}", AUTOENCODER]
    shown = [(key, head) for key, head in heads.items() if found[FULL].get(key) is not None]
    rows = [[head, *(write(found[name].get(key)) for name in columns if name in found)] for key, head in shown]
    header = ["figure", *(name for name, column in zip(names, columns, strict=True) if column in found)]
    lost = [
        [one["feature"], *(write(one[key]) for key in ("correlation", "two_way", "explained"))]
        for one in answer["lost"]
    ]
    return [
        sentence(answer),
        table(header, rows),
        "What is lost between true and decoded features, about their mean over the pictures shown: correlation, "
        "two-way identification by it (chance .5), and the share of variance that is explained (the mean 0, the truth "
        "1; one that is decoded with its true spread and not drawn to the mean has less, and may have less than none).",
        table(["feature", "correlation", "two-way", "explained"], lost),
        observed(answer["ideal"], write),
        "By variant:",
    ]


def sentence(answer: Answer) -> str:
    """Say which part holds the figures back: the decoding of which feature, or the engine."""
    found = _variants(answer)
    ones, every = _features(answer)
    metrics, told = {**PICTURE_METRICS, **POSE_METRICS}, []
    blamed = []
    for key in TOLD:
        ours, ceiling = found[FULL][key], found[every][key]
        assert ours is not None
        assert ceiling is not None
        better = 1 if metrics[key].higher_is_better else -1
        best = 1.0 if better > 0 else 0.0
        decoding, engine = better * (ceiling - ours), better * (best - ceiling)
        most = max(ones, key=lambda name: better * (found[name][key] or 0.0))
        blamed.append("decoding" if decoding > engine else "the engine")
        told.append(
            f"{metrics[key].short} {ours:.3f} of {best:.0f} lacks {decoding:.3f} by decoding and {engine:.3f} by the "
            f"engine (one feature alone gives back most with {most}: {found[most][key]:.3f})"
        )
    whose = blamed[0] if len(set(blamed)) == 1 else " and ".join(dict.fromkeys(blamed))
    verb = "holds" if len(set(blamed)) == 1 else "hold"
    return f"**{whose[0].upper()}{whose[1:]} {verb} the figures back**: {'; '.join(told)}."


def observed(ideal: Answer, write: Write) -> str:
    """Say how often an ideal observer, and the pictures that are made, tell which picture was shown."""
    by_repeats = ", ".join(
        f"{write(shares['top1'])} from {k} presentation{'s' * (k != '1')}" for k, shares in ideal["by_repeats"].items()
    )
    count = ideal["pictures"]
    return (
        f"*Which of {count} pictures was shown* (chance {write(1 / count)}): an ideal observer, who knows every answer "
        f"and the noise (`benchmarks/ideal.py`), names it in {by_repeats}; by CLIP, the preview made of single "
        f"presentations is nearest to it in {write(ideal['stage1'])} and the final picture in {write(ideal['ours'])}."
    )
