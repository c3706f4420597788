"""What a single picture's responses did to a fitted ridge: predictions without it follow in closed form.

Where a window's candidates are predicted by models of several folds, all but its own fold's have seen the window, and
predict responses that are a little like it: of few pictures it would be identified below chance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decoder.solvers.ridge import Spectrum

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """The smoother of a fitted ridge, penalty by penalty.

    Attributes
    ----------
    pictures : ndarray of int, shape (n,)
        Those trained on, in order.
    spectrum : Spectrum
        Of their inputs.
    penalties : ndarray, shape (n_penalties,)
        That some response chose.
    penalty_of : ndarray of int, shape (n_responses,)
        Which of them each response chose.
    left : ndarray, shape (n_penalties, n)
        One less the leverage of each picture.
    residuals : ndarray, shape (n, n_responses), float32
        Mean responses to each picture, less the fit to them.
    """

    pictures: Rows
    spectrum: Spectrum
    penalties: Floats
    penalty_of: Rows
    left: Floats
    residuals: Array

    def shares(self, inputs: Array) -> Floats:
        """Compute how far each training picture's residual moves each prediction.

        Parameters
        ----------
        inputs : ndarray, shape (k, n_inputs)
            Of pictures whose responses are predicted.

        Returns
        -------
        shares : ndarray, shape (n, n_penalties, k)
            Without picture j the prediction is less by `shares[j, penalty]` times its residual (Sherman & Morrison
            1950); axes and penalties stay as they are.
        """
        scores = np.asarray((inputs - self.spectrum.mean) @ self.spectrum.axes, np.float64)
        own = self.spectrum.scores.astype(np.float64)
        out = []
        for penalty, left in zip(self.penalties, self.left, strict=True):
            smoother = 1 / len(own) + (own / (self.spectrum.eigenvalues + penalty)) @ scores.T
            out.append(smoother / left[:, None])
        return np.stack(out, axis=1)

    def parts(self, place: int) -> Array:
        """Return a training picture's residual by penalty, shape (n_penalties, n_responses); 0 where another is."""
        chosen = self.penalty_of == np.arange(len(self.penalties))[:, None]
        return np.asarray(np.where(chosen, self.residuals[place], 0), np.float32)


def influence_of(pictures: Rows, spectrum: Spectrum, choice: Floats, residuals: Array) -> Influence:
    """Compute leverages of training pictures; arguments as of `Influence`, `choice` each response's penalty."""
    penalties, penalty_of = np.unique(choice, return_inverse=True)
    squares = np.square(spectrum.scores, dtype=np.float64)
    leverage = [1 / len(squares) + (squares / (spectrum.eigenvalues + each)).sum(axis=1) for each in penalties]
    return Influence(pictures, spectrum, penalties, penalty_of, 1 - np.stack(leverage), residuals)
