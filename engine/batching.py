"""Windows are checked, and those of one kind share a batch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decoder.features import Features
from engine.errors import FeatureError
from engine.models.batches import sizes
from engine.models.loading import Models
from engine.picture import Picture
from engine.sampling.sampling import Schedule, window_noise, window_seed
from engine.setup import Setup, image_tokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows that are reconstructed together.

    Attributes
    ----------
    places : list of int
        Of its windows among all that were asked for.
    features : list of Features
    seeds : list of int
    schedule : Schedule
        Of stage 1.
    z : Tensor, shape (n, channels, height, width), or None
    c : Tensor, shape (n, tokens, dims)
        Filled up with zeros to the models' number of tokens; with an IP-Adapter those of the picture embedding follow.
    mask : Tensor, shape (n, tokens), bool
        False for tokens that fill up.
    noise : Tensor, shape (steps, n, channels, height, width)
    structure_latent : Tensor, shape of z, or None
    """

    places: list[int]
    features: list[Features]
    seeds: list[int]
    schedule: Schedule
    z: Tensor | None
    c: Tensor
    mask: Tensor
    noise: Tensor
    structure_latent: Tensor | None


def make_batches(features: Sequence[Features], setup: Setup, seeds: Sequence[int] | None = None) -> list[Batch]:
    """Group windows with the same kinds of features into batches of few known sizes.

    `seeds` are of the sessions that the windows come from; by default all come from one, with the specification's.

    Raises
    ------
    FeatureError
        If `c` or a latent does not have the shape that the models take.
    """
    usable = [checked(f, setup.models) for f in features]
    kinds: dict[tuple[bool, bool, int], list[int]] = {}
    for place, f in enumerate(usable):
        model = 0 if f.evidence is None else id(f.evidence.maps)
        kinds.setdefault((f.z is None, f.structure_latent is None, model), []).append(place)
    batches = []
    for places in kinds.values():
        rest = iter(places)
        batches += [_batch(list(islice(rest, size)), usable, setup, seeds) for size in sizes(len(places))]
    return batches


def in_order(batches: Sequence[Batch], pictures: Sequence[Sequence[Picture]]) -> list[Picture]:
    """Return the pictures of several batches in the order of their windows."""
    by_place = {
        place: picture
        for batch, made in zip(batches, pictures, strict=True)
        for place, picture in zip(batch.places, made, strict=True)
    }
    return [by_place[place] for place in range(len(by_place))]


def checked(f: Features, models: Models) -> Features:
    """Return features without what is not finite: no z, no structure latent, or the empty caption in place of c.

    Raises
    ------
    FeatureError
        If shapes are not those that the models take; it names the window and both shapes.
    """
    dim, shape = models.context_dim, models.latent_shape
    if f.c.ndim != 2 or f.c.shape[1] != dim or not 1 <= len(f.c) <= models.tokens:
        msg = f"window {f.window_id!r}: c has shape {f.c.shape} and the UNet takes (1 to {models.tokens} tokens, {dim})"
        raise FeatureError(msg)
    for name, latent in (("z", f.z), ("structure_latent", f.structure_latent)):
        if latent is not None and latent.shape != shape:
            msg = f"window {f.window_id!r}: {name} has shape {latent.shape} and the UNet takes {shape}"
            raise FeatureError(msg)
    if f.z is not None and not np.isfinite(f.z).all():
        logger.warning("window %s: z is not finite; sampling from pure noise", f.window_id)
        f = replace(f, z=None)
    if f.structure_latent is not None and not np.isfinite(f.structure_latent).all():
        logger.warning("window %s: structure_latent is not finite; stage 2 begins at stage 1's picture", f.window_id)
        f = replace(f, structure_latent=None)
    if models.ip_adapter is not None and f.e is not None:
        if f.e.shape != (models.ip_adapter.embedding_dim,):
            msg = (
                f"window {f.window_id!r}: e has shape {f.e.shape} and the IP-Adapter takes "
                f"({models.ip_adapter.embedding_dim},): take the CLIP that it was trained with"
            )
            raise FeatureError(msg)
        if not np.isfinite(f.e).all():
            logger.warning("window %s: e is not finite; the picture is drawn without it", f.window_id)
            f = replace(f, e=None)
    if f.evidence is not None and not np.isfinite(f.evidence.answer).all():
        logger.warning("window %s: its likelihood is not finite; stage 2 goes without it", f.window_id)
        f = replace(f, evidence=None)
    if not np.isfinite(f.c).all():
        logger.warning("window %s: c is not finite; the empty caption takes its place", f.window_id)
        f = replace(f, c=models.empty_caption)
    return f


def _batch(places: list[int], all_features: Sequence[Features], setup: Setup, sessions: Sequence[int] | None) -> Batch:
    models = setup.models
    features = [all_features[place] for place in places]
    z = _stacked([f.z for f in features], models.device)
    schedule = setup.from_noise if z is None else setup.from_z
    own = [setup.spec.seed if sessions is None else sessions[place] for place in places]
    shared = setup.spec.noise == "stream"
    seeds = [window_seed(seed, "stream" if shared else f.window_id) for seed, f in zip(own, features, strict=True)]
    # all captions of one length, so that windows share a batch and nothing is compiled anew for a shorter one
    c = torch.zeros(len(features), models.tokens, models.context_dim)
    mask = torch.zeros(c.shape[:2], dtype=torch.bool)
    for i, f in enumerate(features):
        caption = models.empty_caption if models.ip_adapter and setup.spec.embedding == "instead" else f.c
        c[i, : len(caption)] = torch.from_numpy(caption)
        mask[i, : len(caption)] = True
    if models.ip_adapter is not None:
        image = image_tokens([f.e for f in features], setup.spec, models.ip_adapter, c)
        c, mask = torch.cat([c, image], 1), torch.cat([mask, torch.ones(image.shape[:2], dtype=torch.bool)], 1)
    return Batch(
        places,
        features,
        seeds,
        schedule,
        z,
        c.to(models.device),
        mask.to(models.device),
        window_noise(seeds, len(schedule.steps), models.latent_shape).to(models.device),
        _stacked([f.structure_latent for f in features], models.device),
    )


def _stacked(latents: Sequence[NDArray[np.float32] | None], device: torch.device) -> Tensor | None:
    """Stack the latents of one batch, all of which are there, or none."""
    there = [latent for latent in latents if latent is not None]
    return torch.from_numpy(np.stack(there)).to(device) if there else None
