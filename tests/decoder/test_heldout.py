"""Calibration windows decoded by models that did not see them."""

import numpy as np

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.features import Features
from decoder.models.linear import LinearModel
from decoder.spec import DecoderSpec
from decoder.training.heldout import held_out_features
from decoder.training.train import LabelledWindows, fit_prepared, prepare
from stream.types.windows import Channels
from tests.decoder.conftest import LinearEncoders, make_windows
from tests.decoder.test_structure_prior import PRIOR, SPEC, shown, spots

PLAIN = DecoderSpec(features=("c", "z", "s"), blocks=(1,), cv_folds=4, alphas=(1e-3,))


def told(features: list[Features], targets: Targets, rows: np.ndarray) -> float:
    """Two-way identification of decoded latents."""
    assert targets.z is not None
    found = np.stack([np.asarray(one.z) for one in features]) - targets.z.mean(axis=0)
    return float(two_way(correlation_matrix(targets.z - targets.z.mean(axis=0), found), rows).mean())


def test_held_out_windows_are_decoded_without_their_pictures(stimuli: StimulusTable, channels: Channels) -> None:
    """Noise that a decoder knows by heart is told by the bundle, and is at chance held out; each picture comes once."""
    windows = make_windows(stimuli, channels, noise=1e6, seed=1)
    ready = prepare(windows, stimuli, LinearEncoders(stimuli), PLAIN)
    bundle = fit_prepared(ready, PLAIN)
    features, rows = held_out_features(ready, bundle, PLAIN, 60)
    assert len(features) == len(np.unique(rows)) == 60
    labels = {window.id: window.event.label for window in windows if window.event}
    assert [ready.stimuli.ids[row] for row in rows] == [labels[one.window_id] for one in features]
    of_id = {window.id: window for window in windows}
    assert told(bundle.decode([of_id[one.window_id] for one in features]), ready.targets, rows) > 0.9
    assert told(features, ready.targets, rows) < 0.65


def test_a_prior_s_network_is_shared_and_all_else_is_fitted_anew() -> None:
    """Structure that is put right comes with held-out windows; the units that are handed on are the fold's own."""
    spec = SPEC.model_copy(update={"structure_prior": PRIOR.model_copy(update={"epochs": 3})})
    known, unseen = spots(80, seed=1), spots(200, seed=2)
    windows, stimuli = shown(known, seed=1)
    ready = LabelledWindows(windows, stimuli, known, None, {})
    bundle = fit_prepared(ready, spec, image_bank=unseen)
    features, rows = held_out_features(ready, bundle, spec, 10)
    whole = bundle.models["all"]
    assert isinstance(whole, LinearModel)
    assert whole.structure is not None
    n_kept = round(PRIOR.unit_fraction * len(whole.structure.masks[1]))
    assert all(one.structure_latent is not None and int(one.s[1].mask.sum()) == n_kept for one in features)
    decoded = np.stack([one.s[1].values * one.s[1].mask for one in features])
    truth = known.s[1][rows].astype(np.float32) * features[0].s[1].mask
    assert two_way(correlation_matrix(truth, decoded)).mean() > 0.8
