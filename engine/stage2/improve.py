"""Stage 2: position, orientation and size fall into place, or the stage-1 picture stands with the reason."""

import time
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from engine.batching import Batch
from engine.models.loading import to_uint8
from engine.picture import NOT_FINITE, Picture
from engine.sampling.sampling import begin, make_schedule, sample
from engine.setup import Setup, decoded_view
from engine.stage1 import Preview, finite
from engine.stage2.judge import judge
from engine.stage2.optimise import optimise_latent, optimise_through_sampler, per_sample
from engine.stage2.renoise import refine
from engine.stage2.targets import Targets, make_targets, report_lost_blocks


def improve(batch: Batch, preview: Preview, setup: Setup) -> tuple[list[Picture], Tensor]:
    """Return the pictures of stage 2, of stage 1 with a `note` where it could not be done or did not help; and latents.

    They are decoded as previews are.
    """
    start = time.perf_counter()
    targets = make_targets(batch.features, setup.layer_weights, setup.units, setup.models.device)
    if not targets.blocks or not any(problem is None for problem in targets.problems):
        pictures = [
            replace(picture, note=problem or "")
            for picture, problem in zip(preview.pictures, targets.problems, strict=True)
        ]
        return pictures, preview.latents
    report_lost_blocks(batch.features, targets)
    latents = latents_of(batch, preview.first, targets, setup)
    sampled = time.perf_counter()
    pixels = setup.preview_pixels(latents)
    arrays = to_uint8(pixels).cpu().numpy()
    decoded = time.perf_counter()
    notes = [
        note if sound else f"stage 2 gave {NOT_FINITE}"
        for note, sound in zip(
            judge(preview.pixels, pixels, setup.models.shallow, targets), finite(latents, pixels), strict=True
        )
    ]
    timings = {"stage2": sampled - start, "decode2": decoded - sampled, "check": time.perf_counter() - decoded}
    pictures = []
    for picture, array, note in zip(preview.pictures, arrays, notes, strict=True):
        timed = replace(picture, timings=picture.timings | timings, note=note)
        pictures.append(timed if note else replace(timed, stage=2, pixels=array))
    stands = torch.tensor([bool(note) for note in notes], device=latents.device)
    return pictures, torch.where(per_sample(stands, latents), preview.latents, latents)


def latents_of(batch: Batch, first: Tensor, targets: Targets, setup: Setup) -> Tensor:
    """Return the latents that stage 2 ends with, (n, channels, height, width), in the mode that is configured.

    Parameters
    ----------
    batch : Batch
    first : Tensor, shape (n, channels, height, width)
        Stage 1's first UNet output, which the fast mode need not compute again.
    targets : Targets
    setup : Setup
    """
    if setup.spec.structure.mode == "fast":
        return _fast(batch, first, targets, setup)
    return _through_sampler(batch, targets, setup)


def _fast(batch: Batch, first: Tensor, targets: Targets, setup: Setup) -> Tensor:
    """Optimise the clean latent after each UNet call, or z, and refine it; no gradient goes through the UNet."""
    structure = setup.spec.structure
    latents = batch.structure_latent if setup.renoise is not None else None
    if latents is None and batch.z is not None and structure.start == "z":
        latents = optimise_latent(batch.z, setup.view, targets, structure, batch.z)
    if latents is None:
        numbers = count()
        predict = setup.predict(setup.unet, batch.mask, setup.spec.guidance)

        def resumed(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
            return first if next(numbers) == 0 else predict(x, t, c)

        latents = sample(
            resumed,
            batch.schedule,
            begin(batch.schedule, batch.z, batch.noise[0]),
            batch.c,
            list(batch.noise[1:]),
            refine=lambda _, x0: optimise_latent(x0, setup.view, targets, structure, batch.z),
        )
    if setup.renoise is None:
        return latents
    refined = refine(latents, batch, targets, setup, setup.renoise)
    if batch.structure_latent is None:
        return refined
    return torch.lerp(refined, batch.structure_latent, structure.structure_latent_share)


def _through_sampler(batch: Batch, targets: Targets, setup: Setup) -> Tensor:
    """Optimise z and c through the sampler (exact), or through one UNet call (onestep)."""
    models, spec = setup.models, setup.spec
    schedule = batch.schedule
    if spec.structure.mode == "onestep":
        strength = 1.0 if batch.z is None else spec.strength
        schedule = make_schedule(models.scheduler, kind=spec.sampler, steps=1, strength=strength)

    def differentiable(x: Tensor, t: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        return models.run_unet(x.to(models.dtype), t, c.to(models.dtype), mask).to(torch.float32)

    predict = setup.predict(differentiable, batch.mask, spec.guidance)
    start = (batch.z, batch.c, batch.noise)
    return optimise_through_sampler(predict, schedule, start, decoded_view(models, spec), targets, spec.structure)
