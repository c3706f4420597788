"""How a linear decoder is moved: which channels, and how much of new weights, by windows that are held out in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest
from decoder.data.training_set import TrainingSet
from decoder.errors import TrainingError
from decoder.models.linear import Head
from decoder.preprocessing.preprocess import Preprocessor
from decoder.solvers.ridge import Spectrum, decompose, fit_ridge

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

PENALTIES = (1.0, 10.0, 100.0, 1000.0, np.inf)
"""Of what is added to the weights, in units of the inputs' mean eigenvalue; infinite: nothing is."""
WORTH = 0.01
"""Share of the held-out squared error that a change must take away: less is luck."""
AS_THEY_ARE, REALIGNED = "as they are", "realigned"


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """Windows of the new session, and what should be decoded from them.

    Attributes
    ----------
    samples : TrainingSet
    targets : dict of str to ndarray, shape (n, n_active), float32
        By head.
    folds : list of (train, test)
        No picture is on both sides.
    kept : frozenset of str
        Heads whose weights stay as they are.
    """

    samples: TrainingSet
    targets: dict[str, Array]
    folds: list[TrainTest]
    kept: frozenset[str] = frozenset()


class Inputs:
    """A session's prepared windows, and the principal axes of any part of them, computed once.

    Parameters
    ----------
    prepare : Preprocessor
    data : ndarray, shape (n, n_channels, n_times)
    """

    def __init__(self, prepare: Preprocessor, data: Array) -> None:
        self.prepare = prepare
        self.values = prepare(data)
        self._spectra: dict[bytes, Spectrum] = {}

    def spectrum(self, rows: NDArray[np.intp]) -> Spectrum:
        """Return the principal axes of some rows."""
        key = rows.tobytes()
        if key not in self._spectra:
            self._spectra[key] = decompose(self.values[rows])
        return self._spectra[key]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen: 'as they are' or 'realigned' channels, and by head the penalty."""

    channels: str
    penalties: Mapping[str, float]


def add_weights(inputs: Inputs, rows: NDArray[np.intp], wanted: Array, head: Head, penalty: float) -> Head:
    """Add to a head's weights what some windows say, drawn to nothing by the penalty.

    Parameters
    ----------
    inputs : Inputs
    rows : ndarray of int
        Of the windows.
    wanted : ndarray, shape (n, n_active)
        Of all windows.
    head : Head
    penalty : float
    """
    if not np.isfinite(penalty):
        return head
    spectrum = inputs.spectrum(rows)
    residual = wanted[rows] - inputs.values[rows] @ head.weights - head.intercept
    alpha = np.full(wanted.shape[1], penalty * spectrum.level)
    weights, intercept = fit_ridge(spectrum, residual, alpha)
    return replace(head, weights=head.weights + weights, intercept=head.intercept + intercept)


def choose(
    candidates: Mapping[str, Inputs], heads: Sequence[Head], session: Session, folds: Sequence[TrainTest]
) -> Choice:
    """Choose by the squared error of what the folds hold out; a change must take `WORTH` of it away."""
    movable = [head for head in heads if head.name not in session.kept] or heads
    errors = {
        name: {head.name: _errors(inputs, head, session, folds) for head in movable}
        for name, inputs in candidates.items()
    }
    best = {name: float(np.mean([each.min() for each in by_head.values()])) for name, by_head in errors.items()}
    channels = REALIGNED if best.get(REALIGNED, np.inf) < (1 - WORTH) * best[AS_THEY_ARE] else AS_THEY_ARE
    penalties = {name: float(PENALTIES[int(each.argmin())]) for name, each in errors[channels].items()}
    return Choice(channels, penalties | dict.fromkeys(session.kept, np.inf))


def _errors(inputs: Inputs, head: Head, session: Session, folds: Sequence[TrainTest]) -> Floats:
    """Return a head's error at each penalty; of what adds to the weights, as if it were `WORTH` worse than it is."""
    wanted = session.targets[head.name]
    errors = np.zeros(len(PENALTIES))
    for train, test in folds:
        for row, penalty in enumerate(PENALTIES):
            moved = add_weights(inputs, train, wanted, head, penalty)
            found = inputs.values[test] @ moved.weights + moved.intercept
            errors[row] += float(np.square(found - wanted[test]).sum())
    errors[:-1] /= 1 - WORTH
    return errors / variance(wanted, head.name)


def variance(wanted: Array, name: str) -> float:
    """Return the summed squares of what should be decoded, about its mean: the unit of errors."""
    power = float(np.square(wanted - wanted.mean(axis=0)).sum())
    if not power > 0:
        raise TrainingError(f"feature {name!r} is the same for all pictures of the session; show other pictures")
    return power


def inner_folds(folds: Sequence[TrainTest], number: int) -> list[TrainTest]:
    """Return the other folds, without what one of them holds out."""
    aside = folds[number][1]
    return [
        (np.setdiff1d(train, aside), np.setdiff1d(test, aside))
        for other, (train, test) in enumerate(folds)
        if other != number
    ]


def held_out(head: Head, ways: Sequence[tuple[Inputs, float]], session: Session) -> list[tuple[Array, Head]]:
    """Move a head by each fold's training part, with the inputs and the penalty of that fold.

    Returns
    -------
    found : list of (ndarray, Head)
        By fold: deviations of what it holds out from the intercept, and the head.
    """
    out = []
    for (train, test), (inputs, penalty) in zip(session.folds, ways, strict=True):
        moved = add_weights(inputs, train, session.targets[head.name], head, penalty)
        out.append((inputs.values[test] @ moved.weights, moved))
    return out


def error_of(found: Sequence[tuple[Array, Head]], session: Session) -> float:
    """Return the squared error of what `held_out` found, in units of the variance of what should be decoded."""
    name = found[0][1].name
    wanted = session.targets[name]
    total = sum(
        float(np.square(deviations + moved.intercept - wanted[test]).sum())
        for (_, test), (deviations, moved) in zip(session.folds, found, strict=True)
    )
    return total / variance(wanted, name)
