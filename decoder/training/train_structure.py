"""Training of `decoder.models.structure_prior` on pictures that nobody was shown.

Brain data are scarce and pictures are not. What the decoder would say of a picture is made up: an encoding model, ridge
from structure to what the decoder takes in, answers to it, the error of a held-out window is added, and the decoder
decodes that. So the network meets the decoder's own mistakes, with pictures without number.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decoder.data.feature_registry import FEATURES
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.errors import NO_IMAGE_BANK, TrainingError
from decoder.evaluation.metrics import rounded_mean
from decoder.features import block_name
from decoder.models.linear import Head, mask_of
from decoder.models.structure_prior import (
    Dropout,
    LatentMap,
    Maps,
    Network,
    StructurePrior,
    cells_of,
    neighbourhoods,
    resize_latents,
)
from decoder.preprocessing.preprocess import Preprocessor, without_kernel
from decoder.solvers.principal import principal_axes
from decoder.solvers.ridge import RidgeRegression, Split, column_correlations, decompose, undo_shrinkage
from decoder.spec import DecoderSpec, StructurePriorSpec
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]

AXES_FROM = 600
"""So many pictures settle the axes of a patch."""
FEATURES_FROM = 3000
"""So many pictures settle the axes of a picture's structure."""
ALPHAS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
"""Candidate penalties of the encoding model, in units of the features' mean eigenvalue."""
LATENT_MAP_ALPHA = 0.01
"""Penalty of the map to latents, in units of the mean variance of what it takes in; a hundredth of it does as well."""
AT_ONCE = 500
"""Pictures decoded together: bounds memory."""
PARTS = 4
"""Of a batch, computed side by side on a core each, as convolutions this small gain little from several threads. So
many however many cores there are: sums are added up in the same order, and come out the same."""
LEAST_SPREAD = 1e-6

logger = logging.getLogger(__name__)


def fit_structure_prior(
    samples: TrainingSet,
    targets: Targets,
    decoder: tuple[Preprocessor, Mapping[int, Head]],
    held_out: Mapping[int, Array],
    image_bank: Targets | None,
    spec: DecoderSpec,
    progress: Progress = no_progress,
) -> tuple[StructurePrior, dict[str, Any]]:
    """Train a prior for a decoder of structure.

    Parameters
    ----------
    samples : TrainingSet
        What the decoder was fitted on.
    targets : Targets
    decoder : (Preprocessor, dict of int to Head)
        What prepares windows, and what decodes each block's best units.
    held_out : dict of int to ndarray, shape (n_samples, n_kept), float32
        Each block's kept units, decoded from folds that did not see the picture. They tell how well the network does,
        which units it tells best and how far it shrinks; it is not trained on them.
    image_bank : Targets or None
        `s` of pictures that nobody was shown.
    spec : DecoderSpec
    progress : callable

    Returns
    -------
    prior : StructurePrior
    scores : dict
        By block ('s1', ...): mean held-out correlation of the units that are handed on, from the network.

    Raises
    ------
    TrainingError
        If there is no image bank, it lacks a block, or CLIP's patches are not known or form no square.
    """
    settings = spec.structure_prior
    assert settings is not None
    blocks = tuple(held_out)
    if image_bank is None or not set(blocks) <= set(image_bank.s):
        raise TrainingError(NO_IMAGE_BANK.format("structure_prior"))
    rng = np.random.default_rng([spec.seed, 5])
    heads = decoder[1]
    maps = _maps(targets, samples, image_bank, blocks, settings.components)
    true = maps.of(image_bank.s)
    shown = maps.of({block: targets.s[block][samples.rows] for block in blocks})
    draw = _imagine(samples, maps, (shown, true), decoder, spec, rng)
    network, read, write = _train(draw, true, settings, np.random.default_rng([spec.seed, 6]), progress)
    masks = {block: mask_of(heads[block]) for block in blocks}
    prior = StructurePrior(maps, network, read, write, masks, dict.fromkeys(blocks, 1.0))
    return tune_structure_prior(prior, samples, targets, heads, held_out, spec)


def tune_structure_prior(
    prior: StructurePrior,
    samples: TrainingSet,
    targets: Targets,
    heads: Mapping[int, Head],
    held_out: Mapping[int, Array],
    spec: DecoderSpec,
) -> tuple[StructurePrior, dict[str, Any]]:
    """Choose by held-out decoding which units a trained network hands on and how far it shrinks, and fit the latents.

    Parameters
    ----------
    prior : StructurePrior
        Its network and maps are taken as they are.
    samples, targets, heads, held_out, spec
        As `fit_structure_prior` has them.

    Returns
    -------
    prior : StructurePrior
    scores : dict
        As of `fit_structure_prior`.
    """
    settings, maps, blocks = spec.structure_prior, prior.maps, tuple(held_out)
    assert settings is not None
    masks = {block: mask_of(heads[block]) for block in blocks}
    gains: dict[int, float] = {}
    units = {block: _whole(heads[block], held_out[block]) for block in blocks}
    found = maps.deviations(prior.likelier(maps.of(units, masks)))
    scores: dict[str, Any] = {}
    for block in blocks:
        truth = targets.s[block][samples.rows].astype(np.float32)
        r = column_correlations(truth, found[block])
        n_kept = max(1, round(settings.unit_fraction * len(r)))
        kept = np.zeros(len(r), np.bool_)
        kept[np.argpartition(-r, n_kept - 1)[:n_kept]] = True
        masks[block] = kept
        gains[block] = undo_shrinkage(truth[:, kept], found[block][:, kept], FEATURES["s"].gain_in(spec))
        scores[block_name(block)] = rounded_mean(r[kept])
    latent_map = None
    if targets.z is not None:
        shown = maps.of({block: targets.s[block][samples.rows] for block in blocks})
        latent_map = fit_latent_map(shown, targets.z[samples.rows])
    return StructurePrior(maps, prior.network, prior.read, prior.write, masks, gains, latent_map), scores


def _maps(
    targets: Targets, samples: TrainingSet, image_bank: Targets, blocks: tuple[int, ...], n_components: int
) -> Maps:
    grid = targets.grid
    means, axes = {}, {}
    for block in blocks:
        means[block] = targets.s[block][samples.rows].mean(axis=0, dtype=np.float64).astype(np.float32)
        n_units = len(means[block])
        if grid is None or grid < 2 or n_units % (1 + grid**2):
            raise TrainingError(
                f"decoder.structure_prior needs a CLIP whose patches form a square, and knows {grid} a side"
            )
        some = image_bank.s[block][:AXES_FROM].astype(np.float32) - means[block]
        patches = some.reshape(len(some), 1 + grid**2, -1)[:, 1:].reshape(-1, n_units // (1 + grid**2))
        _, vectors = np.linalg.eigh((patches.T @ patches).astype(np.float64))
        axes[block] = np.ascontiguousarray(vectors[:, ::-1][:, :n_components].T, np.float32)
    assert grid is not None
    return Maps(grid, means, axes)


def _imagine(
    samples: TrainingSet,
    maps: Maps,
    known: tuple[Array, Array],
    decoder: tuple[Preprocessor, Mapping[int, Head]],
    spec: DecoderSpec,
    rng: np.random.Generator,
) -> Callable[[], Array]:
    """Fit an encoding model, and give what draws what the decoder would say of the image bank's pictures.

    `known` are true maps of the pictures shown, sample by sample, and of the image bank. Each draw has other errors; it
    is maps of the shape of the image bank's.
    """
    shown, true = known
    preprocess, heads = decoder
    assert spec.structure_prior is not None
    flat = true.reshape(len(true), -1)
    centre, axes = principal_axes(flat[:FEATURES_FROM], spec.structure_prior.features)
    features = np.asarray((shown.reshape(len(shown), -1) - centre) @ axes, np.float32)
    inputs = without_kernel(preprocess)(samples.data)
    splits = samples.folds(spec.cv_folds, np.random.default_rng(spec.seed))
    parts = [Split(train, test, features[train], features[test]) for train, test in splits]
    spectrum = decompose(features)
    encoding = RidgeRegression(parts, spectrum, np.asarray(ALPHAS) * spectrum.level)
    found = encoding.choose(inputs)
    weights, intercept = encoding.fit(inputs, found.choice)
    errors = inputs - found.predictions
    answers = np.asarray((flat - centre) @ axes @ weights + intercept, np.float32)
    onto, constant = _decoded_maps(maps, heads)

    def draw() -> Array:
        out = np.empty_like(true)
        for start in range(0, len(true), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            said = answers[part] + errors[rng.integers(0, len(errors), len(answers[part]))]
            bent = said if preprocess.kernel is None else preprocess.kernel(said)
            out[part] = (bent @ onto + constant).reshape(-1, *true.shape[1:])
        return out

    return draw


def _decoded_maps(maps: Maps, heads: Mapping[int, Head]) -> tuple[Array, Array]:
    """Return heads and maps in one: weights (n_inputs, n_numbers) onto flat maps, and their intercept.

    What a head does not decode counts as mean.
    """
    parts = []
    for block, mean in maps.means.items():
        head = heads[block]
        affine = np.concatenate([head.weights, [head.intercept - mean[head.active]]])
        parts.append(maps.of_deviations(block, _whole(head, affine)))
    flat = np.concatenate(parts, axis=1).reshape(len(parts[0]), -1)
    return flat[:-1], flat[-1]


def fit_latent_map(maps: Array, z: Array) -> LatentMap:
    """Fit ridge from maps (n, channels, grid, grid) to latents of the same pictures (n, channels, height, width)."""
    grid = maps.shape[-1]
    mean = z.mean(axis=0, dtype=np.float64).astype(np.float32)
    cells = cells_of(mean, grid)
    n_inputs = 9 * maps.shape[1]
    second, mixed = np.zeros((n_inputs, n_inputs)), np.zeros((n_inputs, len(mean) * cells**2))
    for start in range(0, len(maps), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        around = neighbourhoods(maps[part]).reshape(-1, n_inputs)
        latents = resize_latents(torch.from_numpy(z[part].astype(np.float32) - mean), (cells * grid,) * 2)
        wanted = torch.nn.functional.unfold(latents, cells, stride=cells).transpose(1, 2)
        second += around.T @ around
        mixed += around.T @ wanted.reshape(-1, mixed.shape[1]).numpy()
    penalty = LATENT_MAP_ALPHA * np.trace(second) / n_inputs
    return LatentMap(np.linalg.solve(second + penalty * np.eye(n_inputs), mixed).astype(np.float32), mean)


def _train(
    draw: Callable[[], Array], true: Array, spec: StructurePriorSpec, rng: np.random.Generator, progress: Progress
) -> tuple[Network, Array, Array]:
    """Train the network; return it, and the spread of decoded and of true maps."""
    read, write = (np.maximum(each.std(axis=(0, 2, 3)), LEAST_SPREAD).astype(np.float32) for each in (draw(), true))
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        network = Network(true.shape[1], true.shape[-1], spec.width, spec.dropout).train()
        weight = torch.from_numpy(write / write.mean())[:, None, None]
        y = torch.from_numpy(true / write[:, None, None])
        batch = min(spec.batch, len(y))
        steps = len(y) // batch
        parameters = list(network.parameters())
        adam = torch.optim.AdamW(parameters, spec.learning_rate, weight_decay=spec.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, spec.learning_rate, total_steps=spec.epochs * steps)
        copies = [_sharing(network, int(seed)) for seed in rng.integers(2**31, size=PARTS)]

        def gradient(x: Tensor, copy: Network, rows: Tensor) -> tuple[Tensor, ...]:
            loss = (weight * (copy(x[rows]) - y[rows]).square()).sum() / (batch * y[0].numel())
            return loss.detach(), *torch.autograd.grad(loss, parameters)

        with _threads() as threads:
            for epoch in range(spec.epochs):
                progress("how structure hangs together", epoch, spec.epochs)
                x = torch.from_numpy(draw() / read[:, None, None])
                order = torch.from_numpy(rng.permutation(len(y))[: steps * batch])
                for rows in torch.split(order, batch):
                    parts = threads.map(partial(gradient, x), copies, rows.chunk(PARTS))
                    loss, *gradients = (reduce(Tensor.add_, own) for own in zip(*parts, strict=True))
                    for parameter, own in zip(parameters, gradients, strict=True):
                        parameter.grad = own
                    adam.step()
                    schedule.step()
                logger.info("structure prior, epoch %d of %d: loss %.3f", epoch + 1, spec.epochs, loss.item())
        progress("how structure hangs together", spec.epochs, spec.epochs)
    return network, read, write


def _sharing(network: Network, seed: int) -> Network:
    """Return a network of the same parameters, with random numbers of its own."""
    copy = deepcopy(network)
    copy.load_state_dict(network.state_dict(keep_vars=True), assign=True)
    generator = torch.Generator().manual_seed(seed)
    for module in copy.modules():
        if isinstance(module, Dropout):
            module.generator = generator
    return copy


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Have as many threads as torch is to use, each of which computes by itself."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(PARTS, before), initializer=partial(torch.set_num_threads, 1)) as threads:
            yield threads
    finally:
        torch.set_num_threads(before)


def _whole(head: Head, kept: NDArray[Any]) -> Array:
    """Scatter a head's decoded units (n, n_active) to their places among all, (n, n_units)."""
    units = np.zeros((len(kept), head.constant.size), np.float32)
    units[:, head.active] = kept
    return units
