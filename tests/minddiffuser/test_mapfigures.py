"""Figures of maps: where helmets and regions come to lie."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decoder.evaluation.patterns import Patterns
from decoder.evaluation.timecourse import Decodability
from decoder.simulation.headmodel import HEAD_RADIUS, meg_info
from minddiffuser.maps.figures import head_under, sensor_places, write_figures
from minddiffuser.maps.maps import Maps
from stream.types.windows import Channels

HELMET = Channels(tuple(f"MEG{row:03d}" for row in range(102)), ("mag",) * 102, ("T",) * 102)
VOXELS = Channels(tuple(f"{area}:v{row}" for area in ("V1", "IT") for row in range(8)), ("voxel",) * 16, ("z",) * 16)


def test_a_helmets_rim_lies_on_the_outline_of_the_head() -> None:
    """Of a helmet's sensors a tenth lies lower than the centre angles are counted from; scalps need no such place."""
    info = meg_info(100.0)
    sphere = head_under(info)
    assert sphere is not None
    heights = np.array([channel["loc"][2] for channel in info["chs"]])
    assert np.mean(heights < sphere[2]) == pytest.approx(0.1, abs=0.02)
    assert sphere[3] == HEAD_RADIUS
    scalp = sensor_places(Channels(("Cz", "Pz", "Oz"), ("eeg",) * 3, ("V",) * 3))
    assert scalp is not None
    assert head_under(scalp[1]) is None


@pytest.mark.parametrize(("channels", "n_times"), [(HELMET, 30), (VOXELS, 1)], ids=["helmet", "regions"])
def test_helmets_and_regions_are_drawn(channels: Channels, n_times: int, tmp_path: Path) -> None:
    """Decodability, pattern and what a block drives are figures with ink on them, for light and dark pages."""
    rng = np.random.default_rng(0)
    components = rng.normal(size=(2, len(channels), n_times))
    found = Patterns(components, np.array([0.7, 0.3]), np.sqrt((components**2).sum(axis=0)))
    places = ("V1", "IT") if n_times == 1 else tuple(f"{low}-{high} s" for low, high in pairwise(range(4)))
    centres = None if n_times == 1 else np.arange(len(places)) / 10
    score = rng.uniform(0, 1, (1, len(places)))
    told = Decodability(("c",), score, score - 0.1, score + 0.1, 0.2, 100)
    times = np.arange(n_times) / 100
    maps = Maps(
        channels, times, {"c": found}, places, centres, told, 60, 60, "5-fold over pictures", drive={"s1": found}
    )
    files = write_figures(maps, tmp_path)
    assert set(files) == {"decodability", "pattern-c", "drive-s1"}
    for by_theme in files.values():
        assert set(by_theme) == {"light", "dark"}
        for file in by_theme.values():
            assert np.asarray(Image.open(file).convert("L")).std() > 5
