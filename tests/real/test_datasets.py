"""Recorded data sets: what the readers find, and that real brains can be decoded as well as is claimed."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from decoder.data.targets import compute_targets
from decoder.data.usable import usable
from decoder.datasets import Dataset, Selection, load
from decoder.evaluation.metric_registry import pixcorr
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.models.bundle import Bundle
from decoder.training.train import fit_targets
from engine.models.loading import Models, load_models
from minddiffuser.config.spec import Config, load_config
from minddiffuser.live.loopback import Received
from minddiffuser.workflows.crossval import crossval
from minddiffuser.workflows.evaluate import category_figures
from stream.epochs.ingest import windows_of
from stream.types.windows import Window
from tests.datafolder import DATA, data_set

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.real, pytest.mark.slow]


@cache
def models() -> Models:
    """Load the desk models once."""
    return load_models(load_config(ROOT / "configs" / "miyawaki-fmri.yaml").engine.models, "cpu")


def loaded(name: str, config: Config) -> Dataset:
    """Load a config's data set; skip where its folder is not there."""
    data_set(name)
    return load(config.data.dataset, DATA, Selection(subject=config.data.subject[0]))


def prepared(name: str) -> tuple[Config, Dataset, list[Window], list[Window]]:
    """Return a config, its data set, and the windows to train and to test on, cut as the live loop cuts them."""
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    dataset = loaded(name, config)
    train = [w for run in dataset.train for w in windows_of(run, config.window, config.filters)]
    test = [w for w in windows_of(dataset.live, config.window, config.filters) if not w.quality.rejected]
    return config, dataset, train, test


def trained(config: Config, dataset: Dataset, windows: list[Window], features: tuple[str, ...]) -> Bundle:
    """Fit the config's decoder to some of its features."""
    used, _ = usable(windows, dataset.stimuli.ids)
    shown = dataset.stimuli.select(sorted({label for _, label in used}))
    spec = config.decoder.model_copy(update={"features": features})
    targets = compute_targets(shown, models(), features=features)
    return fit_targets([window for window, _ in used], shown, targets, spec)


def test_muse_single_trials_of_an_unseen_run_are_told_apart() -> None:
    """Faces against houses, trained on runs 1-5, causal filters, single trials of run 6: AUC at least 0.70."""
    config, dataset, train, test = prepared("muse-faces")
    assert len(train) + len(list(dataset.live.events)) == 1174
    bundle = trained(config, dataset, train, ("c",))
    events = [{"label": w.event.label} if w.event else None for w in test]
    received = [
        Received({"window_id": f.window_id, "event": event, "categories": f.categories}, {})
        for f, event in zip(bundle.decode(test), events, strict=True)
    ]
    assert len(received) > 0.95 * len(dataset.live.events)
    assert category_figures(received)["auc"] >= 0.70


@pytest.mark.parametrize(
    ("name", "score", "least"),
    [
        ("muse-faces", "auc", 0.73),
        ("muse-sides", "auc", 0.86),
        ("muse-gratings", "auc", 0.70),
        ("ssvep-exo", "accuracy", 0.85),
        ("haxby-fmri", "accuracy", 0.46),
    ],
)
def test_categories_of_unseen_runs_are_told_apart(name: str, score: str, least: float) -> None:
    """Leaving one run out at a time, the config's decoder reaches what the data's source reports."""
    config = load_config(ROOT / "configs" / f"{name}.yaml").model_copy(update={"candidates": ()})
    answer = crossval(config, loaded(name, config), models())
    scores = answer["scores"]
    assert scores[score] >= least
    if name != "haxby-fmri":
        assert scores[score] > answer["riemann"][score]
    assert scores[score] > scores[f"{score}_chance"][1] + 0.1


def test_muse_evidence_over_ten_trials_beats_single_trials() -> None:
    """The picture's category is right in more than 0.75 of the windows that end a sum of ten trials."""
    config, dataset, train, test = prepared("muse-faces")
    assert config.decoder.category is not None
    bundle = trained(config, dataset, train, ("c",))
    templates = bundle.models["all"].tensors()["template.c"]
    shares = [_share(f.c, templates) for f in bundle.decode(test)]
    by_label: dict[str, list[float]] = {}
    for window, share in zip(test, shares, strict=True):
        assert window.event is not None
        by_label.setdefault(window.event.label, []).append(share)
    n = config.decoder.category.accumulate
    correct = [(share > 0.5) == (label == "house") for label, all_ in by_label.items() for share in all_[n - 1 :: n]]
    assert np.mean(correct) > 0.75


def _share(c: np.ndarray, templates: np.ndarray) -> float:
    """Weight of the second of two templates in their mixture."""
    difference = templates[1] - templates[0]
    return float(np.sum((c - templates[0]) * difference) / np.sum(difference**2))


@pytest.mark.big
@pytest.mark.timeout(900)
def test_v4_latents_of_unseen_photographs_identify_them() -> None:
    """Two-way identification of 120 held-out photographs by the decoded latent: at least 0.82, permuted about 0.5."""
    config, dataset, train, test = prepared("v4-photos")
    assert (len(train), len(test)) == (1080, 120)
    assert len(test[0].channels) == 89
    bundle = trained(config, dataset, train, ("z",))
    decoded = np.stack([f.z for f in bundle.decode(test) if f.z is not None])
    shown = dataset.stimuli.select([w.event.label for w in test if w.event])
    truth = models().encode_latents(shown.images)
    mean = bundle.models["all"].tensors()["z.intercept"].reshape(truth.shape[1:])
    r = correlation_matrix(truth - mean, decoded - mean)
    assert two_way(r).mean() >= 0.82
    assert two_way(r[np.random.default_rng(0).permutation(len(r))]).mean() == pytest.approx(0.5, abs=0.1)


def test_miyawaki_figures_are_drawn_from_weights_that_never_saw_them() -> None:
    """Single trials, leave one figure out: PixCorr of the decoded latent's picture at least 0.85 (mean image 0.66)."""
    config, dataset, train, _ = prepared("miyawaki-fmri")
    assert (len(train), len(dataset.stimuli)) == (119, 20)
    bundle = trained(config, dataset, train, ("z",))
    assert len(set(bundle.held_out.values())) == 20
    decoded = np.stack([f.z for f in bundle.decode(train) if f.z is not None])
    shown = dataset.stimuli
    rows = shown.rows(w.event.label for w in train if w.event)
    assert pixcorr(shown.images[rows], models().decode_latents(decoded)).mean() >= 0.85
    others = np.stack([np.delete(shown.images, row, axis=0).mean(axis=0) for row in rows]).round().astype(np.uint8)
    assert pixcorr(shown.images[rows], others).mean() == pytest.approx(0.66, abs=0.03)


@pytest.mark.big
@pytest.mark.timeout(900)
def test_v4_photographs_are_identified_as_well_as_reported() -> None:
    """Macaque V4, ten folds: CLIP's first block tells 1,200 photographs apart (0.94), likelihood better (0.99)."""
    config = load_config(ROOT / "configs" / "v4-photos.yaml")
    decoder = config.decoder.model_copy(update={"features": ("s",), "blocks": (1,), "unit_fraction": 0.25})
    dataset = loaded("v4-photos", config)
    answer = crossval(config.model_copy(update={"decoder": decoder}), dataset, models())
    score = answer["scores"]["s1"]
    assert (score["pictures"], score["windows"], answer["held_out"]["folds"]) == (1200, 1200, 10)
    assert answer["overlap"]["pictures"] == 0
    assert score["two_way_chance"][1] < 0.6
    assert score["two_way"] >= 0.94
    likelihood = answer["scores"]["likelihood"]
    assert likelihood["two_way"] >= 0.99
    assert likelihood["top1"] >= 0.35


def test_miyawaki_figures_are_decoded_as_well_as_reported() -> None:
    """Leave one figure out, penalties chosen among the other 19: PixCorr 0.88, and 0.62 of 20-way identifications."""
    config = load_config(ROOT / "configs" / "miyawaki-fmri.yaml")
    decoder = config.decoder.model_copy(update={"features": ("z",)})
    dataset = loaded("miyawaki-fmri", config)
    answer = crossval(config.model_copy(update={"decoder": decoder, "candidates": ()}), dataset, models())
    assert answer["held_out"]["folds"] == 20
    assert answer["scores"]["picture"]["pixcorr_mean_image"] == pytest.approx(0.66, abs=0.01)
    assert answer["scores"]["picture"]["pixcorr"] >= 0.88
    assert answer["scores"]["z"]["top1"] >= 0.62
