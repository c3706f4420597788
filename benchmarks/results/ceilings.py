"""How far the demo's figures could rise, and what holds them back; all of a *simulated* participant."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.ideal import REPEATS, identified, observer_and_trials
from benchmarks.results.ceilings_page import AUTOENCODER, BASELINE, CHANCE, truth_of
from benchmarks.results.lab import PAPER, Lab, Made
from benchmarks.results.setups import FULL
from decoder.data.targets import Targets, compute_targets
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.features import Features, LayerTarget
from decoder.simulation.eeg import PRESETS
from engine.composing.compose import load_test_stimuli

EXACT_PICTURES = 3
"""As exact takes a minute for each."""


def ceilings(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Put true features in the place of decoded ones, one at a time and all: what is lost before the engine, and in it.

    True structure has the decoder's masks, and its latent is what the prior's map makes of it.
    """
    full, engine = lab.full, lab.config.engine
    yield FULL, full
    yield CHANCE, Made(full.own, full.first, np.roll(full.final, 1, axis=0))
    constant = np.repeat(lab.mean_image[None], len(full.own), axis=0)
    yield BASELINE, Made(full.own, constant, constant)
    yield "stage 1", Made(full.own, full.first, full.first)
    names, decoded, true = lab.config.decoder.features, lab.decoded(), truth(lab)
    latents = true_structure_latents(lab, true)
    features = list(decoded)
    for some in (*((name,) for name in names), names):
        features = [
            with_truth(one, true, row, some, None if latents is None else latents[row])
            for one, row in zip(decoded, full.own, strict=True)
        ]
        made = lab.make(features, lab.windows, engine, lab.bundle)
        yield f"{truth_of(', '.join(some))}: stage 1", Made(made.own, made.first, made.first)
        yield truth_of(", ".join(some)), made
    exact = engine.model_copy(update={"structure": engine.structure.model_copy(update={"mode": "exact", **PAPER})})
    few = lab.windows[:EXACT_PICTURES]
    yield (
        f"{truth_of(', '.join(names))}: exact, {exact.structure.iterations} steps, {len(few)} pictures",
        lab.make(features[: len(few)], few, exact, lab.bundle),
    )
    if true.z is not None:
        pictures = lab.models.decode_latents(true.z[full.own])
        yield AUTOENCODER, Made(full.own, pictures, pictures)


def truth(lab: Lab) -> Targets:
    """Compute the true features of the lab's pictures."""
    spec = lab.config.decoder
    return compute_targets(lab.shown, lab.models, features=spec.features, blocks=spec.blocks)


def true_structure_latents(lab: Lab, true: Targets) -> Any:
    """Return the latents (n, channels, height, width) that the prior's map makes of true structure; None without."""
    prior = getattr(next(iter(lab.bundle.models.values())), "structure", None)
    return None if prior is None or prior.latent_map is None else prior.latent_map(prior.maps.of(true.s))


def with_truth(
    decoded: Features, true: Targets, row: int, names: Sequence[str], structure_latent: Any = None
) -> Features:
    """Return decoded features, of which some ('c', 'z', 'e', 's') are a picture's true ones.

    Parameters
    ----------
    decoded : Features
    true : Targets
    row : int
        Of the picture.
    names : sequence of str
    structure_latent : ndarray, shape of z, or None
        Takes the place of the decoded one where `s` is true.
    """
    found: dict[str, Any] = {name: values[row] for name, values in true.numbers().items() if name in names}
    if "s" in names:
        blocks = {
            block: LayerTarget(np.where(one.mask, true.s[block][row], 0).astype(np.float32), one.mask)
            for block, one in decoded.s.items()
        }
        found |= {"s": blocks, "structure_latent": structure_latent}
    return replace(decoded, **found)


def lost(lab: Lab) -> list[dict[str, Any]]:
    """Compare decoded features with true ones.

    Returns
    -------
    list of dict
        'feature'; 'correlation' with the true one about the mean over the pictures shown, of the windows' mean;
        'two_way' identification by it; 'explained', the share of variance, 0 for that mean and 1 for the truth.
    """
    true, own, rows = truth(lab), lab.full.own, []
    decoded = lab.decoded()
    pairs: dict[str, tuple[Any, list[Any]]] = {
        name: (values[own], [getattr(one, name) for one in decoded]) for name, values in true.numbers().items()
    }
    for block, values in true.s.items():
        mask = decoded[0].s[block].mask
        pairs[f"s, block {block}"] = (values[own][:, mask], [one.s[block].values[mask] for one in decoded])
    for name, (truths, found) in pairs.items():
        x, y = (np.stack(list(each)).reshape(len(own), -1).astype(np.float64) for each in (truths, found))
        mean = x.mean(axis=0)
        r = correlation_matrix(x - mean, y - mean)
        explained = 1 - np.square(x - y).sum() / np.square(x - mean).sum()
        figures = {"correlation": np.diag(r).mean(), "two_way": two_way(r).mean(), "explained": explained}
        rows.append({"feature": name} | {key: round(float(value), 4) for key, value in figures.items()})
    return rows


def ideal(lab: Lab) -> dict[str, Any]:
    """Let an ideal observer tell the lab's pictures apart, beside what the pictures made of them tell.

    Returns
    -------
    dict
        'pictures'; 'stage1' and 'ours', the share of pictures whose CLIP embedding is nearest to that of the picture
        shown; 'by_repeats', as `benchmarks.ideal.identified` gives.
    """
    config, full = lab.config, lab.full
    stimuli = [stimulus for stimulus in load_test_stimuli() if stimulus.name in lab.labels]
    observed = observer_and_trials(config, PRESETS[config.data.preset], lab.models, stimuli, max(REPEATS))
    named = {
        name: round(float(lab.judge(full.own, pictures)["retrieval_top1"].mean()), 4)
        for name, pictures in (("stage1", full.first), ("ours", full.final))
    }
    return {"pictures": len(stimuli), **named, "by_repeats": identified(*observed)}
