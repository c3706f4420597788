"""A real bundle and its config on tiny models, trained on noise in a few seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from decoder.data.stimuli import StimulusTable
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from engine.models.loading import Models
from minddiffuser.config.spec import Config, parse_config
from stream.types.events import Event
from stream.types.windows import Channels, Window

CHANNELS = Channels(("A1", "A2"), ("eeg", "eeg"), ("V", "V"))
SFREQ, N_TIMES, PICTURES = 100.0, 20, 40


def config_of(models: Models, **parts: Any) -> dict[str, Any]:
    """Give a config for the stream 'nobody' that goes with the bundle, as a file would say it."""
    raw: dict[str, Any] = {
        "name": "tiny",
        "data": {"dataset": "recording"},
        "source": {"name": "nobody", "timeout_s": 30},
        "window": {"tmin": 0, "tmax": 0.2, "baseline": [0, 0.1]},
        "filters": {"highpass": 1.0, "reference": "average"},
        "engine": {
            "models": {"folder": models.spec.folder},
            "backend": "torch",
            "threads": 1,
            "structure": {"mode": "none"},
        },
    }
    return raw | parts


def write_tiny_bundle(models: Models, folder: Path, **parts: Any) -> Config:
    """Train on noise, and write the bundle and its config beside it (`folder`.yaml); `parts` are the config's."""
    rng = np.random.default_rng(0)
    names = tuple(f"p{number}" for number in range(PICTURES))
    images = rng.integers(0, 256, (PICTURES, 32, 32, 3), dtype=np.uint8)
    stimuli = StimulusTable(names, images, tuple((f"caption {name}",) for name in names))
    data = rng.normal(0, 1e-5, (PICTURES, len(CHANNELS), N_TIMES)).astype(np.float32)
    windows = [
        Window(name, data[row], CHANNELS, SFREQ, float(row), 0.0, Event(float(row), name), row + 1.0, row + 1.0)
        for row, name in enumerate(names)
    ]
    config = parse_config(config_of(models, **parts), "test")
    meta = {"data": "noise", "config": config.own()}
    fit(windows, stimuli, models, DecoderSpec(features=("c", "z")), meta=meta).save(folder)
    folder.with_suffix(".yaml").write_text(yaml.safe_dump(config_of(models, **parts)), "utf-8")
    return config
