"""Re-noising: further UNet calls remove what gradients leave in a latent and no picture has."""

import torch
from torch import Tensor

from engine.batching import Batch
from engine.sampling.sampling import Schedule, begin, sample, window_noise
from engine.setup import Setup
from engine.stage2.choose import nearest
from engine.stage2.optimise import optimise_latent
from engine.stage2.targets import Targets


def refine(latents: Tensor, batch: Batch, targets: Targets, setup: Setup, schedule: Schedule) -> Tensor:
    """Noise and denoise latents in `structure.refinement_rounds`, between which they are optimised again.

    Noise decides what a picture becomes, and no gradient goes through it, so each round tries
    `structure.candidates` noises, each window's own, and keeps the latent nearest to the decoded structure.

    Parameters
    ----------
    latents : Tensor, shape (n, channels, height, width)
    batch : Batch
    targets : Targets
    setup : Setup
    schedule : Schedule
        Of one UNet call from `structure.renoise_strength`.

    Returns
    -------
    Tensor, shape of latents
    """
    structure = setup.spec.structure
    guidance = setup.spec.guidance if structure.guidance is None else structure.guidance
    predict = setup.predict(setup.unet, batch.mask, guidance)
    seeds = [(seed + 1) % 2**63 for seed in batch.seeds]
    count = structure.refinement_rounds * structure.candidates
    noise = window_noise(seeds, count, setup.models.latent_shape).to(setup.models.device)
    x = latents
    for number, noises in enumerate(torch.split(noise, structure.candidates)):
        if number:
            x = optimise_latent(x, setup.view, targets, structure, batch.z)
        candidates = [sample(predict, schedule, begin(schedule, x, each), batch.c, []) for each in noises]
        x = nearest(candidates, setup.view, targets)
    return x
