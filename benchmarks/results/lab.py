"""The simulated participant of ablations and ceilings, its decoder, and what its test pictures truly show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results.setups import ROOT, Setup
from decoder.evaluation.metric_registry import PICTURE_METRICS, POSE_METRICS, picture_scores
from decoder.evaluation.pose import pose, pose_errors, pose_of_mask
from decoder.features import Features
from decoder.models.bundle import Bundle
from engine.composing.compose import alpha_of, load_test_stimuli
from engine.composing.pack import load_pack
from engine.models.loading import load_models
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec
from minddiffuser.cache import made_once
from minddiffuser.config.spec import Config, load_config
from minddiffuser.console import progress
from minddiffuser.evaluation.perception import Judges
from minddiffuser.live.engines import ready_engine
from minddiffuser.training.data import load_dataset
from minddiffuser.training.training import train
from minddiffuser.workflows.demo import prepare, training_key
from minddiffuser.workflows.evaluate import first_events, mean_training_image, usable_windows
from stream.types.recording import Recording
from stream.types.windows import Window

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

PAPER = {"iterations": 300, "learning_rate": 0.01, "decay": 0.999}
"""Of the exact stage 2."""
AT_ONCE = 4
"""Windows reconstructed together."""
UNPRIORED = {"decoder.structure_prior": None, "data.image_bank": None}
SCORES = {
    key: {**PICTURE_METRICS, **POSE_METRICS}[key].short
    for key in ("pixcorr", "ssim", "two_way", "two_way_features", "two_way_clip", "concept_top5", *POSE_METRICS)
}


@dataclass(frozen=True, slots=True)
class Made:
    """Pictures of one variant: which of the lab's pictures they should show, and both stages."""

    own: NDArray[np.intp]
    first: Pixels
    final: Pixels


class Lab:
    """The simulated participant of a config, the decoder trained on it, and what its test pictures truly show.

    Parameters
    ----------
    config_file : Path
    n_pictures : int
        Test windows, the first of the run.
    """

    def __init__(self, config_file: Path, n_pictures: int) -> None:
        self.config = load_config(config_file)
        self.models = load_models(self.config.engine.models, self.config.engine.device)
        with progress() as report:
            self.dataset = load_dataset(self.config, None, self.models, report)
        self.live = first_events(self.dataset.live, n_pictures)
        self.bundle = prepare(config_file).bundle  # trained once for all groups
        self.windows = self.cut(self.config)
        self.labels = tuple(sorted({label_of(window) for window in self.windows}))
        self.shown = self.dataset.stimuli.select(self.labels)
        self.judge = Judges(self.models).against(self.shown.images, self.shown.concepts)
        pack, named = load_pack(), {stimulus.name: stimulus for stimulus in load_test_stimuli()}
        self.true = [pose_of_mask(alpha_of(pack, named[label])) for label in self.labels]

    @classmethod
    def of(cls, setup: Setup) -> "Lab":
        """Open the lab of a setup of ablations; groups that follow one another in a process share it."""
        assert setup.limit is not None
        return _opened(ROOT / "configs" / f"{setup.config}.yaml", setup.limit)

    def cut(self, config: Config, recording: Recording | None = None) -> list[Window]:
        """Cut the test run as a config says."""
        return usable_windows(recording or self.live, config)

    def make(self, features: Sequence[Features], windows: Sequence[Window], spec: EngineSpec, bundle: Bundle) -> Made:
        """Reconstruct decoded windows."""
        engine: Reconstructor = ready_engine(spec, bundle, self.models)
        first: list[Pixels] = []
        final: list[Pixels] = []
        for start in range(0, len(features), AT_ONCE):
            made = engine.reconstruct(
                features[start : start + AT_ONCE],
                on_preview=lambda previews: first.extend(one.pixels for one in previews),
            )
            final.extend(one.pixels for one in made)
        return Made(self.shown.rows(label_of(window) for window in windows), np.stack(first), np.stack(final))

    def decoded(self) -> list[Features]:
        """Decode the test windows."""
        return self.bundle.decode(self.windows)

    @cached_property
    def full(self) -> Made:
        """The pictures of the setup as it is."""
        return self.make(self.decoded(), self.windows, self.config.engine, self.bundle)

    @cached_property
    def mean_image(self) -> Pixels:
        """Mean of the training pictures."""
        return mean_training_image(self.dataset)

    @cached_property
    def plain_bundle(self) -> Bundle:
        """The decoder without the prior of structure, trained once for all groups."""
        config = changed(self.config, UNPRIORED)

        def make(folder: Path) -> None:
            train(config, self.dataset, self.models, advise=False).save(folder / "bundle")

        key = training_key(config, self.models)
        return Bundle.load(made_once(f"{self.config.name}-plain", key, make) / "bundle")

    @cached_property
    def plain(self) -> Made:
        """The pictures of the decoder without the prior of structure."""
        bundle = self.plain_bundle
        return self.make(bundle.decode(self.windows), self.windows, changed(self.config, UNPRIORED).engine, bundle)

    def retrained(self, changes: Mapping[str, Any], n_training: int | None = None) -> Made:
        """Train anew without the prior of structure and with parts of the config changed; the same windows.

        As the setup's own decoder, stage 2 is not checked first.
        """
        config = changed(self.config, {**UNPRIORED, **changes})
        trained_on = tuple(first_events(run, n_training) for run in self.dataset.train)
        bundle = train(config, replace(self.dataset, train=trained_on), self.models, advise=False)
        windows = self.cut(config)
        return self.make(bundle.decode(windows), windows, config.engine, bundle)

    def scores(self, own: NDArray[np.intp], pictures: Pixels) -> dict[str, Floats]:
        """Score pictures one by one, held against the true ones; each (n,), NaN where a figure has no orientation."""
        found = picture_scores(self.shown.images, own, pictures) | self.judge(own, pictures)
        found |= pose_errors([pose(picture) for picture in pictures], [self.true[row] for row in own])
        return {name: found[name] for name in SCORES}


@lru_cache(1)
def _opened(config_file: Path, n_pictures: int) -> Lab:
    return Lab(config_file, n_pictures)


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a config with some keys changed, by their paths ('decoder.blocks')."""
    raw = config.own()
    for path, value in changes.items():
        *sections, key = path.split(".")
        part = raw
        for section in sections:
            part = part.setdefault(section, {})
        part[key] = value
    return Config.model_validate(raw)


def label_of(window: Window) -> str:
    """Name the picture that a window answers to."""
    assert window.event is not None
    return window.event.label
