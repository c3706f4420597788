"""The delay from marker to light: found by a light meter, written where windows are cut, and cut accordingly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from minddiffuser.config.edit import set_value
from minddiffuser.config.spec import load_config
from minddiffuser.errors import AppError, ConfigError
from minddiffuser.experiment.timing import judge, photodiode_of
from minddiffuser.report.tables import delay_line
from stream.epochs.ingest import windows_of
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.window_spec import WindowSpec
from stream.types.windows import Channels
from tests.conftest import Cli
from tests.experiment.conftest import PATCH
from tests.experiment.test_present import METER, refusal
from tests.experiment.virtual_screen import light_meter


def flashes(delay: float, jitter: float = 0.0, *, sign: int = 1, noise: float = 0.02) -> dict[str, object]:
    """Simulate markers and a photodiode at 1000 Hz whose light comes `delay` seconds after them."""
    rng = np.random.default_rng(0)
    stamps = 1.0 + np.cumsum(rng.integers(9, 20, 60) / 60)
    times = np.arange(0, stamps[-1] + 2, 1e-3)
    light = np.zeros(len(times))
    for stamp in stamps:
        start = stamp + delay + jitter * rng.uniform()
        light[(times >= start) & (times < start + rng.integers(3, 8) / 60)] = 1.0
    return {"stamps": stamps, "times": times, "light": sign * (light + rng.normal(0, noise, len(times)))}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("delay", [-0.02, 0.0, 0.03, 0.12])
def test_a_known_delay_is_found(delay: float, sign: int) -> None:
    """Whichever way the photodiode's numbers go with light, the delay comes out to a sample."""
    timing = judge(**flashes(delay, sign=sign), frame_s=1 / 60, frames=900, dropped=0)  # type: ignore[arg-type]
    assert timing.delay_ms == pytest.approx(delay * 1e3, abs=1)
    assert timing.seen == timing.flashes == 60
    assert timing.steady
    assert timing.range_ms[0] <= timing.delay_ms <= timing.range_ms[1]


def test_an_unsteady_delay_is_called_so() -> None:
    """A delay that varies by two frames is no delay to correct by."""
    timing = judge(**flashes(0.02, 2 / 60), frame_s=1 / 60, frames=900, dropped=3)  # type: ignore[arg-type]
    assert not timing.steady
    assert "not steady" in timing.verdict
    assert "3 of 900 frames" in timing.verdict


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_covered_patch_is_told(noise: float) -> None:
    """A channel without flashes, silent or of noise, is no measurement."""
    dark = flashes(0.0) | {"light": np.random.default_rng(1).normal(0, noise, len(flashes(0.0)["times"]))}  # type: ignore[arg-type]
    with pytest.raises(AppError, match="covering"):
        judge(**dark, frame_s=1 / 60, frames=900, dropped=0)  # type: ignore[arg-type]


def test_windows_begin_at_the_light() -> None:
    """A delay of 30 ms moves what is cut by 30 ms, baseline included; the marker's own time stays."""
    times = np.arange(1000) / 250.0
    ramp = np.arange(1000, dtype=np.float32)[:, None]
    stream = RecordedStream("amp", "EEG", "amp", Channels(("Cz",), ("eeg",), ("V",)), 250.0, times, ramp)
    recording = Recording("r", "ramp", (stream,), (Event(2.0, "a"),))
    cut = {
        delay: next(windows_of(recording, WindowSpec(tmin=0.0, tmax=0.2, delay=delay), FilterSpec()))
        for delay in (0.0, 0.032)
    }
    np.testing.assert_allclose(cut[0.032].data - cut[0.0].data, 8.0, atol=1e-3)
    assert cut[0.032].onset == pytest.approx(2.032)
    assert cut[0.032].tmin == pytest.approx(cut[0.0].tmin)
    assert cut[0.032].event == cut[0.0].event


def test_the_delay_is_shown_where_windows_are_cut() -> None:
    """Whoever reads what train, evaluate or live answers sees by how much windows are later than their markers."""
    assert list(delay_line({"delay": 0.0302})) == [
        "Windows are cut about the light, 30.2 ms after each marker (window.delay)."
    ]
    assert not list(delay_line({"delay": 0.0}))


CONFIGS = {
    "block": "name: x\nwindow:  # about the picture\n  tmin: 0.0   # here\n  tmax: 0.5\ndata: {dataset: recording}\n",
    "set": "name: x\nwindow:\n  tmin: 0.0\n  delay: 0.5  # of the old screen\n",
    "flow": "window: {tmin: 0.0, tmax: 0.5}  # short\nname: x\n",
    "empty": "window: {}\nname: x\n",
    "none": "name: x  # no window\n",
    "no line end": "name: x",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_one_value_is_set_and_all_else_stays(tmp_path: Path, text: str) -> None:
    """Whatever way the section is written, only the value changes; comments stay."""
    path = tmp_path / "c.yaml"
    path.write_text(text, "utf-8")
    set_value(path, "window", "delay", 0.0302, "measured")
    before, after = yaml.safe_load(text), yaml.safe_load(path.read_text("utf-8"))
    assert after == before | {"window": before.get("window", {}) | {"delay": 0.0302}}
    assert all(part.partition("#")[2] in path.read_text("utf-8") for part in text.splitlines() if "#" in part)


@pytest.mark.parametrize("text", ["{name: x}\n", "name: x\nwindow:\n", "a: &w {tmin: 0}\nwindow: *w\n"])
def test_a_file_without_a_place_for_it_stays_as_it_is(tmp_path: Path, text: str) -> None:
    """What cannot be changed safely is told, with the line to add."""
    path = tmp_path / "c.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"delay: 0.03"):
        set_value(path, "window", "delay", 0.03, "measured")
    assert path.read_text("utf-8") == text


def test_the_light_meter_finds_an_injected_delay(
    on_screen: Cli, screen: tuple[str, Path], config_of: Callable[..., Path]
) -> None:
    """Samples stamped 30 ms late are a delay of 30 ms, found to 3 ms and written into the config."""
    config = config_of(photodiode={"stream": {"name": METER}, "channel": "Photo"})
    with light_meter(screen[1], METER, PATCH, late_s=0.03):
        run = on_screen("present", str(config), "--timing", "--flashes", "20", "--json")
    assert run.returncode == 0, run.stderr
    timing = json.loads(run.stdout)
    assert timing["delay_ms"] == pytest.approx(30, abs=3)
    assert timing["seen"] == timing["flashes"] == 20
    assert timing["written"] == str(config)
    assert load_config(config).window.delay == pytest.approx(timing["delay_ms"] / 1e3, abs=1e-4)
    assert "median of 20 flashes" in config.read_text("utf-8")


def test_no_photodiode_is_one_line(
    on_screen: Cli, screen: tuple[str, Path], config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """None named, no such channel, and one that looks elsewhere; the config stays as it was."""
    with pytest.raises(AppError, match="set experiment"):
        photodiode_of(load_config(config_of()))
    wrong = config_of(photodiode={"stream": {"name": METER}, "channel": "Light"})
    with light_meter(screen[1], METER, (160, 10)):
        with pytest.raises(AppError, match="it has Photo"):
            photodiode_of(load_config(wrong))
        elsewhere = config_of(photodiode={"stream": {"name": METER}, "channel": "Photo"})
        text = elsewhere.read_text("utf-8")
        assert "over the patch" in refusal(on_screen("present", str(elsewhere), "--timing", "--flashes", "10"))
        assert elsewhere.read_text("utf-8") == text
