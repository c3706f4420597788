"""IP-Adapter (Ye et al. 2023): pictures drawn from a CLIP picture embedding, by attention to a few tokens of it.

The tokens travel behind the caption's in `c`, so that every backend takes them without an input more.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from engine.errors import ModelError
from engine.models.folders import hash_files

_PROJECTION = ("image_proj.proj.weight", "image_proj.proj.bias", "image_proj.norm.weight", "image_proj.norm.bias")


@dataclass(frozen=True, slots=True)
class IpAdapter:
    """Weights of an IP-Adapter, as diffusers reads them.

    Attributes
    ----------
    file : Path
    scale : float
        Weight of the attention to the picture beside that to the caption.
    embedding_dim : int
        Numbers of the picture embedding that it takes.
    tokens : int
        Tokens it makes of one.
    projection : tuple of Tensor
        Weight and bias of the linear layer, weight and bias of the layer norm after it.
    """

    file: Path
    scale: float
    embedding_dim: int
    tokens: int
    projection: tuple[Tensor, ...]

    @property
    def digest(self) -> str:
        """sha256 of weights and scale."""
        return hashlib.sha256(f"{hash_files([self.file])} {self.scale}".encode()).hexdigest()

    def embed(self, e: Tensor) -> Tensor:
        """Project embeddings (n, embedding_dim) to tokens (n, tokens, dims); zeros are diffusers' 'no picture'."""
        weight, bias, scale, shift = self.projection
        projected = F.linear(e, weight, bias).reshape(len(e), self.tokens, -1)
        return F.layer_norm(projected, scale.shape, scale, shift)

    def attach(self, unet: Any) -> None:
        """Load its attention into a UNet, which then takes the tokens as `added_cond_kwargs['image_embeds']`."""
        from diffusers import StableDiffusionPipeline

        empty = dict.fromkeys(("vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor"))
        pipeline: Any = StableDiffusionPipeline(unet=unet, requires_safety_checker=False, **empty)
        try:
            pipeline.load_ip_adapter(
                str(self.file.parent),
                subfolder="",
                weight_name=self.file.name,
                image_encoder_folder=None,
                local_files_only=True,
                low_cpu_mem_usage=False,
            )
        except (KeyError, RuntimeError, ValueError) as error:
            first = next(iter(str(error).splitlines()), "")
            msg = f"{self.file}: this IP-Adapter is not for this UNet ({type(error).__name__}: {first[:160]})"
            raise ModelError(msg) from error
        pipeline.set_ip_adapter_scale(self.scale)
        unet.encoder_hid_proj = torch.nn.Identity()  # the tokens come projected


def read_ip_adapter(reference: str, scale: float, context_dim: int, device: torch.device) -> IpAdapter:
    """Read an IP-Adapter's projection and check that it goes with a UNet.

    Parameters
    ----------
    reference : str
        A safetensors file.
    scale : float
    context_dim : int
        Width of the UNet's captions.
    device : torch.device

    Raises
    ------
    ModelError
        If there is no such file, or it is of another kind or for another UNet.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(reference).expanduser().resolve()
    if not file.is_file() or file.suffix != ".safetensors":
        msg = f"models.ip_adapter: {reference!r} is not a .safetensors file: fetch ip-adapter_sd15.safetensors, say"
        raise ModelError(msg)
    try:
        with safe_open(file, "pt", device=str(device)) as tensors:
            there = set(tensors.keys())
            lacking = [name for name in _PROJECTION if name not in there]
            projection = () if lacking else tuple(tensors.get_tensor(name).float() for name in _PROJECTION)
    except SafetensorError as error:
        msg = f"{file}: cannot be read as safetensors ({error}): fetch it anew"
        raise ModelError(msg) from error
    if not projection:
        msg = f"{file}: no {lacking[0]}: plain IP-Adapters are supported, not the Plus, Full-Face and FaceID kinds"
        raise ModelError(msg)
    (out, embedding_dim), (width,) = projection[0].shape, projection[2].shape
    if width != context_dim:
        msg = f"{file}: made for a UNet with captions of width {width}, and this one's have {context_dim}"
        raise ModelError(msg)
    return IpAdapter(file, scale, int(embedding_dim), int(out) // int(width), projection)
