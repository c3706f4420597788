"""Early vision: oriented energy answers to orientation and scale, whatever the phase, and contrast to where it is."""

import numpy as np

from decoder.data.early_vision import GRIDS, N_ORIENTATIONS, OCTAVES, early_vision

SIDE = 64
N_CELLS = sum(grid**2 for grid in GRIDS)


def grating(angle: float, period: float, phase: float = 0.0) -> np.ndarray:
    """Draw luminance that varies along an angle, in radians from level, with a period in pixels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period + phase)
    return np.repeat((127 + 100 * wave)[..., None], 3, axis=2).astype(np.uint8)


def energy(images: np.ndarray) -> np.ndarray:
    """Return oriented energy, averaged over cells: shape (n, octaves, orientations)."""
    found = early_vision(images)["oriented energy"].reshape(len(images), OCTAVES, -1)
    parts = np.split(found, np.cumsum([N_ORIENTATIONS * grid**2 for grid in GRIDS])[:-1], axis=2)
    return np.mean([part.reshape(*part.shape[:2], N_ORIENTATIONS, -1).mean(axis=3) for part in parts], axis=0)


def test_energy_answers_to_orientation_and_scale_and_not_to_phase() -> None:
    """Each orientation's filter answers most to its own grating; coarser gratings answer an octave up."""
    angles = np.pi * np.arange(N_ORIENTATIONS) / N_ORIENTATIONS
    fine = energy(np.stack([grating(angle, 8) for angle in angles]))
    np.testing.assert_array_equal(fine[:, 0].argmax(axis=1), np.arange(N_ORIENTATIONS))
    scales = energy(np.stack([grating(0.0, 6), grating(0.0, 24)]))[:, :, 0]
    assert scales[0, 0] > scales[0, 2]
    assert scales[1, 2] > scales[1, 0]
    shifted = energy(np.stack([grating(0.0, 8), grating(0.0, 8, phase=np.pi / 2)]))[:, 0, 0]
    np.testing.assert_allclose(*shifted, rtol=0.05)


def test_contrast_and_saturation_are_where_they_are() -> None:
    """A grey picture has neither; a grating in one quarter has contrast there, a red quarter saturation."""
    images = np.full((2, SIDE, SIDE, 3), 127, np.uint8)
    images[0, : SIDE // 2, SIDE // 2 :] = grating(0.5, 6)[: SIDE // 2, SIDE // 2 :]
    images[1, SIDE // 2 :, : SIDE // 2] = [200, 40, 40]
    features = early_vision(images)
    assert features["contrast"].shape == (2, 3 * N_CELLS)
    assert features["saturation"].shape == (2, N_CELLS)
    quarters = features["contrast"][0, -12:-8], features["saturation"][1, -4:]
    for found, place in zip(quarters, (1, 2), strict=True):
        assert found[place] > 0.1
        np.testing.assert_allclose(np.delete(found, place), 0, atol=1e-3)


def test_pictures_of_few_pixels_have_what_fits() -> None:
    """Ten pixels have a second octave of five, with cells of a pixel at least; two pixels have no orientation."""
    small = np.random.default_rng(0).integers(0, 256, (2, 10, 10, 3), dtype=np.uint8)
    assert early_vision(small)["oriented energy"].shape[1] == N_ORIENTATIONS * (N_CELLS + 5**2 + 4**2 + 2**2)
    assert "oriented energy" not in early_vision(small[:, :2, :2])
