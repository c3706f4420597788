"""Categories from recordings to maps: splits by run or by blocks, and channels that carry nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from decoder.datasets import Dataset
from engine.models.loading import Models
from minddiffuser.config.spec import parse_config
from minddiffuser.maps.maps import compute_maps
from minddiffuser.training.training import train
from minddiffuser.workflows.crossval import crossval
from stream.types.recording import Recording
from stream.types.windows import Channels
from tests.minddiffuser.test_crossval import config_with, late_difference

LATE = parse_config({**config_with([]), "window": {"mode": "event", "tmin": 0.5, "tmax": 0.9}}, "test")


def silent(what: str, done: int, total: int) -> None:
    """Report to nobody."""


def captioned(dataset: Dataset) -> Dataset:
    """Say what the two pictures show."""
    return replace(dataset, stimuli=replace(dataset.stimuli, captions=(("an arrow down",), ("an arrow up",))))


def joined(dataset: Dataset) -> Dataset:
    """Make one long recording of all that is trained on."""
    streams = [run.streams[0] for run in dataset.train]
    data = np.concatenate([stream.data for stream in streams])
    whole = replace(streams[0], data=data, times=np.arange(len(data)) / 100)
    events = [
        replace(event, time=event.time + 36.0 * number)
        for number, run in enumerate(dataset.train)
        for event in run.events
    ]
    return replace(dataset, train=(replace(dataset.train[0], streams=(whole,), events=tuple(events)),))


def with_bad_channels(dataset: Dataset) -> Dataset:
    """Give the recordings a flat channel and a doubled one."""

    def spoilt(recording: Recording) -> Recording:
        (stream,) = recording.streams
        extra = np.stack([np.zeros(len(stream.data)), stream.data[:, 0]], axis=1)
        channels = Channels((*stream.channels.names, "flat", "twin"), ("eeg",) * 4, ("V",) * 4)
        data = np.concatenate([stream.data, extra.astype(np.float32)], axis=1)
        return replace(recording, streams=(replace(stream, channels=channels, data=data),))

    return replace(dataset, train=tuple(map(spoilt, dataset.train)), live=spoilt(dataset.live))


@pytest.mark.parametrize("split", ["3 runs, each held out once", "5 stretches of blocks, each held out once"])
def test_maps_of_categories_split_as_cross_validation_does(tiny: Models, split: str) -> None:
    """Of several recordings runs are held out, of one stretches of blocks; what tells is found."""
    dataset = captioned(late_difference(4))
    dataset = dataset if "runs" in split else joined(dataset)
    bundle = train(LATE, dataset, tiny)
    maps = compute_maps(bundle, LATE, dataset, tiny, silent)
    assert maps.split == split
    assert maps.permuted == "blocks of one category, within their recording"
    assert maps.decodability.significant.any()
    assert json.dumps(maps.summary())


def test_channels_that_carry_nothing_are_left_out_all_the_way(tiny: Models, caplog: pytest.LogCaptureFixture) -> None:
    """Trained, mapped and cross-validated, recordings with a flat and a doubled channel are as without."""
    plain = captioned(late_difference(4))
    spoilt = with_bad_channels(plain)
    bundle = train(LATE, spoilt, tiny)
    assert bundle.meta["channels_left_out"] == {"flat": "flat", "twin": "the same as E1"}
    assert "2 of 4 channels are left out of training" in caplog.text
    assert bundle.meta["scores"] == train(LATE, plain, tiny).meta["scores"]
    maps = [compute_maps(bundle, LATE, each, tiny, silent).decodability.score for each in (plain, spoilt)]
    np.testing.assert_array_equal(*maps)
    assert crossval(LATE, spoilt, tiny)["scores"] == crossval(LATE, plain, tiny)["scores"]
