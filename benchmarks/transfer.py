"""From several simulated participants to one who was left out: nothing of theirs, no labels, or a few minutes.

Participants (EEG, preset `demo`) see the same pictures. Each in turn is left out; the others' 400 training windows each
are brought in line and learned from, and the 200 other pictures of the one left out are told apart two by two, by the
decoded pooled CLIP embedding (chance .5): as the channels come, realigned without labels by the calibration windows,
and after so many minutes of calibration ('few'), beside a decoder of these minutes alone ('alone'). 'from' is what
`train --from` keeps: the moved bundle, or what `train` makes of the minutes (ridge or encoder), whichever tells windows
of these minutes, held out, apart better. Two populations:
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
from decoder.adaptation.adapt import move_encoder
from decoder.adaptation.worth import worth_of_others
from decoder.alignment.realign import alignment
from decoder.alignment.subjects import in_common, in_line
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.models.confidence import Calibration
from decoder.models.embedding import CalibratedEncoder, EmbeddingModel
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.preprocessing.session_moments import SessionMoments, fit_session_moments
from decoder.simulation.eeg import Participant
from decoder.spec import ConvSpec, DecoderSpec
from decoder.training.judging import two_way_about_mean
from decoder.training.train_conv import fit_encoder
from decoder.training.train_embedding import fit_embedding
from decoder.training.train_linear import fit_linear
from decoder.versions import FIGURES, versions
from engine.composing.compose import compose, images
from engine.composing.pack import load_pack
from engine.models.loading import load_models
from engine.spec import ModelSpec
from minddiffuser.training.data import CALIBRATION_SEED
from stream.epochs.ingest import windows_of
from stream.files.registry import read

Array = NDArray[np.float32]

TRAINED, SHARED, TESTED = 1200, 400, 200
"""Pictures of calibration, of which the others saw the first so many; and those that are told apart."""
MINUTES = (1, 3, 5, 15)
FOLDS = 3
PREPROCESS = PreprocessSpec(tmin=0.04, decimate=2, whiten=True)
CONV = ConvSpec(epochs=25, patience=6, noise=0.5, dropout=0.7, learning_rate=5e-3)
AUTO = DecoderSpec(features=("e",), preprocess=PREPROCESS, conv=CONV)
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
        rotation = rng.uniform(-15, 15, 3).tolist() if kind == "caps" else (0, 0, 0)
        seed = 0 if kind == "caps" else number
        participant = Participant("eeg", "demo", seed, self.images, self.meanings, rotation=tuple(rotation))
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

    def samples(self, who: list[int], pictures: slice, n: int | None = None) -> TrainingSet:
        """Return the windows of some pictures of some participants, the first `n` of each."""
        parts = []
        for number in who:
            data, rows, _ = self.windows[number]
            chosen = np.flatnonzero((rows >= pictures.start) & (rows < pictures.stop))[:n]
            parts.append((data[chosen], rows[chosen], np.full(len(chosen), f"subject {number}")))
        data, rows, subjects = (np.concatenate(part) for part in zip(*parts, strict=True))
        names = np.char.mod("%06d", rows)
        channels = tuple(str(place) for place in range(data.shape[1]))
        return TrainingSet(data, self.windows[0][2], rows, names, subjects, names, channels, subjects)

    def left_out(self, one: int) -> dict[str, Any]:
        """Return the figures of the participant left out."""
        others = [number for number in range(len(self.windows)) if number != one]
        seen, asked = slice(0, TRAINED), slice(TRAINED, TRAINED + TESTED)
        source, test = in_common(self.samples(others, slice(0, SHARED))), self.samples([one], asked)
        mean = self.embeddings[:SHARED].mean(axis=0)
        truth, training = self.embeddings - mean, fit_session_moments(source.data)
        rng = np.random.default_rng(one)

        def told(found: Array) -> float:
            return round(float(two_way_about_mean(truth, found, test.rows, np.zeros_like(mean)).mean()), 3)

        def linear(samples: TrainingSet) -> Any:
            spec = DecoderSpec(features=("e",), preprocess=PREPROCESS)
            model = fit_linear(samples, Targets(e=self.embeddings), spec).model
            return lambda data: model.values(data)["e"] - mean

        trunk, ridge = fit_encoder(source, truth, PREPROCESS, CONV, rng), linear(source)
        calibration = self.samples([one], seen)
        map_ = alignment(training, fit_session_moments(calibration.data), len(calibration.rows))
        out: dict[str, Any] = {"zero_shot": {}, "realigned": {}, "minutes": {}}
        for name, decode in (("ridge", ridge), ("conv", trunk)):
            out["zero_shot"][name], out["realigned"][name] = told(decode(test.data)), told(decode(map_ @ test.data))
        for minutes in MINUTES:
            few = self.samples([one], seen, round(60 * minutes / SOA["eeg"]))
            own = alignment(training, fit_session_moments(few.data), len(few.rows))
            moved, facts = move_encoder(
                CalibratedEncoder(trunk, mean, UNUSED), few, self.embeddings, few.folds(FOLDS, rng), own, rng
            )
            pooled = linear(in_line_with(source, few, training))
            alone = fit_encoder(few, truth, PREPROCESS, CONV, rng)
            by_train, scores = fit_embedding(few, Targets(e=self.embeddings), AUTO)
            worth = worth_of_others({"e": {"two_way": facts["two_way_after"]}}, scores)
            assert worth is not None
            best = told(moved.encoder(test.data)), told(_embedded(by_train, test.data) - mean)
            out["minutes"][str(minutes)] = {
                "windows": len(few.rows),
                "from": {"two_way": best[not worth.helps], "moved": best[0], "alone": best[1], **worth.to_dict()},
                "conv": {
                    "few": told(moved.encoder(test.data)),
                    "alone": told(alone(test.data)),
                    **{name: facts[name] for name in ("channels", "layer")},
                },
                "ridge": {"few": told(pooled(own @ test.data)), "alone": told(linear(few)(test.data))},
            }
        return out


def _embedded(model: EmbeddingModel, data: Array) -> Array:
    """Decode the embedding by whichever of ridge and encoder training took."""
    calibrated = model.calibrated_encoder
    found: Array = model.base.values(data)["e"] if calibrated is None else calibrated.mean + calibrated.encoder(data)
    return found


def in_line_with(source: TrainingSet, few: TrainingSet, training: SessionMoments) -> TrainingSet:
    """Add a few windows, brought in line with the others', beside these."""
    lined = in_line(few, training)
    both = {
        name: np.concatenate([getattr(source, name), getattr(lined, name)])
        for name in ("data", "rows", "groups", "runs", "units", "subjects")
    }
    return TrainingSet(times=source.times, channels=source.channels, **both)


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
        print(json.dumps({**about, "machine": machine(), "versions": versions(FIGURES)}))
        return
    print(f"simulated {options.population}: two-way identification of new pictures (chance .5)")
    for who, own in found.items():
        for name in ("zero_shot", "realigned"):
            print(f"{who} {name:>10}: " + ", ".join(f"{family} {value}" for family, value in own[name].items()))
        for minutes, scores in own["minutes"].items():
            cells = [
                f"{family} few {scores[family]['few']} alone {scores[family]['alone']}" for family in ("ridge", "conv")
            ]
            chosen = scores["from"]
            kept = f"train --from {chosen['two_way']} (moved {chosen['moved']}, train alone {chosen['alone']})"
            print(f"{who} {minutes:>6} min: " + ", ".join([*cells, kept]))


if __name__ == "__main__":
    main()
