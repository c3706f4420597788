"""Compare the template for one's own amplifier with the demo's settings, on one simulated participant.

The participant is recorded to files as a user's calibration is (pictures in a folder, markers in the file); each config
is trained by `minddiffuser train` and judged on a test run of other pictures, single presentations.

    python -m benchmarks.template FOLDER --seed 11 --train 600 --test 60 --config configs/own-eeg.yaml
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml

from minddiffuser.training.data import Run, record_waves, stimulus_table

CALIBRATION, TEST = 41_000_000, 42_000_000
"""Seeds of composed pictures, far from those of the demo's calibration, bank and test."""


def record_files(folder: Path, seed: int, n_train: int, n_test: int) -> None:
    """Write the pictures' folder, `calibration_raw.fif` and `test_raw.fif` of one simulated participant."""
    from decoder.data.stimuli import write_stimuli
    from engine.composing.compose import compose, images
    from engine.composing.pack import load_pack
    from engine.models.loading import load_models
    from engine.spec import ModelSpec
    from minddiffuser.config.spec import DataSpec

    models, pack = load_models(ModelSpec(), "cpu"), load_pack()
    shown = [compose(pack, n, base + seed) for n, base in ((n_train, CALIBRATION), (n_test, TEST))]
    runs = [
        Run(images(part), models.embed_texts([one.concept for one in part]), [one.name for one in part])
        for part in shown
    ]
    folder.mkdir(parents=True, exist_ok=True)
    record_waves("eeg", DataSpec(dataset="simulated-eeg", preset="demo", seed=seed, soa=1.0), runs, folder)
    write_stimuli(stimulus_table([*shown[0], *shown[1]]), folder / "pictures")


def config_in(folder: Path, config: Path, name: str) -> Path:
    """Write a config that reads the files in `folder`, and else says what `config` does."""
    raw: dict[str, Any] = yaml.safe_load(config.read_text("utf-8"))
    files = {"train": "calibration_raw.fif", "live": "test_raw.fif", "stimuli": "pictures"}
    kept = {"image_bank": raw["data"]["image_bank"]} if "image_bank" in raw["data"] else {}
    raw |= {
        "name": name,
        "data": {"dataset": "recording", **{key: str(folder / file) for key, file in files.items()}, **kept},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    return path


def main() -> None:
    """Record where nothing is recorded yet, train and evaluate each config, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--config", type=Path, action="append", required=True)
    options = parser.parse_args()
    folder = options.folder / f"{options.seed}-{options.train}-{options.test}"
    if not (folder / "pictures").exists():
        record_files(folder, options.seed, options.train, options.test)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps([measure(folder, config) for config in options.config], indent=1))


def measure(folder: Path, config: Path) -> dict[str, Any]:
    """Train a config on the calibration and evaluate it, offline."""
    import asyncio
    import time

    from minddiffuser.training.training import train_from_file
    from minddiffuser.workflows.evaluate import run_evaluate

    began = time.monotonic()
    file, bundle = config_in(folder, config, config.stem), folder / f"bundle-{config.stem}"
    trained = train_from_file(file, None, bundle)
    seconds = time.monotonic() - began
    found = asyncio.run(run_evaluate(bundle, None, asyncio.Event(), live=False)).answer
    return {"config": str(config), "train_s": round(seconds, 1), "trained": trained, "offline": found["offline"]}


if __name__ == "__main__":
    main()
