"""Ridge and the convolutional encoder on the simulated participant `thingslike`: 200-way identification by repeats.

Both learn the pooled CLIP embedding from the same training set: the mean of all presentations of each picture. Test
pictures and their presentations were never seen. Presentations are averaged 1, 4, 20 or 80 at a time; every average is
identified among 200 pictures by correlation of the decoded embedding with theirs, about the training mean: as it is
('plain'), and after both were whitened by the errors of held-out training pictures ('whitened'). 'identified_by' says
which of the two those training pictures choose, and so which counts. Chance is 0.5 % (top-1) and 2.5 % (top-5). All
settings were chosen by held-out training pictures.

Beside them stands the other direction: an encoding model from public picture features to single presentations, by
which the likelihood of a mean of 1, 4, 20 or 80 presentations is told. It sees the pictures, never the simulation's
truth: its early-vision features are no code that the simulated cortex uses. 'both' adds the encoder's correlation and
the log-likelihood, weighed by training pictures that were held out.

Simulating takes minutes the first time, and is kept in the cache run by run: interrupted, it goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.thingslike_data import GALLERY, Trials, record
from benchmarks.thingslike_likelihood import (
    Likelihood,
    by_likelihood,
    fit_likelihood,
    hits,
    usable_repeats,
    with_encoder,
)
from decoder.data.picture_features import compute_picture_features
from decoder.data.splits import TrainTest
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.encoding.axes import Features
from decoder.evaluation.identify import Space, choose_space
from decoder.evaluation.metrics import correlation_matrix, error_whitener, two_way
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import ConvSpec, DecoderSpec
from decoder.training.train_embedding import encoder_folds, fit_calibrated_encoder, held_out_linear, held_out_scores
from decoder.training.train_linear import fit_linear
from decoder.versions import FIGURES, versions
from engine.models.loading import load_models
from engine.spec import ModelSpec

Array = NDArray[np.float32]

BLOCKS = (1, 2, 3, 4)
"""CLIP blocks that the encoding model goes by."""
WAVES = PreprocessSpec(tmin=0.04, decimate=2, whiten=True, whiten_time=True, components=None)
VOXELS = PreprocessSpec(components=None)
CONV = {
    "eeg": ConvSpec(),
    "meg": ConvSpec(),
    # One volume leaves few weights to learn from many voxels: more filters, larger steps, more noise against them.
    "fmri": ConvSpec(filters=256, noise=1.0, learning_rate=3e-3, epochs=80, patience=20),
}
ALPHA = 3.0
"""By which held-out training pictures are identified best; the squared error of each target asks for more."""


def identification(decode: Callable[[Array], Array], test: Trials, truth: Array, held_out: Array) -> dict[str, Any]:
    """Identify averages of 1, 4, 20 and 80 presentations among the test pictures; in percent.

    Parameters
    ----------
    decode : callable
        Windows (n, n_channels, n_times) to embeddings (n, d).
    test : Trials
    truth, held_out : ndarray, shape (n, d)
        Of training pictures, one window each: their embeddings, and those decoded while they were held out.

    Returns
    -------
    figures : dict
        'plain' and 'whitened', by repeats, 'top1' and 'top5'; 'identified_by' as chosen, and the 'ranks' it is by.
    """
    mean = truth.mean(axis=0)
    space = chosen(truth, held_out)
    out: dict[str, Any] = {"identified_by": space.name, "ranks": space.ranks, "plain": {}, "whitened": {}}
    spaces = {"plain": np.eye(len(mean), dtype=np.float32), "whitened": error_whitener(truth - held_out)}
    for k in usable_repeats(test):
        data, rows = test.means(k)
        found = decode(data) - mean
        for name, one in spaces.items():
            r = correlation_matrix((test.embeddings - mean) @ one, found @ one)
            out[name][str(k)] = hits(r, rows)
    return out


def chosen(truth: Array, held_out: Array) -> Space:
    """Choose how to identify by training pictures that were held out, one window each."""
    rows, mean = np.arange(len(truth)), truth.mean(axis=0)
    return choose_space(truth - mean, held_out - mean, rows, np.char.mod("%06d", rows), np.random.default_rng(0))


def by_fold(truth: Array, held_out: Array, folds: list[TrainTest]) -> list[float]:
    """Two-way identification among the pictures of each fold."""
    mean = truth.mean(axis=0)
    parts = [correlation_matrix(truth[test] - mean, held_out[test] - mean) for _, test in folds]
    return [round(float(two_way(each).mean()), 4) for each in parts]


def figures(modality: str, *, pictures: int, repeats: int, test_repeats: int, conv: bool) -> dict[str, Any]:
    """Train on one participant and give all figures.

    Parameters
    ----------
    modality : {'eeg', 'meg', 'fmri'}
    pictures, repeats : int
        Of the training set.
    test_repeats : int
    conv : bool
        Train the convolutional encoder, too.
    """
    models = load_models(ModelSpec())
    train, test = record(modality, models, pictures=pictures, repeats=repeats, test_repeats=test_repeats)
    data, rows = train.means(repeats)
    names = np.char.mod("%06d", rows)
    channels = tuple(str(place) for place in range(data.shape[1]))
    samples = TrainingSet(data, train.times, rows, names, np.full(len(rows), "only"), names, channels)
    spec = DecoderSpec(
        features=("e",),
        alphas=(ALPHA,),
        conv=CONV[modality],
        preprocess=VOXELS if modality == "fmri" else WAVES,
        family="auto",
    )
    targets = Targets(e=train.embeddings)
    truth = train.embeddings[rows]
    started = time.monotonic()
    fitted = fit_linear(samples, targets, spec)
    ridge: dict[str, Any] = {"fit_s": round(time.monotonic() - started, 1), "confidence": fitted.scores["confidence"]}
    ridge |= identification(lambda x: fitted.model.values(x)["e"], test, truth, fitted.held_out["e"])
    out: dict[str, Any] = {
        "modality": modality,
        "simulated": True,
        "gallery": GALLERY,
        "chance": {"top1": 100 / GALLERY, "top5": 500 / GALLERY},
        "training": {"pictures": pictures, "repeats": repeats},
        "ridge": ridge,
    }
    started = time.monotonic()
    known, shown = (compute_picture_features(each.images, models, blocks=BLOCKS) for each in (train, test))
    likelihood = fit_likelihood(train, known, spec.preprocess)
    fit_s = round(time.monotonic() - started, 1)
    out["likelihood"] = {"fit_s": fit_s, **by_likelihood(likelihood, shown, test)}
    return out | compared(samples, targets, spec, (train, test), (known, shown), likelihood) if conv else out


def compared(
    samples: TrainingSet,
    targets: Targets,
    spec: DecoderSpec,
    trials: tuple[Trials, Trials],
    features: tuple[Features, Features],
    likelihood: Likelihood,
) -> dict[str, Any]:
    """Train the encoder, compare it with ridge on the same folds of training pictures, and join it to the likelihood.

    `trials` and `features` are of training and of test pictures.
    """
    assert targets.e is not None
    truth, folds = targets.e[samples.rows], encoder_folds(samples, spec)
    started = time.monotonic()
    encoder, by_conv, score = fit_calibrated_encoder(samples, targets.e, spec, folds)
    taken = time.monotonic() - started
    held_out = {"ridge": held_out_linear(samples, targets, spec, folds)["e"], "conv": by_conv}
    spaces = {name: chosen(truth, found) for name, found in held_out.items()}
    train, test = trials

    def decode(x: Array) -> Array:
        return np.asarray(encoder.mean + encoder.encoder(x), np.float32)

    return {
        "conv": {
            "fit_s": round(taken, 1),
            "confidence": score["confidence"],
            **identification(decode, test, truth, by_conv),
        },
        "both": with_encoder(
            likelihood, train, test, features, spec.preprocess, folds, by_conv, spaces["conv"], decode
        ),
        "same_folds": {
            name: {
                **held_out_scores(targets.e, found, samples.rows, folds),
                "two_way_by_fold": by_fold(truth, found, folds),
                "ranks": spaces[name].ranks,
            }
            for name, found in held_out.items()
        },
        "auto_takes": min(spaces, key=lambda name: spaces[name].rank),
    }


def main() -> None:
    """Print one participant's figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thingslike", description=__doc__)
    parser.add_argument("--modality", choices=("eeg", "meg", "fmri"), default="eeg")
    parser.add_argument("--pictures", type=int, default=2000, help="of the training set")
    parser.add_argument("--repeats", type=int, default=4, help="presentations of each")
    parser.add_argument("--test-repeats", type=int, default=80, help="presentations of each test picture")
    parser.add_argument("--no-conv", action="store_true", help="ridge alone")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    out = figures(
        options.modality,
        pictures=options.pictures,
        repeats=options.repeats,
        test_repeats=options.test_repeats,
        conv=not options.no_conv,
    )
    if options.json:
        print(json.dumps({**out, "runs": 1, "machine": machine(), "versions": versions(FIGURES)}))
        return
    print(f"simulated {options.modality}, {GALLERY}-way, top-1/top-5 in % (chance 0.5/2.5)")
    columns = [(family, space) for family in ("ridge", "conv") if family in out for space in ("plain", "whitened")]
    heads = [
        *(f"{family} {space}" for family, space in columns),
        *(name for name in ("likelihood", "both") if name in out),
    ]
    print(f"{'repeats':>8} " + " ".join(f"{head:>16}" for head in heads))
    for k in out["ridge"]["plain"]:
        cells = [out[family][space][k] for family, space in columns]
        cells += [out[name]["by_repeats"][k] for name in ("likelihood", "both") if name in out]
        print(f"{k:>8} " + " ".join(f"{cell['top1']:>9.2f} /{cell['top5']:>5.2f}" for cell in cells))


if __name__ == "__main__":
    main()
