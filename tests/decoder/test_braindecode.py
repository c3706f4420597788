"""Networks of braindecode behind the decoder's own contract."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from decoder.data.stimuli import StimulusTable
from decoder.encoders.braindecode import make_network
from decoder.errors import TrainingError
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.models.bundle import Bundle
from decoder.spec import ConvSpec, DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Window
from tests.decoder.conftest import LinearEncoders

EEGNET = ConvSpec(
    network="EEGNet",
    parameters={
        "F1": 16,
        "D": 4,
        "kernel_length": 8,
        "depthwise_kernel_length": 4,
        "conv_spatial_max_norm": 4,
        "pool1_kernel_size": 2,
        "pool2_kernel_size": 1,
        "drop_prob": 0.1,
    },
    dropout=0.1,
    noise=0.0,
    epochs=40,
    patience=40,
    batch=32,
    learning_rate=1e-2,
)


class Embedding(LinearEncoders):
    """Encoders whose pooled embedding is linear in the pixels, too."""

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Give embeddings of 10 numbers."""
        return ((images.reshape(len(images), -1) / 255 - 0.5) @ self.c).astype(np.float32)


def test_a_network_of_braindecode_decodes_pictures_it_never_saw(
    window_maker: Callable[..., list[Window]], stimuli: StimulusTable, channels: Channels, tmp_path: Path
) -> None:
    """EEGNet tells unseen pictures apart, decodes the same in any batch, and comes back from a bundle to the bit."""
    pytest.importorskip("braindecode", reason="braindecode is an optional extra")
    encoders = Embedding(stimuli)
    windows = window_maker(stimuli, channels, noise=0.3, seed=3)
    spec = DecoderSpec(features=("c", "e"), family="braindecode", conv=EEGNET)
    bundle = fit(windows[:90], stimuli, encoders, spec)
    found = np.stack([np.ravel(one.e) for one in bundle.decode(windows[90:])])
    truth = encoders.embed_images(stimuli.images)
    mean = truth[:90].mean(axis=0)
    assert two_way(correlation_matrix(truth[90:] - mean, found - mean)).mean() > 0.75
    assert bundle.meta["scores"]["e"]["used"] == "conv"
    np.testing.assert_allclose(np.ravel(bundle.decode(windows[90:91])[0].e), found[0], rtol=1e-4, atol=1e-5)
    bundle.save(tmp_path / "bundle")
    again = np.stack([np.ravel(one.e) for one in Bundle.load(tmp_path / "bundle").decode(windows[90:])])
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize(
    ("network", "parameters", "message"),
    [
        ("EEGnet", {}, "no network 'EEGnet'; near it are .*EEGNet"),
        ("EEGNet", {"kernels": 3}, r"EEGNet takes no windows of 12 channels and 20 times at 100 Hz \(.*kernels"),
        ("EEGInceptionERP", {}, "EEGInceptionERP takes no windows of 12 channels and 20 times"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(network: str, parameters: dict[str, int], message: str) -> None:
    """A name that is not braindecode's, a parameter that is not the network's, and windows too short for it."""
    pytest.importorskip("braindecode", reason="braindecode is an optional extra")
    with pytest.raises(TrainingError, match=message) as caught:
        make_network((12, 20), 100.0, 10, 1, ConvSpec(network=network, parameters=parameters))
    assert "\n" not in str(caught.value)


def test_without_braindecode_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "braindecode.models.util", None)
    with pytest.raises(TrainingError, match=re.escape("pip install 'minddiffuser[braindecode]'")):
        make_network((12, 20), 100.0, 10, 1, EEGNET)


def test_family_and_network_go_together() -> None:
    """A family without its network, or a network whose family does not use it, is refused with the way out."""
    with pytest.raises(ValidationError, match=r"family 'braindecode' needs conv\.network"):
        DecoderSpec(features=("e",), family="braindecode")
    with pytest.raises(ValidationError, match="set family to braindecode or auto"):
        DecoderSpec(features=("e",), family="conv", conv=EEGNET)
    assert DecoderSpec(features=("e",), family="auto", conv=EEGNET).conv.network == "EEGNet"
