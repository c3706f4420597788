"""What a window says of a whole picture: a fitted encoding model, reduced to what its likelihood reads.

Of all responses only some directions differ between pictures by more than noise. In these, scaled to noise of unit
variance, the model is one linear map from a picture's features; gradients can go through those of CLIP's blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.training_set import TrainingSet
from decoder.encoding.axes import Features
from decoder.encoding.model import fit_encoding
from decoder.encoding.noise import symmetric_power
from decoder.features import Evidence
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
    maps : dict of str to ndarray, shape (n_features, n_directions), float32
        By group of features, from the picture's features to the answer.
    drive : ndarray, shape (n_groups, n_channels, n_bins), float32
        Standard deviation, over the training pictures, of what each group's part of the model predicts, in the order of
        the maps; in the unit of the compressed windows.
    explained : ndarray, shape (n_channels, n_bins), float32
        Share of the variance of training windows that is predicted while their pictures are held out.
    compress : str
        As in `decoder.preprocessing.preprocess.PreprocessSpec`.
    """

    binning: Array
    reader: Array
    origin: Array
    maps: dict[str, Array]
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
        return fixed | dict(self.maps)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], compress: str) -> "EvidenceReader":
        """Rebuild a reader from `tensors()` and its `compress`."""
        maps = {name: values for name, values in tensors.items() if name not in FIXED}
        fixed = {name: tensors[name] for name in FIXED}
        return cls(**fixed, maps=dict(sorted(maps.items())), compress=compress)


FIXED = ("binning", "reader", "origin", "drive", "explained")
"""Arrays of a reader that are not by group of features."""


def fit_evidence(
    samples: TrainingSet, features: Features, spec: PreprocessSpec, n_axes: int, seed: int
) -> EvidenceReader | None:
    """Fit an encoding model on training windows, and reduce it.

    Parameters
    ----------
    samples : TrainingSet
    features : mapping of str to ndarray, shape (n_pictures, n_features)
        By group; only pictures of the samples are read.
    spec : PreprocessSpec
        Its compression and its averaging in time; noise has a covariance of its own here.
    n_axes : int
        Principal axes of each group, at most.
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
    for name, axes in sorted(model.axes.axes.items()):
        own = names == name
        maps[name] = np.asarray(axes @ (white[own] @ directions), np.float32)
        origin = origin - model.axes.means[name] @ maps[name]
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
