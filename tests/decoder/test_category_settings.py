"""What a decoder of categories goes by, chosen inside its training part; and the plain baseline beside it."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from decoder.estimators.classifiers import CategorySpec, ChooseSpec, Trials, fit_classifier
from decoder.models.category import CategoryModel, fit_category, held_out_logits
from decoder.models.category_settings import AveragedClassifier, Setting, fit_chosen
from decoder.models.riemann_baseline import riemann_baseline
from decoder.preprocessing.passband import passband

N_TIMES, SFREQ = 100, 100.0
NAMES = ("face", "house")


def bumps(n: int, seed: int, *, noise: float = 0.0, late: float = 0.0, runs: int = 3) -> Trials:
    """Make EEG of two categories that differ by a slow bump at 0.2 s, with fast noise and late noise upon request."""
    rng = np.random.default_rng(seed)
    rows, times = rng.integers(0, 2, n).astype(np.intp), np.arange(N_TIMES) / SFREQ
    bump = np.outer([0.3, -0.5, 0.1, 1.0], np.exp(-0.5 * ((times - 0.2) / 0.05) ** 2))
    data = 0.8 * rng.normal(size=(n, 4, N_TIMES)) + rows[:, None, None] * bump
    data += noise * rng.normal(size=(n, 4, 1)) * np.sin(2 * np.pi * 25 * times + rng.uniform(0, 6, (n, 4, 1)))
    data[:, :, 60:] += late * rng.normal(size=(n, 4, 1))
    of_trial = np.sort(np.arange(n) % runs).astype(str)
    return Trials((1e-6 * data).astype(np.float32), times, rows, NAMES, of_trial)


def test_a_band_keeps_its_frequencies_and_nothing_else() -> None:
    """A sine within the band keeps its power, one below or above loses nearly all, and so does what comes later."""
    times = np.arange(N_TIMES) / SFREQ
    power: dict[float, float] = {}
    for frequency in (1.0, 10.0, 40.0):
        wave = np.sin(2 * np.pi * frequency * times)
        power[frequency] = float(np.square(wave @ passband(N_TIMES, SFREQ, (4, 20))).sum() / np.square(wave).sum())
    assert power[10.0] > 0.9
    assert max(power[1.0], power[40.0]) < 0.05
    early = passband(N_TIMES, SFREQ, (None, None), 0.5)
    np.testing.assert_allclose(early[:50].T @ early[:50], np.eye(50), atol=1e-6)
    assert not early[50:].any()
    assert passband(4, SFREQ, (60, 70)).shape[1] >= 2


@pytest.mark.parametrize(("noise", "late"), [(3.0, 0.0), (0.0, 5.0)])
def test_the_band_and_the_window_without_noise_are_chosen(noise: float, late: float) -> None:
    """Of fast and slow bands, or early and whole windows, those that noise spares are taken, and do better."""
    choose = ChooseSpec(bands=((None, 45), (None, 12)), shares=(1.0, 0.5), components=(2,), average=1)
    trials = bumps(150, 0, noise=noise, late=late)
    _, (setting,) = fit_chosen(trials, CategorySpec(choose=choose))
    if noise:
        assert setting.band == (None, 12)
    else:
        assert setting.share == 0.5
    plain = CategorySpec(choose=None)
    both = plain, CategorySpec(choose=choose)
    hits = [(held_out_logits(trials, each).argmax(axis=1) == trials.rows).mean() for each in both]
    assert hits[1] > hits[0]


def test_nothing_of_a_held_out_run_has_a_say() -> None:
    """Whatever a run holds, labels or data, it is decoded as by settings that the others chose."""
    trials = bumps(120, 1)
    spec = CategorySpec(choose=ChooseSpec(bands=((None, 20), (4, 40)), components=(1, 2), average=1))
    rows, data = trials.rows.copy(), trials.data.copy()
    last = trials.runs == "2"
    rows[last] = 1 - rows[last]
    spoilt = Trials(data, trials.times, rows, NAMES, trials.runs)
    np.testing.assert_array_equal(held_out_logits(trials, spec)[last], held_out_logits(spoilt, spec)[last])


def test_without_a_choice_it_is_the_classifier_itself() -> None:
    """`choose: null` takes the spec as it stands, and so do trials of which no run can be held out."""
    trials = bumps(60, 2)
    spec = CategorySpec(choose=None, components=1)
    classifier, settings = fit_chosen(trials, spec)
    np.testing.assert_array_equal(classifier(trials.data), fit_classifier(trials, spec)(trials.data))
    assert settings == [Setting(1, 2)]
    blocks = Trials(trials.data, trials.times, np.sort(trials.rows), NAMES, np.full(60, "only"))
    _, chosen = fit_chosen(blocks, CategorySpec())
    assert len(chosen) == 5


def test_averaged_classifiers_are_saved_and_read_as_one() -> None:
    """What comes back from tensors decodes alike, bit for bit; a bundle of before, of one classifier, is read too."""
    trials = bumps(80, 3)
    templates = {"c": np.zeros((2, 3, 5), np.float32)}
    model, scores = fit_category(trials, templates, CategorySpec())
    again = CategoryModel.from_tensors(model.tensors(), json.loads(json.dumps(model.settings())))
    np.testing.assert_array_equal(again.classifier(trials.data), model.classifier(trials.data))
    assert len(model.classifier.members) == len(scores["settings"]) == 5
    single = fit_classifier(trials, CategorySpec())
    old = {name: getattr(single, name) for name in type(single).__slots__}  # type: ignore[attr-defined]
    np.testing.assert_array_equal(AveragedClassifier.from_tensors(old, "erp")(trials.data), single(trials.data))


def test_the_riemannian_baseline_tells_a_response_from_noise() -> None:
    """On a response it is far above chance, on none within it; windows that it cannot take are said to be so."""
    scores = riemann_baseline(bumps(150, 4), 5)
    assert scores["auc_interval"][0] > scores["auc_chance"][1]
    trials = bumps(150, 5)
    noise: NDArray[np.float32] = np.random.default_rng(0).normal(size=trials.data.shape).astype(np.float32)
    low, high = (none := riemann_baseline(Trials(noise, trials.times, trials.rows, NAMES, trials.runs), 5))[
        "auc_chance"
    ]
    assert low <= none["auc"] <= high
    flat = Trials(0 * noise, trials.times, trials.rows, NAMES, trials.runs)
    assert "why" in riemann_baseline(flat, 5)
