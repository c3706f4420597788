"""What cannot be learned from ends in one line that names it; what only looks odd is learned from."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.errors import TrainingError
from decoder.estimators.classifiers import CategorySpec, fit_classifier
from decoder.models.bundle import Bundle
from decoder.models.category import fit_category, nested_logits
from decoder.simulation.eeg import PRESETS, Participant
from decoder.simulation.fmri import simulate_fmri
from decoder.spec import ConvSpec, DecoderSpec
from decoder.training.train import fit, fit_targets
from stream.types.windows import Window
from tests.decoder.conftest import LinearEncoders
from tests.decoder.test_category import labelled, templates, trials
from tests.decoder.test_embedding import PooledEncoders

Maker = Callable[..., list[Window]]
Z = DecoderSpec(features=("z",))


def features(n: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Draw features of n pictures."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(n, *shape)).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["c", "z", "e", "s1"])
@pytest.mark.parametrize("what", ["the same", "not finite"])
def test_a_feature_without_information_is_named(
    name: str, what: str, windows: list[Window], stimuli: StimulusTable
) -> None:
    """Features that are the same for all pictures, or that overflowed, are refused by name."""
    given = features(120, c=(3, 5), z=(2, 3, 3), e=(6,), s1=(20,))
    if what == "the same":
        given[name][:] = given[name][0]
    else:
        given[name][17].flat[3] = np.inf
    s = {1: given.pop("s1").astype(np.float16)}
    spec = DecoderSpec(features=("c", "z", "s", "e"), blocks=(1,), family="ridge", text_embedding_from="tokens")
    expected = {
        "the same": f"(feature '{name}'|structure of block {name[1:]}) is the same for all",
        "not finite": f"feature '{name}' of picture 'p17' is not finite",
    }
    with pytest.raises(TrainingError, match=expected[what]):
        fit_targets(windows, stimuli, Targets(**given, s=s), spec)


def test_windows_that_are_none_are_refused(windows: list[Window], stimuli: StimulusTable) -> None:
    """No window, one with a NaN, and one beyond all measure: each is said."""
    targets = Targets(z=features(120, z=(2, 3, 3))["z"])
    with pytest.raises(TrainingError, match="no windows to learn from"):
        fit_targets([], stimuli, targets, Z)
    for number in (np.nan, np.inf, 3e38):
        data = windows[7].data.copy()
        data[2, 3] = number
        with pytest.raises(TrainingError, match="window 1-7 holds numbers not finite or beyond 1e"):
            fit_targets([*windows[:7], replace(windows[7], data=data), *windows[8:]], stimuli, targets, Z)


def test_a_huge_number_costs_its_window(
    windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders
) -> None:
    """One sample of 3e38 among sound ones: that window is left out and counted, and nothing else changes."""
    data = windows[7].data.copy()
    data[2, 3] = 3e38
    spoilt = replace(windows[7], data=data)
    bundle = fit([*windows[:7], spoilt, *windows[8:90]], stimuli, encoders, Z)
    plain = fit([*windows[:7], *windows[8:90]], stimuli, encoders, Z)
    assert bundle.meta["left_out"]["not finite"] == 1
    np.testing.assert_array_equal(bundle.decode(windows[90:91])[0].z, plain.decode(windows[90:91])[0].z)
    found = bundle.decode([spoilt])[0]
    assert found.confidence == 0
    assert np.isfinite(np.asarray(found.z)).all()


def test_one_picture_is_refused(windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders) -> None:
    """Forty windows of one picture tell nothing apart."""
    with pytest.raises(TrainingError, match=r"all windows are of 'p0'.*show more pictures"):
        fit([replace(w, event=windows[0].event) for w in windows[:40]], stimuli, encoders, Z)


def test_windows_that_are_all_the_same_are_refused(
    windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders
) -> None:
    """A recording that repeats itself has channels that move, and inputs that do not."""
    with pytest.raises(TrainingError, match=r"inputs of all .* are the same"):
        fit([replace(w, data=windows[0].data) for w in windows], stimuli, encoders, Z)


@pytest.mark.parametrize("method", ["erp", "pattern"])
def test_a_category_without_windows_is_named(method: str) -> None:
    """A classifier of a category that no training window shows is refused, whoever asks for it."""
    data, rows = trials(40, 1.0)
    only = labelled(data, 0 * rows)
    with pytest.raises(TrainingError, match="no window of category 'house'"):
        fit_classifier(only, CategorySpec(method=method))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="all 40 trials are of one category"):
        fit_category(only, templates(), CategorySpec(method=method))  # type: ignore[arg-type]


def test_a_category_of_one_run_only_is_named() -> None:
    """Runs of one category each cannot be held out: it says which run."""
    data, rows = trials(60, 1.0)
    rows = np.sort(rows)
    runs = replace(labelled(data, rows), runs=np.where(rows == 1, "evening", "morning"))
    with pytest.raises(TrainingError, match=r"in run 'evening' only|in run 'morning' only"):
        nested_logits([runs], [CategorySpec()], [None])


def test_pictures_with_one_repeat_or_none_are_learned_from(
    windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders
) -> None:
    """Some pictures twice, most once."""
    bundle = fit([*windows[:40], *windows[:3]], stimuli, encoders, Z)
    assert np.isfinite(np.asarray(bundle.decode(windows[:1])[0].z)).all()


@pytest.mark.parametrize("n", [33, 35, 49])
def test_an_encoder_is_trained_on_any_number_of_windows(n: int, windows: list[Window], stimuli: StimulusTable) -> None:
    """A last batch of one window, of which a network that pools over all times has no spread, is not made."""
    conv = ConvSpec(filters=4, kernel=0.15, pool=0.2, epochs=2, batch=2, cv_folds=2, validation=0.1)
    spec = DecoderSpec(features=("e",), family="conv", conv=conv)
    bundle: Bundle = fit(windows[:n], stimuli, PooledEncoders(stimuli), spec)
    assert np.isfinite(np.asarray(bundle.decode(windows[:1])[0].e)).all()


def test_a_participant_to_whom_all_pictures_mean_the_same_is_refused() -> None:
    """Meanings or pictures without spread: the error names the area that would have nothing to encode."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 24, 24, 3), dtype=np.uint8)
    alike = np.ones((30, 40), np.float32)
    with pytest.raises(TrainingError, match="don't differ in what IT encodes"):
        Participant("eeg", PRESETS["demo"], 0, images, alike)
    with pytest.raises(TrainingError, match="don't differ in what V1 encodes"):
        Participant("eeg", PRESETS["demo"], 0, np.repeat(images[:1], 30, axis=0), rng.normal(size=(30, 40)))
    with pytest.raises(TrainingError, match="don't differ"):
        simulate_fmri(images, alike, [str(row) for row in range(30)])
