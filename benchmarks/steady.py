"""Check if the engine stays as it is after warm-up: memory and compiled programs over hundreds of frames.

`python -m benchmarks.steady --json [--backend NAME ...] [--frames 500] [--models FOLDER]`; each backend runs in a
process of its own. Frames come in batches of 1 to 8, with captions of every length; every third has no z, every fifth
no structure.
"""

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

BACKENDS = ("torch", "onnx", "openvino")
_SETTLED = 5  # the first part of the frames, one in so many, is left out: allocators fill their pools


def frames(count: int, models: Any, rng: np.random.Generator) -> list[Any]:
    """Return features with everything that differs from frame to frame."""
    from decoder.features import Features, LayerTarget

    units = models.shallow.tokens * models.shallow.width
    made = []
    for i in range(count):
        c = rng.standard_normal((int(rng.integers(1, models.tokens + 1)), models.context_dim)).astype(np.float32)
        z = None if i % 3 == 2 else rng.standard_normal(models.latent_shape).astype(np.float32)
        blocks = () if i % 5 == 4 else (1, 2)
        s = {
            block: LayerTarget(rng.standard_normal(units).astype(np.float32), rng.random(units) < 0.25)
            for block in blocks
        }
        made.append(Features(f"frame {rng.integers(1 << 60)}", c, z, s))
    return made


def run(engine: Any, count: int, seed: int = 0) -> dict[str, float]:
    """Reconstruct `count` frames after a warm-up, and follow resident memory.

    Returns
    -------
    dict of str to float
        `frames`; `compiled_in_warm_up` and `compiled_after` it (programs); `start_mb`, `end_mb`, `most_mb` (resident,
        once settled); `slope_kb` (by frame, least squares).
    """
    engine.warm_up(batch=8)
    rng, process = np.random.default_rng(seed), psutil.Process()
    ready, done = engine.backend.compiled, 0
    points: list[tuple[int, float]] = []
    while done < count:
        size = min(int(rng.integers(1, 9)), count - done)
        engine.reconstruct(frames(size, engine.models, rng))
        done += size
        points.append((done, process.memory_info().rss / 1e6))
    at, resident = np.array([point for point in points if point[0] > count // _SETTLED]).T
    return {
        "frames": done,
        "compiled_in_warm_up": ready,
        "compiled_after": engine.backend.compiled - ready,
        "start_mb": round(float(resident[0]), 1),
        "end_mb": round(float(resident[-1]), 1),
        "most_mb": round(float(resident.max()), 1),
        "slope_kb": round(float(np.polyfit(at, resident, 1)[0] * 1e3), 2),
    }


def one(backend: str, count: int, folder: str, cache: Path) -> dict[str, float]:
    """Run one backend in this process, with the demo's engine: one step, gradients on the clean latent."""
    import logging

    from engine.reconstructor import Reconstructor
    from engine.spec import EngineSpec, ModelSpec, StructureSpec

    logging.getLogger("engine").setLevel(logging.ERROR)
    spec = EngineSpec(
        models=ModelSpec(folder=folder),
        backend=backend,
        device="cpu",
        steps=1,
        structure=StructureSpec(iterations=2, layer_weights=(1.5, 1.2), renoise_strength=0),
    )
    return run(Reconstructor(spec, cache=cache), count)


def main() -> None:
    """Run each backend in a process of its own and print one table or one JSON object."""
    from minddiffuser.cache import cache_dir

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--backend", action="append")
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--models", default="models/desk")
    parser.add_argument("--here", action="store_true", help="the one backend, in this process")
    given = parser.parse_args()
    names = given.backend or list(BACKENDS)
    if given.here:
        print(json.dumps(one(names[0], given.frames, given.models, cache_dir() / "engines")))
        return
    found = {}
    for name in names:
        arguments = ["--here", "--backend", name, "--frames", str(given.frames), "--models", given.models]
        command = [sys.executable, "-m", "benchmarks.steady", *arguments]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[name] = json.loads(answer.splitlines()[-1])
    if given.json:
        packages = ("torch", "diffusers", "onnxruntime", "openvino")
        print(
            json.dumps(
                {
                    "backends": found,
                    "models": given.models,
                    "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, {platform.system()}",
                    "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
                    "repeats": 1,
                }
            )
        )
        return
    print(f"{'backend':<16}" + "".join(f"{key:>20}" for key in next(iter(found.values()))))
    for name, figures in found.items():
        print(f"{name:<16}" + "".join(f"{value:>20}" for value in figures.values()))


if __name__ == "__main__":
    main()
