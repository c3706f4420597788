"""Decoders by way of the pooled embedding: the contrast, the convolutional encoder, and the prior to tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets, compute_targets
from decoder.data.training_set import Origin, TrainingSet, gather
from decoder.encoders.conv import ConvEncoder
from decoder.encoders.prior import fit_prior
from decoder.errors import TrainingError
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.features import Features
from decoder.models.bundle import Bundle
from decoder.models.embedding import EmbeddingModel
from decoder.models.linear import LinearModel
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import ConvSpec, DecoderSpec
from decoder.training.train import fit, fit_targets
from decoder.training.train_conv import adapt, fit_encoder, info_nce, smooth
from decoder.training.train_embedding import encoder_folds
from stream.types.windows import Channels, Window
from tests.decoder.conftest import LinearEncoders

CONV = ConvSpec(
    filters=8, kernel=0.05, pool=0.02, dropout=0.1, noise=0.0, epochs=60, patience=60, batch=32, learning_rate=5e-3
)
SPEC = DecoderSpec(features=("c", "e"), family="conv", conv=CONV, text_embedding_from="embedding")


class PooledEncoders(LinearEncoders):
    """Encoders whose tokens are linear in their pooled embedding."""

    def __init__(self, stimuli: StimulusTable) -> None:
        super().__init__(stimuli)
        self.e = self.c @ np.random.default_rng(8).normal(size=(10, 12))

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Give embeddings of 12 numbers."""
        return ((images.reshape(len(images), -1) / 255 - 0.5) @ self.e).astype(np.float32)


@pytest.fixture
def pooled(stimuli: StimulusTable) -> PooledEncoders:
    """Give encoders of the pictures."""
    return PooledEncoders(stimuli)


@pytest.fixture
def quiet(window_maker: Callable[..., list[Window]], stimuli: StimulusTable, channels: Channels) -> list[Window]:
    """Windows of little noise, one a picture."""
    return window_maker(stimuli, channels, noise=0.3, seed=3)


@pytest.fixture
def bundle(quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders) -> Bundle:
    """Train on the first 90 pictures."""
    return fit(quiet[:90], stimuli, pooled, SPEC)


def flat(features: list[Features]) -> np.ndarray:
    """Everything decoded, a row a window."""
    return np.stack([np.concatenate([f.c.ravel(), np.ravel(f.e), [f.confidence]]) for f in features])


def test_contrast_equals_its_formula() -> None:
    """Cross-entropy over cosines, both ways, where windows of one picture share the credit."""
    rng = np.random.default_rng(0)
    found, truth = rng.normal(size=(2, 5, 4))
    rows = np.array([0, 1, 2, 1, 0])
    truth[3], truth[4] = truth[1], truth[0]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, truth)]
    logits = 3.0 * unit[0] @ unit[1].T
    wanted = (rows[:, None] == rows) / (rows[:, None] == rows).sum(axis=1, keepdims=True)
    expected = 0.0
    for scores in (logits, logits.T):
        log_share = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        expected -= (wanted * log_share).sum(axis=1).mean() / 2
    loss = info_nce(*(torch.from_numpy(x) for x in (found, truth, rows)), torch.tensor(3.0))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_an_impulse_is_smoothed_to_a_gaussian_in_its_share() -> None:
    """Share 0 leaves a window as it is, share 1 makes the Gaussian of it; what is constant stays, ends included."""
    x = torch.zeros(3, 1, 41)
    x[:2, 0, 20] = 1
    x[2] = 5
    smoothed = smooth(x, 2.0, torch.tensor([0.0, 1.0, 1.0])).numpy()
    gaussian = np.exp(-0.5 * ((np.arange(41) - 20) / 2) ** 2)
    np.testing.assert_array_equal(smoothed[0], x[0].numpy())
    np.testing.assert_allclose(smoothed[1, 0, 10:31], (gaussian / gaussian.sum())[10:31], atol=1e-5)
    np.testing.assert_allclose(smoothed[2], 5, rtol=1e-6)


def test_pictures_never_trained_on_are_told_apart(
    bundle: Bundle, quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders
) -> None:
    """The encoder's embedding, and the tokens that the prior makes of it, are well above chance."""
    found = bundle.decode(quiet[90:])
    truth = pooled.embed_images(stimuli.images[90:])
    tokens = pooled.encode_text([f"caption {i}" for i in range(90, 120)])
    c = np.stack([f.c for f in found])
    assert two_way(correlation_matrix(truth, np.stack([np.asarray(f.e) for f in found]))).mean() > 0.7
    assert two_way(correlation_matrix(tokens[:, 1:], c[:, 1:])).mean() > 0.7
    np.testing.assert_allclose(c[:, 0], tokens[:, 0])


def test_a_window_alone_equals_its_batch(bundle: Bundle, quiet: list[Window]) -> None:
    """Decoding one by one gives what decoding all at once gives."""
    alone = flat([bundle.decode([window])[0] for window in quiet])
    np.testing.assert_allclose(alone, flat(bundle.decode(quiet)), rtol=1e-4, atol=1e-5)


def test_a_saved_bundle_decodes_to_the_same_bits(bundle: Bundle, quiet: list[Window], tmp_path: Path) -> None:
    """Network, prior and calibration come back whole."""
    bundle.save(tmp_path / "b")
    np.testing.assert_array_equal(flat(Bundle.load(tmp_path / "b").decode(quiet)), flat(bundle.decode(quiet)))


def test_noise_alone_tells_nothing(
    window_maker: Callable[..., list[Window]], stimuli: StimulusTable, channels: Channels, pooled: PooledEncoders
) -> None:
    """On windows without a signal, held-out identification is at chance, however well the network learns by heart."""
    noise = window_maker(stimuli, channels, noise=1.0, signal=0.0, seed=5)
    scores = fit(noise, stimuli, pooled, SPEC).meta["scores"]
    # Two-way identification of 120 pictures by chance: 0.5, standard error about 0.29 / sqrt(120).
    assert abs(scores["e"]["conv"]["two_way"] - 0.5) < 4 * 0.29 / 120**0.5
    assert abs(scores["c"]["embedding"]["two_way"] - 0.5) < 4 * 0.29 / 120**0.5


def test_auto_keeps_what_tells_held_out_pictures_apart_better(
    quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders
) -> None:
    """In a linear world of few pictures ridge wins, and the bundle says what was compared."""
    spec = SPEC.model_copy(update={"family": "auto", "conv": CONV.model_copy(update={"epochs": 2})})
    bundle = fit(quiet[:90], stimuli, pooled, spec)
    model, scores = bundle.models["all"], bundle.meta["scores"]["e"]
    assert isinstance(model, EmbeddingModel)
    assert model.calibrated_encoder is None
    assert scores["used"] == "ridge"
    assert scores["ridge"]["two_way"] > scores["conv"]["two_way"]


def test_the_default_compares_all_where_there_is_an_embedding_and_is_ridge_elsewhere(
    quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders
) -> None:
    """Nobody asked for a family: with e, all families' held-out figures are in the bundle; without, ridge is all."""
    compared = fit(quiet[:40], stimuli, pooled, DecoderSpec(features=("c", "e"), conv=CONV, cv_folds=2))
    scores = compared.meta["scores"]
    assert {"ridge", "conv", "used"} == set(scores["e"])
    assert {"tokens", "embedding", "used"} == set(scores["c"])
    for score, rivals in ((scores["e"], ("ridge", "conv")), (scores["c"], ("tokens", "embedding"))):
        assert score["used"] == max(rivals, key=lambda name: score[name]["two_way"])
    assert isinstance(
        fit(quiet[:40], stimuli, pooled, DecoderSpec(features=("c",), cv_folds=2)).models["all"], LinearModel
    )


def test_an_encoder_goes_with_an_encoding_model(
    quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders, tmp_path: Path
) -> None:
    """The encoder is compared with ridge on e alone; the encoding model and what it decodes are there all the same."""
    through = {"features": ("blocks", "pooled", "early"), "posterior": ("z",)}
    few = CONV.model_copy(update={"epochs": 4})
    spec = DecoderSpec(features=("z", "s", "e"), blocks=(1,), family="conv", conv=few, cv_folds=3, encoding=through)
    bank = compute_targets(stimuli, pooled, features=spec.image_bank_features, blocks=(1,), seen=spec.seen)
    made = fit(quiet, stimuli, pooled, spec, image_bank=bank)
    made.save(tmp_path / "bundle")
    one, other = (each.decode(quiet[:1])[0] for each in (made, Bundle.load(tmp_path / "bundle")))
    assert one.evidence is not None
    assert {*one.evidence.maps} >= {"s1", "CLIP pooled", "contrast"}
    for name in ("z", "s1", "e"):
        np.testing.assert_array_equal(one.decoded(name), other.decoded(name))


def test_what_asks_for_an_embedding_says_so() -> None:
    """An encoder or a prior without e among the features is refused by its name; the defaults are not."""
    assert DecoderSpec(features=("c",)).family == "auto"
    with pytest.raises(
        ValidationError, match=r"family 'conv' with text_embedding_from 'embedding' decodes .*: add e to features"
    ):
        DecoderSpec(features=("c",), family="conv", text_embedding_from="embedding")


def test_where_an_encoder_cannot_be_trained_the_default_is_ridge(
    quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders
) -> None:
    """Of four pictures no fold leaves enough for an encoder: the bundle says why it was not compared."""
    bundle = fit(quiet[:4] * 5, stimuli, pooled, DecoderSpec(features=("e",), conv=CONV, cv_folds=2))
    assert bundle.meta["scores"]["e"]["used"] == "ridge"
    assert "needs 4" in bundle.meta["scores"]["e"]["not_compared"]


@pytest.mark.parametrize("split", ["picture", "run"])
def test_encoder_and_ridge_are_compared_on_the_folds_of_the_spec(
    quiet: list[Window], stimuli: StimulusTable, split: str
) -> None:
    """No picture, and where asked no run, is on both sides; every window is held out once."""
    origins = [Origin(f"run{row % 4}", "", "") for row in range(len(quiet))]
    spec = DecoderSpec(features=("e",), split=split)  # type: ignore[arg-type]
    samples = gather(quiet, stimuli, spec, origins=origins)
    folds = encoder_folds(samples, spec)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(len(quiet)))
    mixed = False
    for train, test in folds:
        assert not set(samples.groups[train]) & set(samples.groups[test])
        mixed |= bool(set(samples.runs[train]) & set(samples.runs[test]))
    assert mixed == (split == "picture")


def test_prior_learns_a_linear_map() -> None:
    """Where tokens are linear in the embedding, held-out embeddings give their tokens; constants are carried along."""
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(200, 8)).astype(np.float32)
    tokens = np.concatenate([np.ones((200, 1, 3)), (embeddings @ rng.normal(size=(8, 6))).reshape(200, 2, 3)], axis=1)
    prior = fit_prior(embeddings[:150], tokens[:150].astype(np.float32), rng)
    np.testing.assert_allclose(prior(embeddings[150:]), tokens[150:], atol=1e-2)


def test_a_bank_of_captioned_pictures_teaches_the_prior(
    quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders
) -> None:
    """The prior learns from the bank alone: what the shown pictures' captions say changes not a number of it."""
    rng = np.random.default_rng(3)
    tokens = pooled.encode_text([f"caption {i}" for i in range(90, 120)])
    image_bank = Targets(c=tokens, e=pooled.embed_images(stimuli.images[90:]))
    spec = DecoderSpec(features=("c", "e"), family="ridge", text_embedding_from="embedding", c_gain=0)
    shown = stimuli.select(stimuli.ids[:90])
    found = {}
    for name, noise in (("true", 0.0), ("spoilt", 1.0)):
        c = pooled.encode_text([f"caption {i}" for i in range(90)])
        c[:, 1:] += noise * rng.normal(size=c[:, 1:].shape)
        found[name] = fit_targets(
            quiet[:90], shown, Targets(c=c, e=pooled.embed_images(shown.images)), spec, image_bank=image_bank
        )
    score = found["true"].meta["scores"]["c"]
    assert score["embedding"]["pictures"] == 30
    assert score["embedding"]["two_way"] > 0.7
    weights = [bundle.models["all"].tensors()["prior.weights"] for bundle in found.values()]
    np.testing.assert_array_equal(*weights)


def test_too_few_pictures_are_refused(quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders) -> None:
    """Three pictures leave nothing to stop by; the message says so."""
    with pytest.raises(TrainingError, match="pictures"):
        fit(quiet[:3] * 8, stimuli, pooled, SPEC)


def training_set(
    data: np.ndarray, times: np.ndarray, rows: np.ndarray, subjects: np.ndarray | None = None
) -> TrainingSet:
    """Windows of one recording, each picture a group of its own."""
    names, channels = rows.astype(str), tuple(str(place) for place in range(data.shape[1]))
    return TrainingSet(data, times, rows, names, np.full(len(rows), "run"), names, channels, subjects)


def test_a_new_subject_needs_few_windows(window_maker: Callable[..., list[Window]], channels: Channels) -> None:
    """Under a trunk learned from two others, 40 windows of a third tell pictures apart that they can't on their own."""
    images = np.random.default_rng(0).integers(0, 256, (340, 4, 4, 3), dtype=np.uint8)
    stimuli = StimulusTable(tuple(f"p{i}" for i in range(340)), images, tuple((f"caption {i}",) for i in range(340)))
    embeddings = PooledEncoders(stimuli).embed_images(images)
    embeddings -= embeddings.mean(axis=0)

    def seen_by(rows: np.ndarray, **seed_of_subject: int) -> TrainingSet:
        data = []
        for turn_seed, seed in seed_of_subject.items():
            turn, _ = np.linalg.qr(np.random.default_rng(ord(turn_seed)).normal(size=(len(channels), len(channels))))
            windows = window_maker(stimuli, channels, noise=2.0, seed=seed)
            data += [(turn @ windows[row].data).astype(np.float32) for row in rows]
        shown = np.tile(rows, len(seed_of_subject))
        subjects = np.repeat(list(seed_of_subject), len(rows))
        return training_set(np.stack(data), np.arange(20) / 100, shown, subjects)

    spec = CONV.model_copy(update={"epochs": 30, "filters": 16, "learning_rate": 5e-3})
    whitened = PreprocessSpec(whiten=True)
    trunk = fit_encoder(seen_by(np.arange(300), a=1, b=2), embeddings, whitened, spec, np.random.default_rng(0))
    trunk.spec = spec.model_copy(update={"learning_rate": 1e-2})
    few, test = seen_by(np.arange(40), c=3), seen_by(np.arange(300, 340), c=4)

    def told(encoder: ConvEncoder) -> float:
        return float(two_way(correlation_matrix(embeddings[300:], encoder(test.data))).mean())

    alone = fit_encoder(few, embeddings, whitened, spec, np.random.default_rng(1))
    moved = adapt(trunk, few, embeddings, np.random.default_rng(1))
    assert told(moved) > 0.6
    assert told(moved) > told(alone) + 0.05


def test_few_windows_teach_more_where_they_are_smoothed() -> None:
    """Of 60 windows of slow answers in fast noise an encoder learns more with `smoothing` than without."""

    def told(seed: int, smoothing: float) -> float:
        rng = np.random.default_rng(seed)
        embeddings = rng.normal(size=(260, 6)).astype(np.float32)
        course = np.exp(-0.5 * ((np.arange(30) - 15) / 5) ** 2)
        answers = (embeddings @ rng.normal(size=(6, 12)))[:, :, None] * course
        data = (answers + 4 * rng.normal(size=answers.shape)).astype(np.float32)
        samples = training_set(data[:60], np.arange(30) / 100, np.arange(60))
        spec = CONV.model_copy(update={"epochs": 40, "patience": 40, "smoothing": smoothing})
        encoder = fit_encoder(samples, embeddings, PreprocessSpec(), spec, np.random.default_rng(1))
        return float(two_way(correlation_matrix(embeddings[60:], encoder(data[60:]))).mean())

    gains = [told(seed, smoothing=0.05) - told(seed, smoothing=0.0) for seed in range(3)]
    assert np.mean(gains) > 0.03


def test_one_sample_a_window_is_enough() -> None:
    """Volumes, which have no course in time, are told apart by a network without temporal filters."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(240, 6)).astype(np.float32)
    data = (embeddings @ rng.normal(size=(6, 20)) + 0.5 * rng.normal(size=(240, 20))).astype(np.float32)[:, :, None]
    rows = np.arange(200)
    samples = training_set(data[:200], np.zeros(1), rows)
    spec = CONV.model_copy(update={"filters": 32})
    encoder = fit_encoder(samples, embeddings, PreprocessSpec(), spec, np.random.default_rng(1))
    assert not any(name.startswith("temporal") for name, _ in encoder.network.named_parameters())
    assert two_way(correlation_matrix(embeddings[200:], encoder(data[200:]))).mean() > 0.85


def test_volumes_go_all_the_way_to_a_bundle(
    quiet: list[Window], stimuli: StimulusTable, pooled: PooledEncoders, tmp_path: Path
) -> None:
    """Windows of one sample, of which no surrogate can be turned round, train an encoder whose bundle decodes alike."""
    volumes = [replace(one, data=one.data.reshape(-1, 1)[:12]) for one in quiet]
    bundle = fit(volumes[:90], stimuli, pooled, SPEC)
    bundle.save(tmp_path / "bundle")
    np.testing.assert_array_equal(
        flat(Bundle.load(tmp_path / "bundle").decode(volumes[90:])), flat(bundle.decode(volumes[90:]))
    )
