"""The engine on networks of published shapes with random weights: what a GPU is to be measured with.

`python -m benchmarks.engine --shape sd-turbo [--device cuda] [--backend NAME ...] [--json]` writes the networks to a
temporary folder (SD-Turbo's UNet, TAESD's autoencoder, CLIP ViT-B/32, pictures of 512 x 512) and times, at batch 1 and
8, a plain diffusers loop on the same weights and each backend that runs here: one UNet call, stage 1 (to the preview)
and both stages. Without --json it prints the table for docs/performance.md. `--shape tiny` is the same on networks of
milliseconds. By default a picture takes two UNet calls, one in stage 1 and one after 8 gradient steps; `unet_calls`
says how many there really were. Milliseconds are medians; random weights draw nothing, and take as long as trained
ones.
"""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.backends.cache import EngineCache
from engine.backends.choice import make_backend
from engine.backends.export import example
from engine.errors import EngineError
from engine.models.loading import Models, load_models, to_uint8
from engine.reconstructor import Reconstructor
from engine.registry import BACKENDS
from engine.sampling.gradient import LatentToPatches, save_gradient
from engine.spec import EngineSpec, ModelSpec, StructureSpec
from tests.tinymodels import write_tiny, write_turbo

BATCHES = (1, 8)
GRADIENT_STEPS = 8
_WARM = 3
SHAPES: dict[str, Callable[[Path], None]] = {"tiny": write_tiny, "sd-turbo": write_turbo}
_MINUTES_ON_CPU = ("torch-compile",)


def write_gradient(folder: Path) -> None:
    """Add a gradient network of the models' shapes with random weights."""
    models = load_models(ModelSpec(folder=str(folder), gradient="none"), "cpu")
    patches = models.shallow.visual.conv1
    grid = models.shallow.size // patches.kernel_size[0]
    shape = {"channels": models.latent_shape[0], "patch_width": patches.out_channels, "grid": grid}
    save_gradient(LatentToPatches(**shape), {**shape, "feature_space": models.feature_space}, folder / "gradient")


def plain_loop(models: Models, steps: int) -> Callable[[int], object]:
    """Stage 1 as one writes it with diffusers alone, from pure noise: its scheduler, its UNet, its autoencoder."""
    import diffusers

    load = {"torch_dtype": models.dtype, "low_cpu_mem_usage": False}
    unet = diffusers.UNet2DConditionModel.from_pretrained(models.parts["unet"], **load).to(models.device)
    vae = diffusers.AutoencoderTiny.from_pretrained(models.parts["vae"], **load).to(models.device)
    scheduler = getattr(diffusers, models.scheduler["_class_name"]).from_pretrained(models.parts["scheduler"])
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def run(batch: int) -> object:
        scheduler.set_timesteps(steps)
        c = torch.zeros(batch, models.tokens, models.context_dim, dtype=models.dtype, device=models.device)
        x = torch.randn(batch, *models.latent_shape, generator=generator).to(models.device, models.dtype)
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = unet(scheduler.scale_model_input(x, t), t, encoder_hidden_states=c).sample
            x = scheduler.step(output, t, x).prev_sample
        return to_uint8(vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5).cpu().numpy()

    return run


def median_ms(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median milliseconds of `repeats` calls, after three that do not count."""
    taken = []
    for number in range(repeats + _WARM):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= _WARM:
            taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1e3, 3)


def time_backend(spec: EngineSpec, models: Models, cache: Path, batch: int, repeats: int) -> dict[str, float]:
    """Time one UNet call, stage 1 and both stages of a backend at one batch size."""
    # made first, as a backend asked for by name: TensorRT builds its engines here
    make_backend(spec.backend, models, EngineCache(cache), build=True)
    engine = Reconstructor(spec, models, cache)
    inputs = example(models, "unet", batch, torch.Generator().manual_seed(0))
    found = {"unet_ms": median_ms(lambda: engine.backend.unet(*inputs), models.device, repeats)}
    previews: list[float] = []
    calls = 0
    run_unet = engine.setup.unet

    def counted(x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return run_unet(x, timesteps, c, mask)

    engine.setup = replace(engine.setup, unet=counted)

    def both() -> None:
        began = time.perf_counter()
        engine.dry_run(batch, lambda _: previews.append(time.perf_counter() - began))

    total = median_ms(both, models.device, repeats)
    stage1 = statistics.median(previews[_WARM:])
    return found | {
        "stage1_ms": round(stage1 * 1e3, 3),
        "stage1_pictures_per_s": round(batch / stage1, 1),
        "total_ms": total,
        "unet_calls": calls / (repeats + _WARM),
    }


def measure(shape: str, device: str, backends: list[str], steps: int, repeats: int) -> dict[str, Any]:
    """Write the networks, and time the plain loop and each backend on them."""
    with tempfile.TemporaryDirectory(prefix="minddiffuser-shapes-") as name:
        folder = Path(name) / "models"
        folder.mkdir()
        SHAPES[shape](folder)
        write_gradient(folder)
        return measure_in(folder, shape, device, backends, steps, repeats)


def measure_in(folder: Path, shape: str, device: str, backends: list[str], steps: int, repeats: int) -> dict[str, Any]:
    """Time the plain loop and each backend on networks that are written; engines are kept beside their folder."""
    cache = folder.parent / "engines"
    finish = 0.3 if steps == 1 else 0.0
    structure = StructureSpec(
        iterations=GRADIENT_STEPS // steps, renoise_strength=finish, refinement_rounds=1, candidates=1, guidance=None
    )
    models = load_models(ModelSpec(folder=str(folder)), device)
    run = plain_loop(models, steps)
    plain = {str(n): median_ms(partial(run, n), models.device, repeats) for n in BATCHES}
    del run
    found: dict[str, dict[str, dict[str, float]]] = {}
    left: dict[str, str] = {}
    for backend in backends or BACKENDS:
        reason = BACKENDS[backend].unavailable_because(models.device)
        if not backends and models.device.type == "cpu" and backend in _MINUTES_ON_CPU:
            reason = f"compiles for minutes; --backend {backend} times it"
        if reason:
            left[backend] = reason
            continue
        spec = EngineSpec(
            models=models.spec, device=device, backend=backend, steps=steps, threads=0, structure=structure
        )
        try:
            found[backend] = {str(n): time_backend(spec, models, cache, n, repeats) for n in BATCHES}
        except EngineError as error:
            left[backend] = str(error)
        gc.collect()
        if models.device.type == "cuda":
            torch.cuda.empty_cache()
    cuda = models.device.type == "cuda"
    return {
        "shape": shape,
        "image_size": models.image_size,
        "device": torch.cuda.get_device_name(models.device) if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "dtype": str(models.dtype).removeprefix("torch."),
        "steps": steps,
        "gradient_steps": structure.iterations * steps,
        "plain_diffusers_ms": plain,
        "backends": found,
        "left_out": left,
        "repeats": repeats,
    }


def markdown(answer: dict[str, Any]) -> str:
    """Return the table for docs/performance.md."""
    versions = ", ".join(f"{name} {number}" for name, number in answer["versions"].items())
    lines = [
        f"{answer['shape']} shapes with random weights, {answer['image_size']} x {answer['image_size']}, "
        f"{answer['dtype']}, on {answer['device']}" + (f" (CUDA {answer['cuda']})" if answer["cuda"] else "") + "; "
        f"{answer['steps']} step(s) of stage 1, {answer['gradient_steps']} gradient steps, medians of "
        f"{answer['repeats']}. {versions}.",
        "",
        "| | batch | UNet call, ms | stage 1, ms | pictures/s | both stages, ms | its UNet calls | plain / stage 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain = answer["plain_diffusers_ms"]
    lines += [
        f"| plain diffusers loop | {n} | | {ms:.1f} | {int(n) / ms * 1e3:.0f} | | | 1 |" for n, ms in plain.items()
    ]
    for backend, batches in answer["backends"].items():
        for n, row in batches.items():
            lines.append(
                f"| {backend} | {n} | {row['unet_ms']:.2f} | {row['stage1_ms']:.1f} | "
                f"{row['stage1_pictures_per_s']:.0f} | {row['total_ms']:.1f} | {row['unet_calls']:g} | "
                f"{plain[n] / row['stage1_ms']:.2f} |"
            )
    return "\n".join([*lines, "", *(f"left out {name}: {reason}" for name, reason in answer["left_out"].items())])


def report(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print an answer of `measure`, with machine and versions."""
    print(json.dumps(answer) if as_json else markdown(answer))
