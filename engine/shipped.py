"""Files that come with the packages: inside a package where a wheel was installed, beside it in a checkout."""

from importlib import resources
from pathlib import Path

INSIDE = "shipped"
"""Folder of an installed package that holds them; pyproject.toml (`force-include`) puts them there."""


def shipped(package: str) -> Path:
    """Return the folder that holds what is shipped with a package, as a checkout's root does.

    Parameters
    ----------
    package : str
        Name of an import package, 'engine' (models/) or 'minddiffuser' (configs/, bundles/).
    """
    folder = Path(str(resources.files(package)))
    inside = folder / INSIDE
    return inside if inside.is_dir() else folder.parent
