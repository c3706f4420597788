"""Whether a bundle's final pictures are stage 2's: decided by held-out calibration windows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset
from decoder.models.bundle import Bundle
from engine.models.loading import Models
from engine.spec import EngineSpec
from minddiffuser.config.spec import parse_config
from minddiffuser.live.engines import ready_engine
from minddiffuser.training.stage2 import LEAST_PICTURES, MEASURES, decide, engine_of
from minddiffuser.training.training import move, train
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels

CHANNELS = Channels(("A1", "A2", "A3"), ("eeg",) * 3, ("V",) * 3)
SFREQ = 50.0
Floats = NDArray[np.float64]


def scores(gain: dict[str, float], n: int = 60, spread: float = 0.1) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Scores of n pictures of both stages, which differ by exactly these means."""
    noise = np.random.default_rng(0).normal(size=(len(MEASURES), n))
    noise -= noise.mean(axis=1, keepdims=True)
    before = {name: np.full(n, 0.8) for name in MEASURES}
    return before, {name: before[name] + gain[name] + spread * row for name, row in zip(MEASURES, noise, strict=True)}


@settings(max_examples=30)
@given(clip=st.floats(-0.2, 0.2), features=st.floats(-0.2, 0.2), pixels=st.floats(-0.2, 0.2))
def test_stage_2_is_never_used_where_held_out_windows_say_that_it_hurts(
    clip: float, features: float, pixels: float
) -> None:
    """On where the gain in CLIP and features is above 0 and no measure's interval lies below it; the sentence says."""
    found = decide(*scores({"two_way_clip": clip, "two_way_features": features, "two_way": pixels}))
    assert found["gain"] == pytest.approx((clip + features) / 2, abs=1e-4)
    hurt = [name for name, one in found["measures"].items() if one["interval"][1] < 0]
    assert found["hurt"] == hurt
    assert found["used"] is (found["gain"] > 0 and not hurt)
    assert ("Stage 2 is on" in found["sentence"]) is found["used"]
    assert f"{found['measures']['two_way_clip']['gain']:+.3f}" in found["sentence"]
    json.dumps(found)


@pytest.mark.parametrize(
    ("gain", "lost"),
    [
        ({"two_way_clip": -0.07, "two_way_features": 0.15, "two_way": 0.1}, "two_way_clip"),
        ({"two_way_clip": 0.1, "two_way_features": 0.05, "two_way": -0.11}, "two_way"),
    ],
    ids=["meaning", "pixels"],
)
def test_what_is_lost_for_sure_outweighs_what_is_gained(gain: dict[str, float], lost: str) -> None:
    """The cases that were shipped: one measure falls, its interval below 0, while the others gain more."""
    found = decide(*scores(gain, spread=0.2))
    low, high = found["measures"][lost]["interval"]
    assert low < gain[lost] < high < 0 < found["gain"]
    assert not found["used"]
    assert found["hurt"] == [lost]
    assert f"off for this bundle: it hurts {MEASURES[lost]} on 60 held-out" in found["sentence"]


def test_pixels_that_may_as_well_have_stayed_do_not_switch_it_off() -> None:
    """A fall in pixels whose interval holds 0 is none."""
    found = decide(*scores({"two_way_clip": 0.1, "two_way_features": 0.05, "two_way": -0.01}, spread=0.2))
    assert found["measures"]["two_way"]["interval"][1] > 0
    assert (found["used"], found["hurt"]) == (True, [])


def dataset(models: Models, n: int, seed: int = 0) -> Dataset:
    """Make a recording of noise in which n pictures of noise are seen."""
    rng = np.random.default_rng(seed)
    size = models.image_size
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    names = tuple(f"p{number}" for number in range(n))
    stimuli = StimulusTable(names, images, tuple((f"caption {name}",) for name in names))
    data = rng.normal(0, 1e-5, (round((n + 2) * SFREQ), 3)).astype(np.float32)
    events = [Event(1.0 + number, name) for number, name in enumerate(names)]
    stream = RecordedStream("eeg", "EEG", "id", CHANNELS, SFREQ, np.arange(len(data)) / SFREQ, data)
    run = Recording("run", "noise", (stream,), tuple(events))
    return Dataset("noise", "noise", (run,), run, stimuli)


def config_of(models: Models, **structure: Any) -> dict[str, Any]:
    """Give a config of one's own recording on tiny models, with few of everything."""
    return {
        "name": "tiny",
        "data": {"dataset": "recording", "image_bank": None},
        "source": {"type": "EEG"},
        "window": {"tmax": 0.3, "baseline": None},
        "filters": {"lowpass": 20},
        "decoder": {"blocks": [1], "cv_folds": 3, "preprocess": {"components": 10}},
        "engine": {
            "models": {"folder": models.spec.folder},
            "backend": "torch",
            "threads": 1,
            "structure": {"iterations": 1, "candidates": 1, "refinement_rounds": 1, "guidance": 1, **structure},
        },
    }


@pytest.fixture(scope="module")
def trained(tiny: Models) -> Bundle:
    """Train with advice on noise."""
    return train(parse_config(config_of(tiny), "test"), dataset(tiny, 50), tiny)


def test_training_checks_stage_2_and_keeps_what_it_found(trained: Bundle, tmp_path: Path) -> None:
    """Of noise the bundle holds a decision with its figures, a learning curve at chance, and no promise."""
    trained.save(tmp_path / "bundle")
    meta = json.loads((tmp_path / "bundle" / "bundle.json").read_text("utf-8"))["meta"]
    checked = meta["stage2"]
    assert (checked["checked"], checked["pictures"]) == (True, 50)
    for one in checked["measures"].values():
        assert one["gain"] == pytest.approx(one["stage2"] - one["stage1"], abs=2e-4)
        assert one["interval"][0] <= one["gain"] <= one["interval"][1]
    assert [point["pictures"] for point in meta["learning_curve"]] == [25, 38, 50]
    assert meta["recording_more"]["worth"] is None


@pytest.mark.parametrize(
    ("n", "structure", "expected"),
    [
        (30, {}, (True, False)),
        (50, {"mode": "none"}, None),
        (50, {"check": False}, None),
        (50, {"iterations": 0}, None),
    ],
)
def test_where_nothing_can_be_decided_nothing_is(
    tiny: Models, n: int, structure: dict[str, Any], expected: tuple[bool, bool] | None
) -> None:
    """Few pictures leave stage 2 on and say so; no stage 2, or one that is not to be checked, leaves no word."""
    bundle = train(parse_config(config_of(tiny, **structure), "test"), dataset(tiny, n), tiny)
    checked = bundle.meta.get("stage2")
    assert (checked and (checked["used"], checked["checked"])) == expected
    if checked:
        assert f"{LEAST_PICTURES} is the least" in checked["sentence"]


def test_a_bundle_that_it_does_not_help_has_stage_1_s_final_pictures(
    tiny: Models, trained: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """Live and in evaluation the engine leaves stage 2 out, and says why; `check: false` brings it back."""
    bundle = trained.without_memory()
    bundle.meta = {**trained.meta, "stage2": {"used": False, "sentence": "Stage 2 is off for this bundle: so."}}
    spec = parse_config(config_of(tiny), "test").engine
    engine = ready_engine(spec, bundle, tiny)
    assert "Stage 2 is off for this bundle: so. Final pictures are stage 1's." in caplog.text
    previews: list[Any] = []
    (final,) = engine.reconstruct(engine.placeholders(1), previews.extend)
    assert final.stage == 1
    assert np.array_equal(final.pixels, previews[0].pixels)
    again = parse_config(config_of(tiny, check=False), "test").engine
    assert engine_of(again, bundle) == again
    bundle.meta["stage2"] = {"used": True, "sentence": ""}
    assert engine_of(spec, bundle) == spec


@pytest.mark.parametrize("seed", [0, 1])
def test_a_bundle_moved_to_its_own_recording_is_no_test(
    tiny: Models, trained: Bundle, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """The recording that taught a bundle is known again by its signal, whatever the file is called."""
    moved = move(trained, parse_config(config_of(tiny), "test"), dataset(tiny, 50, seed), tiny)
    assert moved.meta.get("on_training_data", False) is (seed == 0)
    assert ("trained on this very recording" in caplog.text) is (seed == 0)


def test_a_likelihood_that_nothing_gives_is_said(trained: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    """A weight of the likelihood is named as of no effect where the bundle has no encoding model, and only there."""
    spec = EngineSpec.model_validate({"structure": {"weights": {"likelihood": 0.5}}})
    bundle = trained.without_memory()
    engine_of(EngineSpec(), bundle)
    for encoding in ({}, {"features": ["blocks"]}):  # of an earlier version, and of today
        bundle.meta = {**trained.meta, "config": {"decoder": {"encoding": encoding}}}
        engine_of(spec, bundle)
        assert "likelihood" not in caplog.text
    bundle.meta = {**trained.meta, "config": {"decoder": {"encoding": {"features": ["blocks", "early"]}}}}
    engine_of(spec, bundle)
    assert "weights.likelihood is of no effect: the bundle has an encoding model of blocks, early" in caplog.text
    bundle.meta["config"] = {}
    engine_of(spec, bundle)
    assert "weights.likelihood is of no effect: the bundle has no encoding model" in caplog.text


@pytest.mark.parametrize("meta", [{}, {"stage2": None}, {"stage2": "yes"}])
def test_a_bundle_of_an_earlier_version_keeps_stage_2(trained: Bundle, meta: dict[str, Any]) -> None:
    """Where nobody asked, it is as the config says."""
    bundle = trained.without_memory()
    bundle.meta = meta
    assert engine_of(EngineSpec(), bundle) == EngineSpec()
