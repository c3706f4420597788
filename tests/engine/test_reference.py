"""Pictures stay what they are, whatever is rearranged: one window and seed, one picture.

The references were made by the first version of both stages, by the settings below: a row of previews, a row of
pictures. Whoever changes what comes out on purpose makes them anew, and says so.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decoder.features import Features
from engine.models.loading import Models
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec, StructureSpec
from engine.stage2_loss.terms import LossWeights

FOLDER = Path(__file__).parent / "reference"
PAPER = StructureSpec(mode="exact", iterations=2, learning_rate=0.03)
GUIDED = StructureSpec(
    iterations=2,
    learning_rate=0.08,
    weights=LossWeights(latent_prior=1),
    renoise_strength=0.4,
    candidates=3,
    guidance=1.5,
)
SPECS = {
    "default": EngineSpec(threads=1),
    "structure-latent": EngineSpec(threads=1),
    "guided": EngineSpec(threads=1, steps=2, strength=0.7, guidance=2, structure=GUIDED),
    "exact": EngineSpec(threads=1, steps=2, strength=0.7, structure=PAPER),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_same_window_and_seed_give_the_reference_picture(desk: Models, windows: list[Features], name: str) -> None:
    """To a level of grey: another processor rounds otherwise."""
    two = windows[:2]
    if name == "structure-latent":
        two = [replace(windows[0], structure_latent=windows[1].z), replace(windows[3], structure_latent=windows[0].z)]
    previews: list[Picture] = []
    finals = Reconstructor(SPECS[name], desk).reconstruct(two, previews.extend)
    made = np.concatenate([np.concatenate([p.pixels for p in row], axis=1) for row in (previews, finals)])
    expected = np.asarray(Image.open(FOLDER / f"{name}.webp").convert("RGB"))
    difference = np.abs(made.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1
