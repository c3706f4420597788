"""How often the reported chance interval holds what tells nothing: it says 95 %.

Sets of simulated noise, cross-validated as `minddiffuser evaluate CONFIG` does, each with its interval by permutation:
regression onto pictures (120 of one window each, ten folds) of windows of noise alone, and of windows with a signal
whose pictures were permuted; categories (eight runs of 64 trials, a run held out at a time) of noise alone, of permuted
labels, and of blocks told apart by nothing but drift.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.estimators.classifiers import CategorySpec, Trials
from decoder.models.category import category_scores, held_out_logits
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import DecoderSpec
from decoder.training.crossval import decode_held_out, feature_scores
from decoder.versions import FIGURES, versions
from stream.types.events import Event
from stream.types.windows import Channels, Window

PICTURES, CHANNELS, TIMES, SFREQ = 120, 12, 20, 100.0
RUNS, BLOCKS, TRIALS, CATEGORIES = 8, 8, 8, 4

Scores = dict[str, Any]


def pictures(kind: str, rng: np.random.Generator) -> dict[str, Scores]:
    """Decode pictures from noise, or from windows whose pictures were permuted."""
    content = rng.normal(size=(PICTURES, 48))
    latents = (content @ rng.normal(size=(48, 18))).reshape(-1, 2, 3, 3).astype(np.float32)
    data = rng.normal(size=(PICTURES, CHANNELS * TIMES))
    if kind == "permuted":
        data += content[rng.permutation(PICTURES)] @ rng.normal(size=(48, CHANNELS * TIMES)) / 4
    names = tuple(f"p{row}" for row in range(PICTURES))
    channels = Channels(tuple(f"E{row}" for row in range(CHANNELS)), ("eeg",) * CHANNELS, ("V",) * CHANNELS)
    cube = (1e-6 * data).reshape(PICTURES, CHANNELS, TIMES).astype(np.float32)
    windows = [
        Window(name, one, channels, SFREQ, float(row), 0.0, Event(float(row), name), row + 1.0, row + 1.0)
        for row, (name, one) in enumerate(zip(names, cube, strict=True))
    ]
    targets = Targets(z=latents)
    spec = DecoderSpec(features=("z",), preprocess=PreprocessSpec(decimate=4))
    stimuli = StimulusTable(names, np.zeros((PICTURES, 2, 2, 3), np.uint8))
    held_out = decode_held_out(windows, stimuli, targets, spec)
    return {"pictures": feature_scores(held_out, targets, rng)["z"]}


def categories(kind: str, rng: np.random.Generator) -> dict[str, Scores]:
    """Decode categories in noise, after labels were permuted, or in blocks that only drift tells apart."""
    n = RUNS * BLOCKS * TRIALS
    order = [np.repeat(rng.permutation(np.arange(BLOCKS) % CATEGORIES), TRIALS) for _ in range(RUNS)]
    runs = np.repeat([f"run{number}" for number in range(RUNS)], BLOCKS * TRIALS)
    if kind != "blocks":
        order = [rng.permutation(own) for own in order]
    rows = np.concatenate(order)
    data = rng.normal(size=(n, 10))
    if kind == "blocks":
        data = np.cumsum(data, axis=0) + 0.1 * rng.normal(size=data.shape)
    if kind == "permuted":
        data += 3 * rng.normal(size=(CATEGORIES, 10))[np.concatenate([rng.permutation(own) for own in order])]
    names = tuple(f"category {row}" for row in range(CATEGORIES))
    trials = Trials(data.astype(np.float32)[:, :, None], np.zeros(1), rows, names, runs)
    spec = CategorySpec(method="pattern")
    return {"categories": category_scores(held_out_logits(trials, spec, PreprocessSpec(components=None)), trials)}


WORLDS: dict[str, tuple[Callable[[str, np.random.Generator], dict[str, Scores]], tuple[str, ...], tuple[str, ...]]] = {
    "pictures": (pictures, ("noise", "permuted"), ("two_way", "top1")),
    "categories": (categories, ("noise", "permuted", "blocks"), ("accuracy", "auc")),
}


def coverage(n_sets: int, seed: int) -> dict[str, Any]:
    """Count the sets whose score lies in the interval reported with it.

    Returns
    -------
    found : dict
        By world, kind and score: 'inside', 'below' and 'above', in shares of the sets.
    """
    found: dict[str, Any] = {}
    for world, (score, kinds, names) in WORLDS.items():
        for kind in kinds:
            counts: dict[str, Counter[str]] = {name: Counter() for name in names}
            for number in range(n_sets):
                out = score(kind, np.random.default_rng([seed, number]))[world]
                for name in names:
                    counts[name][_side(out[name], out[f"{name}_chance"])] += 1
            shares = {
                name: {side: round(own[side] / n_sets, 4) for side in ("inside", "below", "above")}
                for name, own in counts.items()
            }
            found.setdefault(world, {})[kind] = shares
    return found


def _side(value: float, interval: NDArray[np.float64] | list[float]) -> str:
    low, high = interval
    return "below" if value < low else "above" if value > high else "inside"


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--sets", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    found = coverage(options.sets, options.seed)
    if options.json:
        about = {"sets": options.sets, "seed": options.seed, "seconds": round(time.monotonic() - started, 1)}
        print(json.dumps({"coverage": found, **about, "machine": machine(), "versions": versions(FIGURES)}))
        return
    print(f"{options.sets} sets each; shares inside, below and above the 95 % chance interval")
    for world, kinds in found.items():
        for kind, scores in kinds.items():
            for name, own in scores.items():
                cells = " ".join(f"{own[side]:>6.3f}" for side in ("inside", "below", "above"))
                print(f"{world:>11} {kind:>9} {name:>9} {cells}")


if __name__ == "__main__":
    main()
