"""Channels that nothing can be learned from are left out by name; what is left of the range of the others is used."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.adaptation.recalibrate import recalibrate
from decoder.alignment.realign import Realigner, RealignSpec
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.errors import TrainingError
from decoder.estimators.classifiers import CategorySpec, fit_classifier, xdawn
from decoder.estimators.regression import RegressionSpec
from decoder.models.bundle import Bundle
from decoder.models.confidence import fit_typicality
from decoder.preprocessing.badchannels import find_bad_channels, without_bad_channels
from decoder.preprocessing.preprocess import PreprocessSpec, noise_whitener
from decoder.spec import DecoderSpec
from decoder.training.train import fit, fit_targets
from stream.types.events import Event
from stream.types.windows import Channels, Quality, Window
from tests.decoder.conftest import LinearEncoders, make_windows
from tests.decoder.test_category import labelled
from tests.decoder.test_embedding import CONV, PooledEncoders

ALL = PreprocessSpec(components=None)
FAMILIES = {
    "ridge": DecoderSpec(features=("c", "z", "s"), blocks=(1,)),
    "whitened": DecoderSpec(features=("z",), preprocess=PreprocessSpec(whiten=True, whiten_time=True)),
    "kernel": DecoderSpec(features=("z",), preprocess=PreprocessSpec(kernel="rbf")),
    "one penalty": DecoderSpec(features=("z",), preprocess=ALL, regression=RegressionSpec(per_target=False)),
    "conv": DecoderSpec(features=("c", "e"), family="conv", conv=CONV.model_copy(update={"epochs": 2, "cv_folds": 2})),
    "erp": DecoderSpec(features=("c",), category=CategorySpec(choose=None)),
    "pattern": DecoderSpec(features=("c",), category=CategorySpec(method="pattern"), preprocess=ALL),
    "frequency": DecoderSpec(
        features=("c",), category=CategorySpec(method="frequency", frequencies={"p0": 10.0, "p1": 20.0})
    ),
}
EVENT = Event(0.0, "")
SPOILT = ("flat", "doubled", "doubled and turned", "railed", "not finite", "infinite")


def spoilt_by(how: str, data: np.ndarray) -> np.ndarray:
    """Give the samples of one bad channel beside windows (n, n_channels, n_times)."""
    n, _, n_times = data.shape
    constant = {"flat": 0.0, "railed": 0.187, "not finite": np.nan, "infinite": np.inf}
    if how in constant:
        return np.full((n, 1, n_times), constant[how], np.float32)
    return data[:, 2:3] * np.float32(1 if how == "doubled" else -0.37)


def with_channel(windows: list[Window], samples: np.ndarray) -> list[Window]:
    """Put a channel named 'bad' in the fourth place."""
    own = windows[0].channels
    channels = Channels(*((*v[:3], x, *v[3:]) for v, x in ((own.names, "bad"), (own.kinds, "eeg"), (own.units, "V"))))
    return [
        replace(w, data=np.insert(w.data, 3, extra[0], axis=0), channels=channels)
        for w, extra in zip(windows, samples, strict=True)
    ]


def decoded(bundle: Bundle, windows: list[Window]) -> np.ndarray:
    """Everything decoded, a row a window."""
    out = []
    for one in bundle.without_memory().decode(windows):
        parts = [one.c.ravel(), [one.confidence], list(one.categories.values())]
        parts += [part.ravel() for part in (one.z, one.e) if part is not None]
        out.append(np.concatenate([*parts, *(one.s[block].values for block in one.s)]))
    return np.stack(out)


def trained(family: str, windows: list[Window], stimuli: StimulusTable) -> Bundle:
    """Fit a family; category decoders tell two pictures apart."""
    return fit(windows, stimuli, PooledEncoders(stimuli), FAMILIES[family])


def shown(family: str, windows: list[Window]) -> list[Window]:
    """Give the windows of a family: of category decoders, eighty of the first two pictures in turn."""
    if FAMILIES[family].category is None:
        return windows[:60]
    first = [w.event for w in windows[:2]]
    return [replace(w, event=first[row % 2]) for row, w in enumerate(windows[:80])]


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bad_channel_is_named_and_changes_nothing(
    family: str, how: str, stimuli: StimulusTable, windows: list[Window], caplog: pytest.LogCaptureFixture
) -> None:
    """A bundle trained beside it is the one trained without it, and stays so whatever the channel does later."""
    given_windows = shown(family, windows)
    data = np.stack([w.data for w in given_windows])
    bundle = trained(family, with_channel(given_windows, spoilt_by(how, data)), stimuli)
    plain = trained(family, given_windows, stimuli)
    assert "1 of 13 channels are left out of training: bad (" in caplog.text
    assert set(bundle.meta["channels_left_out"]) == {"bad"}
    assert bundle.channels == plain.channels
    fresh = windows[80:100]
    expected = decoded(plain, fresh)
    later = np.stack([w.data for w in fresh])
    wild = (1e3 * np.random.default_rng(0).normal(size=(20, 1, later.shape[2]))).astype(np.float32)
    for samples in (*(spoilt_by(each, later) for each in SPOILT), wild):
        np.testing.assert_array_equal(decoded(bundle, with_channel(fresh, samples)), expected)


def averaged(windows: list[Window]) -> list[Window]:
    """Refer windows to the average of their channels, in float32 as they come."""
    return [replace(w, data=w.data - w.data.mean(axis=0, keepdims=True)) for w in windows]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_average_reference_amplifies_no_rounding_errors(
    family: str, stimuli: StimulusTable, windows: list[Window]
) -> None:
    """What all channels share is rounding errors: a thousand times as much of it changes next to nothing decoded."""
    referred = averaged(windows)
    bundle = trained(family, shown(family, referred), stimuli)
    fresh = referred[80:110]
    rng = np.random.default_rng(0)
    rms = float(np.sqrt(np.mean([np.square(w.data).mean() for w in fresh])))
    shaken = [
        replace(w, data=w.data + (1e-4 * rms * rng.normal(size=(1, w.data.shape[1]))).astype(np.float32)) for w in fresh
    ]
    one, other = decoded(bundle, fresh), decoded(bundle, shaken)
    assert np.isfinite(one).all()
    scale = np.maximum(one.std(axis=0), 1e-3 * one.std())
    assert (np.abs(one - other) / scale).max() < 0.05


def test_whitening_leaves_the_null_space_out(windows: list[Window]) -> None:
    """After an average reference the whitener takes nothing of what all channels share, and whitens the rest."""
    data = np.stack([w.data for w in averaged(windows)]).astype(np.float64)
    whitener = noise_whitener(data.astype(np.float32))
    n_channels = data.shape[1]
    assert np.abs(whitener @ np.ones(n_channels)).max() < 1e-3 * np.abs(whitener).max()
    white = np.einsum("kc,nct->nkt", whitener, data - data.mean(axis=0))
    values = np.linalg.eigvalsh(np.cov(white.transpose(1, 0, 2).reshape(n_channels, -1)))
    np.testing.assert_allclose(values, [0, *[1] * (n_channels - 1)], atol=0.2)


def test_filters_of_a_signal_without_full_rank_are_those_of_its_range() -> None:
    """With a doubled and a dead channel, Xdawn finds what it finds without them."""
    rng = np.random.default_rng(0)
    rows = np.arange(80) % 2
    data = rng.normal(size=(80, 5, 40)) + rows[:, None, None] * np.outer(rng.normal(size=5), np.hanning(40))
    filters, prototypes = xdawn(data, rows, 2)
    wide = np.concatenate([data, data[:, 1:2], 0 * data[:, :1]], axis=1)
    wide_filters, wide_prototypes = xdawn(wide, rows, 2)
    assert np.abs(wide_filters).max() < 3 * np.abs(filters).max()
    for one, other in zip(prototypes, wide_prototypes, strict=True):
        assert abs(np.corrcoef(one, other)[0, 1]) > 1 - 1e-9
    classifier = fit_classifier(labelled(wide.astype(np.float32), rows.astype(np.intp)), CategorySpec())
    assert np.isfinite(classifier(wide)).all()


def test_typicality_of_rounding_errors_is_no_artefact(windows: list[Window]) -> None:
    """After an average reference, windows of the same kind are typical, and so are those rounded anew."""
    data = np.stack([w.data for w in averaged(windows)])
    typicality = fit_typicality(data[:90])
    assert typicality(data[90:]).mean() > 0.9
    rounded = (data[90:] * np.float32(3)) / np.float32(3)
    np.testing.assert_allclose(typicality(rounded), typicality(data[90:]), atol=1e-3)


def test_sessions_with_a_dead_channel_are_moved_to_and_followed(
    stimuli: StimulusTable, channels: Channels, encoders: LinearEncoders, caplog: pytest.LogCaptureFixture
) -> None:
    """A channel that the bundle reads and the session lost: it is named, and nothing ends in a traceback."""
    bundle = fit(make_windows(stimuli, channels, noise=1.0, seed=1), stimuli, encoders, DecoderSpec(features=("z",)))
    session = [replace(w, data=w.data.copy()) for w in make_windows(stimuli, channels, noise=1.0, seed=2)]
    for window in session:
        window.data[5] = 0
    moved = recalibrate(bundle, session, stimuli, encoders)
    assert "carry nothing in this session: E5 (flat)" in caplog.text
    assert np.isfinite(decoded(moved, session)).all()
    realigner = Realigner(bundle, RealignSpec(every=20, memory=60))
    for window in session:
        assert np.isfinite(np.asarray(realigner.decode([window])[0].z)).all()
        realigner.follow()
    for window in session:
        window.data[5] = np.nan
    with pytest.raises(TrainingError, match=r"this session lacks: E5 \(not finite in 120 of 120 windows\)"):
        recalibrate(bundle, session, stimuli, encoders)


def test_where_no_channel_is_left_the_reasons_are_given(
    stimuli: StimulusTable, windows: list[Window], encoders
) -> None:
    """All channels flat: one line that names some of them."""
    silent = [replace(w, data=np.zeros_like(w.data)) for w in windows]
    with pytest.raises(TrainingError, match=r"no channel can be learned from: E0 \(flat\), .* and 4 more"):
        fit(silent, stimuli, encoders, DecoderSpec(features=("z",)))


def test_gaps_are_not_the_channels_fault(windows: list[Window]) -> None:
    """Windows in which no channel is finite are lost samples: they count against none."""
    gone = [replace(w, data=np.full_like(w.data, np.nan)) for w in windows[:100]]
    assert find_bad_channels([*gone, *windows[100:]]) == {}
    empty = [replace(w, data=0 * w.data, quality=Quality(rejected="lost")) for w in windows[:100]]
    assert find_bad_channels([*empty, *windows[100:]]) == {}
    assert find_bad_channels(empty) == {}


def test_healthy_channels_are_left_alone(windows: list[Window]) -> None:
    """Correlated channels, faint ones, and those of unlike units stay, and the very windows come back."""
    mixing = np.eye(12) + 3 * np.ones((12, 12))
    gains = np.array([1e-2] * 3 + [1.0] * 9)[:, None]
    units = Channels(windows[0].channels.names, ("mag",) * 6 + ("eeg",) * 6, ("T",) * 6 + ("V",) * 6)
    scale = np.array([1e-9] * 6 + [1] * 6)[:, None]
    mixed = [replace(w, data=(gains * scale * (mixing @ w.data)).astype(np.float32), channels=units) for w in windows]
    kept, left_out = without_bad_channels(mixed)
    assert left_out == {}
    assert all(one is other for one, other in zip(kept, mixed, strict=True))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([1e-12, 1.0, 1e14]),
    st.sampled_from(["ridge", "whitened", "kernel", "one penalty", "pattern", "erp"]),
)
def test_little_data_ends_in_one_line_or_in_numbers(
    n: int, n_channels: int, n_times: int, n_pictures: int, scale: float, family: str
) -> None:
    """Few windows, channels, times and pictures, tiny and huge: a DecoderError, or features that are finite."""
    rng = np.random.default_rng(n)
    ids = tuple(f"p{row}" for row in range(n_pictures))
    stimuli = StimulusTable(ids, rng.integers(0, 256, (n_pictures, 4, 4, 3), dtype=np.uint8))
    channels = Channels(tuple(f"E{i}" for i in range(n_channels)), ("eeg",) * n_channels, ("V",) * n_channels)
    windows = [
        replace(
            Window(f"w{row}", np.zeros(0, np.float32), channels, 100.0, float(row), 0.0, None, 0.0, 0.0),
            data=(scale * rng.normal(size=(n_channels, n_times))).astype(np.float32),
            event=replace(EVENT, label=ids[row % n_pictures]),
        )
        for row in range(n)
    ]
    spec = FAMILIES[family].model_copy(update={"features": ("c", "z"), "blocks": (), "cv_folds": 2})
    features = rng.normal(size=(2, n_pictures, 2, 3, 3)).astype(np.float32)
    targets = Targets(c=features[0], z=features[1])
    try:
        bundle = fit_targets(windows, stimuli, targets, spec)
    except TrainingError:
        return
    assert np.isfinite(decoded(bundle, windows)).all()
