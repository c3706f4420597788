"""What both stages run on: the specification, models, networks and schedules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.models.ip_adapter import IpAdapter
from engine.models.loading import Models
from engine.models.memory import Decode
from engine.sampling.gradient import load_gradient
from engine.sampling.sampling import Predict, Schedule, guided, make_schedule
from engine.spec import EngineSpec

MaskedPredict = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""UNet with the mask of its caption's tokens: x, timesteps, c, mask (n, tokens) -> prediction."""
View = Callable[[Tensor, Sequence[int]], Mapping[int, Tensor]]
"""Latents (n, ch, h, w) and blocks -> shallow CLIP features by block, (n, units); gradients flow."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What both stages run on.

    Attributes
    ----------
    spec : EngineSpec
    models : Models
    backend : str
        Name of what runs the UNet.
    unet : callable
        The backend's UNet; no gradient flows through it.
    decode : callable
        Latents to pictures (n, 3, height, width).
    decode_preview : callable or None
        The same for previews; None: as the final picture.
    view : callable
        Latents to shallow CLIP features, as fast stage 2 takes its gradients.
    from_z, from_noise : Schedule
        Of stage 1, with and without a decoded z.
    renoise : Schedule or None
        Of the UNet call that ends a round of fast stage 2; None: there is none.
    layer_weights : tuple of float
        Weights of the CLIP's blocks from the first.
    units : int
        Numbers that a CLIP block has (tokens * width); 0 without stage 2.
    """

    spec: EngineSpec
    models: Models
    backend: str
    unet: MaskedPredict
    decode: Decode
    decode_preview: Decode | None
    view: View
    from_z: Schedule
    from_noise: Schedule
    renoise: Schedule | None
    layer_weights: tuple[float, ...]
    units: int

    def preview_pixels(self, latents: Tensor) -> Tensor:
        """Decode latents as previews are."""
        return (self.decode_preview or self.decode)(latents)

    def predict(self, unet: MaskedPredict, mask: Tensor, guidance: float) -> Predict:
        """Return a UNet for one batch's caption masks (n, tokens), with classifier-free guidance unless it is 1."""
        if guidance == 1:
            return lambda x, t, c: unet(x, t, c, mask)
        both = torch.cat([torch.ones_like(mask), mask])
        null = torch.from_numpy(self.models.empty_caption).to(self.models.device)[None]
        if self.models.ip_adapter is not None:
            null = torch.cat([null, image_tokens([None], self.spec, self.models.ip_adapter, null)], dim=1)
        return guided(lambda x, t, c: unet(x, t, c, both), guidance, null)


def make_setup(
    spec: EngineSpec, models: Models, backend: str, unet: MaskedPredict, decode: Decode, decode_preview: Decode | None
) -> Setup:
    """Lay out decoders, schedules and the way of gradients for a specification.

    Raises
    ------
    ModelError
        If schedules cannot be made of the models' scheduler, or the gradient network belongs to other models.
    """
    structure = spec.structure
    strength = structure.renoise_strength if structure.iterations else 0.0
    units, weights = 0, structure.layer_weights
    view = decoded_view(models, spec)
    if structure.mode != "none":
        units = models.shallow.tokens * models.shallow.width
        weights = weights[: models.shallow.depth]
        if structure.mode == "fast" and "gradient" in models.parts:
            view = gradient_view(models)
    return Setup(
        spec,
        models,
        backend,
        unet,
        decode,
        decode_preview,
        view,
        make_schedule(models.scheduler, kind=spec.sampler, steps=spec.steps, strength=spec.strength),
        make_schedule(models.scheduler, kind=spec.sampler, steps=spec.steps, strength=1.0),
        make_schedule(models.scheduler, kind=spec.sampler, steps=1, strength=strength) if strength else None,
        weights,
        units,
    )


def image_tokens(
    embeddings: Sequence[NDArray[np.float32] | None], spec: EngineSpec, adapter: IpAdapter, like: Tensor
) -> Tensor:
    """Return the tokens of picture embeddings, (n, tokens, dims); of a window without one those of no picture.

    Parameters
    ----------
    embeddings : sequence of ndarray, shape (d,), or None
    spec : EngineSpec
    adapter : IpAdapter
    like : Tensor
        Its device and type are taken.
    """
    e = torch.zeros(len(embeddings), adapter.embedding_dim, device=adapter.projection[0].device)
    for row, embedding in enumerate(embeddings):
        if embedding is not None:
            e[row] = torch.from_numpy(embedding)
    if spec.embedding_norm is not None:
        length = e.norm(dim=1, keepdim=True)
        e = torch.where(length > 0, e * spec.embedding_norm / length.clamp_min(1e-12), e)
    return adapter.embed(e).to(like)


def decoded_view(models: Models, spec: EngineSpec) -> View:
    """Return the exact way from latents to shallow CLIP features: through the decoder of the final picture."""
    decode = models.decode_preview if spec.final_decoder == "preview_vae" else models.decode_pixels

    def view(latents: Tensor, blocks: Sequence[int]) -> Mapping[int, Tensor]:
        shallow = models.shallow
        return shallow.features(shallow.patches(decode(latents).float()), blocks)

    return view


def gradient_view(models: Models) -> View:
    """Return the cheap way from latents to shallow CLIP features: through the models' gradient network."""
    network = load_gradient(models.parts["gradient"], models.feature_space, models.device)
    return lambda latents, blocks: models.shallow.features(network(latents), blocks)
