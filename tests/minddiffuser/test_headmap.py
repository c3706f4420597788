"""The signal by channel: where it sits, how strong it is against the calibration, and what is wrong with it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.live.headmap import HeadMap, places_of
from stream.epochs.ingest_stats import IngestStats
from stream.mqtt.messages import to_json
from stream.mqtt.topics import read
from stream.quality.signal_profile import SignalProfile
from stream.types.montage import NOTHING_KNOWN, Montage
from stream.types.windows import Channels

NAMES = ("Fz", "Cz", "Oz", "T7", "E12")
CHANNELS = Channels(NAMES, ("eeg",) * 5, ("V",) * 5)
PROFILE = SignalProfile(names=NAMES[:4], kinds=("eeg",) * 4, units=("V",) * 4, level=(1e-5,) * 4)


def by_name(signal: dict[str, list[dict[str, object]]]) -> dict[str, dict[str, object]]:
    """Return the channels of a signal by name."""
    return {str(channel["name"]): channel for channel in signal["channels"]}


def test_names_of_the_ten_twenty_system_have_their_places() -> None:
    """Nose up, right ear to the right, the vertex in the middle; older names lie where the new ones do."""
    at = places_of(["Cz", "Fz", "Oz", "T8", "T7", "T4", "Fp1", "E12", "cz"], NOTHING_KNOWN, [])
    assert at["Cz"] == at["cz"] == pytest.approx((0, 0), abs=0.01)
    assert at["Fz"] == pytest.approx((0, 0.51), abs=0.02)
    assert at["Oz"] == pytest.approx((0, -1.02), abs=0.02)
    assert at["T8"] == at["T4"] == pytest.approx((1.02, 0), abs=0.02)
    assert at["T7"][0] < 0
    assert at["Fp1"][0] < 0
    assert at["Fp1"][1] > 0.9
    assert "E12" not in at


@given(
    st.lists(st.tuples(st.floats(0.05, 1.5), st.floats(-math.pi, math.pi)), min_size=10, max_size=40, unique=True),
    st.tuples(*[st.floats(-0.05, 0.05)] * 3),
    st.floats(0.06, 0.12),
)
def test_a_streams_own_places_are_unrolled_about_its_own_centre(
    angles: list[tuple[float, float]], centre: tuple[float, float, float], radius: float
) -> None:
    """Wherever a cap's sphere sits and however large it is, each electrode lies at its own angles."""
    turned = np.array([(math.sin(t) * math.cos(a), math.sin(t) * math.sin(a), math.cos(t)) for t, a in angles])
    spread = np.linalg.svd(turned - turned.mean(axis=0))[1]
    if spread[-1] < 0.05:  # all but in one plane: they tell of no sphere
        return
    names = [f"E{i}" for i in range(len(angles))]
    places = tuple(map(tuple, (turned * radius + centre).tolist()))
    at = places_of(names, Montage(places=places), names)
    for name, (t, a) in zip(names, angles, strict=True):
        outward = t / (math.pi / 2)
        assert at[name] == pytest.approx((outward * math.cos(a), outward * math.sin(a)), abs=5e-3)


def test_each_channel_is_held_against_its_own_level() -> None:
    """Beyond five times the calibration's level is noisy, below a tenth weak; without one it is unknown."""
    head = HeadMap(CHANNELS, NOTHING_KNOWN, NAMES, PROFILE)
    levels = {"Fz": 1.1e-5, "Cz": 6e-5, "Oz": 5e-7, "E12": 1e-5}
    found = by_name(head.update(levels, IngestStats(state="streaming")))
    assert [found[name]["status"] for name in NAMES] == ["good", "bad", "bad", "unknown", "unknown"]
    assert found["Cz"]["reason"] == "noisy: 6 times the calibration's level"
    assert found["Oz"]["reason"] == "weak: 0.05 times the calibration's level"
    assert (found["Fz"]["level"], found["Fz"]["reference_level"], found["Fz"]["unit"]) == (1.1e-5, 1e-5, "V")
    assert (found["T7"]["level"], found["E12"]["x"]) == (None, None)
    assert found["Fz"]["y"] == pytest.approx(0.51, abs=0.02)


def test_a_blink_is_no_bad_channel_and_noise_that_stays_is() -> None:
    """The median of the last seconds counts: one loud second changes nothing, three of five do."""
    head = HeadMap(CHANNELS, NOTHING_KNOWN, NAMES, PROFILE)
    levels = (1e-5, 1e-5, 1e-3, 1e-5, 1e-5, 1e-5, 1e-3, 1e-3, 1e-3)
    statuses = [by_name(head.update({"Fz": level}, IngestStats()))["Fz"]["status"] for level in levels]
    assert statuses == ["good"] * 8 + ["bad"]


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        (IngestStats(state="lost"), "its stream is lost"),
        (IngestStats(bad_channels=("Fz",)), "no usable samples"),
        (IngestStats(flat_channels=("Fz",)), "flat: it does not move"),
    ],
)
def test_what_the_stream_knows_is_named(stats: IngestStats, reason: str) -> None:
    """A channel of good level is bad where the stream knows better, in words, without a calibration too."""
    for profile in (PROFILE, None):
        head = HeadMap(CHANNELS, NOTHING_KNOWN, NAMES, profile)
        channel = by_name(head.update({"Fz": 1e-5}, stats))["Fz"]
        assert (channel["status"], channel["reason"]) == ("bad", reason)
    marked = HeadMap(CHANNELS, Montage(bads=("Fz",)), NAMES, PROFILE)
    channel = by_name(marked.update({"Fz": 1e-5}, IngestStats()))["Fz"]
    assert channel["reason"] == "marked as bad by the recording system"


def test_many_channels_are_a_message_that_every_receiver_takes() -> None:
    """The signal of more channels than a page shows is cut, and whatever the levels are it passes the wire's model."""
    names = tuple(f"E{i}" for i in range(2000))
    channels = Channels(names, ("mag",) * 2000, ("T",) * 2000)
    head = HeadMap(channels, NOTHING_KNOWN, names)
    levels = dict(zip(names, [math.nan, math.inf, 0.0, 1e-13] * 500, strict=True))
    signal = head.update(levels, IngestStats())
    assert len(read("metrics", to_json({"signal": signal}), "x")["signal"]["channels"]) == 1024
