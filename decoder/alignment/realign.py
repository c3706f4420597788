"""Label-free realignment: what a session's channels have drifted to is mapped back to what they were in training.

Windows of a session and of training share the grand-mean response and the covariance about it, whatever pictures are
shown; gains, impedances and a cap put on anew change both. Of the maps that carry the session's covariance C into the
reference R, the smallest is the geometric mean of inverse(C) and R (the optimal transport between two Gaussians), which
undoes any change of gains exactly. What is left open, a rotation of whitened channels, is settled by the two mean
responses where they are told from noise (Procrustes). Related: He & Wu 2020, IEEE TBME 67 (Euclidean alignment);
Rodrigues et al. 2019, IEEE TBME 66 (Riemannian Procrustes analysis).
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from decoder.errors import BundleError
from decoder.features import Features
from decoder.models.bundle import Bundle
from decoder.preprocessing.badchannels import readable
from decoder.preprocessing.session_moments import SessionMoments, fit_session_moments
from decoder.solvers.riemann import matrix_function
from stream.types.windows import Window

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

SHRINKAGE = 0.02
"""Of a covariance toward its diagonal; keeps it invertible, and commutes with a change of gains."""
SILENCE = 1e-4
"""Least variance of a channel, in units of the mean one's: a dead channel is not blown up."""
STIFFNESS = 1000.0
"""The smallest map is believed as if so many windows of unit response had shown it."""
SURE = 2.0
"""Standard errors by which another map must do better before it is taken."""
WORTH = 0.02
"""Confidence that it must add: less is a map fitted to the windows' noise."""

logger = logging.getLogger(__name__)


class RealignSpec(BaseModel):
    """When a session is realigned."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: Annotated[int, Field(ge=10)] = 40
    """After so many windows a map is learned from the earlier ones, and judged on these."""
    memory: Annotated[int, Field(ge=20)] = 200
    """Windows looked back on."""


def alignment(training: SessionMoments, session: SessionMoments, n: int) -> Array:
    """Find the map that gives a session's windows the statistics of training.

    Parameters
    ----------
    training, session : SessionMoments
        Of the training windows, and of the session's.
    n : int
        Windows that `session` was fitted on.

    Returns
    -------
    map : ndarray, shape (n_channels, n_channels), float32
        `map @ window` is the window as training would have had it.
    """
    unit = training.unit
    wanted, found = _regular(training.covariance), _regular((session.unit / unit) ** 2 * session.covariance)
    root, whitener = matrix_function(found, np.sqrt), matrix_function(found, lambda values: values**-0.5)
    smallest = whitener @ matrix_function(root @ wanted @ root, np.sqrt) @ whitener
    colour, uncolour = matrix_function(wanted, np.sqrt), matrix_function(wanted, lambda values: values**-0.5)
    turn = uncolour @ smallest @ root
    evidence = (uncolour @ (training.response / unit)) @ (whitener @ (session.response / unit)).T
    left, _, right = np.linalg.svd(evidence + STIFFNESS / n * turn)
    return np.asarray(colour @ (left @ right) @ whitener, np.float32)


def _regular(covariance: Array) -> Floats:
    """Make a covariance invertible: toward its diagonal, of which nothing is silent."""
    wide = covariance.astype(np.float64)
    variance = np.diag(wide)
    wide = (1 - SHRINKAGE) * wide + SHRINKAGE * np.diag(variance)
    floor = SILENCE * variance.mean() + np.finfo(np.float64).tiny
    return np.asarray(wide + np.diag(np.maximum(0, floor - variance)))


@dataclass(slots=True)
class Realignment:
    """What became of a session's realignment.

    Attributes
    ----------
    active : bool
        Whether a map is in use.
    learned, rolled_back : int
        Maps that were taken into use, and how often the session's own channels did better again.
    gain : float
        Confidence of the windows last judged on, with what is in use, less that without any map.
    """

    active: bool = False
    learned: int = 0
    rolled_back: int = 0
    gain: float = 0.0


class Realigner:
    """A bundle that follows a session whose channels drift, and lets go of a map that does harm.

    Maps are learned from older windows and judged on the newest by the bundle's own calibrated confidence: window for
    window, a map must be believed more than what is in use, by two standard errors and by 0.02; the same goes for going
    back.

    Parameters
    ----------
    bundle : Bundle
    spec : RealignSpec

    Raises
    ------
    BundleError
        If the bundle holds no moments of training, as with decoders of single samples (fMRI, spikes).
    """

    def __init__(self, bundle: Bundle, spec: RealignSpec) -> None:
        if bundle.moments is None:
            raise BundleError(
                "the bundle holds no statistics of the training channels to realign to (single-sample windows, too "
                "many channels, or an older version); train it again, or leave 'realign' out of the config"
            )
        self.bundle, self.spec, self.moments = bundle, spec, bundle.moments
        self.state = Realignment()
        self._map: Array | None = None
        self._memory: deque[Window] = deque(maxlen=spec.memory)
        self._since = 0

    def decode(self, windows: Sequence[Window]) -> list[Features]:
        """Decode windows as `Bundle.decode` does, realigned by what `follow` learned from those before them."""
        arranged = [self.bundle.in_bundle_order(window) for window in windows]
        out = self.bundle.decode(apply_map(arranged, self._map))
        for window in arranged:
            if window.quality.rejected is None and readable(window.data[None]).all():
                self._memory.append(window)
                self._since += 1
        return out

    def follow(self) -> None:
        """Learn from the windows decoded so far, where it is time to; call it when nobody waits for a picture."""
        if self._since >= self.spec.every and len(self._memory) >= 2 * self.spec.every:
            self._since = 0
            self._judge()

    def _confidence(self, windows: Sequence[Window], map_: Array | None) -> Floats:
        """Decode windows once more to compare maps; what the bundle adds up over windows stays as it is."""
        decoded = self.bundle.without_memory().decode(apply_map(windows, map_))
        return np.array([features.confidence for features in decoded])

    def _judge(self) -> None:
        """Learn a map from the older windows; on the newest, compare it with the one in use and with none."""
        windows = list(self._memory)
        older, newest = windows[: -self.spec.every], windows[-self.spec.every :]
        session = fit_session_moments(np.stack([window.data for window in older]))
        learned = alignment(self.moments, session, len(older))
        plain = self._confidence(newest, None)
        current = plain if self._map is None else self._confidence(newest, self._map)
        fresh = self._confidence(newest, learned)
        if self._map is not None and _better(plain, current) and not _better(fresh, plain):
            logger.warning(
                "realignment rolled back: confidence %.3f with it, %.3f without", current.mean(), plain.mean()
            )
            self._map, current = None, plain
            self.state.rolled_back += 1
        elif _better(fresh, current):
            logger.info("realigned: confidence %.3f, before %.3f", fresh.mean(), current.mean())
            self._map, current = learned, fresh
            self.state.learned += 1
        self.state.active = self._map is not None
        self.state.gain = round(float((current - plain).mean()), 4)


def apply_map(windows: Sequence[Window], map_: Array | None) -> list[Window]:
    """Apply a map (n_channels, n_channels) to windows; None leaves them as they are."""
    return list(windows) if map_ is None else [replace(window, data=map_ @ window.data) for window in windows]


def _better(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Check whether the first is larger on average, window for window, by `SURE` standard errors and by `WORTH`."""
    difference = one - other
    return bool(difference.mean() > max(WORTH, SURE * difference.std() / np.sqrt(len(difference))))
