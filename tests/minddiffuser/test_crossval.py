"""Cross-validation of a config: pictures drawn from held-out latents, units, and what a config may ask for."""

from typing import Any

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.data.training_set import Origin, TrainingSet
from decoder.datasets import Dataset
from decoder.evaluation.metric_registry import PICTURE_METRICS, pixcorr, ssim
from decoder.features import Features
from decoder.training.crossval import HeldOutPredictions
from engine.models.loading import Models
from minddiffuser.config.spec import parse_config
from minddiffuser.errors import ConfigError
from minddiffuser.training.training import origin_of
from minddiffuser.workflows.crossval import crossval, picture_scores
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels


def held_out(images: np.ndarray, decoded: np.ndarray) -> HeldOutPredictions:
    """Two windows a picture, one fold a picture, latents that are the pictures of `decoded` rows."""
    n = len(images)
    rows = np.repeat(np.arange(n), 2)
    labels = rows.astype(str)
    samples = TrainingSet(np.zeros((2 * n, 1, 1), np.float32), np.zeros(1), rows, labels, labels, labels, ("E1",))
    folds = [(np.flatnonzero(rows != row), np.flatnonzero(rows == row)) for row in range(n)]
    empty = np.zeros((0, 0), np.float32)
    features = [Features(str(k), empty, images[row].transpose(2, 0, 1) / 255) for k, row in enumerate(decoded)]
    return HeldOutPredictions(samples, folds, features, np.zeros(n, np.intp))


def draw(latents: np.ndarray) -> np.ndarray:
    """Give pictures whose latents are their pixels."""
    return np.round(latents * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def test_pictures_of_true_latents_are_perfect_and_the_mean_image_is_of_the_others() -> None:
    """PixCorr and identification are 1 for the truth; the baseline is the mean of the pictures trained on."""
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    rows = np.repeat(np.arange(4), 2)
    told: list[tuple[str, int, int]] = []
    scores = picture_scores(held_out(images, rows), images, draw, lambda *step: told.append(step))
    assert ("scores of pictures", 8, 8) in told
    assert (scores["pixcorr"], scores["two_way"], scores["top1"]) == (1.0, 1.0, 1.0)
    others = np.stack([np.delete(images, row, axis=0).mean(axis=0) for row in rows]).round().astype(np.uint8)
    assert scores["pixcorr_mean_image"] == pytest.approx(pixcorr(images[rows], others).mean(), abs=1e-4)
    assert scores["ssim_mean_image"] == pytest.approx(ssim(images[rows], others).mean(), abs=1e-4)
    for key in (key for key, metric in PICTURE_METRICS.items() if metric.score):
        assert {key, f"{key}_interval", f"{key}_mean_image", f"{key}_chance"} <= set(scores)
    wrong = picture_scores(held_out(images, (rows + 1) % 4), images, draw)
    assert wrong["top1"] == 0.0
    assert wrong["pixcorr"] < 0.2


def test_origins_are_named_by_the_data_set() -> None:
    """Runs of one session are one unit; a recording that the data set does not name is a session of its own."""
    empty = StimulusTable(("a",), np.zeros((1, 2, 2, 3), np.uint8))
    run = Recording("r1", "simulated EEG", (), ())
    dataset = Dataset(
        "d", "simulated EEG", (run,), run, empty, sessions={"r1": "s1", "r2": "s1"}, subjects={"r3": "p2"}
    )
    assert [origin_of(name, dataset) for name in ("r1", "r2", "r3")] == [
        Origin("r1", "s1", ""),
        Origin("r2", "s1", ""),
        Origin("r3", "r3", "p2"),
    ]


def late_difference(n_runs: int) -> Dataset:
    """Give EEG of two categories, 16 trials a run, that differ by sign from 0.5 s after their marker on."""
    rng = np.random.default_rng(0)
    n = 3600
    runs = []
    for number in range(n_runs):
        labels = rng.permutation(["up", "down"] * 8).tolist()
        onsets = 1.0 + 2.0 * np.arange(16)
        data = rng.normal(size=(n, 2))
        for onset, label in zip(onsets, labels, strict=True):
            data[int(100 * onset) + 50 : int(100 * onset) + 90] += 1.0 if label == "up" else -1.0
        channels = Channels(("E1", "E2"), ("eeg", "eeg"), ("V", "V"))
        stream = RecordedStream("eeg", "EEG", "id", channels, 100.0, np.arange(n) / 100, (1e-6 * data).astype("f4"))
        events = tuple(Event(float(onset), label) for onset, label in zip(onsets, labels, strict=True))
        runs.append(Recording(f"run{number}", "simulated EEG", (stream,), events))
    stimuli = StimulusTable(("down", "up"), np.zeros((2, 4, 4, 3), np.uint8))
    return Dataset("d", "simulated EEG", tuple(runs[:-1]), runs[-1], stimuli)


def config_with(candidates: list[dict[str, Any]]) -> dict[str, Any]:
    """Give a config of windows that end before the categories differ, and others to choose among."""
    return {
        "name": "late",
        "data": {"dataset": "recording"},
        "source": {"type": "EEG"},
        "window": {"mode": "event", "tmin": 0.0, "tmax": 0.4},
        "decoder": {
            "features": ["c"],
            "category": {"method": "pattern"},
            "preprocess": {"decimate": 10, "components": None},
        },
        "candidates": candidates,
    }


def test_candidates_are_chosen_inside_each_training_part(tiny: Models) -> None:
    """Of windows before and after the categories part, every fold takes the later, which alone tells them."""
    late = {"window": {"tmin": 0.5, "tmax": 0.9}}
    dataset = late_difference(4)
    answer = crossval(parse_config(config_with([late]), "test"), dataset, tiny)
    assert answer["chosen"] == [{"changes": {}, "folds": 0}, {"changes": late, "folds": 4}]
    assert answer["scores"]["auc"] > 0.9
    alone = crossval(parse_config(config_with([]), "test"), dataset, tiny)
    assert "chosen" not in alone
    low, high = alone["scores"]["auc_chance"]
    assert low <= alone["scores"]["auc"] <= high


def test_a_candidate_keeps_what_it_does_not_name() -> None:
    """Settings of a candidate lie over the config's own, part by part; one that fits no config is refused by name."""
    config = parse_config(config_with([{"decoder": {"preprocess": {"decimate": 5}}}]), "test")
    own, other = config.variants()
    assert (own.decoder.preprocess.decimate, other.decoder.preprocess.decimate) == (10, 5)
    assert other.decoder.category == own.decoder.category
    assert other.window == own.window
    assert not own.candidates
    with pytest.raises(ConfigError, match=r"candidates\.0\.window\.tmxa: unknown key; did you mean 'tmax'"):
        parse_config(config_with([{"window": {"tmxa": 1.0}}]), "test")
