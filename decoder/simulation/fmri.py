"""A simulated participant in a scanner: three areas, a slow haemodynamic response, drift and coloured noise."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError
from decoder.visual_features import LOW_GRID, contrast_energy, low_level, mid_level
from stream.atomic import write_whole

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

TR = 2.0
AREAS = ("V1", "V4", "IT")
SLICE = (10, 9)
"""Voxels of a slice; all of them encode the same kind of content."""
Content = Literal["low", "energy", "mid", "semantic"]
AREA_OF: dict[Content, str] = {"low": "V1", "energy": "V1", "mid": "V4", "semantic": "IT"}
PIXEL_FEATURES: dict[Content, Callable[[NDArray[np.uint8], int], Array]] = {
    "low": low_level,
    "energy": contrast_energy,
    "mid": lambda images, _: mid_level(images),
}
N_SEMANTIC = 32
"""Axes of meaning that IT mixes."""
BASELINE = 1000.0
FIELD_WIDTH = 1.2
"""Of a V1 or V4 voxel's receptive field (standard deviation), in cells."""


@dataclass(frozen=True, slots=True)
class FmriPreset:
    """Noise and signal of a simulated scan; all in percent of the baseline.

    Attributes
    ----------
    response : float
        Standard deviation of a voxel's peak response over pictures.
    noise : float
        Standard deviation of AR(1) noise.
    ar1 : float
        Its correlation from volume to volume.
    drift : float
        Standard deviation of slow drift.
    slices : tuple of str
        What each slice's voxels encode: `visual_features.low_level` in V1, `visual_features.contrast_energy` in V1's
        complex cells, `visual_features.mid_level` in V4, meaning in IT.
    grid : int
        Cells along a side of the visual field in V1: how finely its receptive fields tile it.
    """

    response: float
    slices: tuple[Content, ...] = ("low", "mid", "semantic")
    noise: float = 1.0
    ar1: float = 0.4
    drift: float = 1.5
    grid: int = LOW_GRID


FMRI_PRESETS = {
    "thingslike": FmriPreset(response=0.5),
    "demo": FmriPreset(response=2.0, slices=("low",) * 8 + ("energy",) * 8 + ("mid",) * 2 + ("semantic",) * 2, grid=16),
}
"""`demo` answers four times as strongly, and has more of V1, half of it complex cells that tell where contrast is.

Its receptive fields in V1 are as small as they are in people: over a picture of some 8 degrees about 0.6 degrees
(Dumoulin & Wandell 2008); those of `thingslike` are nearly three times as wide."""


@dataclass(frozen=True, slots=True, eq=False)
class FmriTruth:
    """What really happened in a simulated scan.

    Attributes
    ----------
    areas : ndarray of int, shape of the volume
        1, 2, 3 for V1, V4, IT.
    labels : tuple of str
    onsets : ndarray, shape (n_trials,)
        In seconds.
    amplitudes : ndarray, shape (n_trials, n_voxels), float32
        Peak response in percent; voxels in the order of `areas.ravel()`.
    snr_db : float
        Power of the responses over that of noise and drift.
    """

    areas: NDArray[np.int16]
    labels: tuple[str, ...]
    onsets: Floats
    amplitudes: Array
    snr_db: float


def haemodynamic_response(times: Floats) -> Floats:
    """Double-gamma response (Glover 1999; peak at about 5 s, undershoot at about 15 s), of peak 1."""
    from scipy.stats import gamma

    def shape(at: Floats) -> Floats:
        return np.asarray(gamma.pdf(at, 6) - gamma.pdf(at, 16) / 6)

    return np.asarray(shape(times) / shape(np.arange(0, 20, 0.01)).max())


def simulate_fmri(
    images: NDArray[np.uint8],
    semantics: Array,
    labels: Sequence[str],
    *,
    preset: str = "demo",
    seed: int = 0,
    run: int = 0,
    repeats: int = 1,
    soa: float = 8.0,
    reference: tuple[NDArray[np.uint8], Array] | None = None,
) -> tuple[Any, list[dict[str, Any]], FmriTruth]:
    """Scan a simulated participant while pictures are shown in random order.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3), uint8
    semantics : ndarray, shape (n, d)
        What the pictures mean; IT encodes it.
    labels : sequence of str
        Stimulus ids.
    preset : {'thingslike', 'demo'}
    seed : int
        Another seed is another participant.
    run : int
        Seeds order and noise.
    repeats : int
        How often each picture is shown.
    soa : float
        Seconds from onset to onset.
    reference : (images, semantics) or None
        Pictures whose spread sets the tuning; None: those shown. Two scans of one participant need the same.

    Returns
    -------
    image : nibabel.Nifti1Image, shape (10, 9, n_slices, n_volumes)
    events : list of dict
        onset, duration (s) and trial_type (the stimulus id), as in a BIDS events file.
    truth : FmriTruth
    """
    import nibabel

    settings = FMRI_PRESETS[preset]
    shown, meanings = reference or (images, semantics)
    if len(shown) != len(meanings):
        raise TrainingError(f"{len(shown)} pictures but {len(meanings)} semantic vectors; give one a picture")
    tuning = _Tuning(settings, shown, meanings, seed)
    rng = np.random.default_rng([run, len(labels), repeats])
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(repeats)])
    onsets = 10 + np.arange(len(order)) * soa
    n_volumes = int(np.ceil((onsets[-1] + 20) / TR))
    amplitudes = settings.response * tuning(images, semantics)[order]
    volumes = np.arange(n_volumes) * TR
    signal = haemodynamic_response(np.maximum(0, np.subtract.outer(volumes, onsets))) @ amplitudes
    noise = settings.noise * _ar1(signal.shape, settings.ar1, rng) + settings.drift * _drift(signal.shape, rng)
    bold = BASELINE * (1 + (signal + noise) / 100)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    image = nibabel.Nifti1Image(bold.T.reshape(*SLICE, len(settings.slices), n_volumes).astype(np.float32), affine)
    image.header.set_zooms((3.0, 3.0, 3.0, TR))
    image.header.set_xyzt_units("mm", "sec")
    names = tuple(labels[row] for row in order)
    events = [
        {"onset": float(onset), "duration": 1.0, "trial_type": name} for onset, name in zip(onsets, names, strict=True)
    ]
    of_slice = [AREAS.index(AREA_OF[content]) + 1 for content in settings.slices]
    areas = np.broadcast_to(np.array(of_slice, np.int16), (*SLICE, len(of_slice))).copy()
    snr_db = float(10 * np.log10(signal.var() / noise.var()))
    return image, events, FmriTruth(areas, names, onsets.astype(np.float64), amplitudes.astype(np.float32), snr_db)


def write_fmri(
    image: Any, events: Sequence[dict[str, Any]], path: Path, areas: NDArray[np.int16] | None = None
) -> None:
    """Write a run and `<name>_events.tsv` beside it; with areas, also a mask of them and their names.

    Parameters
    ----------
    image : nibabel.Nifti1Image
    events : sequence of dict
    path : Path
        Ends in .nii or .nii.gz.
    areas : ndarray of int, shape of the volume, optional
        1, 2, ... in the order of `AREAS`.
    """
    import nibabel

    nibabel.save(image, path)
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    with (path.with_name(f"{name}_events.tsv")).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["onset", "duration", "trial_type"], delimiter="\t")
        table.writeheader()
        table.writerows(events)
    if areas is not None:
        nibabel.save(nibabel.Nifti1Image(areas, image.affine), path.with_name(f"{name}_mask.nii.gz"))
        rows = ["index\tname", *(f"{number}\t{area}" for number, area in enumerate(AREAS, 1))]
        write_whole(path.with_name(f"{name}_mask.tsv"), "\n".join(rows) + "\n")


class _Tuning:
    """Voxels' fixed answers, scaled to unit spread over the reference pictures."""

    def __init__(self, preset: FmriPreset, images: NDArray[np.uint8], semantics: Array, seed: int) -> None:
        rng = np.random.default_rng(seed)
        slices, self.grid = preset.slices, preset.grid
        self.contents = tuple(dict.fromkeys(slices))
        self.semantic_mean = semantics.mean(axis=0)
        self.turn = np.zeros((semantics.shape[1], N_SEMANTIC), np.float32)
        shapes = [code.shape[1:] for code in self.features_of(images[:1], semantics[:1])]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        n_voxels = SLICE[0] * SLICE[1]
        weights = np.zeros((ends[-1], n_voxels, len(slices)))
        for at, content in enumerate(slices):
            kind = self.contents.index(content)
            rows = slice(ends[kind] - math.prod(shapes[kind]), ends[kind])
            weights[rows, :, at] = _mixtures(shapes[kind], n_voxels, rng)
        self.weights = weights.reshape(len(weights), -1).astype(np.float32)
        self.turn = rng.normal(size=self.turn.shape).astype(np.float32)
        self.mean, self.spread = np.zeros(1, np.float32), np.ones(1, np.float32)
        answers = self(images, semantics)
        self.mean, self.spread = answers.mean(axis=0), answers.std(axis=0)
        if not self.spread.all():
            raise TrainingError("the reference pictures don't differ in what some voxel encodes; give other pictures")

    def features_of(self, images: NDArray[np.uint8], semantics: Array) -> list[Array]:
        """Compute the features of pictures by kind of content: (n, features, grid, grid) each, meaning (n, 32)."""
        return [
            (semantics - self.semantic_mean) @ self.turn
            if content == "semantic"
            else PIXEL_FEATURES[content](images, self.grid)
            for content in self.contents
        ]

    def __call__(self, images: NDArray[np.uint8], semantics: Array) -> Array:
        code = np.concatenate([part.reshape(len(images), -1) for part in self.features_of(images, semantics)], axis=1)
        return np.asarray((code @ self.weights - self.mean) / self.spread, np.float32)


def _mixtures(shape: tuple[int, ...], n: int, rng: np.random.Generator) -> Floats:
    """Draw what n voxels take of content without a place (features,), or with one (features, grid, grid)."""
    return rng.normal(size=(*shape, n)) if len(shape) == 1 else _receptive_fields(shape[0], shape[1], n, rng)


def _receptive_fields(n_features: int, grid: int, n: int, rng: np.random.Generator) -> Floats:
    """Draw n voxels that see a patch of the visual field in a mixture of features: (features * cells, n)."""
    row, column = (each.ravel()[:, None] for each in np.mgrid[:grid, :grid])
    centre = rng.uniform(-0.5, grid - 0.5, size=(2, n))
    patch = np.exp(-0.5 * ((row - centre[0]) ** 2 + (column - centre[1]) ** 2) / FIELD_WIDTH**2)
    mixture = rng.normal(size=(n_features, 1, n))
    return np.asarray((mixture * patch).reshape(-1, n))


def _ar1(shape: tuple[int, ...], rho: float, rng: np.random.Generator) -> Floats:
    """Draw AR(1) noise along the first axis, of unit variance."""
    from scipy.signal import lfilter

    white = rng.normal(size=(shape[0] + 50, *shape[1:]))
    return np.asarray(lfilter([np.sqrt(1 - rho**2)], [1, -rho], white, axis=0)[50:])


def _drift(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw drift slower than 1/128 Hz: cosines of random weight, of unit variance."""
    phase = np.pi * (np.arange(shape[0]) + 0.5) / shape[0]
    n_slow = max(1, int(2 * shape[0] * TR / 128))
    slow = np.cos(np.outer(phase, np.arange(1, n_slow + 1))) @ rng.normal(size=(n_slow, shape[1]))
    return np.asarray(slow / slow.std())
