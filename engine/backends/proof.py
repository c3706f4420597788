"""Nothing unproven shows a picture: a backend's networks are compared with eager torch before their first picture.

What is built, compiled or captured can be wrong in ways that no error tells: a row in another's place, a graph that
replays its first inputs, a size that overflows. So the networks run on random inputs of several batch sizes, caption
lengths and timesteps, in turn and then in another order on other rows, and each output must be torch's.
"""

import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.backends.base import Backend, run_part
from engine.backends.cache import EngineCache, Key
from engine.backends.export import weights_hash
from engine.backends.reference import Reference, reference_of
from engine.models.loading import Models
from engine.models.parts import parts_of
from stream.types.progress import Progress

logger = logging.getLogger(__name__)

BATCHES = (1, 2, 1, 8, 3)
"""Sizes that follow each other: what one size leaves behind is seen by the next."""
_SHIFT = 4
"""From the rows of a size's first run to those of its second."""
LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}
"""From eager torch, as a share of its largest output."""
RMS_DIFFERENCE = {torch.float32: 3e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""From eager torch, as a share of its root mean square: sees what is wrong everywhere and nowhere much."""
_VERSION = 2
"""Of the proof: another asks more, and what an earlier one passed is proven again."""
_PACKAGES = ("diffusers", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "openvino", "tensorrt", "torch")
_FILE = "proof.json"
_ROOM = 1 << 20
REPORT_IT = "report it with the answer of `minddiffuser engine verify --json`, and use backend 'torch'"
"""What a user does about a backend that is wrong."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of comparing a backend with eager torch.

    Attributes
    ----------
    fault : str
        The first thing that is wrong; '' where the backend is proven.
    differences : dict of str to float
        Largest difference of each network, as a share of torch's largest output.
    runs : int
        Outputs compared.
    seconds : float
        That it took.
    """

    fault: str
    differences: dict[str, float]
    runs: int
    seconds: float


def prove(
    backend: Backend, models: Models, reference: Reference, *, seed: int = 0, report: Progress | None = None
) -> Proof:
    """Compare a backend's networks with eager torch's.

    Parameters
    ----------
    backend : Backend
    models : Models
        Those that the backend was opened for.
    reference : Reference
        What torch makes of them.
    seed : int
        Of the order.
    report : callable, optional
        Called with how far the proof is.

    Returns
    -------
    Proof
        At the first fault it ends.
    """
    start = time.perf_counter()
    order = np.random.default_rng(seed).permutation(len(BATCHES)).tolist()
    # a size's second inputs are other rows than its first: what is kept from the first is seen
    calls = [*enumerate(BATCHES), *((place + _SHIFT, BATCHES[place]) for place in order)]
    differences: dict[str, float] = {}
    runs, fault = 0, ""
    parts = parts_of(models)
    for part in parts:
        for first, batch in calls:
            what = f"the {part.replace('_', ' ')} at batch {batch}"
            inputs, expected = reference.rows(part, first, batch)
            try:
                output = run_part(backend, part, inputs)
            except Exception as error:  # of any runtime; whatever it is, this backend shows no picture
                logger.debug("proof of %s: %s failed", backend.name, what, exc_info=True)
                fault = f"{what} fails ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]})"
            else:
                largest, fault = compare(output, expected, what, models.dtype)
                differences[part] = max(largest, differences.get(part, 0.0))
            runs += 1
            if report is not None:
                report(f"proving {backend.name}", runs, len(parts) * len(calls))
            if fault:
                return Proof(fault, differences, runs, round(time.perf_counter() - start, 2))
    return Proof("", differences, runs, round(time.perf_counter() - start, 2))


def compare(output: Tensor, expected: Tensor, what: str, dtype: torch.dtype) -> tuple[float, str]:
    """Return the largest difference as a share of the largest output, and what is wrong with it or ''."""
    if output.shape != expected.shape:
        return float("inf"), f"{what} has shape {tuple(output.shape)} and not {tuple(expected.shape)}"
    if not torch.isfinite(output).all():
        return float("inf"), f"{what} gives numbers that are not finite"
    difference = (output - expected).double()
    largest = float(difference.abs().max() / expected.abs().max())
    spread = float(difference.square().mean().sqrt() / expected.double().square().mean().sqrt())
    if largest <= LARGEST_DIFFERENCE[dtype] and spread <= RMS_DIFFERENCE[dtype]:
        return largest, ""
    return largest, f"{what} differs from torch by {largest:.2g} of its range ({spread:.2g} root mean square)"


def proven(
    name: str,
    opened: Callable[[], Backend],
    models: Models,
    cache: EngineCache | None,
    report: Progress | None = None,
) -> Proof:
    """Return the proof of a backend on this device with these libraries: the cache's, or a fresh one that is kept.

    Parameters
    ----------
    name : str
    opened : callable
        Opens the backend; one that has run every size of the proof holds memory for each, so it is let go of.
    models : Models
    cache : EngineCache or None
    report : callable, optional

    Raises
    ------
    BackendError
        If the backend cannot be opened.
    CacheError
        If the cache cannot be written.
    """

    def fresh() -> Proof:
        # the UNet is let go of again, unless this session runs torch's
        source = models if "unet" in vars(models) else Models(models.spec, str(models.device))
        proof = prove(opened(), models, reference_of(source, cache), report=report)
        logger.info("backend %s: %s (proof: %.1f s)", name, proof.fault or "agrees with torch", proof.seconds)
        return proof

    if cache is None:
        return fresh()

    def build(folder: Path) -> None:
        (folder / _FILE).write_text(json.dumps(asdict(fresh())), encoding="utf-8")

    entry = cache.get(proof_key(name, models), build, room=_ROOM)
    return Proof(**json.loads((entry / _FILE).read_text(encoding="utf-8")))


def proof_key(name: str, models: Models) -> Key:
    """Return what a proof depends on: backend, weights, type, device and the versions of all that runs networks."""
    return {
        "kind": "proof",
        "backend": name,
        "proof": _VERSION,
        "dtype": str(models.dtype),
        "device": device_name(models.device),
        **{part: weights_hash(models, part) for part in parts_of(models)},
        **versions(),
    }


def device_name(device: torch.device) -> str:
    """Return the name of a device, with a GPU's compute capability."""
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return f"{torch.cuda.get_device_name(device)} ({capability}, CUDA {torch.version.cuda})"
    return f"{device.type} ({platform.processor() or platform.machine()})"


def versions() -> dict[str, str]:
    """Return the versions of what runs networks, by package; of those that are installed."""
    present = {}
    for package in _PACKAGES:
        try:
            present[package] = version(package)
        except PackageNotFoundError:
            continue
    return present
