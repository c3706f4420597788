"""What stage 2 gains, by the way its gradients take, and at what cost.

The same decoded held-out stimuli as in `benchmarks.engine` (simulated EEG, single presentations) and the demo's
settings; only the way from latents to shallow CLIP features differs:

- network: the closed-form network that the engine uses (`engine.sampling.gradient`);
- small: the decoder on latents of half the side, so on a quarter of the pixels;
- decoder: the whole decoder. No narrow or distilled decoder can carry better gradients than this one.

`loss` is the structure loss (times 100) of the finished pictures, by CLIP's own features; `gained` is its fall from
stage 1 for each second of processor time that stage 2 takes (`cpu_ms`, which other programs disturb less than `ms`).
Position is the distance from the true centre of the drawing in shares of the picture's side, size the error in shares
of the true size, orientation in degrees (45 by chance), all measured on the pictures (`decoder.evaluation.pose`).
`clip` is two-way identification by CLIP embeddings, `concept` the share of pictures whose concept CLIP names, of all
concepts of the pack.

    python -m benchmarks.structure --pictures 16
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.engine import Shown, about, decoded, milliseconds, reconstruct
from decoder.evaluation.metric_registry import pixcorr, ssim
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.evaluation.pose import Pose, pose, pose_errors, pose_of_mask
from engine.composing.compose import Stimulus, alpha_of, load_test_stimuli
from engine.composing.pack import Pack, load_pack
from engine.models.loading import Models, load_models
from engine.reconstructor import Reconstructor
from engine.setup import View
from engine.stage2.losses import structure_loss
from engine.stage2.targets import make_targets
from minddiffuser.cache import cache_dir
from minddiffuser.workflows.demo import Prepared, prepare


def views(models: Models, engine: Reconstructor) -> dict[str, View]:
    """Return the ways to be compared, by name."""

    def through(latents: Tensor, blocks: Sequence[int]) -> Mapping[int, Tensor]:
        return models.shallow.features(models.shallow.patches(models.decode_pixels(latents).float()), blocks)

    def small(latents: Tensor, blocks: Sequence[int]) -> Mapping[int, Tensor]:
        return through(F.interpolate(latents, scale_factor=0.5, mode="bilinear", antialias=True), blocks)

    return {"network": engine.setup.view, "small": small, "decoder": through}


class Judge:
    """Scores pictures of the shown stimuli, whose truth is known."""

    def __init__(self, models: Models, pack: Pack, shown: Shown, layer_weights: Sequence[float]) -> None:
        self.models, self.originals = models, shown.originals
        named = {stimulus.name: stimulus for stimulus in load_test_stimuli()}
        stimuli: list[Stimulus] = [named[label] for label in shown.labels]
        self.true: list[Pose] = [pose_of_mask(alpha_of(pack, stimulus)) for stimulus in stimuli]
        concepts = sorted(pack.concepts)
        self.concepts = models.embed_texts(concepts)
        self.own = np.array([concepts.index(stimulus.concept) for stimulus in stimuli])
        self.embedded = models.embed_images(self.originals)
        shallow = models.shallow
        self.targets = make_targets(shown.features, layer_weights, shallow.tokens * shallow.width)

    def loss(self, pictures: NDArray[np.uint8]) -> float:
        """Structure loss by CLIP's own features, times 100."""
        found = self.models.structure(pictures, self.targets.blocks)
        tensors = {block: torch.from_numpy(values) for block, values in found.items()}
        return float(structure_loss(tensors, self.targets).mean()) * 100

    def __call__(self, pictures: NDArray[np.uint8]) -> dict[str, float]:
        """Score pictures, one a stimulus."""
        errors = pose_errors([pose(picture) for picture in pictures], self.true)
        embedded = self.models.embed_images(pictures)
        figures = {
            "loss": self.loss(pictures),
            "pixcorr": pixcorr(self.originals, pictures).mean(),
            "ssim": ssim(self.originals, pictures).mean(),
            "clip": two_way(correlation_matrix(self.embedded, embedded)).mean(),
            "concept": ((embedded @ self.concepts.T).argmax(axis=1) == self.own).mean(),
            **{name: np.nanmean(error) for name, error in errors.items()},
        }
        return {name: round(float(value), 4) for name, value in figures.items()}


def measure(prepared: Prepared, pictures: int, first: int) -> dict[str, Any]:
    """Score stage 1 and stage 2 by each way."""
    spec = prepared.config.engine
    models = load_models(spec.models, "cpu")
    shown = decoded(prepared, first, pictures)
    engine = Reconstructor(spec, models, cache_dir() / "engines")
    engine.warm_up()
    judge = Judge(models, load_pack(), shown, spec.structure.layer_weights)
    rows: dict[str, dict[str, float]] = {}
    for name, view in views(models, engine).items():
        engine.setup = replace(engine.setup, view=view)
        runs = [reconstruct(engine, features) for features in shown.features]
        cpu = float(np.median([run.cpu_s for run in runs]))
        rows.setdefault("stage 1", judge(np.stack([run.stage1 for run in runs])))
        row = judge(np.stack([run.final for run in runs]))
        gained = (rows["stage 1"]["loss"] - row["loss"]) / cpu
        rows[name] = {"ms": milliseconds([run.total_s - run.preview_s for run in runs]), "cpu_ms": milliseconds([cpu])}
        rows[name] |= row | {"gained": round(gained, 4)}
    rows["mean image"] = judge(np.repeat(shown.mean_image[None], pictures, axis=0))
    rows["originals"] = judge(shown.originals)
    settings = spec.structure.model_dump(mode="json")
    return {
        "rows": rows,
        "pictures": pictures,
        "first": first,
        "backend": engine.backend.name,
        "settings": settings,
    } | about()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    given = parser.parse_args()
    answer = measure(prepare(), given.pictures, given.first)
    if given.json:
        print(json.dumps(answer))
        return
    columns = list(answer["rows"]["network"])
    print(f"{'':<11}" + "".join(f"{name:>12}" for name in columns))
    for name, row in answer["rows"].items():
        print(f"{name:<11}" + "".join(f"{row.get(column, ''):>12}" for column in columns))


if __name__ == "__main__":
    main()
