"""Try settings of the engine on pictures that no setup is tested on.

A simulated participant is shown pictures composed anew (`--seed`), the prepared decoder of a config decodes its
windows, and every `--try` reconstructs them with other settings of `engine.structure`, or of `engine` where the
name begins with 'engine.'. Settings are chosen by this and never by the test run. Two seeds tell how far two rows may
differ by the pictures alone.

    python -m benchmarks.choosing configs/demo-fmri.yaml --pictures 120 --try '{}' --try '{"candidates": 8}'

Position is the distance from the true centre of the drawing in shares of the picture's side, size the error in shares
of the true size, orientation in degrees (45 by chance), all measured on the pictures (`decoder.evaluation.pose`), each
also as the change from stage 1 in percent; `concepts`: the true one is among the five nearest names, of those shown.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine import about
from decoder.evaluation.metric_registry import picture_scores
from decoder.evaluation.metrics import top_k
from decoder.evaluation.pose import Pose, pose, pose_errors, pose_of_mask
from decoder.features import Features
from engine.composing.compose import alpha_of, compose
from engine.composing.pack import load_pack
from engine.models.loading import Models, load_models
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec
from minddiffuser.cache import cache_dir
from minddiffuser.training.data import CALIBRATION_SEED, record
from minddiffuser.workflows.demo import Prepared, prepare
from minddiffuser.workflows.evaluate import usable_windows
from stream.files.registry import read

SEED = 9_100_000
"""Of the first pictures; far from those of calibration, bank and test."""
MEASURES = ("position", "size", "orientation")
ENGINE = "engine."


@dataclass(frozen=True, slots=True)
class Shown:
    """Decoded windows, and what was shown in each."""

    features: list[Features]
    originals: NDArray[np.uint8]
    poses: list[Pose]
    concepts: list[str]


def show(prepared: Prepared, models: Models, pictures: int, seed: int) -> Shown:
    """Record the participant of a config as it looks at new pictures, and decode that."""
    config, pack = prepared.config, load_pack()
    spec = config.data
    calibration = compose(pack, spec.pictures, CALIBRATION_SEED + spec.seed)
    stimuli = {stimulus.name: stimulus for stimulus in compose(pack, pictures, seed)}
    modality: Literal["eeg", "meg", "fmri"] = spec.dataset.removeprefix("simulated-")  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        record(modality, spec, models, (calibration, list(stimuli.values())), folder, lambda *_: None)
        recording = read(folder / ("test_raw.nii.gz" if modality == "fmri" else "test_raw.fif"))
        windows = usable_windows(recording, config)
    own = [stimuli[window.event.label] for window in windows if window.event is not None]
    return Shown(
        [prepared.bundle.decode([window])[0] for window in windows],
        np.stack([stimulus.image for stimulus in own]),
        [pose_of_mask(alpha_of(pack, stimulus)) for stimulus in own],
        [stimulus.concept for stimulus in own],
    )


def score(models: Models, shown: Shown, pictures: NDArray[np.uint8]) -> dict[str, float]:
    """Score pictures, one a window."""
    errors = pose_errors([pose(picture) for picture in pictures], shown.poses)
    scores = picture_scores(shown.originals, np.arange(len(pictures)), pictures)
    names = sorted(set(shown.concepts))
    similarity = (models.embed_texts(names) @ models.embed_images(pictures).T).astype(np.float64)
    own = np.array([names.index(concept) for concept in shown.concepts])
    figures = {name: np.nanmean(errors[name]) for name in MEASURES}
    figures |= {name: scores[name].mean() for name in ("pixcorr", "ssim")} | {
        "concepts": top_k(similarity, 5, own).mean()
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def with_settings(spec: EngineSpec, settings: dict[str, Any]) -> EngineSpec:
    """Change settings of stage 2, or of the engine, by name."""
    raw = spec.model_dump(exclude_unset=True)  # a pool's settings go with its address alone
    for name, value in settings.items():
        place = raw if name.startswith(ENGINE) else raw.setdefault("structure", {})
        place[name.removeprefix(ENGINE)] = value
    return type(spec).model_validate(raw)


def tried(models: Models, spec: EngineSpec, shown: Shown, *, begin: bool) -> dict[str, dict[str, float]]:
    """Reconstruct what was shown, and score both stages."""
    features = shown.features if begin else [replace(one, structure_latent=None) for one in shown.features]
    previews: list[Picture] = []
    finals = Reconstructor(spec, models, cache_dir() / "engines").reconstruct(features, previews.extend)
    first, second = (score(models, shown, np.stack([one.pixels for one in made])) for made in (previews, finals))
    change = {name: round(100 * (second[name] / first[name] - 1), 1) for name in MEASURES}
    return {"stage 1": first, "stage 2": second, "change, %": change}


def measure(config: Path, pictures: int, seed: int, tries: Sequence[dict[str, Any]], *, begin: bool) -> dict[str, Any]:
    """Score every try, on the same windows."""
    prepared = prepare(config)
    models = load_models(prepared.config.engine.models, "cpu")
    shown = show(prepared, models, pictures, seed)
    rows = [
        {"settings": settings} | tried(models, with_settings(prepared.config.engine, settings), shown, begin=begin)
        for settings in tries
    ]
    return {"config": prepared.config.name, "pictures": len(shown.features), "seed": seed, "rows": rows} | about()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of a simulated participant")
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--seed", type=int, default=SEED, help="of the pictures")
    parser.add_argument("--try", dest="tries", action="append", type=json.loads, help="settings, as a JSON object")
    parser.add_argument("--without-structure_latent", action="store_true", help="begin stage 2 at stage 1's picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    logging.getLogger("engine.reconstructor").setLevel(logging.ERROR)  # what stage 2 leaves alone is in the figures
    answer = measure(
        given.config,
        given.pictures,
        given.seed,
        given.tries or [{}],
        begin=not given.without_structure_latent,
    )
    if given.json:
        print(json.dumps(answer))
        return
    for row in answer["rows"]:
        print(json.dumps(row["settings"]))
        for name in ("stage 1", "stage 2", "change, %"):
            print(f"  {name:<10}" + "".join(f"{key:>13} {value:g}" for key, value in row[name].items()))


if __name__ == "__main__":
    main()
