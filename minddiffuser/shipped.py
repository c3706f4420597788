"""What comes with the package, found from any folder: configs by name, and the demo's decoder."""

from pathlib import Path

from engine.shipped import shipped

CONFIGS = shipped("minddiffuser") / "configs"
DEMO_DECODER = shipped("engine") / "models" / "demo"
"""Trained by `configs/demo.yaml`; `make demo-decoder` makes it again."""


def config_file(path: Path) -> Path:
    """Return a config's file: the one at `path`, or where there is none, the shipped one of that name.

    Parameters
    ----------
    path : Path
        Of a shipped config as a checkout has it: 'configs/demo.yaml'.
    """
    if path.is_absolute() or path.exists() or ".." in path.parts:
        return path
    own = CONFIGS.parent / path
    return own if path.parts[:1] == (CONFIGS.name,) and own.is_file() else path
