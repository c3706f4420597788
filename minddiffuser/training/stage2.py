"""Check by held-out calibration windows whether stage 2 helps; where it does not, it is left out.

The rule, as `docs/calibrate.md` has it too. The same held-out windows are reconstructed with and without stage 2, and
two-way identification is compared picture by picture. Stage 2 is used where its mean gain over `WEIGHED` is above 0 and
it hurts none of `MEASURES`: none has a paired 95 % interval of the gain that lies wholly below 0.
"""

from __future__ import annotations

import logging
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from decoder.data.targets import Targets
    from decoder.features import Features
    from decoder.models.bundle import Bundle
    from decoder.training.train import LabelledWindows
    from engine.models.loading import Models
    from engine.picture import Picture
    from engine.reconstructor import Reconstructor
    from engine.spec import EngineSpec
    from minddiffuser.config.spec import Config
    from stream.types.progress import Progress

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

PICTURES = 60
"""So many held-out windows are reconstructed, each of another picture."""
LEAST_PICTURES = 40
"""Of fewer, nothing is decided: intervals are wider than what stage 2 gives or takes."""
MEASURES = {"two_way_clip": "CLIP", "two_way_features": "simple features", "two_way": "pixels"}
"""Two-way identification, by each of the verdict's kinds: stage 2 may hurt none of them."""
WEIGHED = ("two_way_clip", "two_way_features")
"""What its mean gain is of: meaning, which stage 2 may lose, and structure, which it is for."""
AT_ONCE = 4
"""Windows reconstructed together."""
SEED = 20261129
"""Of the bootstrap: the same pictures get the same intervals."""


def check_stage2(
    ready: LabelledWindows, bundle: Bundle, config: Config, models: Models, image_bank: Targets | None, report: Progress
) -> dict[str, Any]:
    """Reconstruct held-out calibration windows with and without stage 2, and decide which the bundle gets.

    Parameters
    ----------
    ready : LabelledWindows
        What the bundle was trained on.
    bundle : Bundle
    config : Config
    models : Models
    image_bank : Targets or None
        As in training.
    report : callable
        Progress.

    Returns
    -------
    dict
        As `decide` gives it; empty where there is no stage 2, or the config does not ask
        (`engine.structure.check`).
    """
    structure, decoder = config.engine.structure, config.decoder
    if structure.mode == "none" or not structure.check or not structure.iterations:
        return {}
    if decoder.category is not None or "s" not in decoder.features or "c" not in decoder.features:
        return {}
    if len(ready.stimuli) < LEAST_PICTURES:
        return undecided(len(ready.stimuli))
    from decoder.training.heldout import held_out_features

    features, rows = held_out_features(ready, bundle, decoder, PICTURES, report, image_bank=image_bank)
    if len(rows) < LEAST_PICTURES:
        return undecided(len(rows))
    shown = ready.stimuli.select([ready.stimuli.ids[row] for row in rows])
    first, second = both_stages(config.engine, models, features, report)
    sound = [
        number for number, pair in enumerate(zip(first, second, strict=True)) if not any(one.fault for one in pair)
    ]
    if len(sound) < LEAST_PICTURES:
        return undecided(len(sound))
    shown = shown.select([shown.ids[number] for number in sound])
    stages = (np.stack([stage[number].pixels for number in sound]) for stage in (first, second))
    before, after = (measured(shown, pictures, models) for pictures in stages)
    return decide(before, after)


def undecided(pictures: int) -> dict[str, Any]:
    """Return what a bundle keeps where too few pictures could be held out: stage 2 stays on."""
    sentence = (
        f"Stage 2 is on, unchecked: {pictures} pictures can be held out, and {LEAST_PICTURES} is the least that tells "
        "whether it helps."
    )
    return {"used": True, "checked": False, "pictures": pictures, "sentence": sentence}


def both_stages(
    spec: EngineSpec, models: Models, features: list[Features], report: Progress
) -> tuple[list[Picture], list[Picture]]:
    """Return windows' pictures of stage 1 and of stage 2."""
    from decoder.parallel import iterate_each

    parts = [features[start : start + AT_ONCE] for start in range(0, len(features), AT_ONCE)]
    reconstruct = partial(_reconstruct, spec, models)
    made = iterate_each(reconstruct, parts, about="checking stage 2", progress=report, models=models)
    pairs = [pair for part in made for pair in part]
    return [first for first, _ in pairs], [second for _, second in pairs]


def _reconstruct(spec: EngineSpec, models: Models, features: list[Features]) -> list[tuple[Picture, Picture]]:
    """Make each window's pictures of both stages."""
    previews: list[Picture] = []
    level = logging.getLogger("engine").level
    logging.getLogger("engine").setLevel(logging.ERROR)  # that stage 1 stands here and there is what is to be found out
    try:
        finals = _engine(spec, models).reconstruct(features, previews.extend)
    finally:
        logging.getLogger("engine").setLevel(level)
    return list(zip(previews, finals, strict=True))


@lru_cache(1)
def _engine(spec: EngineSpec, models: Models) -> Reconstructor:
    from engine.reconstructor import Reconstructor

    return Reconstructor(spec, models)


def measured(shown: StimulusTable, pictures: NDArray[np.uint8], models: Models) -> dict[str, Floats]:
    """Score reconstructions of pictures, row by row, against what was shown: each measure's hits, shape (n,)."""
    from decoder.evaluation.metric_registry import identification_scores
    from decoder.evaluation.metrics import correlation_matrix, two_way

    embedded = correlation_matrix(models.embed_images(shown.images), models.embed_images(pictures))
    return {
        "two_way_clip": two_way(embedded),
        **identification_scores(shown.images, np.arange(len(pictures)), pictures),
    }


def decide(stage1: dict[str, Floats], stage2: dict[str, Floats]) -> dict[str, Any]:
    """Decide whether stage 2 is used, from the scores of the same held-out pictures with and without it.

    Parameters
    ----------
    stage1, stage2 : dict of str to ndarray, shape (n_pictures,)
        Hits by measure (`MEASURES`), as `measured` gives them.

    Returns
    -------
    dict
        'used', 'checked', 'pictures', 'gain' and 'interval' over what is weighed, 'hurt' (the measures that fall for
        sure), 'measures' with each one's 'stage1', 'stage2', 'gain' and 'interval' (95 %, paired bootstrap over
        pictures), and a 'sentence' that says it.
    """
    gains = {name: stage2[name] - stage1[name] for name in MEASURES}
    weighed = np.mean([gains[name] for name in WEIGHED], axis=0)
    measures = {
        name: {
            "stage1": round(float(stage1[name].mean()), 4),
            "stage2": round(float(stage2[name].mean()), 4),
            **_gain(gain),
        }
        for name, gain in gains.items()
    }
    hurt = [name for name, figures in measures.items() if figures["interval"][1] < 0]
    overall = _gain(weighed)
    used = overall["gain"] > 0 and not hurt
    figures = "; ".join(
        f"{words} {one['stage1']:.3f} to {one['stage2']:.3f}, {one['gain']:+.3f} "
        f"[{one['interval'][0]:+.3f}, {one['interval'][1]:+.3f}]"
        for words, one in ((words, measures[name]) for name, words in MEASURES.items())
    )
    gains_for_sure = "helps" if overall["interval"][0] > 0 else "gains a little, within chance,"
    hurts = f"hurts {' and '.join(MEASURES[name] for name in hurt)}"
    does = hurts if hurt else gains_for_sure if used else "does not help"
    state = "on" if used else "off for this bundle"
    sentence = (
        f"Stage 2 is {state}: it {does} on {len(weighed)} held-out calibration windows (two-way identification, "
        f"chance 0.5: {figures})."
    )
    about = {"used": used, "checked": True, "pictures": len(weighed), **overall}
    return {**about, "hurt": hurt, "measures": measures, "sentence": sentence}


def _gain(values: Floats) -> dict[str, Any]:
    from decoder.evaluation.metrics import bootstrap_interval

    interval = bootstrap_interval(values, np.random.default_rng(SEED))
    return {"gain": round(float(values.mean()), 4), "interval": [round(bound, 4) for bound in interval]}


def engine_of(spec: EngineSpec, bundle: Bundle) -> EngineSpec:
    """Return the engine's settings for a bundle: without stage 2 where its held-out windows said that it does not help.

    Whoever wants it all the same sets `engine.structure.check: false`.
    """
    mention_likelihood(spec, bundle)
    checked = bundle.meta.get("stage2")
    if spec.structure.mode == "none" or not spec.structure.check or not isinstance(checked, dict):
        return spec
    if checked.get("used", True):
        return spec
    logger.warning("%s Final pictures are stage 1's.", checked.get("sentence", "Stage 2 is off for this bundle."))
    return spec.model_copy(update={"structure": spec.structure.model_copy(update={"mode": "none"})})


def mention_likelihood(spec: EngineSpec, bundle: Bundle) -> None:
    """Warn where stage 2 is to go by a likelihood that the bundle cannot give."""
    if spec.structure.mode == "none" or not spec.structure.weights.likelihood:
        return
    encoding = ((bundle.meta.get("config") or {}).get("decoder") or {}).get("encoding")
    kinds = [] if encoding is None else list(encoding.get("features", ["blocks"]))
    if kinds != ["blocks"]:
        logger.warning(
            "engine.structure.weights.likelihood is of no effect: the bundle has %s; train one with "
            "decoder.encoding.features: [blocks]",
            f"an encoding model of {', '.join(kinds)}" if kinds else "no encoding model",
        )
