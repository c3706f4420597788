"""The models of the engine, and the encoders whose outputs a decoder learns to predict."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models.autoencoder import Autoencoder, beside, read_autoencoder
from engine.models.clip import OPENAI_MEAN, OPENAI_STD, ShallowClip, lost_quick_gelu
from engine.models.folders import find_parts, hash_folders, read_config
from engine.models.ip_adapter import read_ip_adapter
from engine.models.weights import variant_of
from engine.spec import ModelSpec

logger = logging.getLogger(__name__)

BLOCKS = (1, 2, 3, 4, 5, 6)
_PLAIN = {"low_cpu_mem_usage": False}  # diffusers' other way needs a package more, and prints so at every start
_BATCH = 32
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Models:
    """UNet, VAE, text encoder and CLIP; each is loaded when it is first used.

    Parameters
    ----------
    spec : ModelSpec
    device : str
        'auto' takes the first GPU, or else the CPU.
    fetch : bool
        False: only weights that lie on this machine.

    Raises
    ------
    ModelError
        If a part is missing, or the parts don't fit together.
    """

    def __init__(self, spec: ModelSpec, device: str = "auto", *, fetch: bool = True) -> None:
        self.spec = spec
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self.device = torch.device(chosen)
        except RuntimeError as error:
            msg = f"device {chosen!r} is unknown to torch: use 'auto', 'cpu' or 'cuda'"
            raise ModelError(msg) from error
        if self.device.type == "cuda" and not torch.cuda.is_available():
            msg = f"device {chosen!r}: torch finds no GPU on this machine; use 'cpu' or 'auto'"
            raise ModelError(msg)
        half = torch.float16 if self.device.type == "cuda" else torch.float32
        self.dtype = _DTYPES.get(spec.dtype, half)
        self.parts = find_parts(spec, fetch=fetch)
        config = read_config(self.parts["unet"] / "config.json")
        vae = read_autoencoder(self.parts["vae"], self.dtype)
        side = int(config["sample_size"])
        self.latent_shape: tuple[int, int, int] = (int(config["in_channels"]), side, side)
        self.image_size = side * vae.scale
        self.autoencoder = vae
        self.preview_autoencoder = self._read_preview(vae)
        _refuse_others(self.parts["unet"], config)
        self.context_dim = int(config["cross_attention_dim"])
        self.tokens, width = _text_shape(self.parts["text"])
        if width != self.context_dim:
            msg = (
                f"the UNet takes captions of width {self.context_dim} and {self.parts['text']} gives {width}: "
                "take both from one model family"
            )
            raise ModelError(msg)
        if vae.channels != config["in_channels"]:
            msg = (
                f"the UNet takes {config['in_channels']} latent channels and the VAE has {vae.channels}: "
                "take both from one model family"
            )
            raise ModelError(msg)

        self.ip_adapter = (
            read_ip_adapter(spec.ip_adapter, spec.ip_adapter_scale, self.context_dim, self.device)
            if spec.ip_adapter is not None
            else None
        )
        self.context_tokens = self.tokens + (self.ip_adapter.tokens if self.ip_adapter else 0)

    def __reduce__(self) -> tuple[Callable[..., "Models"], tuple[ModelSpec, str]]:
        """Pickle as the files that they are of: another process loads them itself, once."""
        return _loaded_once, (self.spec, str(self.device))

    @property
    def on_cpu(self) -> bool:
        """Return whether they run on the CPU."""
        return self.device.type == "cpu"

    @cached_property
    def feature_space(self) -> str:
        """sha256 of what gives c, z and s their meaning (text encoder, VAE, CLIP; not the UNet), for bundles."""
        return hash_folders([self.parts[part] for part in ("text", "vae", "clip") if part in self.parts])

    @cached_property
    def scheduler(self) -> dict[str, Any]:
        """The scheduler's configuration, as its file has it."""
        return read_config(self.parts["scheduler"] / "scheduler_config.json")

    @cached_property
    def unet(self) -> Any:
        """UNet2DConditionModel, in evaluation mode and channels-last."""
        from diffusers import UNet2DConditionModel

        network = _from_pretrained(UNet2DConditionModel, self.parts["unet"], self.dtype, **_PLAIN)
        if self.ip_adapter is not None:
            self.ip_adapter.attach(network)
        return self._place(network)

    def run_unet(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """Run the UNet once.

        Parameters
        ----------
        x : Tensor, shape (n, channels, height, width)
        timesteps : Tensor, shape (n,)
        c : Tensor, shape (n, context_tokens, dims)
            The caption's tokens; behind them, with an IP-Adapter, the picture embedding's.
        mask : Tensor, shape (n, context_tokens), bool
            False for tokens that fill up a caption.
        """
        words, image = c[:, : self.tokens], c[:, self.tokens :]
        added = {"added_cond_kwargs": {"image_embeds": [image]}} if self.ip_adapter is not None else {}
        out: Tensor = self.unet(
            x, timesteps, words, encoder_attention_mask=mask[:, : self.tokens], return_dict=False, **added
        )[0]
        return out

    @cached_property
    def vae(self) -> Any:
        """AutoencoderKL or AutoencoderTiny, in evaluation mode and channels-last, of type `autoencoder.dtype`."""
        return self._load_autoencoder(self.autoencoder)

    @cached_property
    def preview_vae(self) -> Any:
        """The small autoencoder of previews, as `vae`.

        Raises
        ------
        ModelError
            If the configuration names none.
        """
        if self.preview_autoencoder is None:
            msg = "no autoencoder for previews is named in the models' configuration: set models.preview_vae"
            raise ModelError(msg)
        return self._load_autoencoder(self.preview_autoencoder)

    def _read_preview(self, vae: Autoencoder) -> Autoencoder | None:
        folder = self.parts.get("preview_vae")
        return beside(vae, read_autoencoder(folder, self.dtype)) if folder else None

    def _load_autoencoder(self, config: Autoencoder) -> Any:
        import diffusers

        return self._place(
            _from_pretrained(getattr(diffusers, config.class_name), config.folder, config.dtype, **_PLAIN)
        )

    @cached_property
    def _open_clips(self) -> dict[Path, Any]:
        return {}

    def _open_clip(self, folder: Path) -> Any:
        if folder not in self._open_clips:
            import open_clip

            with _loading(folder, "a CLIP of open_clip"):
                quick = lost_quick_gelu(folder)
                if quick:
                    logger.warning("%s: its configuration lacks quick_gelu, which these weights need: set here", folder)
                model = open_clip.create_model(
                    f"local-dir:{folder}", precision="fp32", device=self.device, force_quick_gelu=quick
                )
            self._open_clips[folder] = model.eval().requires_grad_(False)
        return self._open_clips[folder]

    @cached_property
    def clip(self) -> Any:
        """The whole open_clip model (float32)."""
        if "clip" not in self.parts:
            msg = "no CLIP is named in the models' configuration: set models.clip, or structure.mode to 'none'"
            raise ModelError(msg)
        return self._open_clip(self.parts["clip"])

    @cached_property
    def shallow(self) -> ShallowClip:
        """First blocks of the CLIP's vision tower."""
        model = self.clip
        config = read_config(self.parts["clip"] / "open_clip_config.json").get("preprocess_cfg", {})
        if not hasattr(model.visual, "transformer") or not hasattr(model.visual, "conv1"):
            msg = f"{self.parts['clip']}: its vision tower is not a plain ViT, so it has no shallow MLP features"
            raise ModelError(msg)
        return ShallowClip(
            model.visual, tuple(config.get("mean") or OPENAI_MEAN), tuple(config.get("std") or OPENAI_STD)
        )

    @property
    def patch_grid(self) -> int:
        """Patches along a side of what the CLIP sees."""
        return math.isqrt(self.shallow.tokens - 1)

    @cached_property
    def text(self) -> Callable[[Sequence[str]], Tensor]:
        """Captions to the hidden states (n, tokens, dims) that the UNet attends to."""
        folder = self.parts["text"]
        if (folder / "open_clip_config.json").is_file():
            return _open_clip_text(self._open_clip(folder), folder, self.device)
        return _transformers_text(folder, self.parts.get("tokenizer", folder), self.device)

    @cached_property
    def tokenize(self) -> Any:
        """Tokenizer of `clip`."""
        import open_clip

        return open_clip.get_tokenizer(f"local-dir:{self.parts['clip']}")

    def encode_text(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Encode captions as the UNet takes them: c.

        Returns
        -------
        ndarray, shape (n, tokens, dims), float32
        """
        return _batched(self.text, captions)

    @cached_property
    def empty_caption(self) -> NDArray[np.float32]:
        """The caption of no words, (tokens, dims): what guidance leads away from."""
        caption: NDArray[np.float32] = self.encode_text([""])[0]
        return caption

    def encode_latents(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Latents of pictures, scaled to unit variance.

        Parameters
        ----------
        images : ndarray, shape (n, height, width, 3), uint8, RGB
            Resized (bicubic) to the models' own size where it differs.

        Returns
        -------
        ndarray, shape (n, channels, height / 8, width / 8), float32
        """

        def encode(batch: NDArray[np.uint8]) -> Tensor:
            return self.encode_pixels(self.to_pixels(batch).to(self.autoencoder.dtype))

        return _batched(encode, images)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Scaled latents of pictures (n, 3, h, w) in [0, 1]; a KL encoder gives its mode."""
        encoded = self.vae.encode(pixels * 2 - 1)
        latents: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return (latents - self.autoencoder.shift) * self.autoencoder.scaling

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Pictures (n, 3, h, w), about [0, 1] and not clamped, of scaled latents; gradients flow."""
        return self.autoencoder.decode(self.vae, latents)

    def decode_preview(self, latents: Tensor) -> Tensor:
        """Return what the small autoencoder of previews makes of the same latents."""
        network = self.preview_vae
        assert self.preview_autoencoder is not None
        return self.preview_autoencoder.decode(network, latents)

    def decode_latents(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Pictures (n, height, width, 3), uint8, of scaled latents (n, channels, height, width)."""
        return _batched(lambda batch: to_uint8(self.decode_pixels(torch.from_numpy(batch).to(self.device))), latents)

    def structure(self, images: NDArray[np.uint8], blocks: Iterable[int] = BLOCKS) -> dict[int, NDArray[np.float32]]:
        """Shallow CLIP features of pictures (n, h, w, 3): by block, (n, tokens * width), float32.

        Raises
        ------
        ModelError
            If the CLIP has fewer blocks.
        """
        wanted = tuple(blocks)
        if max(wanted, default=0) > self.shallow.depth or min(wanted, default=1) < 1:
            msg = f"blocks {wanted} of a CLIP with {self.shallow.depth}: blocks are counted from 1"
            raise ModelError(msg)

        def features(batch: NDArray[np.uint8]) -> Tensor:
            found = self.shallow.features(self.shallow.patches(self.to_pixels(batch)), wanted)
            return torch.stack([found[block] for block in wanted], dim=1)

        stacked = _batched(features, images)
        return {block: np.ascontiguousarray(stacked[:, i]) for i, block in enumerate(wanted)}

    def embed_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pictures (n, h, w, 3) in CLIP's joint space: (n, d), float32, unit norm."""

        def embed(batch: NDArray[np.uint8]) -> Tensor:
            found: Tensor = self.clip.encode_image(
                self.shallow.preprocess(self.to_pixels(batch, resize=False)), normalize=True
            )
            return found

        return _batched(embed, images)

    def embed_texts(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Captions in CLIP's joint space: (n, d), float32, unit norm."""
        model = self.clip
        return _batched(
            lambda batch: model.encode_text(self.tokenize(list(batch)).to(self.device), normalize=True), captions
        )

    def to_pixels(self, images: NDArray[np.uint8], *, resize: bool = True) -> Tensor:
        """Pictures (n, h, w, 3) as float32 (n, 3, h, w) in [0, 1], at the models' size unless `resize` is False."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float() / 255
        size = (self.image_size, self.image_size)
        if resize and pixels.shape[-2:] != size:
            pixels = nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return pixels

    def _place(self, module: Any) -> Any:
        placed = module.to(device=self.device, memory_format=torch.channels_last)
        return placed.eval().requires_grad_(False)


def load_models(spec: ModelSpec, device: str = "auto", *, fetch: bool = True) -> Models:
    """Find the models' parts and check that they fit; weights are read when first used.

    Parameters
    ----------
    spec, device, fetch
        As `Models` has them.

    Raises
    ------
    ModelError
    """
    return Models(spec, device, fetch=fetch)


@cache
def _loaded_once(spec: ModelSpec, device: str) -> Models:
    return Models(spec, device)


def to_uint8(pixels: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) in [0, 1] as uint8 (n, h, w, 3); out-of-range values are clamped."""
    return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _batched(encode: Callable[[Any], Tensor], items: Any) -> NDArray[Any]:
    if len(items) == 0:
        msg = "nothing to encode: the list is empty"
        raise ModelError(msg)
    with torch.no_grad():
        parts = [encode(items[i : i + _BATCH]).cpu() for i in range(0, len(items), _BATCH)]
    whole = torch.cat(parts)
    return (whole if whole.dtype == torch.uint8 else whole.float()).numpy()


def _refuse_others(folder: Path, config: dict[str, Any]) -> None:
    """Refuse UNets that want more than a latent, a timestep and a caption: they would fail, or be wrong in silence."""
    wants = {
        "addition_embed_type": "a pooled caption and picture sizes (SDXL and its kin)",
        "class_embed_type": "a class or a noise level",
        "encoder_hid_dim_type": "another kind of embedding",
        "time_cond_proj_dim": "the strength of guidance as an input (full LCM students)",
    }
    for name, what in wants.items():
        if config.get(name) is not None:
            msg = f"{folder}: this UNet wants {what} ({name}): Stable Diffusion 1.x, 2.x and Turbo are supported"
            raise ModelError(msg)
    if not isinstance(config["cross_attention_dim"], int):
        msg = f"{folder}: cross_attention_dim is {config['cross_attention_dim']} and must be one number"
        raise ModelError(msg)


def _text_shape(folder: Path) -> tuple[int, int]:
    """Tokens that a text encoder gives (the length of every caption, padded), and the width of each."""
    if (folder / "open_clip_config.json").is_file():
        text = read_config(folder / "open_clip_config.json")["model_cfg"]["text_cfg"]
        return int(text.get("context_length", 77)), int(text.get("width", 512))
    config = read_config(folder / "config.json")
    return int(config.get("max_position_embeddings", 77)), int(config.get("hidden_size", 512))


@contextmanager
def _loading(folder: Path, name: str) -> Iterator[None]:
    """Name the folder in whatever a library says of files that it cannot load."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        msg = f"{folder}: cannot be loaded as {name} ({next(iter(str(error).splitlines()), type(error).__name__)})"
        raise ModelError(msg) from error


def _from_pretrained(cls: Any, folder: Path, dtype: torch.dtype, **options: bool) -> Any:
    given = {"torch_dtype": dtype, "variant": variant_of(folder), "use_safetensors": True, "local_files_only": True}
    with _loading(folder, cls.__name__):
        return cls.from_pretrained(folder, **given, **options)


def _open_clip_text(model: Any, folder: Path, device: torch.device) -> Callable[[Sequence[str]], Tensor]:
    """All hidden states after ln_final, causal mask, no projection: what the desk UNet was trained on."""
    import open_clip

    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    def encode(captions: Sequence[str]) -> Tensor:
        x = model.token_embedding(tokenize(list(captions)).to(device)) + model.positional_embedding
        hidden: Tensor = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        return hidden

    return encode


def _transformers_text(folder: Path, tokenizer: Path, device: torch.device) -> Callable[[Sequence[str]], Tensor]:
    """Encode to the last hidden state (after the final layer norm), as Stable Diffusion 1.x, 2.x and Turbo take it."""
    from transformers import CLIPTextModel, CLIPTokenizer

    model = _from_pretrained(CLIPTextModel, folder, torch.float32).to(device).eval().requires_grad_(False)
    with _loading(tokenizer, "CLIPTokenizer"):
        tokens = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)

    def encode(captions: Sequence[str]) -> Tensor:
        length = model.config.max_position_embeddings
        ids = tokens(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        hidden: Tensor = model(ids.input_ids.to(device)).last_hidden_state
        return hidden

    return encode
