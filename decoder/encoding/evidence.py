"""What a window says of a whole picture: a fitted encoding model, reduced to what its likelihood reads.

Of all responses only some directions differ between pictures by more than noise. In these, scaled to noise of unit
variance, the model is one linear map from a picture's shallow CLIP features, which gradients can go through.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.training_set import TrainingSet
from decoder.encoding.model import fit_encoding
from decoder.encoding.noise import symmetric_power
from decoder.features import Evidence, block_name, block_of
from decoder.preprocessing.preprocess import PreprocessSpec, compressed, time_bins

Array = NDArray[np.float32]

FEWEST = 10
"""Pictures without which no encoding model is fitted."""
MOST_DIRECTIONS = 128
"""Directions kept at most: maps have as many columns."""
LEAST_SIGNAL = 0.01
"""Variance that pictures cause in a direction, in units of its noise, below which it says nothing of them."""


@dataclass(frozen=True, slots=True, eq=False)
class EvidenceReader:
    """A fitted encoding model as likelihoods need it.

    Attributes
    ----------
    binning : ndarray, shape (n_times, n_bins), float32
        Picks times and averages them.
    reader : ndarray, shape (n_channels * n_bins, n_directions), float32
        Onto directions in which noise is white.
    origin : ndarray, shape (n_directions,), float32
        What a picture whose features are all 0 would be answered with.
    maps : dict of int to ndarray, shape (n_units, n_directions), float32
        By CLIP block, from the picture's features to the answer.
    drive : ndarray, shape (n_blocks, n_channels, n_bins), float32
        Standard deviation, over the training pictures, of what each block's part of the model predicts; in the unit of
        the compressed windows.
    explained : ndarray, shape (n_channels, n_bins), float32
        Share of the variance of training windows that is predicted while their pictures are held out.
    compress : str
        As in `decoder.preprocessing.preprocess.PreprocessSpec`.
    """

    binning: Array
    reader: Array
    origin: Array
    maps: dict[int, Array]
    drive: Array
    explained: Array
    compress: str = "none"

    def __call__(self, data: Array) -> list[Evidence]:
        """Return what windows (n, n_channels, n_times) say; the maps are the same arrays for all."""
        responses = (compressed(data, self.compress) @ self.binning).reshape(len(data), -1)
        answers = np.asarray(responses @ self.reader - self.origin, np.float32)
        return [Evidence(answer, self.maps) for answer in answers]

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name."""
        fixed: dict[str, NDArray[np.generic]] = {name: getattr(self, name) for name in FIXED}
        return fixed | {block_name(block): values for block, values in self.maps.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], compress: str) -> "EvidenceReader":
        """Rebuild a reader from `tensors()` and its `compress`."""
        maps = {block: values for name, values in tensors.items() if (block := block_of(name)) is not None}
        fixed = {name: tensors[name] for name in FIXED}
        return cls(**fixed, maps=dict(sorted(maps.items())), compress=compress)


FIXED = ("binning", "reader", "origin", "drive", "explained")
"""Arrays of a reader that are not by block."""


def fit_evidence(
    samples: TrainingSet, s: Mapping[int, NDArray[Any]], spec: PreprocessSpec, n_axes: int, seed: int
) -> EvidenceReader | None:
    """Fit an encoding model on training windows, and reduce it.

    Parameters
    ----------
    samples : TrainingSet
    s : mapping of int to ndarray, shape (n_pictures, n_units)
        Shallow CLIP features by block; only pictures of the samples are read.
    spec : PreprocessSpec
        Its compression and its averaging in time; noise has a covariance of its own here.
    n_axes : int
        Principal axes of each block, at most.
    seed : int
        Of the folds inside the training part.

    Returns
    -------
    EvidenceReader or None
        None of fewer than ten pictures, or of several participants, whose responses are not in one space.
    """
    pictures = np.unique(samples.rows)
    if samples.persons().any() or len(pictures) < FEWEST:
        return None
    binning = time_bins(samples.times, spec)
    responses = compressed(samples.data, spec.compress) @ binning
    features = {block_name(block): units for block, units in s.items()}
    rng = np.random.default_rng(seed)
    model = fit_encoding(features, responses, samples.rows, samples.groups, rng, n_axes=n_axes)
    scores = model.axes({name: units[pictures] for name, units in features.items()})
    scores = scores - scores.mean(axis=0)
    names = model.axes.names
    whitening = symmetric_power(model.covariance(), -0.5)
    white = model.weights @ whitening
    signal = scores @ white
    variances, directions = np.linalg.eigh(signal.T @ signal / len(signal))
    first = max(len(variances) - MOST_DIRECTIONS, min(len(variances) - 1, np.searchsorted(variances, LEAST_SIGNAL)))
    directions = directions[:, first:][:, ::-1]
    reader = np.asarray(model.reader @ whitening @ directions, np.float32)
    origin = model.intercept @ whitening @ directions
    maps, drive = {}, []
    for block in s:
        name = block_name(block)
        if name not in model.axes.axes:
            continue
        own, axes = names == name, model.axes.axes[name]
        maps[block] = np.asarray(axes @ (white[own] @ directions), np.float32)
        origin = origin - model.axes.means[name] @ maps[block]
        drive.append((scores[:, own] @ model.weights[own] @ model.patterns).std(axis=0).reshape(responses.shape[1:]))
    return EvidenceReader(
        binning,
        reader,
        np.asarray(origin, np.float32),
        maps,
        np.asarray(drive, np.float32),
        model.explained.reshape(responses.shape[1:]),
        spec.compress,
    )
