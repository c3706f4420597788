"""All that is to be measured on a GPU, in one go and in under eight minutes.

    python -m benchmarks.gpu --out gpu-report

On networks of SD-Turbo's published shapes with random weights (3.4 GB, in a temporary folder; nothing is fetched) it
makes the table of `benchmarks.shapes` (a plain diffusers loop and each backend at batch 1 and 8), the answer of
`minddiffuser engine verify`, memory and compiled programs over 500 frames, and runs the tests that need a GPU. Each is
a process of its own and is written to the folder as soon as it is there: `table.json`, `table.md`, `verify.json`,
`steady.json`, `tests.txt`; `report.json` says what was done, left out or ended early, and why. `--shape tiny --device
cpu` tries the command itself.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import shapes
from benchmarks.engine import about
from benchmarks.steady import run as steady
from engine.backends.cache import EngineCache
from engine.models.loading import load_models
from engine.reconstructor import Reconstructor
from engine.registry import BACKENDS
from engine.spec import EngineSpec, ModelSpec
from engine.verify import verify_engine

PARTS = ("table", "verify", "steady", "tests")
SECONDS = 460
"""For everything, the networks' writing too."""
FRAMES = 500
_MINUTES = {"torch-compile", "onnx-tensorrt"}
"""Backends that would take the whole time to start; `--backend` takes them."""


def spec_of(folder: Path, device: str, backend: str) -> EngineSpec:
    """Return two UNet calls and eight gradient steps a picture."""
    models = ModelSpec(folder=str(folder))
    return EngineSpec(models=models, device=device, backend=backend, steps=1, structure=shapes.structure_of(1))


def table(folder: Path, device: str, backends: list[str], out: Path) -> None:
    """Write the table for docs/performance.md."""
    answer = shapes.measure_in(folder, shapes.Plan(device=device, backends=tuple(backends))) | about()
    (out / "table.json").write_text(json.dumps(answer), encoding="utf-8")
    (out / "table.md").write_text(shapes.markdown(answer) + "\n", encoding="utf-8")


def verify(folder: Path, device: str, backends: list[str], out: Path) -> None:
    """Write what `minddiffuser engine verify --json` answers."""
    cache = EngineCache(folder.parent / "engines")
    answer = verify_engine(spec_of(folder, device, "torch"), cache, repeats=20, names=tuple(backends))
    (out / "verify.json").write_text(json.dumps(asdict(answer)), encoding="utf-8")


def memory(folder: Path, device: str, backends: list[str], out: Path) -> None:
    """Write memory and compiled programs over the frames, of the fastest backend that starts at once."""
    name = "torch-graphs" if "torch-graphs" in backends else backends[0]
    models = load_models(ModelSpec(folder=str(folder)), device)
    engine = Reconstructor(spec_of(folder, device, name), models, folder.parent / "engines")
    frames = FRAMES if models.device.type == "cuda" else 20
    (out / "steady.json").write_text(json.dumps({"backend": name} | steady(engine, frames)), encoding="utf-8")


def tests(_: Path, __: str, ___: list[str], out: Path) -> None:
    """Run the tests that need a GPU; without one they are skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "tests/engine/test_cuda.py"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    (out / "tests.txt").write_text(done.stdout, encoding="utf-8")


RUN: dict[str, Callable[[Path, str, list[str], Path], None]] = dict(
    zip(PARTS, (table, verify, memory, tests), strict=True)
)


def runs_here(folder: Path, device: str) -> tuple[list[str], dict[str, str]]:
    """Return the backends that start within minutes here, and why the others are left."""
    on = load_models(ModelSpec(folder=str(folder)), device).device
    left = {name: reason for name, entry in BACKENDS.items() if (reason := entry.unavailable_because(on))}
    left |= {name: f"takes minutes to start; --backend {name} takes it" for name in _MINUTES if name not in left}
    return [name for name in BACKENDS if name not in left], left


def measure(shape: str, device: str, asked: list[str], out: Path, seconds: float) -> dict[str, Any]:
    """Run every part in its own process for as long as there is time, and return what became of each."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, str] = {}
    with shapes.networks(shape) as folder:
        here, left = runs_here(folder, device)
        backends = asked or here
        for part in PARTS:
            spare = seconds - (time.monotonic() - began)
            if spare < 1:
                parts[part] = "left out: no time left"
                continue
            command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--folder", str(folder)]
            command += ["--device", device, "--out", str(out), *(f"--backend={name}" for name in backends)]
            try:
                ended = subprocess.run(command, timeout=spare, check=False).returncode
                parts[part] = "done" if ended == 0 else f"failed with exit code {ended}"
            except subprocess.TimeoutExpired:
                parts[part] = f"ended after {spare:.0f} s: no time left"
    answer = {
        "parts": parts,
        "backends": backends,
        "left_out": left,
        "seconds": round(time.monotonic() - began, 1),
        **about(),
    }
    (out / "report.json").write_text(json.dumps(answer, indent=1), encoding="utf-8")
    return answer


def main() -> None:
    """Measure, or do one part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-report"))
    parser.add_argument("--shape", choices=tuple(shapes.SHAPES), default="sd-turbo")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", action="append", default=[], help="only these; repeat")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--part", choices=PARTS, help="one part alone, on networks that are written already")
    parser.add_argument("--folder", type=Path, help="of those networks")
    given = parser.parse_args()
    if given.part:
        RUN[given.part](given.folder, given.device, given.backend, given.out)
        return
    print(json.dumps(measure(given.shape, given.device, given.backend, given.out, given.seconds)))


if __name__ == "__main__":
    main()
