"""Traces for drawing: what was sampled, once each, and a spectrum that is right in level and frequency."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.display.traces import Traces, mains_in, mains_of, spectrum
from stream.lsl.tap import Tap
from stream.mqtt.messages import to_json
from stream.mqtt.wire_models import read_json
from stream.types.windows import Channels

CHANNELS = Channels(("Fz", "Cz", "aux"), ("eeg", "eeg", "misc"), ("V", "V", "count"))


def fed(tap: Tap, data: np.ndarray, rate: float, at: int = 0) -> None:
    """Feed rows of data, (n, n_channels), stamped from sample number `at` on."""
    tap.feed(data, (at + np.arange(len(data))) / rate)


@given(
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=25),
    rate=st.sampled_from([100.0, 128.0, 250.0, 500.0, 1000.0]),
    looks=st.integers(1, 4),
)
def test_frames_hold_each_sample_once(chunks: list[int], rate: float, looks: int) -> None:
    """However samples come and whenever one looks, the frames end to end are the means of blocks, each once."""
    tap = Tap()
    tap.sfreq = rate
    traces = Traces(tap, CHANNELS, ("Fz", "Cz"))
    assert traces.frame() is None
    data = np.random.default_rng(0).normal([0.1, 0.0, 5.0], 1e-5, (sum(chunks), 3))
    drawn: list[tuple[float, ...]] = []
    after, done, step = None, 0, int(np.ceil(rate / 128))
    for number, n in enumerate(chunks):
        fed(tap, data[done : done + n], rate, done)
        done += n
        if number % looks == 0 or number == len(chunks) - 1:
            frame = traces.frame(after)
            assert frame is not None
            assert frame["sfreq"] == rate / step
            drawn += zip(*frame["data"], strict=True)
            assert frame["next"] == len(drawn) == done // step
            assert frame["t"] is None or frame["t"] == pytest.approx((len(drawn) * step - 1) / rate)
            after = frame["next"]
    blocks = data[: len(drawn) * step, :2].astype(np.float32).astype(np.float64).reshape(-1, step, 2).mean(axis=1)
    np.testing.assert_allclose(np.array(drawn).reshape(-1, 2), blocks, rtol=6e-7)


def test_a_frame_says_what_is_drawn_and_is_plain_json() -> None:
    """The channels that the decoder takes are drawn, in SI units; what is not finite is null."""
    tap = Tap()
    tap.sfreq = 100.0
    traces = Traces(tap, CHANNELS, ("Cz",), mains_hz=60.0)
    traces.frame()
    fed(tap, np.array([[1.0, np.nan, 3.0], [1.0, 2.5e-5, 3.0]]), 100.0)
    frame = traces.frame()
    assert frame is not None
    assert read_json(to_json(frame), "frame") == {
        "t": 0.01, "sfreq": 100.0, "next": 2, "channels": ["Cz"], "units": ["V"], "data": [[None, 2.5e-5]],
        "spectrum": None, "mains_hz": 60.0,
    }  # fmt: skip
    frame = traces.frame(2)
    assert frame is not None
    assert (frame["data"], frame["next"]) == ([[]], 2)
    fresh = traces.frame(10**12)  # the number of another session: it begins with the newest seconds
    assert fresh is not None
    assert len(fresh["data"][0]) == 2


def test_where_no_channel_is_decoded_all_are_drawn() -> None:
    """A decoder of other channels leaves those of the stream to see what is there."""
    tap = Tap()
    tap.sfreq = 100.0
    traces = Traces(tap, CHANNELS, ("elsewhere",))
    traces.frame()
    fed(tap, np.ones((5, 3)), 100.0)
    frame = traces.frame()
    assert frame is not None
    assert frame["channels"] == ["Fz", "Cz", "aux"]


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_the_mains_line_is_seen(mains: float) -> None:
    """Noise of 1 uV with a sine of 5 uV at the mains: the peak is there, as high as it is, and named."""
    rate, n = 250.0, 1000
    rng = np.random.default_rng(1)
    hum = 5e-6 * np.sin(2 * np.pi * mains * np.arange(n) / rate)
    data = np.column_stack([rng.normal(0, 1e-6, (n, 2)) + hum[:, None], np.full(n, 1e6)])
    tap = Tap()
    tap.sfreq = rate
    traces = Traces(tap, CHANNELS)
    traces.frame()
    fed(tap, data, rate)
    frame = traces.frame()
    assert frame is not None
    found = frame["spectrum"]
    assert found["unit"] == "dB re 1 µV²/Hz"
    assert frame["mains_hz"] == mains
    db = dict(zip(found["hz"], found["db"], strict=True))
    assert max(db, key=lambda hz: db[hz]) == mains
    # The sine's power is 5^2 / 2 uV^2, which 2-s Hann segments spread over 0.75 Hz; the noise has 1 / 125 uV^2/Hz.
    assert db[mains] == pytest.approx(10 * np.log10(12.5 / 0.75), abs=0.5)
    assert np.median(list(db.values())) == pytest.approx(10 * np.log10(1 / 125), abs=1.5)


@given(seed=st.integers(0, 200), rate=st.sampled_from([100.0, 128.0, 250.0, 256.0, 1000.0]))
def test_noise_has_no_mains(seed: int, rate: float) -> None:
    """White noise, silence, and a rate that cannot hold the mains name none."""
    hz, db = spectrum(np.random.default_rng(seed).normal(0, 10, (8, round(4 * rate))), rate)
    assert mains_of(hz, db) is None
    assert hz[0] > 0
    assert hz[-1] <= min(100.0, rate / 2)
    assert mains_of(*spectrum(np.zeros((2, round(4 * rate))), rate)) is None


def test_a_configs_notch_names_the_mains() -> None:
    """Of a config's notches the one at a mains frequency counts; harmonics and others do not."""
    assert [mains_in(notches) for notches in ((50, 100), (59.9,), (16.7,), ())] == [50.0, 60.0, None, None]
