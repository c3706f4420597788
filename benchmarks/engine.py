"""Time and quality of the engine: a plain diffusers loop, every backend, and the three ways to do stage 2.

The features are those that the demo's decoder gives for held-out stimuli, from the simulated participant's recording
(single presentations), which is simulated once and kept in the cache folder. All figures are of one run, with the
demo's engine settings (`configs/demo.yaml`), one picture at a time. Milliseconds are medians over `repeats` pictures,
plain loop and backends turn by turn; of stage 2 (from the preview to the final picture) over `pictures`. `cpu_ms` is
the processor time of all threads for the same, which other programs disturb less. `exact` is the paper's stage 2: 300
Adam steps (learning rate 0.01) on z and c, with the gradient through UNet, VAE and CLIP, from the same sampler's start;
`onestep` takes as many steps as `fast`. `against_exact` holds `fast` and `onestep` against `exact` on the same
pictures: the mean difference with its paired 95 % bootstrap interval. `each` has every picture's own scores, so that
slices (`--first`) can be pooled.

    python -m benchmarks.engine --json
    python -m benchmarks.engine --quick     one picture, 20 exact steps instead of 300: less than a minute
    python -m benchmarks.engine --shape sd-turbo --device cuda     published shapes on a GPU: `benchmarks.shapes`
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine
from decoder.evaluation.metric_registry import pixcorr, ssim
from decoder.evaluation.metrics import bootstrap_interval
from decoder.features import Features
from engine.models.loading import Models, load_models, to_uint8
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from engine.registry import BACKENDS as REGISTRY
from engine.sampling.sampling import window_noise, window_seed
from engine.spec import EngineSpec, StructureSpec
from minddiffuser.cache import cache_dir
from minddiffuser.workflows.demo import Prepared, prepare
from stream.epochs.ingest import windows_of
from stream.files.registry import read

PAPER = {"iterations": 300, "learning_rate": 0.01, "decay": 0.999}
BACKENDS: tuple[str, ...] = ("torch", "onnx", "openvino")
"""Those that need no GPU and do not compile for minutes; what is not installed is left out and named."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shown:
    """Decoded features of held-out stimuli, and the stimuli."""

    labels: list[str]
    features: list[Features]
    originals: Pixels
    mean_image: Pixels


def decoded(prepared: Prepared, first: int, count: int) -> Shown:
    """Decode `count` windows of the test recording, from number `first`."""
    recording = read(prepared.recording)
    windows = [w for w in windows_of(recording, prepared.config.window, prepared.config.filters) if w.event]
    chosen = [w for w in windows if not w.quality.rejected][first : first + count]
    labels = [w.event.label for w in chosen if w.event]
    originals = prepared.stimuli.images[prepared.stimuli.rows(labels)]
    return Shown(labels, prepared.bundle.decode(chosen), originals, prepared.mean_image)


def plain(models: Models, spec: EngineSpec) -> Callable[[Features], Pixels]:
    """Stage 1 as one writes it with diffusers alone: its scheduler, its UNet, its VAE, as they are loaded."""
    import diffusers

    folders = models.parts
    unet = diffusers.UNet2DConditionModel.from_pretrained(folders["unet"], low_cpu_mem_usage=False)
    vae = diffusers.AutoencoderTiny.from_pretrained(folders["vae"], low_cpu_mem_usage=False)
    kind = getattr(diffusers, models.scheduler["_class_name"])
    scheduler = kind.from_pretrained(folders["scheduler"])

    @torch.no_grad()
    def run(features: Features) -> Pixels:
        scheduler.set_timesteps(spec.steps, strength=spec.strength)
        c = torch.from_numpy(features.c)[None]
        noise = window_noise([window_seed(spec.seed, features.window_id)], spec.steps, models.latent_shape)
        assert features.z is not None
        x = scheduler.add_noise(torch.from_numpy(features.z)[None], noise[0], scheduler.timesteps[:1])
        for t in scheduler.timesteps:
            output = unet(x, t, encoder_hidden_states=c).sample
            x = scheduler.step(output, t, x).prev_sample
        pixels: Pixels = to_uint8(vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5).numpy()[0]
        return pixels

    return run


@dataclass(frozen=True, slots=True)
class Run:
    """One picture: both stages, when each was there (s), and the CPU time of all threads for stage 2 (s)."""

    stage1: Pixels
    final: Pixels
    preview_s: float
    total_s: float
    cpu_s: float
    note: str


def reconstruct(engine: Reconstructor, features: Features) -> Run:
    """Reconstruct one window."""
    seen: list[tuple[float, float, Pixels]] = []

    def preview(pictures: list[Picture]) -> None:
        seen.append((time.perf_counter(), time.process_time(), pictures[0].pixels))

    began = time.perf_counter()
    (picture,) = engine.reconstruct([features], preview)
    total, ((at, cpu, stage1),) = time.perf_counter() - began, seen
    return Run(stage1, picture.pixels, at - began, total, time.process_time() - cpu, picture.note)


def milliseconds(seconds: Sequence[float]) -> float:
    """Median, ms."""
    return round(statistics.median(seconds) * 1e3, 2)


def _stage1(engine: Reconstructor, features: Features) -> Pixels:
    return engine.reconstruct([features])[0].pixels


def time_stage1(
    models: Models, spec: EngineSpec, shown: Shown, repeats: int, cache: Path
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Time the plain loop and stage 1 of each backend by turns, so that what else the machine does hits all alike."""
    runs: dict[str, Callable[[Features], Any]] = {"plain": plain(models, spec)}
    left: dict[str, str] = {b: reason for b in BACKENDS if (reason := REGISTRY[b].unavailable_because(models.device))}
    bare = spec.model_copy(update={"structure": StructureSpec(mode="none")})
    for backend in BACKENDS:
        if backend not in left:
            engine = Reconstructor(bare.model_copy(update={"backend": backend}), models, cache)
            runs[backend] = partial(_stage1, engine)
    pictures = {name: run(shown.features[0]) for name, run in runs.items()}
    for name, picture in pictures.items():
        if np.abs(picture.astype(int) - pictures["plain"]).max() > 2:
            msg = f"backend {name} and the plain loop give different pictures: the times cannot be compared"
            raise ValueError(msg)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats):
        for name, run in runs.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            run(shown.features[number % len(shown.features)])
            taken[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - cpu_began)
    wall, used = ({name: milliseconds(times) for name, times in every.items()} for every in (taken, cpu))
    return wall, used, left


def each_score(originals: Pixels, pictures: Sequence[Pixels]) -> dict[str, NDArray[np.float64]]:
    """PixCorr and SSIM of every picture, shape (n,)."""
    stacked = np.stack(list(pictures))
    return {"pixcorr": pixcorr(originals, stacked), "ssim": ssim(originals, stacked)}


def scores(originals: Pixels, pictures: Sequence[Pixels]) -> dict[str, float]:
    """PixCorr and SSIM, means over pictures."""
    return {name: round(float(values.mean()), 4) for name, values in each_score(originals, pictures).items()}


def paired(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> dict[str, float]:
    """Mean difference of the scores of the same pictures, shape (n,) each, and its 95 % bootstrap interval."""
    difference = ours - theirs
    low, high = bootstrap_interval(difference, np.random.default_rng(0))
    figures = {"difference": difference.mean(), "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in figures.items()}


def against_exact(each: dict[str, dict[str, NDArray[np.float64]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Hold the other modes of stage 2 against exact, score by score."""
    others = (mode for mode in each if mode != "exact")
    return {mode: {name: paired(values, each["exact"][name]) for name, values in each[mode].items()} for mode in others}


def stage2_modes(spec: EngineSpec, iterations: int) -> dict[str, StructureSpec]:
    """Return the settings of the three modes: those of fast are the config's own."""
    fast = spec.structure.model_copy(update={"mode": "fast"})
    return {
        "exact": StructureSpec(mode="exact", layer_weights=fast.layer_weights, **PAPER | {"iterations": iterations}),
        "onestep": fast.model_copy(update={"mode": "onestep"}),
        "fast": fast,
    }


def measure(prepared: Prepared, *, pictures: int, first: int, repeats: int, exact_iterations: int) -> dict[str, Any]:
    """Run everything; the keys are fixed, later checks read them."""
    spec = prepared.config.engine
    models = load_models(spec.models, "cpu")
    shown = decoded(prepared, first, max(pictures, repeats))
    cache = cache_dir() / "engines"
    stage1, cpu, left = time_stage1(models, spec, shown, repeats, cache)
    live = Reconstructor(spec, models, cache)
    live.warm_up()
    both = [reconstruct(live, features) for features in shown.features[:repeats]]
    originals, answer = shown.originals[:pictures], dict[str, Any]()
    each: dict[str, dict[str, NDArray[np.float64]]] = {}
    modes = stage2_modes(spec, exact_iterations)
    for name, structure in modes.items():
        engine = Reconstructor(spec.model_copy(update={"structure": structure}), models, cache)
        if name != "exact":
            engine.warm_up()
        runs = [reconstruct(engine, features) for features in shown.features[:pictures]]
        each[name] = each_score(originals, [run.final for run in runs])
        answer[name] = {
            "ms": milliseconds([run.total_s - run.preview_s for run in runs]),
            "cpu_ms": milliseconds([run.cpu_s for run in runs]),
            **scores(originals, [run.final for run in runs]),
            "iterations": structure.iterations,
            "stage1_stood": sum(bool(run.note) for run in runs),
        }
    finals = [run.final for run in both][:pictures]
    return {
        "plain_diffusers_ms": stage1.pop("plain"),
        "stage1_ms": stage1,
        "cpu_ms": cpu,
        "stage1": scores(originals, [run.stage1 for run in runs]),
        "stage2": answer,
        "against_exact": against_exact(each) if pictures > 1 else None,
        "each": {mode: {k: v.round(4).tolist() for k, v in found.items()} for mode, found in each.items()},
        "mean_image": scores(originals, [shown.mean_image] * pictures),
        "chance": scores(np.roll(originals, 1, axis=0), finals) if pictures > 1 else None,
        "preview_ms": milliseconds([run.preview_s for run in both]),
        "total_ms": milliseconds([run.total_s for run in both]),
        "backend": live.backend.name,
        "left_out": left,
        "data": str(prepared.bundle.meta["data"]),
        "pictures": pictures,
        "first": first,
        "repeats": repeats,
        "settings": {"steps": spec.steps, "strength": spec.strength, "guidance": spec.guidance},
    } | about()


def about() -> dict[str, Any]:
    """Describe what was measured on."""
    names = (
        "minddiffuser",
        "torch",
        "diffusers",
        "open_clip_torch",
        *(n for n in ("onnxruntime", "openvino") if find_spec(n)),
    )
    return {
        "machine": machine() | {"threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one picture, and 20 exact steps instead of 300")
    parser.add_argument("--pictures", type=int, default=4, help="for stage 2; exact takes more than a minute for each")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture: many can be done in slices")
    parser.add_argument("--repeats", type=int, default=30, help="pictures timed for each median of stage 1 and in all")
    parser.add_argument("--exact-steps", type=int, default=PAPER["iterations"], help="Adam steps of exact")
    sized = parser.add_argument_group("networks of published shapes with random weights, instead of the above")
    sized.add_argument("--shape", choices=("tiny", "sd-turbo"))
    sized.add_argument("--device", default="auto")
    sized.add_argument("--backend", action="append", default=[], help="only these; repeat")
    sized.add_argument("--steps", type=int, action="append", default=[], help="UNet calls of stage 1 (1); repeat")
    sized.add_argument("--batch", type=int, action="append", default=[], help="pictures at once (1 and 8); repeat")
    sized.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="auto", help="as engine.models")
    sized.add_argument("--unproven", action="store_true", help="without the proof, which takes minutes on a CPU")
    sized.add_argument("--keep", type=Path, help="a folder where networks and exports stay for the next run")
    given = parser.parse_args()
    if given.shape:
        from benchmarks import shapes

        plan = shapes.Plan(
            given.shape,
            given.device,
            tuple(given.backend),
            tuple(given.steps) or (1,),
            tuple(given.batch) or (1, 8),
            given.repeats,
            proven=not given.unproven,
            dtype=given.dtype,
        )
        found = shapes.measure(plan, given.keep)
        shapes.report(found | about(), as_json=given.json)
        return
    size = {"pictures": given.pictures, "repeats": given.repeats, "exact_iterations": given.exact_steps}
    if given.quick:
        size = {"pictures": 1, "repeats": 10, "exact_iterations": 20}
    with torch.inference_mode(mode=False):
        answer = measure(prepare(), first=given.first, **size)
    if given.json:
        print(json.dumps(answer))
    else:
        show(answer)


def show(answer: dict[str, Any]) -> None:
    """Print a table for people."""
    plain_ms = answer["plain_diffusers_ms"]
    print(f"stage 1, {answer['settings']['steps']} step, median of {answer['repeats']}, ms (times faster than plain)")
    print(f"  {'plain diffusers':<16} {plain_ms:8.1f}")
    for name, ms in answer["stage1_ms"].items():
        print(f"  {name:<16} {ms:8.1f}  ({plain_ms / ms:.2f})")
    print(f"live, {answer['backend']}: preview {answer['preview_ms']:.0f} ms, both stages {answer['total_ms']:.0f} ms")
    print(f"stage 2 of {answer['pictures']} pictures ({answer['data']}), {'ms':>8} {'PixCorr':>8} {'SSIM':>6}")
    for name, row in answer["stage2"].items():
        steps = f"{name} ({row['iterations']} steps)"
        print(f"  {steps:<40} {row['ms']:8.0f} {row['pixcorr']:8.3f} {row['ssim']:6.3f}")
    for mode, figures in (answer["against_exact"] or {}).items():
        for name, row in figures.items():
            words = f"{mode} against exact, {name}: {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            print(f"  {words}")
    for name in ("stage1", "mean_image", "chance"):
        if row := answer[name]:
            print(f"  {name:<40} {'':>8} {row['pixcorr']:8.3f} {row['ssim']:6.3f}")


if __name__ == "__main__":
    main()
