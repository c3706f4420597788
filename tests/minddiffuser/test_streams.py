"""A config of several streams: live windows are those of the file, and a bundle trained on all decodes them live."""

import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.errors import BundleError
from decoder.estimators.classifiers import CategorySpec
from decoder.models.bundle import Bundle
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import DecoderSpec
from decoder.training.train import fit_targets
from minddiffuser.config.spec import Config, parse_config
from minddiffuser.training.training import cut
from stream.files.formats.npz import write_npz
from stream.lsl.live import LiveIngest
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels, Window

EEG = Channels(("Oz", "Cz"), ("eeg", "eeg"), ("V", "V"))
MEG = Channels(("MEG001", "MEG002"), ("mag", "mag"), ("T", "T"))
GAZE = Channels(("x", "y"), ("misc", "misc"), ("count", "count"))
NAMES = ("00", "01", "10", "11")  # first digit: a bump in the EEG; second: one in the MEG
PLAY = """
import sys
from pathlib import Path
from stream.files.registry import read
from stream.recording.replay import replay
replay(read(Path(sys.argv[1])), speed=4.0)
"""


def config_of(name: str) -> Config:
    """EEG decides, MEG and gaze join."""
    raw = {
        "name": "two",
        "data": {"dataset": "recording"},
        "source": {"name": f"eeg-{name}", "timeout_s": 30},
        "window": {"tmin": 0.0, "tmax": 0.3, "baseline": [-0.05, 0.05]},
        "filters": {"highpass": 1.0, "lowpass": 30, "decimate": 2},
        "extra": [
            {"name": f"meg-{name}", "filters": {"highpass": 1.0, "lowpass": 30}},
            {"name": f"gaze-{name}", "longest_silence": 0.2},
        ],
    }
    return parse_config(raw, "test")


def recorded(name: str, presentations: int, seed: int) -> Recording:
    """EEG at 200 Hz, microvolts, and MEG at 500 Hz, femtotesla, each telling one bit of what is shown; idle gaze.

    The MEG lacks 20 ms at 3 s, the gaze half a second at 5 s. All simulated, out of step with each other.
    """
    rng = np.random.default_rng(seed)
    shown = rng.permutation(np.arange(presentations) % 4)
    onsets = 0.5 + 0.4 * np.arange(presentations)
    streams = []
    for kind, channels, sfreq, scale in (("eeg", EEG, 200.0, 1e-5), ("meg", MEG, 500.0, 1e-13)):
        times = 0.0007 * len(streams) + np.arange(0, onsets[-1] + 1, 1 / sfreq)
        times = times[(times < 3) | (times > 3.02)] if kind == "meg" else times
        bits = shown // 2 if kind == "eeg" else shown % 2
        signal = sum(np.exp(-(((times - at - 0.15) / 0.03) ** 2)) for at, bit in zip(onsets, bits, strict=True) if bit)
        data = np.outer(signal, [3.0, 1.5]) + rng.normal(0, 0.3, (len(times), 2))
        full = f"{kind}-{name}"
        streams.append(
            RecordedStream(full, kind.upper(), full, channels, sfreq, times, (scale * data).astype(np.float32))
        )
    times = np.cumsum(rng.uniform(0.01, 0.023, round(60 * (onsets[-1] + 1))))
    times = times[(times < 5) | (times > 5.5)]
    gaze = rng.normal(500, 100, (len(times), 2)).astype(np.float32)
    streams.append(RecordedStream(f"gaze-{name}", "Gaze", f"gaze-{name}", GAZE, 0.0, times, gaze))
    events = tuple(Event(float(at), NAMES[k]) for at, k in zip(onsets, shown, strict=True))
    return Recording(name, "simulated EEG, MEG and gaze", tuple(streams), events)


def trained(windows: list[Window]) -> Bundle:
    """Train a decoder of the four categories."""
    stimuli = StimulusTable(NAMES, np.zeros((4, 2, 2, 3), np.uint8))
    targets = Targets(c=np.arange(4 * 6, dtype=np.float32).reshape(4, 2, 3))
    spec = DecoderSpec(
        features=("c",),
        category=CategorySpec(method="pattern"),
        preprocess=PreprocessSpec(whiten=True, decimate=5, components=None),
    )
    return fit_targets(windows, stimuli, targets, spec)


def no_report(what: str, done: int, total: int) -> None:
    """Say nothing."""


def eeg_of(recording: Recording) -> Recording:
    """Keep the first stream."""
    return replace(recording, streams=recording.streams[:1])


def share(bundle: Bundle, windows: list[Window]) -> float:
    """Share of the windows whose likeliest category is the one shown."""
    found = [
        max(each.categories, key=each.categories.__getitem__) for each in bundle.decode(windows) if each.categories
    ]
    return float(np.mean([name == one.event.label for name, one in zip(found, windows, strict=True) if one.event]))


def test_several_streams_trained_offline_and_decoded_live(tmp_path: Path) -> None:
    """Four categories that EEG does not tell alone are told from all streams: offline, from a saved bundle, live."""
    name = uuid.uuid4().hex
    config = config_of(name)
    training, test = recorded(name, 200, 0), recorded(name, 24, 1)
    trained(cut([training], config, no_report)).save(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    offline = cut([test], config, no_report)
    assert share(bundle, offline) > 0.95
    reasons = {one.quality.rejected for one in offline}
    assert reasons == {None, f"meg-{name}: 10 samples lost", f"gaze-{name}: silent for more than 0.2 s"}
    alone = config.model_copy(update={"extra": ()})
    eeg_test, eeg_train = (cut([eeg_of(one)], alone, no_report) for one in (test, training))
    with pytest.raises(BundleError, match="lacks 4 of the bundle's 6 channels"):
        bundle.decode(eeg_test)
    assert share(trained(eeg_train), eeg_test) < 0.75
    got: list[Window] = []
    ingest = LiveIngest(config.source, config.window, config.filters, got.append, config.extra)
    write_npz(test, tmp_path / "test.npz")
    with subprocess.Popen([sys.executable, "-c", PLAY, str(tmp_path / "test.npz")]) as player:
        try:
            bundle.check(ingest.start(), ingest.sfreq)
            deadline = time.monotonic() + 40
            while len(got) < len(offline):
                assert time.monotonic() < deadline, f"{len(got)} of {len(offline)} windows came"
                time.sleep(0.01)
        finally:
            ingest.stop()
            player.kill()
    assert [one.id for one in got] == [one.id for one in offline]
    for one, same in zip(got, offline, strict=True):
        assert one.quality == same.quality
        for row, wanted in zip(one.data, same.data, strict=True):
            np.testing.assert_allclose(row, wanted, atol=1e-4 * float(np.abs(wanted).max()))
    for live, want in zip(bundle.decode(got), bundle.decode(offline), strict=True):
        assert live.categories == pytest.approx(want.categories, abs=1e-3)
