"""Versions of the packages that a bundle depends on."""

from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Give them by name; what is not installed is left out."""
    out = {}
    for name in ("minddiffuser", "numpy", "scipy", "torch", "open_clip_torch", "diffusers"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
