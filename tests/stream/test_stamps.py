"""Time stamps of another clock, or of none: said within seconds, with a remedy that works."""

import logging
import time
import uuid

import numpy as np
import pytest

from stream.epochs.ingest import WindowSpec
from stream.lsl.discovery import load_lsl
from stream.lsl.live import SourceSpec
from stream.lsl.stamps import StampWatch, stamp_problems
from stream.signal.filters import FilterSpec
from stream.types.windows import Window
from tests.stream.amp import Amp, markers, outlet
from tests.stream.conftest import wait_for
from tests.stream.test_connections import SLIDING, WINDOW, label, logged, reading

UNIX = time.time() - load_lsl().local_clock()


@pytest.mark.parametrize(
    ("samples", "marks", "expected", "remedy"),
    [
        (UNIX, 0.0, ["samples of", "ahead of this machine's LSL clock", "no window"], {"stamps": "arrival"}),
        (-5000.0, 0.0, ["samples of", "5e+03 s behind", "no window"], {"stamps": "arrival"}),
        (0.0, UNIX, ["markers of", "ahead of", "source.markers.stamps"], {"markers": {"stamps": "arrival"}}),
    ],
    ids=["samples of POSIX time", "samples of another machine", "markers of POSIX time"],
)
def test_two_clocks(
    samples: float, marks: float, expected: list[str], remedy: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """Samples and markers of two clocks are named within five seconds; with the remedy windows lie right."""
    name, lsl = f"amp-{uuid.uuid4().hex[:12]}", load_lsl()
    caplog.set_level(logging.INFO)
    marker = markers(f"{name}-markers")

    def about(problems: list[str]) -> list[str]:
        return [line for line in problems if line.startswith(f"{expected[0]} {name!r:.5}")]

    with Amp(outlet(name), stamp=lambda at: at + samples) as amp:
        got: list[Window] = []
        with reading(SourceSpec(name=name), got) as ingest:
            wait_for(marker.have_consumers)
            marker.push_sample(["a"], lsl.local_clock() + marks)
            begun = time.monotonic()
            wait_for(lambda: about(ingest.stats().problems), 5)
            while time.monotonic() - begun < 3:  # it is one line, however often it is asked for
                [problem] = about(ingest.stats().problems)
                time.sleep(0.1)
        assert all(part in problem for part in expected)
        assert [record.getMessage() for record in caplog.records].count(problem) == 1
        assert got == []
        with reading(SourceSpec.model_validate({"name": name, **remedy}), got) as ingest:
            wait_for(marker.have_consumers)
            at = lsl.local_clock()
            marker.push_sample(["b"], at + marks)
            wait_for(lambda: got)
            assert about(ingest.stats().problems) == []
        first = got[0].data[0][0] * 1e6
        assert (first - (at - amp.begin) * 250) / 250 == pytest.approx(0.0, abs=0.1)


def test_one_foreign_clock_for_all(caplog: pytest.LogCaptureFixture) -> None:
    """Samples and markers of one foreign clock give windows; that their latencies are wrong is said."""
    name, lsl = f"amp-{uuid.uuid4().hex[:12]}", load_lsl()
    got: list[Window] = []
    marker = markers(f"{name}-markers")
    with Amp(outlet(name), stamp=lambda at: at + UNIX), reading(SourceSpec(name=name), got) as ingest:
        wait_for(marker.have_consumers)
        marker.push_sample(["a"], lsl.local_clock() + UNIX)
        wait_for(lambda: got)
        wait_for(lambda: any("windows are right, latencies are not" in line for line in ingest.stats().problems), 5)
    assert label(got[0]) == "a"
    assert logged(caplog, "windows are right, latencies are not")


def test_stamps_that_stand_still() -> None:
    """Samples that all carry one time stamp are named; by arrival their windows are whole."""
    name = f"amp-{uuid.uuid4().hex[:12]}"
    with Amp(outlet(name), stamp=lambda _: 7.0):
        with reading(SourceSpec(name=name), [], SLIDING) as ingest:
            wait_for(lambda: any("time stamp 7" in line for line in ingest.stats().problems), 5)
            [line] = [line for line in ingest.stats().problems if "time stamp 7" in line]
            assert "source.stamps: arrival" in line
        got: list[Window] = []
        with reading(SourceSpec(name=name, stamps="arrival"), got, SLIDING) as ingest:
            wait_for(lambda: len(got) > 15)
            assert ingest.stats().lost == 0
            assert not any("time stamp" in line for line in ingest.stats().problems)
        numbers = np.concatenate([window.data[0] for window in got]) * 1e6
        np.testing.assert_allclose(np.diff(numbers), 1.0, atol=1e-2)


def test_a_stall_is_no_other_clock() -> None:
    """Stamps that are late for a moment, as after a stall of our own, are none of another clock."""
    watch = StampWatch(after_s=0.2)
    watch.note(np.array([100.0]), 130.0)
    assert not watch.far
    watch.note(np.array([130.0]), 130.1)
    time.sleep(0.25)  # as long as it would have to last
    assert not watch.far
    watch.note(np.array([np.nan]), 130.2)
    watch.note(np.array([1e9]), 130.2)
    wait_for(lambda: watch.far)
    assert stamp_problems(("x", watch), [], 40.0)[0].startswith("samples of 'x' are stamped 1e+09 s ahead of")


def test_late_markers_are_none_of_another_clock() -> None:
    """A marker that is late by less than what the buffer holds is not called one of another clock."""
    samples, marks = StampWatch(), StampWatch(far_s=40.0, after_s=0.0)
    samples.note(np.array([1000.0]), 1000.1)
    marks.note(np.array([975.0]), 1000.1)
    assert stamp_problems(("x", samples), [("markers of 'm'", "source.markers.stamps", marks)], 40.0) == []
    marks.note(np.array([900.0]), 1000.1)
    [line] = stamp_problems(("x", samples), [("markers of 'm'", "source.markers.stamps", marks)], 40.0)
    assert line.startswith("markers of 'm' are stamped 100 s behind")


def test_trigger_onsets_lie_on_jittered_samples() -> None:
    """With chunks stamped as they arrive, an onset still lies on the sample that carries it."""
    name, rng = f"amp-{uuid.uuid4().hex[:12]}", np.random.default_rng(0)
    pulse = (1, lambda k: float(1000 + k // 50) if k % 50 < 10 else 0.0)
    got: list[Window] = []
    device = outlet(name, labels=("Cz", "Trigger"))
    spec = SourceSpec.model_validate({"name": name, "markers": {"channel": "Trigger"}})
    filters, window = FilterSpec(channels=("Cz",)), WindowSpec(tmin=0.0, tmax=0.04)
    amp = Amp(device, column=pulse, stamp=lambda at: at + float(rng.normal(0, 0.002)))
    with amp, reading(spec, got, window, filters):
        wait_for(lambda: len(got) >= 20)
    for one in got:
        assert one.event is not None
        assert one.event.code is not None
        assert round(float(one.data[0][0]) * 1e6) == (one.event.code - 1000) * 50


def test_the_window_of_a_marker_that_comes_late() -> None:
    """A marker whose window is over already gets it at once, with no sample to follow."""
    name, lsl = f"amp-{uuid.uuid4().hex[:12]}", load_lsl()
    marker, device = markers(f"{name}-markers"), outlet(name)
    got: list[Window] = []
    with reading(SourceSpec(name=name), got, WINDOW) as ingest:
        wait_for(lambda: marker.have_consumers() and device.have_consumers())
        begin = lsl.local_clock() - 2
        data = np.repeat(np.arange(500.0)[:, None], 2, axis=1)
        device.push_chunk(data, (begin + np.arange(500) / 250).tolist())
        wait_for(lambda: ingest.stats().samples == 500)
        marker.push_sample(["late"], begin + 1.0)
        wait_for(lambda: got)
    np.testing.assert_allclose(got[0].data[0], np.arange(250, 275) * 1e-6, rtol=1e-5)
