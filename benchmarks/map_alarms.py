"""How often `maps` calls noise significant, and an effect: simulated recordings of four categories.

Every block has a level of its own, as drift and attention give it, that has nothing to do with its category (`noise`);
in `effect`, the category has one, too, half as large again. At a family-wise error of 5 %, 10 of 200 recordings of
noise are expected to be called significant, and 95 % of such counts lie between 4 and 16.

    python -m benchmarks.map_alarms [--recordings 200]
"""

import argparse
from itertools import product

import numpy as np

from decoder.evaluation.timecourse import decodability

BLOCKS, CATEGORIES, CHANNELS = 64, 4, 10
EFFECT = 1.5
DESIGNS = {"blocks of 8 trials": (8, 1), "blocks of 8 trials, 4 runs": (8, 4), "single trials": (1, 1)}
"""Trials a block, and runs."""


def significant(seed: int, *, trials: int, runs: int, effect: float, n_permutations: int = 100) -> bool:
    """Simulate a recording, and tell whether its category is called decodable."""
    rng = np.random.default_rng(seed)
    order = [rng.permutation(np.arange(BLOCKS // runs) % CATEGORIES) for _ in range(runs)]
    rows = np.repeat(np.concatenate(order), trials)
    level = np.repeat(rng.normal(size=(BLOCKS, CHANNELS)), trials, axis=0)
    level += effect * rng.normal(size=(CATEGORIES, CHANNELS))[rows]
    part = (level + 0.3 * rng.normal(size=level.shape)).astype(np.float32)
    of_run = np.sort(np.arange(len(rows)) % runs).astype(str)
    target = {"category": np.eye(CATEGORIES, dtype=np.float32)}
    found = decodability([part], target, rows, np.random.default_rng(1), runs=of_run, n_permutations=n_permutations)
    return bool(found.significant.any())


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.map_alarms", description=__doc__)
    parser.add_argument("--recordings", type=int, default=200)
    n = parser.parse_args().recordings
    for (name, (trials, runs)), (what, effect) in product(DESIGNS.items(), (("noise", 0.0), ("effect", EFFECT))):
        count = sum(significant(seed, trials=trials, runs=runs, effect=effect) for seed in range(n))
        print(f"{name:<28} {what:<7} significant in {count} of {n}")


if __name__ == "__main__":
    main()
