"""The folder of recordings that tests of real data read: MINDDIFFUSER_DATA, or ../shared/data."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("MINDDIFFUSER_DATA") or Path(__file__).parents[2] / "shared" / "data")
FOLDER_OF = {
    "muse-faces": "muse_eeg_visual",
    "muse-sides": "muse_eeg_visual",
    "muse-gratings": "muse_eeg_visual",
    "ssvep-exo": "ssvep_exo_kalunga2016",
    "haxby-fmri": "haxby2001_pymvpa_slice",
    "miyawaki-fmri": "miyawaki2008_figures_v1",
    "v4-photos": "v4_natural_images_cowley2023",
}
"""By config: the folder that its data set lies in."""


def data_set(name: str) -> Path:
    """Return a data set's folder, by its name or a config's; skip the test, naming it, where it is not there."""
    path = DATA / FOLDER_OF.get(name, name)
    if not path.is_dir():
        pytest.skip(f"no data set {path.name} in {DATA}; set MINDDIFFUSER_DATA to the folder that holds it")
    return path
