"""The engine on networks of published shapes with random weights: how a GPU, or a CPU at 512 x 512, is measured.

`python -m benchmarks.engine --shape sd-turbo [--device cuda] [--backend NAME ...] [--json]` writes the networks to a
temporary folder (SD-Turbo's UNet, TAESD's autoencoder, CLIP ViT-B/32, pictures of 512 x 512) and times, at batch 1 and
8, a plain diffusers loop on the same weights and each backend that runs here: one UNet call, stage 1 (to the preview)
and both stages. Without --json it prints the table for docs/performance.md. `--shape tiny` is the same on networks of
milliseconds. By default a picture takes two UNet calls, one in stage 1 and one after 8 gradient steps; `unet_calls`
says how many there really were. Milliseconds are medians; random weights draw nothing, and take as long as trained
ones.

On a CPU, where a UNet call takes seconds, `--batch 1 --steps 1 --steps 2 --repeats 3 --unproven` is done in minutes:
each export is held against torch on one input, and the proof of 20 batches is left out. `--keep FOLDER` keeps networks
and exports for the next run.
"""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from engine.backends.base import Backend
from engine.backends.cache import EngineCache
from engine.backends.choice import make_backend, open_backend
from engine.backends.export import example
from engine.errors import EngineError
from engine.models.loading import Models, load_models, to_uint8
from engine.reconstructor import Reconstructor
from engine.registry import BACKENDS
from engine.sampling.gradient import LatentToPatches, save_gradient
from engine.spec import EngineSpec, ModelSpec, StructureSpec
from tests.tinymodels import write_tiny, write_turbo

GRADIENT_STEPS = 8
PLAIN = "plain diffusers loop"
SHAPES: dict[str, Callable[[Path], None]] = {"tiny": write_tiny, "sd-turbo": write_turbo}
_MINUTES_ON_CPU = ("torch-compile",)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is timed.

    Attributes
    ----------
    shape : str
        Of `SHAPES`.
    device : str
    backends : tuple of str
        () is all that run here within minutes.
    steps : tuple of int
        UNet calls of stage 1.
    batches : tuple of int
    repeats : int
        Of each median.
    proven : bool
        Prove backends first, as every start does.
    dtype : str
        Of the UNet and the decoder, as in a config.
    """

    shape: str = "sd-turbo"
    device: str = "auto"
    backends: tuple[str, ...] = ()
    steps: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1, 8)
    repeats: int = 30
    proven: bool = True
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"


@contextmanager
def networks(shape: str, kept: Path | None = None) -> Iterator[Path]:
    """Write networks to a temporary folder, or to one that is kept, where they are not there yet."""
    with tempfile.TemporaryDirectory(prefix="minddiffuser-shapes-") as name:
        folder = (kept or Path(name)) / "models"
        if not (folder / "gradient").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            SHAPES[shape](folder)
            _write_gradient(folder)
        yield folder


def _write_gradient(folder: Path) -> None:
    """Add a gradient network of the models' shapes with random weights."""
    models = load_models(ModelSpec(folder=str(folder), gradient="none"), "cpu")
    patches = models.shallow.visual.conv1
    grid = models.shallow.size // patches.kernel_size[0]
    shape = {"channels": models.latent_shape[0], "patch_width": patches.out_channels, "grid": grid}
    save_gradient(LatentToPatches(**shape), {**shape, "feature_space": models.feature_space}, folder / "gradient")


def plain_loop(models: Models) -> Callable[[int, int], object]:
    """Stage 1 as one writes it with diffusers alone, from pure noise: its scheduler, its UNet, its autoencoder."""
    import diffusers

    load = {"torch_dtype": models.dtype, "low_cpu_mem_usage": False}
    unet = diffusers.UNet2DConditionModel.from_pretrained(models.parts["unet"], **load).to(models.device)
    vae = diffusers.AutoencoderTiny.from_pretrained(models.parts["vae"], **load).to(models.device)
    scheduler = getattr(diffusers, models.scheduler["_class_name"]).from_pretrained(models.parts["scheduler"])
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def run(steps: int, batch: int) -> object:
        scheduler.set_timesteps(steps)
        c = torch.zeros(batch, models.tokens, models.context_dim, dtype=models.dtype, device=models.device)
        x = torch.randn(batch, *models.latent_shape, generator=generator).to(models.device, models.dtype)
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = unet(scheduler.scale_model_input(x, t), t, encoder_hidden_states=c).sample
            x = scheduler.step(output, t, x).prev_sample
        return to_uint8(vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5).cpu().numpy()

    return run


def median_ms(run: Callable[[], object], device: torch.device, repeats: int, warm: int) -> float:
    """Median milliseconds of `repeats` calls, after `warm` that do not count."""
    taken = []
    for number in range(repeats + warm):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= warm:
            taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1e3, 3)


def time_pictures(engine: Reconstructor, batch: int, repeats: int, warm: int) -> dict[str, float]:
    """Time stage 1 and both stages at one batch size, and count UNet calls."""
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

    total = median_ms(both, engine.models.device, repeats, warm)
    engine.setup = replace(engine.setup, unet=run_unet)
    return {
        "stage1_ms": round(statistics.median(previews[warm:]) * 1e3, 3),
        "total_ms": total,
        "unet_calls": calls / (repeats + warm),
    }


def measure(plan: Plan, kept: Path | None = None) -> dict[str, Any]:
    """Write the networks, and time the plain loop and each backend on them."""
    with networks(plan.shape, kept) as folder:
        return measure_in(folder, plan)


def measure_in(folder: Path, plan: Plan) -> dict[str, Any]:
    """Time the plain loop and each backend on networks that are written; engines are kept beside their folder."""
    cache = EngineCache(folder.parent / "engines")
    models = load_models(ModelSpec(folder=str(folder), dtype=plan.dtype), plan.device)
    device = models.device
    run = plain_loop(models)
    rows = [
        {"name": PLAIN, "steps": steps, "batch": n}
        | {"stage1_ms": median_ms(partial(run, steps, n), device, plan.repeats, _warm(plan, steps, device))}
        for steps in plan.steps
        for n in plan.batches
    ]
    del run
    left: dict[str, str] = {}
    for name in plan.backends or BACKENDS:
        if reason := _left_out(name, plan, device):
            left[name] = reason
            continue
        gc.collect()
        try:
            if plan.proven:
                backend = make_backend(name, models, cache, build=True).backend
            else:
                backend = open_backend(name, models, cache)
            rows += _rows(backend, models, plan)
        except EngineError as error:
            left[name] = str(error)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    cuda = device.type == "cuda"
    return {
        "shape": plan.shape,
        "image_size": models.image_size,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "dtype": str(models.dtype).removeprefix("torch."),
        "gradient_steps": GRADIENT_STEPS,
        "proven": plan.proven,
        "rows": rows,
        "left_out": left,
        "repeats": plan.repeats,
    }


def _left_out(name: str, plan: Plan, device: torch.device) -> str | None:
    if reason := BACKENDS[name].unavailable_because(device):
        return reason
    if not plan.backends and device.type == "cpu" and name in _MINUTES_ON_CPU:
        return f"compiles for minutes; --backend {name} times it"
    return None


def _warm(plan: Plan, steps: int, device: torch.device) -> int:
    """Return how many calls do not count: on a CPU one, and none where only the number of steps is another."""
    if device.type == "cuda":
        return 3
    return int(steps == plan.steps[0])


def _rows(backend: Backend, models: Models, plan: Plan) -> list[dict[str, Any]]:
    """Time a backend at each number of steps and batch size."""
    rows = []
    for n in plan.batches:
        inputs = example(models, "unet", n, torch.Generator().manual_seed(0))
        warm = _warm(plan, plan.steps[0], models.device)
        unet = median_ms(partial(backend.unet, *inputs), models.device, plan.repeats, warm)
        for steps in plan.steps:
            spec = EngineSpec(models=models.spec, device=plan.device, steps=steps, structure=structure_of(steps))
            engine = Reconstructor(spec, models, backend=backend)
            times = time_pictures(engine, n, plan.repeats, _warm(plan, steps, models.device))
            rows.append({"name": backend.name, "steps": steps, "batch": n, "unet_ms": unet} | times)
    return rows


def structure_of(steps: int) -> StructureSpec:
    """Return eight gradient steps a picture: after the one UNet call, which another one follows, or among several."""
    return StructureSpec(
        iterations=GRADIENT_STEPS // steps,
        renoise_strength=0.3 if steps == 1 else 0.0,
        refinement_rounds=1,
        candidates=1,
        guidance=None,
    )


def markdown(answer: dict[str, Any]) -> str:
    """Return the table for docs/performance.md."""
    versions = ", ".join(f"{name} {number}" for name, number in answer["versions"].items())
    proof = "proven backends" if answer["proven"] else "each export held against torch on one input, without the proof"
    lines = [
        f"{answer['shape']} shapes with random weights, {answer['image_size']} x {answer['image_size']}, "
        f"{answer['dtype']}, on {answer['device']}" + (f" (CUDA {answer['cuda']})" if answer["cuda"] else "") + "; "
        f"{answer['gradient_steps']} gradient steps, medians of {answer['repeats']}; {proof}. {versions}.",
        "",
        "| | steps | batch | UNet call, ms | stage 1, ms | pictures/s | both stages, ms | its UNet calls | "
        "plain / stage 1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    plain = {(row["steps"], row["batch"]): row["stage1_ms"] for row in answer["rows"] if row["name"] == PLAIN}
    for row in answer["rows"]:
        steps, n, stage1 = row["steps"], row["batch"], row["stage1_ms"]
        unet, both, calls = (
            ("", "", "")
            if row["name"] == PLAIN
            else (f"{row['unet_ms']:.2f}", f"{row['total_ms']:.1f}", f"{row['unet_calls']:g}")
        )
        lines.append(
            f"| {row['name']} | {steps} | {n} | {unet} | {stage1:.1f} | {n / stage1 * 1e3:.3g} | {both} | {calls} | "
            f"{plain[steps, n] / stage1:.2f} |"
        )
    return "\n".join([*lines, "", *(f"left out {name}: {reason}" for name, reason in answer["left_out"].items())])


def report(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print an answer of `measure`, with machine and versions."""
    print(json.dumps(answer) if as_json else markdown(answer))
