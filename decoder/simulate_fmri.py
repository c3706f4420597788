"""A simulated participant in a scanner: three areas, a slow haemodynamic response, drift and coloured noise."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.codes import low_level, mid_level
from decoder.errors import TrainingError

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

TR = 2.0
AREAS = ("V1", "V4", "IT")
SLICE = (10, 9)
"""Voxels of an area: one slice of the volume each."""
BASELINE = 1000.0
FIELD_WIDTH = 1.2
"""Of a V1 or V4 voxel's receptive field (standard deviation), in cells."""


@dataclass(frozen=True, slots=True)
class FmriPreset:
    """How hard a scan is to read; all in percent of the baseline.

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
    """

    response: float
    noise: float = 1.0
    ar1: float = 0.4
    drift: float = 1.5


FMRI_PRESETS = {"thingslike": FmriPreset(response=0.5), "demo": FmriPreset(response=1.0)}


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
    image : nibabel.Nifti1Image, shape (10, 9, 3, n_volumes)
    events : list of dict
        onset, duration (s) and trial_type (the stimulus id), as in a BIDS events file.
    truth : FmriTruth
    """
    import nibabel

    settings = FMRI_PRESETS[preset]
    tuning = _tune(*(reference or (images, semantics)), np.random.default_rng(seed))
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
    image = nibabel.Nifti1Image(bold.T.reshape(*SLICE, len(AREAS), n_volumes).astype(np.float32), affine)
    image.header.set_zooms((3.0, 3.0, 3.0, TR))
    image.header.set_xyzt_units("mm", "sec")
    names = tuple(labels[row] for row in order)
    events = [
        {"onset": float(onset), "duration": 1.0, "trial_type": name} for onset, name in zip(onsets, names, strict=True)
    ]
    areas = np.broadcast_to(np.arange(1, len(AREAS) + 1, dtype=np.int16), (*SLICE, len(AREAS))).copy()
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
        path.with_name(f"{name}_mask.tsv").write_text("\n".join(rows) + "\n", "utf-8")


class _Tuning:
    """Voxels' fixed answers, scaled to unit spread over the reference pictures."""

    def __init__(self, weights: Array, semantic_mean: Array, turn: Array) -> None:
        self.weights, self.semantic_mean, self.turn = weights, semantic_mean, turn
        self.mean, self.spread = np.zeros(1, np.float32), np.ones(1, np.float32)

    def __call__(self, images: NDArray[np.uint8], semantics: Array) -> Array:
        meaning = (semantics - self.semantic_mean) @ self.turn
        parts = [part.reshape(len(images), -1) for part in (low_level(images), mid_level(images))]
        code = np.concatenate([*parts, meaning], axis=1)
        return np.asarray((code @ self.weights - self.mean) / self.spread, np.float32)


def _tune(images: NDArray[np.uint8], semantics: Array, rng: np.random.Generator) -> _Tuning:
    if len(images) != len(semantics):
        raise TrainingError(f"{len(images)} pictures but {len(semantics)} semantic vectors; give one a picture")
    n_area = SLICE[0] * SLICE[1]
    n_semantic = 32
    low, mid = low_level(images[:1])[0], mid_level(images[:1])[0]
    blocks: list[Floats] = [_receptive_fields(code.shape[0], code.shape[1], n_area, rng) for code in (low, mid)]
    blocks.append(rng.normal(size=(n_semantic, n_area)))
    weights = np.zeros((sum(len(b) for b in blocks), n_area, len(AREAS)))
    start = 0
    for area, block in enumerate(blocks):
        weights[start : start + len(block), :, area] = block
        start += len(block)
    turn = rng.normal(size=(semantics.shape[1], n_semantic)).astype(np.float32)
    tuning = _Tuning(weights.reshape(start, -1).astype(np.float32), semantics.mean(axis=0), turn)
    answers = tuning(images, semantics)
    spread = answers.std(axis=0)
    if not spread.all():
        raise TrainingError("the reference pictures don't differ in what some voxel encodes; give other pictures")
    tuning.mean, tuning.spread = answers.mean(axis=0), spread
    return tuning


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
