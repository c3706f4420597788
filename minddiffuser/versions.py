"""Versions of what a session's pictures depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decoder.models.bundle import Bundle


def versions_of(bundle: Bundle) -> dict[str, str]:
    """Return versions of Python, minddiffuser and torch, and hashes of the models' feature space and of the bundle."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("minddiffuser", "torch")},
        "models": str(bundle.meta.get("feature_space", "")),
        "bundle": bundle.digest,
    }
