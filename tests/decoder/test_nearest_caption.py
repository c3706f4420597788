"""The nearest caption of pictures that nobody was shown in place of a decoded mean of captions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from decoder.adaptation.recalibrate import recalibrate
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.errors import TrainingError
from decoder.models.bundle import Bundle
from decoder.models.nearest_caption import NearestCaption
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Window
from tests.decoder.conftest import LinearEncoders

SPEC = DecoderSpec(features=("c",), cv_folds=3, nearest_caption=True)


@pytest.fixture
def states(stimuli: StimulusTable, encoders: LinearEncoders) -> np.ndarray:
    """Hidden states of the captions of pictures that training does not show; one comes twice."""
    assert stimuli.captions is not None
    c = encoders.encode_text([each[0] for each in stimuli.captions[90:]])
    return np.concatenate([c, c[:1]])


@pytest.fixture
def trained(
    window_maker: Callable[..., list[Window]],
    stimuli: StimulusTable,
    channels: Channels,
    encoders: LinearEncoders,
    states: np.ndarray,
) -> tuple[Bundle, list[Window]]:
    """Train on the first 90 pictures; give windows of the others too."""
    windows = window_maker(stimuli, channels, noise=0.3, seed=1)
    shown = stimuli.select(stimuli.ids[:90])
    return fit(windows[:90], shown, encoders, SPEC, image_bank=Targets(c=states)), windows[90:]


def test_new_pictures_get_their_own_caption(trained: tuple[Bundle, list[Window]], states: np.ndarray) -> None:
    """A window near the truth gets the hidden states of the true caption, whole; what is not decoded stays."""
    bundle, new = trained
    found = np.stack([one.c for one in bundle.decode(new)])
    own = np.abs(found - states[: len(new)]).max(axis=(1, 2)) < 1e-2
    assert own.mean() > 0.9
    distances = np.abs(found[:, None] - states[None]).max(axis=(2, 3))
    assert distances.min(axis=1).max() < 1e-2  # nothing but captions
    np.testing.assert_array_equal(found[:, 0], np.broadcast_to(states[0, 0], found[:, 0].shape))


def test_a_bundle_keeps_its_captions(trained: tuple[Bundle, list[Window]], tmp_path: Path) -> None:
    """Windows are decoded alike before and after a save, one at a time or together."""
    bundle, new = trained
    bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    together = bundle.decode(new)
    for one, window in zip(together, new, strict=True):
        np.testing.assert_array_equal(one.c, again.decode([window])[0].c)


def test_captions_are_kept_once(states: np.ndarray) -> None:
    """A caption that comes twice is one."""
    active = np.arange(states[0].size, dtype=np.int32)
    assert len(NearestCaption.of(states, active, np.zeros(active.size, np.float32)).states) == len(states) - 1


def test_a_window_that_says_nothing_gets_no_caption(trained: tuple[Bundle, list[Window]], states: np.ndarray) -> None:
    """One that cannot be read keeps the mean, which is drawn as vaguely as it is known."""
    bundle, new = trained
    lost = replace(new[0], data=np.full_like(new[0].data, np.nan))
    found, beside = bundle.decode([lost, new[1]])
    assert found.confidence == 0
    assert np.abs(found.c - states).max(axis=(1, 2)).min() > 0.1
    np.testing.assert_array_equal(beside.c, bundle.decode(new[1:2])[0].c)


def test_a_moved_bundle_keeps_its_captions(
    trained: tuple[Bundle, list[Window]],
    window_maker: Callable[..., list[Window]],
    stimuli: StimulusTable,
    channels: Channels,
    encoders: LinearEncoders,
    states: np.ndarray,
) -> None:
    """What is decoded after recalibration is a caption still."""
    bundle, new = trained
    session = window_maker(stimuli, channels, noise=0.5, seed=2)[:90]
    moved = recalibrate(bundle, session, stimuli, encoders)
    found = np.stack([one.c for one in moved.decode(new)])
    assert np.abs(found[:, None] - states[None]).max(axis=(2, 3)).min(axis=1).max() < 1e-2


def test_without_captions_it_is_refused(
    windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders
) -> None:
    """What it needs is said in one line."""
    with pytest.raises(TrainingError, match=r"nearest_caption learns from pictures .* data\.image_bank"):
        fit(windows, stimuli, encoders, SPEC)
    with pytest.raises(ValidationError, match="add c to features"):
        DecoderSpec(features=("z",), nearest_caption=True)
    with pytest.raises(ValidationError, match="text_embedding_from to tokens"):
        DecoderSpec(features=("c", "e"), nearest_caption=True)
    with pytest.raises(ValidationError, match="family to ridge"):
        DecoderSpec(features=("c",), family="riemann_baseline", nearest_caption=True)
