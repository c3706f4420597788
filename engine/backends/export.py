"""Networks in ONNX: what other runtimes than torch read."""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from engine.backends.base import export_dtype
from engine.backends.cache import EngineCache, Key
from engine.errors import BackendError
from engine.models.folders import hash_folders
from engine.models.loading import Models
from engine.models.parts import FOLDERS, Part
from engine.models.weights import count_weights
from engine.spec import ModelSpec
from stream.types.progress import Progress

logger = logging.getLogger(__name__)

OPSETS = (20, 23)
"""20 is read by every runtime still in use; 23 has attention as one operator, which gained nothing on a CPU."""
FILE = "model.onnx"
INPUTS: dict[Part, tuple[str, ...]] = {
    "unet": ("x", "timesteps", "c", "mask"),
    "decoder": ("latents",),
    "preview_decoder": ("latents",),
}
OUTPUT = "out"
_NEEDED = ("onnx", "onnxscript")
_ROOM = 1.2  # times the weights as they are exported: they are written once, beside the program
_STEPS = 4  # traced, translated, written, checked
_MOST = 63  # from 64 on, diffusers copies before it upsamples: another program


class _WholeMask(nn.Module):
    """Attention whose mask has a row for each query: ONNX Runtime's Attention operator does not broadcast one."""

    def __init__(self, processor: Any) -> None:
        super().__init__()
        self.processor = processor

    def forward(
        self, attn: Any, hidden: Tensor, encoder_hidden_states: Any = None, attention_mask: Any = None, **rest: Any
    ) -> Tensor:
        if attention_mask is not None:
            attention_mask = attention_mask.expand(-1, hidden.shape[1], -1)
        out: Tensor = self.processor(attn, hidden, encoder_hidden_states, attention_mask, **rest)
        return out


class _Unet(nn.Module):
    def __init__(self, models: Models) -> None:
        super().__init__()
        self.network = models.unet
        self.network.set_attn_processor({name: _WholeMask(one) for name, one in models.unet.attn_processors.items()})
        self._models = models

    def forward(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        return self._models.run_unet(x, timesteps, c, mask)


class _Decoder(nn.Module):
    def __init__(self, models: Models, *, preview: bool) -> None:
        super().__init__()
        self.network = models.preview_vae if preview else models.vae
        self._decode = models.decode_preview if preview else models.decode_pixels

    def forward(self, latents: Tensor) -> Tensor:
        return self._decode(latents)


def unavailable_because() -> str | None:
    """Return which packages exporting lacks; None where it can be done."""
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    return f"{' and '.join(lacking)} not installed" if lacking else None


def exportable(models: Models) -> Models:
    """Return models to export, in the type for it: their weights are let go of when the file is there."""
    name = cast("Literal['float32', 'float16', 'bfloat16']", str(export_dtype(models)).removeprefix("torch."))
    spec: ModelSpec = models.spec.model_copy(update={"dtype": name})
    return Models(spec, str(models.device))


def example(models: Models, part: Part, batch: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """Random inputs of a network, in the order of `INPUTS`, on the models' device."""
    x = torch.randn((batch, *models.latent_shape), generator=generator).to(models.device, models.dtype)
    if part != "unet":
        return (x,)
    c = torch.randn((batch, models.context_tokens, models.context_dim), generator=generator).to(
        models.device, models.dtype
    )
    timesteps = torch.full((batch,), 500, device=models.device)
    return x, timesteps, c, torch.ones(batch, models.context_tokens, dtype=torch.bool, device=models.device)


def onnx_key(models: Models, part: Part, opset: int) -> Key:
    """Return what an exported network depends on."""
    return {**network_key(models, part), "kind": "onnx", "opset": opset, **exporter_versions()}


def network_key(models: Models, part: Part) -> dict[str, str | int]:
    """Return what a traced network depends on, but for the versions of what traces it."""
    shape = "x".join(str(n) for n in models.latent_shape)
    return {
        "part": part,
        "weights": weights_hash(models, part),
        "architecture": architecture_hash(models, part),
        "shapes": f"latent n x {shape}, c n x {models.context_tokens} x {models.context_dim}",
        "dtype": str(models.dtype),
        "scaling": f"{models.autoencoder.scaling} {models.autoencoder.shift}",
        "device": models.device.type,
    }


def exporter_versions() -> dict[str, str]:
    """Versions of the libraries that decide what an exported file looks like, by name."""
    return {package: _version(package) for package in ("torch", "diffusers", *_NEEDED)}


def weights_hash(models: Models, part: Part) -> str:
    """sha256 of a network's weights and configuration."""
    folder = hash_folders([_folder(models, part)])
    if part != "unet" or models.ip_adapter is None:
        return folder
    return hashlib.sha256(f"{folder} {models.ip_adapter.digest}".encode()).hexdigest()


def architecture_hash(models: Models, part: Part) -> str:
    """sha256 of a network's configuration alone: the same for all weights of one shape."""
    config = json.loads((_folder(models, part) / "config.json").read_text(encoding="utf-8"))
    kept = {name: value for name, value in config.items() if not name.startswith("_") or name == "_class_name"}
    if part == "unet" and models.ip_adapter is not None:
        kept |= {"ip_adapter": models.ip_adapter.scale}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def exported(
    models: Models,
    part: Part,
    cache: EngineCache,
    opset: int,
    verify: Callable[[Path], None] | None = None,
    report: Progress | None = None,
) -> Path:
    """ONNX file of a network, exported where the cache does not have it; the batch is the one dimension left open.

    Parameters
    ----------
    models : Models
    part : {'unet', 'decoder', 'preview_decoder'}
    cache : EngineCache
    opset : int
    verify : callable, optional
        Given a fresh export before it is kept; raises a BackendError where it is of no use.
    report : callable, optional
        Told how far a fresh export is.

    Raises
    ------
    BackendError
        If a package is missing, or the network cannot be exported.
    CacheError
        If there is no room on the disk.
    """
    key = onnx_key(models, part, opset)
    if entry := cache.find(key):
        return entry / FILE
    if reason := unavailable_because():
        msg = f"the {part} cannot be exported: {reason}; pip install 'minddiffuser[onnx]'"
        raise BackendError(msg)
    room = int(_ROOM * weight_bytes(models, part))
    logger.info("exporting the %s to ONNX (opset %d); this is done once", part, opset)
    what = f"{part} to ONNX, opset {opset}"

    def build(folder: Path) -> None:
        write_onnx(models, part, folder, opset, lambda done: report and report(what, done, _STEPS))
        if verify is not None:
            verify(folder / FILE)
        if report is not None:
            report(what, _STEPS, _STEPS)

    try:
        return cache.get(key, build, room=room) / FILE
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        msg = f"the {part} cannot be exported at opset {opset} ({type(error).__name__}: {first}): use backend 'torch'"
        raise BackendError(msg) from error


def write_onnx(models: Models, part: Part, folder: Path, opset: int, step: Callable[[int], object]) -> None:
    """Export one network to `folder`/model.onnx; weights over 2 GB go to a file beside it.

    `step` is told how many steps are done: 0, 1 once the network is traced, 2 translated, 3 written.
    """
    step(0)
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # exported by hand, because torch.onnx.export would hide the error of a first attempt behind that of a second
        traced = trace(models, part)
        step(1)
        program: Any = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=opset,
            input_names=list(INPUTS[part]),
            output_names=[OUTPUT],
            verbose=False,
        )
        step(2)
        program.save(folder / FILE)
    step(3)


def trace(models: Models, part: Part) -> Any:
    """Return a network as torch.export traces it; the batch is the one dimension left open."""
    network: nn.Module = _Unet(models) if part == "unet" else _Decoder(models, preview=part == "preview_decoder")
    batch = torch.export.Dim("n", min=1, max=_MOST)
    shapes = {name: {0: batch} for name in INPUTS[part]}
    with torch.no_grad():
        return torch.export.export(network.eval(), example(models, part, 2), dynamic_shapes=shapes, strict=False)


def weight_bytes(models: Models, part: Part) -> int:
    """Return the size of a network's weights in the models' type."""
    return count_weights(_folder(models, part)) * models.dtype.itemsize


def _folder(models: Models, part: Part) -> Path:
    return models.parts[FOLDERS[part]]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
