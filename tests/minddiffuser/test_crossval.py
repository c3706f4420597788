"""Cross-validation of a config: pictures drawn from held-out latents, units, and what a config may ask for."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from decoder.crossval import HeldOut
from decoder.datasets import Dataset
from decoder.features import Features
from decoder.metrics import pixcorr
from decoder.samples import Origin, Samples
from decoder.stimuli import StimulusTable
from minddiffuser.config import load_config
from minddiffuser.crossval import picture_scores
from minddiffuser.errors import ConfigError
from minddiffuser.training import origin_of
from stream.recordings import Recording
from tests.conftest import ROOT


def held_out(images: np.ndarray, decoded: np.ndarray) -> HeldOut:
    """Two windows a picture, one fold a picture, latents that are the pictures of `decoded` rows."""
    n = len(images)
    rows = np.repeat(np.arange(n), 2)
    labels = rows.astype(str)
    samples = Samples(np.zeros((2 * n, 1, 1), np.float32), np.zeros(1), rows, labels, labels, labels, ("E1",))
    folds = [(np.flatnonzero(rows != row), np.flatnonzero(rows == row)) for row in range(n)]
    empty = np.zeros((0, 0), np.float32)
    features = [Features(str(k), empty, images[row].transpose(2, 0, 1) / 255) for k, row in enumerate(decoded)]
    return HeldOut(samples, folds, features)


def draw(latents: np.ndarray) -> np.ndarray:
    """Give pictures whose latents are their pixels."""
    return np.round(latents * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def test_pictures_of_true_latents_are_perfect_and_the_mean_image_is_of_the_others() -> None:
    """PixCorr and identification are 1 for the truth; the baseline is the mean of the pictures trained on."""
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    rows = np.repeat(np.arange(4), 2)
    scores = picture_scores(held_out(images, rows), images, draw)
    assert (scores["pixcorr"], scores["two_way"], scores["top1"]) == (1.0, 1.0, 1.0)
    others = np.stack([np.delete(images, row, axis=0).mean(axis=0) for row in rows]).round().astype(np.uint8)
    assert scores["pixcorr_mean_image"] == pytest.approx(pixcorr(images[rows], others).mean(), abs=1e-4)
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


def test_inputs_that_have_no_names_are_refused_by_the_config(tmp_path: Path) -> None:
    """Families that pick among inputs refuse principal components, in one line that says what to set."""
    config = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text("utf-8"))
    config["decoder"]["regression"] = {"method": "top"}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    with pytest.raises(ConfigError, match=r"preprocess\.components to null"):
        load_config(file)
