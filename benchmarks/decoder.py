"""The decoder: time of one window, time and memory of a fit, and how well real recordings are decoded.

`window_ms`: one window of 63 channels through a bundle of all features of the desk models (c, z, and a quarter of the
units of six CLIP blocks). `fit_s`, `fit_peak_gb`: 2,000 windows of 2,520 inputs onto 10,000 targets by ridge, penalties
chosen for each target among seven in five folds; the memory is that of the whole process, PyTorch included.
`accuracy`: `minddiffuser evaluate CONFIG` on recordings in MINDDIFFUSER_DATA, every window held out; what is not there
is named. `--quick` fits 500 windows onto 2,000 targets and takes two of the data sets, without choosing among the
candidates of their configs.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine

N_CHANNELS, N_TIMES, SFREQ = 63, 40, 50.0
REPEATS, WARM = 300, 20
FULL_FIT, QUICK_FIT = (2000, 10_000), (500, 2000)
GIGABYTE = 2**30

CONFIGS = Path(__file__).parents[1] / "configs"
FIGURES: dict[str, tuple[str, tuple[str, ...], float | str]] = {
    "muse-faces": ("muse-faces", ("auc",), 0.5),
    "muse-sides": ("muse-sides", ("auc",), 0.5),
    "ssvep-exo": ("ssvep-exo", ("accuracy",), "baseline"),
    "haxby-fmri": ("haxby-fmri", ("accuracy",), "baseline"),
    "v4-photos": ("v4-photos", ("s1", "two_way"), "baseline"),
    "miyawaki-fmri": ("miyawaki-fmri", ("picture", "pixcorr"), "pixcorr_mean_image"),
    "miyawaki-fmri-20way": ("miyawaki-fmri", ("picture", "top1"), 1 / 20),
}
"""By data set: its config, the place of the figure among the scores, and the baseline or the score that is it."""
QUICK = ("ssvep-exo", "haxby-fmri")


def time_windows(repeats: int) -> dict[str, float]:
    """Decode windows one at a time with a bundle fitted to noise: what it decodes costs nothing and changes nothing."""
    from decoder.data.stimuli import StimulusTable
    from decoder.data.targets import Targets
    from decoder.preprocessing.preprocess import PreprocessSpec
    from decoder.spec import DecoderSpec
    from decoder.training.train import fit_targets
    from stream.types.events import Event
    from stream.types.windows import Channels, Window

    n, rng = 330, np.random.default_rng(0)
    names = tuple(f"E{number}" for number in range(N_CHANNELS))
    channels = Channels(names, ("eeg",) * N_CHANNELS, ("V",) * N_CHANNELS)
    data = rng.normal(size=(n, N_CHANNELS, N_TIMES)).astype(np.float32)
    windows = [
        Window(str(row), one, channels, SFREQ, row, 0.0, Event(row, str(row)), row + 1.0, row + 1.0)
        for row, one in enumerate(data)
    ]
    targets = Targets(
        c=rng.normal(size=(n, 16, 128)).astype(np.float32),
        z=rng.normal(size=(n, 8, 16, 16)).astype(np.float32),
        s={block: rng.normal(size=(n, 65 * 192)).astype(np.float16) for block in range(1, 7)},
    )
    stimuli = StimulusTable(tuple(map(str, range(n))), np.zeros((n, 2, 2, 3), np.uint8))
    spec = DecoderSpec(alphas=(1.0,), cv_folds=2, preprocess=PreprocessSpec(components=300))
    bundle = fit_targets(windows, stimuli, targets, spec)
    taken = []
    for number in range(WARM + repeats):
        start = time.perf_counter()
        bundle.decode([windows[number % n]])
        taken.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(taken[WARM:], [50, 99])
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


def time_fit(n_windows: int, n_targets: int) -> dict[str, float]:
    """Fit the linear decoder on noise, preprocessing, penalties and confidence included."""
    from decoder.data.targets import Targets
    from decoder.data.training_set import TrainingSet
    from decoder.preprocessing.preprocess import PreprocessSpec
    from decoder.spec import DecoderSpec
    from decoder.training.train_linear import fit_linear

    rng = np.random.default_rng(0)
    labels = np.array([f"{row:05d}" for row in range(n_windows)])
    samples = TrainingSet(
        data=rng.normal(size=(n_windows, N_CHANNELS, N_TIMES)).astype(np.float32),
        times=np.arange(N_TIMES) / SFREQ,
        rows=np.arange(n_windows),
        groups=labels,
        runs=labels,
        units=labels,
        channels=tuple(f"E{number}" for number in range(N_CHANNELS)),
    )
    targets = Targets(z=rng.normal(size=(n_windows, n_targets, 1, 1)).astype(np.float32))
    spec = DecoderSpec(features=("z",), preprocess=PreprocessSpec(components=None))
    start = time.perf_counter()
    fit_linear(samples, targets, spec)
    taken = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGABYTE
    return {"fit_s": round(taken, 1), "fit_peak_gb": round(peak, 2)}


def accuracy(quick: bool, data: Path | None) -> dict[str, Any]:
    """Cross-validate the decoders of the configs whose recordings are there."""
    if data is None:
        return {"left out": "no recordings: set MINDDIFFUSER_DATA to their folder"}
    from decoder.errors import DatasetError
    from minddiffuser.workflows.crossval import evaluate_config

    answers: dict[str, dict[str, Any]] = {}
    out: dict[str, Any] = {}
    for name, (config, place, baseline) in FIGURES.items():
        if quick and name not in QUICK:
            continue
        try:
            answer = answers.setdefault(config, {}) or evaluate_config(
                CONFIGS / f"{config}.yaml", data, choose=not quick
            )
        except DatasetError as error:
            out[name] = {"left out": str(error)}
            continue
        answers[config] = answer
        scores, score = answer["scores"], place[-1]
        for step in place[:-1]:
            scores = scores[step]
        out[name] = {
            "data": answer["data"],
            "score": ".".join(place),
            "figure": scores[score],
            "chance": scores[f"{score}_chance"],
            "baseline": scores[baseline] if isinstance(baseline, str) else baseline,
            "reported": answer["reported"].get(score),
        }
    return out


def apart(target: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a process of its own, whose memory is its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(theirs, target, arguments))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def _send(pipe: Connection, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(target(*arguments))


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller fit, two data sets; under a minute")
    parser.add_argument("--only", choices=("window", "fit", "accuracy"), help="one part")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = os.environ.get("MINDDIFFUSER_DATA")
    fit = QUICK_FIT if options.quick else FULL_FIT
    repeats = REPEATS // 3 if options.quick else REPEATS
    wanted = {options.only} if options.only else {"window", "fit", "accuracy"}
    result: dict[str, Any] = {}
    if "window" in wanted:
        result["window_ms"] = apart(time_windows, repeats)
    if "fit" in wanted:
        result |= apart(time_fit, *fit)
        result["fit_size"] = {"windows": fit[0], "inputs": N_CHANNELS * N_TIMES, "targets": fit[1]}
    if "accuracy" in wanted:
        result["accuracy"] = accuracy(options.quick, Path(data) if data else None)
    result |= {
        "repeats": repeats,
        "machine": machine() | {"load": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("minddiffuser", "numpy", "scipy", "torch", "scikit-learn")}
        | {"python": platform.python_version()},
    }
    if options.json:
        print(json.dumps(result))
        return
    for name in ("window_ms", "fit_s", "fit_peak_gb"):
        print(f"{name:<20} {result.get(name, '')}")
    for name, row in result.get("accuracy", {}).items():
        print(f"{name:<20} {row}")


if __name__ == "__main__":
    main()
