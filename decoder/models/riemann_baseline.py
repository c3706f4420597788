"""The field's plain decoder of single trials, as a baseline: what needs no choice of settings, by pyriemann.

Xdawn covariances (Rivet et al. 2009; four filters a category, shrunk by OAS), their tangent space at the geometric
mean (Barachant et al. 2012), logistic regression, each with its package's defaults; the pipeline of muse-lsl's and of
many other notebooks.
"""

from typing import Any

import numpy as np

from decoder.data.splits import category_folds
from decoder.estimators.classifiers import Trials
from decoder.models.category import category_scores

HIGHPASS, LOWPASS, ORDER = 1.0, 30.0, 4
"""Of the causal Butterworth filters before it, in Hz."""


def riemann_baseline(trials: Trials, cv_folds: int) -> dict[str, Any]:
    """Classify held-out runs (of a single run: stretches) by the plain Riemannian decoder.

    Parameters
    ----------
    trials : Trials
        Filtered from `HIGHPASS` to `LOWPASS`.
    cv_folds : int
        Stretches of a single run.

    Returns
    -------
    scores : dict
        As `decoder.models.category.category_scores`; or 'why', where pyriemann refuses the windows.

    Raises
    ------
    TrainingError
        As `category_folds`.
    """
    from pyriemann.estimation import XdawnCovariances
    from pyriemann.tangentspace import TangentSpace
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # Volts make covariances of 1e-12, which regularisation by absolute numbers would take for nothing.
    data = trials.data.astype(np.float64) / max(float(trials.data.std()), 1e-30)
    logits = np.empty((len(trials.rows), len(trials.names)))
    try:
        for train, test in category_folds(trials.rows, trials.runs, cv_folds):
            steps = XdawnCovariances(estimator="oas"), TangentSpace(), LogisticRegression(max_iter=1000)
            model = make_pipeline(*steps).fit(data[train], trials.rows[train])
            logits[test] = model.predict_log_proba(data[test])
    except (ValueError, np.linalg.LinAlgError) as error:
        return {"why": str(error).splitlines()[0]}
    return category_scores(logits, trials)
