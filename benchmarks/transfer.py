"""From several simulated participants to one who was left out: nothing of theirs, no labels, or a few minutes.

Participants (EEG, preset `demo`) see the same pictures. Each in turn is left out; the others' 400 training windows each
are brought in line and learned from, and the 200 other pictures of the one left out are told apart two by two, by the
decoded pooled CLIP embedding (chance .5): as the channels come, realigned without labels by the calibration windows,
and after so many minutes of calibration ('few'), beside a decoder of these minutes alone ('alone'). Two populations:
'strangers' have folding, tuning and noise of their own; 'caps' are one brain under caps turned by up to 15 degrees with
gains of their own, as from day to day.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.thingslike_data import FILTERS, SOA, WINDOWS
from decoder.adapt import move_encoder
from decoder.confidence import Calibration
from decoder.embedding import Convolution, lesson_of
from decoder.judging import identified
from decoder.preprocess import PreprocessSpec
from decoder.realign import alignment
from decoder.reference import fit_reference
from decoder.samples import Samples
from decoder.simulate import Participant
from decoder.spec import ConvSpec, DecoderSpec
from decoder.subjects import in_common, in_line
from decoder.targets import Targets
from decoder.train import fit_linear
from decoder.train_conv import fit_encoder
from engine.desk.compose import compose, images
from engine.desk.pack import load_pack
from engine.models import load_models
from engine.spec import ModelSpec
from minddiffuser.data import CALIBRATION_SEED
from minddiffuser.evaluate import versions
from stream.ingest import windows_of
from stream.recordings import read

Array = NDArray[np.float32]

TRAINED, TESTED = 400, 200
MINUTES = (1, 3, 5)
FOLDS = 3
PREPROCESS = PreprocessSpec(tmin=0.04, decimate=2, whiten=True)
CONV = ConvSpec(epochs=25, patience=6, noise=0.5, dropout=0.7, learning_rate=5e-3)
UNUSED = Calibration(*(np.zeros(0, np.float32) for _ in Calibration.__slots__))


class Population:
    """Participants, what they saw, and their windows.

    Parameters
    ----------
    kind : {'strangers', 'caps'}
    n : int
        Participants.
    """

    def __init__(self, kind: str, n: int) -> None:
        models, stimuli = load_models(ModelSpec()), compose(load_pack(), TRAINED + TESTED, CALIBRATION_SEED)
        self.labels = [one.name for one in stimuli]
        self.images, self.meanings = images(stimuli), models.embed_texts([one.concept for one in stimuli])
        self.embeddings = models.embed_images(self.images)
        self.windows = [self._record(kind, number) for number in range(n)]

    def _record(self, kind: str, number: int) -> tuple[Array, NDArray[np.intp], NDArray[np.float64]]:
        rng = np.random.default_rng([7, number])
        turned = rng.uniform(-15, 15, 3).tolist() if kind == "caps" else (0, 0, 0)
        seed = 0 if kind == "caps" else number
        participant = Participant("eeg", "demo", seed, self.images, self.meanings, turned=tuple(turned))
        raw, _ = participant.record(self.images, self.meanings, self.labels, run=number, soa=SOA["eeg"])
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "run_raw.fif"
            raw.save(path, fmt="single", verbose="error")
            windows = list(windows_of(read(path), WINDOWS["eeg"], FILTERS["eeg"]))
        gains = np.exp(0.3 * rng.normal(size=len(windows[0].data))) if kind == "caps" else np.ones(1)
        data = gains.astype(np.float32)[:, None] * np.stack([window.data for window in windows])
        place = {name: row for row, name in enumerate(self.labels)}
        rows = np.array([place[window.event.label] for window in windows if window.event is not None], np.intp)
        return data, rows, windows[0].tmin + np.arange(data.shape[2]) / windows[0].sfreq

    def samples(self, who: list[int], pictures: slice, n: int | None = None) -> Samples:
        """Give the windows of some pictures of some participants, the first `n` of each."""
        parts = []
        for number in who:
            data, rows, _ = self.windows[number]
            chosen = np.flatnonzero((rows >= pictures.start) & (rows < pictures.stop))[:n]
            parts.append((data[chosen], rows[chosen], np.full(len(chosen), f"subject {number}")))
        data, rows, subjects = (np.concatenate(part) for part in zip(*parts, strict=True))
        names = np.char.mod("%06d", rows)
        channels = tuple(str(place) for place in range(data.shape[1]))
        return Samples(data, self.windows[0][2], rows, names, subjects, names, channels, subjects)

    def left_out(self, one: int) -> dict[str, Any]:
        """Give the figures of the participant left out."""
        others = [number for number in range(len(self.windows)) if number != one]
        seen, asked = slice(0, TRAINED), slice(TRAINED, TRAINED + TESTED)
        source, test = in_common(self.samples(others, seen)), self.samples([one], asked)
        mean = self.embeddings[:TRAINED].mean(axis=0)
        truth, reference = self.embeddings - mean, fit_reference(source.data)
        rng = np.random.default_rng(one)

        def told(found: Array) -> float:
            return round(float(identified(truth, found, test.rows, np.zeros_like(mean)).mean()), 3)

        def linear(samples: Samples) -> Any:
            spec = DecoderSpec(features=("e",), preprocess=PREPROCESS)
            model = fit_linear(samples, Targets(e=self.embeddings), spec).model
            return lambda data: model.values(data)["e"] - mean

        trunk, ridge = fit_encoder(lesson_of(source, truth), PREPROCESS, CONV, rng), linear(source)
        calibration = self.samples([one], seen)
        map_ = alignment(reference, fit_reference(calibration.data), len(calibration.rows))
        out: dict[str, Any] = {"zero_shot": {}, "realigned": {}, "minutes": {}}
        for name, decode in (("ridge", ridge), ("conv", trunk)):
            out["zero_shot"][name], out["realigned"][name] = told(decode(test.data)), told(decode(map_ @ test.data))
        for minutes in MINUTES:
            few = self.samples([one], seen, round(60 * minutes / SOA["eeg"]))
            own = alignment(reference, fit_reference(few.data), len(few.rows))
            moved, facts = move_encoder(
                Convolution(trunk, mean, UNUSED), few, self.embeddings, few.folds(FOLDS, rng), own, rng
            )
            pooled = linear(in_line_with(source, few, reference))
            alone = fit_encoder(lesson_of(few, truth), PREPROCESS, CONV, rng)
            out["minutes"][str(minutes)] = {
                "windows": len(few.rows),
                "conv": {
                    "few": told(moved.encoder(test.data)),
                    "alone": told(alone(test.data)),
                    **{name: facts[name] for name in ("channels", "layer")},
                },
                "ridge": {"few": told(pooled(own @ test.data)), "alone": told(linear(few)(test.data))},
            }
        return out


def in_line_with(source: Samples, few: Samples, reference: Any) -> Samples:
    """Put a few windows, brought in line with the others', beside these."""
    lined = in_line(few, reference)
    both = {
        name: np.concatenate([getattr(source, name), getattr(lined, name)])
        for name in ("data", "rows", "groups", "runs", "units", "subjects")
    }
    return Samples(times=source.times, channels=source.channels, **both)


def main() -> None:
    """Print the figures of every participant left out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("--population", choices=("strangers", "caps"), default="strangers")
    parser.add_argument("--participants", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    population = Population(options.population, options.participants)
    found = {f"subject {one}": population.left_out(one) for one in range(options.participants)}
    if options.json:
        about = {"simulated": True, "population": options.population, "chance": 0.5, "left_out": found, "runs": 1}
        print(json.dumps({**about, "machine": machine(), "versions": versions()}))
        return
    print(f"simulated {options.population}: two-way identification of new pictures (chance .5)")
    for who, own in found.items():
        for name in ("zero_shot", "realigned"):
            print(f"{who} {name:>10}: " + ", ".join(f"{family} {value}" for family, value in own[name].items()))
        for minutes, scores in own["minutes"].items():
            cells = [
                f"{family} few {scores[family]['few']} alone {scores[family]['alone']}" for family in ("ridge", "conv")
            ]
            print(f"{who} {minutes:>6} min: " + ", ".join(cells))


if __name__ == "__main__":
    main()
