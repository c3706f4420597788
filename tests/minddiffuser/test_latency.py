"""Latencies by step."""

import numpy as np
import pytest

from minddiffuser.archive.latency import EDGES_MS, Latencies


def test_percentiles_are_of_the_differences_between_the_named_times() -> None:
    """Each step is the time between two stamps, in milliseconds, by numpy's percentiles."""
    latencies = Latencies()
    seconds = np.random.default_rng(0).uniform(0.1, 0.5, 200)
    for value in seconds:
        latencies.add({"acquired": 10.0, "ready": 10.01, "decoded": 10.03, "published": 10.0 + value})
    got = latencies.percentiles()
    assert got["total"]["p50"] == pytest.approx(np.percentile(seconds, 50) * 1e3, abs=0.01)
    assert got["total"]["p99"] == pytest.approx(np.percentile(seconds, 99) * 1e3, abs=0.01)
    assert got["decoded"]["p50"] == pytest.approx(20.0)
    assert got["window_ready"]["p99"] == pytest.approx(10.0)


def test_a_step_that_never_happened_has_no_figure() -> None:
    """Without a preview there is no preview latency, rather than a made-up one."""
    latencies = Latencies()
    latencies.add({"acquired": 1.0, "ready": 1.1})
    assert latencies.percentiles()["preview"] == {"p50": None, "p99": None}


def test_histograms_count_every_picture_once() -> None:
    """Bins hold what numpy counts up to each edge; what lies above the last edge is in the open bin."""
    latencies = Latencies(length=10)
    seconds = np.random.default_rng(1).exponential(1.0, 500)
    for value in seconds:
        latencies.add({"acquired": 0.0, "published": float(value)})
    counts = latencies.histograms()["total"]
    upto = [int((seconds * 1e3 <= edge).sum()) for edge in EDGES_MS]
    assert np.cumsum(counts).tolist() == [*upto, 500]
    assert counts[-1] == (seconds > EDGES_MS[-1] / 1e3).sum() > 0
    assert sum(latencies.histograms()["preview"]) == 0
