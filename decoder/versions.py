"""Versions of installed packages."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

BUNDLE = ("minddiffuser", "numpy", "scipy", "torch", "open_clip_torch", "diffusers")
"""Packages that a bundle depends on."""
FIGURES = ("minddiffuser", "torch", "diffusers", "open_clip_torch", "mne", "numpy", "pylsl")
"""Packages that figures depend on."""


def versions(names: Sequence[str] = BUNDLE) -> dict[str, str]:
    """Return the installed versions by name; packages that are not installed are left out."""
    out = {}
    for name in names:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
