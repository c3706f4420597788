"""What figures mean and how they are made: the footnotes of reports, and the checks beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from decoder.evaluation.metric_registry import METRICS

NOTES = {
    **{metric.key: metric.note for metric in METRICS if metric.note},
    "counts": "In bold: the measures that the verdict counts, each of another kind.",
    "interval": "Brackets: 95 % interval, bootstrap over windows.",
    "mean_image": "The mean of the training pictures in place of every reconstruction: what is reached without the "
    "brain.",
    "baseline": "What is reached without the brain: of categories, by always naming the most frequent.",
    "chance": "What chance reaches. Of PixCorr, SSIM and concepts: each final picture held against a picture that was "
    "not shown. Of two-way identification .5, of retrieval one or five of all pictures shown. A range: 95 % of "
    "permutations.",
    "gain": "From the preview to the final picture of the same windows, with its own interval: above 0, stage 2 helps.",
    "p": "How probable a figure as high is by chance: 1,000 permutations of the pictures (or categories), and the "
    "figure itself counted among them.",
    "clip": "Two-way identification by CLIP, the one that the engine uses. Its first block is what stage 2 optimises, "
    "and so no judge from outside.",
    "retrieval": "The picture shown is the most similar, or among the five most similar, of all shown, by CLIP.",
    "concept": "The name of what was shown is the nearest, or among the five nearest, of all names shown, by CLIP.",
    "distance": "One minus the correlation of the network's features; lower is better.",
    "clip_rank": "The place of the picture shown among all shown, by CLIP's likeness to the final picture: 1 is best.",
    "pose": "Where the figure lies (distance in shares of the picture's side), how large it is (difference in shares "
    "of the true size) and how it is turned (degrees; 45 by chance), held against the picture shown; lower is better.",
    "score": "Over a feature's eight leading principal components, weighted by variance.",
    "onset": "Begins: a range that windows and filters cannot break. Its end is the last sample of the first of two "
    "windows in a row above the dashed line: no causal filter and no average over a window tells of what comes later. "
    "Its beginning is that of the window before, which told nothing, less the time that the filters take to show a "
    "step (measured on them), and not before the picture.",
    "latency": "All latencies contain the delay of the causal filters that live decoding needs.",
    "pattern": "Haufe et al. 2014. Strength: how much of the signal's standard deviation moves with the five leading "
    "components of the decoded feature. Component 1: signal for one standard deviation of the first; its sign is "
    "arbitrary.",
}
"""By the key of a figure, or the first part of it, or of a column."""


CHECKS = {
    "hard_two_way": ("hard two-way", "against the five pictures most alike; chance 0.500"),
    "collapse.c": ("effective dimension of c", "share of the true one; near 0, all pictures come out alike"),
    "collapse.z": ("effective dimension of z", "share of the true one; near 0, all pictures come out alike"),
    "overlap.nearest_train": ("likeness to training pictures", "median CLIP cosine of a test picture to the nearest"),
    "overlap.nearest_test": ("likeness to test pictures", "the same to the nearest other test picture"),
    "overlap.inside": ("nearer to training pictures", "share of test pictures to which one of those is nearest"),
    "concepts_seen": ("concepts seen", "share of test pictures whose concept was shown in training"),
}
"""Label and meaning of the figures of `minddiffuser.evaluation.checks`."""


def check_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Return what each check is called, its value and what that is, from `checks` in `evaluate --json`."""
    for name, value in found.items():
        parts = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, Mapping) else {name: value}
        for key, one in parts.items():
            label, meaning = CHECKS[key]
            yield label, one, meaning


@dataclass(frozen=True, slots=True)
class Note:
    """A footnote and its number on the page."""

    number: int
    text: str


def note_of(key: str) -> str:
    """Return the key of the note that explains a figure ('c.two_way', 'retrieval_top5', ...); '' for none."""
    name = key.rpartition(".")[2]
    if name in NOTES:
        return name
    if name.startswith("two_way_clip"):
        return "clip"
    return next((known for known in NOTES if name.startswith(f"{known}_")), "")


def numbered(keys: Iterable[str]) -> dict[str, Note]:
    """Return the notes that a page refers to, numbered in the order in which it does."""
    used = [key for key in dict.fromkeys(keys) if key in NOTES]
    return {key: Note(number, NOTES[key]) for number, key in enumerate(used, 1)}
