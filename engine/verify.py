"""What every backend does on this machine: whether it runs, agrees with torch, and how fast; in a form to send back."""

import gc
import platform
import sys
import time
from dataclasses import dataclass

import torch

from engine.backends.cache import EngineCache
from engine.backends.choice import open_backend
from engine.backends.proof import Proof, device_name, proof_key, proven, versions
from engine.backends.reference import reference_key
from engine.errors import BackendError, CacheError
from engine.models.loading import Models, load_models
from engine.models.memory import forget_peak, peak_bytes
from engine.reconstructor import Reconstructor
from engine.registry import BACKENDS, REFERENCE
from engine.setup import Setup
from engine.spec import EngineSpec
from engine.stage2.losses import structure_loss
from engine.stage2.targets import make_targets
from engine.timing import Timing, call_timing, network_timings, picture_timings
from stream.types.progress import Progress

BATCHES = (1, 2, 8)
"""Sizes that are timed: the proof has had them compiled."""
_SECONDS = 1.0
"""That one timing may take: on a CPU, batches of 8 take longer than anybody waits for twenty of them."""


@dataclass(frozen=True, slots=True)
class VerifiedBackend:
    """One backend on this machine.

    Attributes
    ----------
    unavailable : str
        Why it does not run here; '' where it does.
    proof : Proof or None
        How it compared with eager torch; None for torch itself and where it does not run.
    start_s : float
        Seconds from nothing to a proven backend: export, build, compile, proof.
    networks : dict of str to Timing
        One call, by network and batch: 'unet b1', ..., 'decoder b8'.
    preview, picture : Timing or None
        From features to the pixels of stage 1 and of the final picture, one window at a time.
    peak_mb : float
        Most memory meanwhile: of the whole process on a CPU, of torch's part on a GPU.
    """

    unavailable: str = ""
    proof: Proof | None = None
    start_s: float = 0.0
    networks: dict[str, Timing] | None = None
    preview: Timing | None = None
    picture: Timing | None = None
    peak_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Verification:
    """All backends on this machine.

    Attributes
    ----------
    device, python, system, dtype : str
    threads : int
        Of torch on the CPU.
    versions : dict of str to str
        Of the packages that run networks.
    latent_shape : tuple of int
    gradient_step : Timing or None
        One gradient of fast stage 2 at batch 1, which no backend runs; None without stage 2.
    backends : dict of str to VerifiedBackend
    """

    device: str
    python: str
    system: str
    dtype: str
    threads: int
    versions: dict[str, str]
    latent_shape: tuple[int, ...]
    gradient_step: Timing | None
    backends: dict[str, VerifiedBackend]

    @property
    def faults(self) -> dict[str, str]:
        """Backends that run here and do not agree with torch, and how they differ."""
        return {name: one.proof.fault for name, one in self.backends.items() if one.proof and one.proof.fault}


def verify_engine(
    spec: EngineSpec, cache: EngineCache, *, repeats: int, names: tuple[str, ...] = (), report: Progress | None = None
) -> Verification:
    """Build, prove and time backends; proofs that were kept are made anew.

    Parameters
    ----------
    spec : EngineSpec
    cache : EngineCache
    repeats : int
        Calls that count, after two that do not; fewer where they take longer than seconds.
    names : tuple of str
        Backends; () is all.
    report : callable, optional

    Raises
    ------
    EngineError
        If the models cannot be loaded, or plain torch does not run them.
    """
    models = load_models(spec.models, spec.device)
    cache.remove(reference_key(models))
    reference = Reconstructor(spec.model_copy(update={"backend": REFERENCE}), models)
    backends = {}
    for name in names or BACKENDS:
        backends[name] = _verify(name, spec, models, cache, repeats, report)
        gc.collect()
    return Verification(
        device_name(models.device),
        platform.python_version(),
        f"{sys.platform} {platform.machine()}",
        str(models.dtype),
        torch.get_num_threads(),
        versions(),
        models.latent_shape,
        _gradient_step(reference, repeats) if spec.structure.mode != "none" else None,
        backends,
    )


def _verify(
    name: str, spec: EngineSpec, models: Models, cache: EngineCache, repeats: int, report: Progress | None
) -> VerifiedBackend:
    if reason := BACKENDS[name].unavailable_because(models.device):
        return VerifiedBackend(unavailable=reason)
    start = time.perf_counter()
    forget_peak(models.device)
    cache.remove(proof_key(name, models))
    try:
        engine = Reconstructor(spec.model_copy(update={"backend": name}), models, cache.folder)
    except (BackendError, CacheError) as error:
        if cache.find(proof_key(name, models)) is None:  # it came to no proof
            return VerifiedBackend(unavailable=str(error).removeprefix(f"backend {name}: "))
        return VerifiedBackend(proof=_kept(name, models, cache), start_s=round(time.perf_counter() - start, 1))
    start_s = round(time.perf_counter() - start, 1)
    preview, picture = picture_timings(engine, repeats, report, within_s=2 * _SECONDS)
    return VerifiedBackend(
        proof=None if name == REFERENCE else _kept(name, models, cache),
        start_s=start_s,
        networks=network_timings(engine.backend, models, repeats, BATCHES, report, within_s=_SECONDS),
        preview=preview,
        picture=picture,
        peak_mb=round(peak_bytes(models.device) / 1e6, 1),
    )


def _kept(name: str, models: Models, cache: EngineCache) -> Proof:
    return proven(name, lambda: open_backend(name, models, cache), models, cache)


def _gradient_step(engine: Reconstructor, repeats: int) -> Timing:
    setup: Setup = engine.setup
    features = engine.placeholders(1)
    targets = make_targets(features, setup.layer_weights, setup.units, setup.models.device)
    x = torch.zeros(1, *setup.models.latent_shape, device=setup.models.device)

    def step() -> None:
        latents = x.requires_grad_()
        loss = structure_loss(setup.view(latents, targets.blocks), targets)
        torch.autograd.grad(loss.sum(), latents)

    return call_timing(step, setup.models.device, repeats)
