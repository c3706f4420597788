"""Label-free realignment on a simulated participant: changed gains, and a cap put on turned.

A decoder of luminance and colour by place learns from 900 windows of the preset `demo`; a later session shows 100 other
pictures three times, with the same electrodes, with gains that drifted, or with the cap turned. Two-way identification
(chance 0.5) is of the session's last 200 windows, decoded one after the other, without and with realignment.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from decoder.alignment.realign import Realigner, RealignSpec
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.features import Features
from decoder.models.bundle import Bundle
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.simulation.eeg import EEG_CHANNELS, SFREQ, Participant
from decoder.spec import DecoderSpec
from decoder.training.train import fit_targets
from decoder.versions import FIGURES, versions
from decoder.visual_features import low_level
from stream.types.events import Event
from stream.types.windows import Channels, Window

N, N_TRAIN, REPEATS, SCORED = 400, 300, 3, 200
LABELS = tuple(f"p{row}" for row in range(N))
CHANNELS = Channels(EEG_CHANNELS, ("eeg",) * 63, ("V",) * 63)
SPEC = DecoderSpec(features=("z",), preprocess=PreprocessSpec(tmin=0.04, decimate=2, whiten=True, components=100))
GAIN_SPREAD = 0.8
"""Standard deviation of the log gains."""
TURNS = {"cap turned by 10 degrees": (0, 0, 10), "cap turned by 20 degrees": (0, 0, 20)}


def cut(participant: Participant, rows: range, run: int, shown: tuple[Any, Any]) -> list[Window]:
    """Record pictures and cut half a second from each onset on, less the 0.1 s before it, at 125 Hz."""
    part = slice(rows.start, rows.stop)
    raw, truth = participant.record(shown[0][part], shown[1][part], LABELS[part], run=run, repeats=REPEATS, soa=0.7)
    data, windows = raw.get_data(), []
    for onset, label in zip(truth.onsets, truth.labels, strict=True):
        start = round(onset * SFREQ)
        one = data[:, start : start + 124] - data[:, start - 25 : start].mean(axis=1, keepdims=True)
        one = one.reshape(63, 62, 2).mean(axis=2).astype(np.float32)
        windows.append(Window(label, one, CHANNELS, 125.0, onset, 0.0, Event(onset, label), onset + 1, onset + 1))
    return windows


def told(windows: list[Window], targets: NDArray[np.float32], decode: Callable[[Window], Features]) -> float:
    """Two-way identification of a session's last windows among the pictures it showed."""
    found = np.stack([np.ravel(np.asarray(decode(window).z)) for window in windows])[-SCORED:]
    own = np.array([LABELS.index(w.event.label) - N_TRAIN for w in windows if w.event is not None])[-SCORED:]
    mean = targets[:N_TRAIN].mean(axis=0)
    return round(float(two_way(correlation_matrix(targets[N_TRAIN:] - mean, found - mean), own).mean()), 4)


def compare(bundle: Bundle, windows: list[Window], targets: NDArray[np.float32]) -> dict[str, Any]:
    """Decode a session without and with realignment."""
    realigner = Realigner(bundle, RealignSpec())

    def followed(window: Window) -> Features:
        found = realigner.decode([window])[0]
        realigner.follow()
        return found

    return {
        "plain": told(windows, targets, lambda window: bundle.decode([window])[0]),
        "realigned": told(windows, targets, followed),
        "state": asdict(realigner.state),
    }


def run() -> dict[str, Any]:
    """Train once, and compare on all sessions."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (N, 4, 4, 3), dtype=np.uint8).repeat(12, 1).repeat(12, 2)
    meanings = rng.normal(size=(N, 40)).astype(np.float32)
    shown = (pictures, meanings)
    z = low_level(pictures)[:, :, :4, :4]
    participant = Participant("eeg", "demo", 0, pictures, meanings)
    stimuli = StimulusTable(LABELS[:N_TRAIN], pictures[:N_TRAIN])
    bundle = fit_targets(cut(participant, range(N_TRAIN), 0, shown), stimuli, Targets(z=z[:N_TRAIN]), SPEC)
    targets, rest = z.reshape(N, -1), range(N_TRAIN, N)
    same = cut(participant, rest, 5, shown)
    gains = np.exp(GAIN_SPREAD * np.random.default_rng(1).normal(size=(63, 1))).astype(np.float32)
    sessions = {"same": same, "gains drifted": [replace(window, data=gains * window.data) for window in same]}
    for name, degrees in TURNS.items():
        moved = Participant("eeg", "demo", 0, pictures, meanings, rotation=degrees)
        sessions[name] = cut(moved, rest, 5, shown)
    return {name: compare(bundle, windows, targets) for name, windows in sessions.items()}


def main() -> None:
    """Print two-way identification without and with realignment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realign", description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sessions = run()
    if options.json:
        about = {"simulated": True, "chance": 0.5, "repeats": 1, "machine": machine(), "versions": versions(FIGURES)}
        print(json.dumps({"sessions": sessions, **about}))
        return
    print(f"{'simulated session':<42} {'plain':>7} {'realigned':>10}   (two-way, chance .5)")
    for name, row in sessions.items():
        print(f"{name:<42} {row['plain']:>7.3f} {row['realigned']:>10.3f}")


if __name__ == "__main__":
    main()
