"""`minddiffuser doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from minddiffuser.cache import cache_dir, check_cache
from minddiffuser.errors import AppError
from stream.system import can_listen

PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "mne",
    "aiomqtt",
    "amqtt",
    "aiohttp",
)
DISK_NEEDED = 2 * 1024**3
"""Bytes for the demo's recordings, targets and bundle, with room to spare."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is well, whether it must be, and a line about it."""

    ok: bool
    text: str
    needed: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON-able values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Check everything a session needs; each check is quick and changes nothing."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        _python, _packages, _presenter, _lsl, _models, _gpu, _backends, _disk, _port,
    )  # fmt: skip
    return [finding for check in checks for finding in _carried_out(check)]


def _carried_out(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Check one thing; a package that cannot even be loaded is a finding too."""
    try:
        return check()
    except (ImportError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [Finding(False, f"{check.__name__.removeprefix('_')} cannot be looked at: {first}")]


def _python() -> list[Finding]:
    return [Finding(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]} (3.11 or newer is needed)")]


def _packages() -> list[Finding]:
    found = []
    for name in PACKAGES:
        try:
            found.append(Finding(True, f"{name} {version(name)}"))
        except PackageNotFoundError:
            found.append(Finding(False, f"{name} is not installed: pip install {name}"))
    return found


def _presenter() -> list[Finding]:
    try:
        return [Finding(True, f"pyglet {version('pyglet')}: `present` and `calibrate` can show pictures", needed=False)]
    except PackageNotFoundError:
        what = "pyglet, by which `present` and `calibrate` show pictures: pip install 'minddiffuser[present]'"
        return [Finding(False, what, needed=False)]


def _lsl() -> list[Finding]:
    try:
        pylsl = importlib.import_module("pylsl")
        number = pylsl.library_version()
    except (ImportError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "install liblsl (conda install -c conda-forge liblsl, or a release of sccn/liblsl)"
        return [Finding(False, f"liblsl cannot be loaded ({first}): {hint}")]
    return [Finding(True, f"liblsl {number // 100}.{number % 100} through pylsl {version('pylsl')}")]


def _models() -> list[Finding]:
    from engine.errors import EngineError
    from engine.models.folders import find_parts
    from engine.spec import ModelSpec

    try:
        parts = find_parts(ModelSpec())
    except EngineError as error:
        return [Finding(False, f"desk models: {error}")]
    return [Finding(True, f"desk models: {', '.join(sorted(parts))}")]


def _gpu() -> list[Finding]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return [
            Finding(
                False,
                "no NVIDIA GPU seen by torch: the desk models run on the CPU, Stable Diffusion will be slow",
                False,
            )
        ]
    return [Finding(True, f"GPU {torch.cuda.get_device_name()} (CUDA {torch.version.cuda})", False)]


def _backends() -> list[Finding]:
    """Return which backends of the engine can run here, and what the others lack."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    from engine.registry import BACKENDS

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lacking = {name: entry.unavailable_because(device) for name, entry in BACKENDS.items()}
    return [
        Finding(reason is None, f"backend {name}" + (f": {reason}" if reason else ""), needed=False)
        for name, reason in lacking.items()
    ]


def _disk() -> list[Finding]:
    try:
        folder = cache_dir()
        check_cache()
    except AppError as error:
        return [Finding(False, str(error))]
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1024**3:.1f} GiB free for the cache ({folder})"
    return [Finding(free >= DISK_NEEDED, text + ("" if free >= DISK_NEEDED else "; 2 GiB are needed"))]


def _port() -> list[Finding]:
    from minddiffuser.config.spec import DisplaySpec

    spec = DisplaySpec()
    if not can_listen(spec.host, spec.port):
        return [Finding(False, f"port {spec.port} for the page is taken: use --port or display.port", False)]
    return [Finding(True, f"port {spec.port} for the page is free", False)]
