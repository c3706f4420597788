"""How often an ideal observer knows which picture a simulated participant was shown, by presentations.

It knows what the decoder has to learn: what each picture would be answered with (a recording without noise, cut into
the same windows), the noise (a recording of nothing else), and how much responses vary in size and in latency from
trial to trial. It names the picture whose presentations are likeliest. Its noise is a Gaussian
(`decoder.encoding.noise`), and bursts and blinks are none: what it reaches is a lower bound of what windows tell.

    python -m benchmarks.ideal configs/demo.yaml
    python -m benchmarks.ideal configs/demo.yaml --preset thingslike --pictures 200 --soa 0.75
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.thingslike_data import Trials
from decoder.encoding.noise import Noise, fit_noise
from decoder.evaluation.metrics import top_k
from decoder.simulation.eeg import PRESETS, SFREQ, Participant, Preset
from decoder.versions import FIGURES, versions
from engine.composing.compose import Stimulus, compose, images, load_test_stimuli
from engine.composing.pack import load_pack
from engine.models.loading import Models, load_models
from minddiffuser.config.spec import Config, load_config
from minddiffuser.training.data import CALIBRATION_SEED
from stream.epochs.ingest import windows_of
from stream.files.registry import read
from stream.types.windows import Window

Floats = NDArray[np.float64]

REPEATS = (1, 4, 20)
TEST_RUN, QUIET_RUN, NOISE_SEED, NOISE_WINDOWS = 200, 300, 400, 1000
"""Recordings of their own: none has the noise of another, or of any that a decoder learns from."""
FAINT = 1e-6
"""Microvolts of what is left out of a recording: channels of zeros would be taken for dead."""
STILL = {
    **dict.fromkeys(("background", "alpha", "sensor"), FAINT),
    **dict.fromkeys(("gain_jitter", "latency_jitter"), 0.0),
    "blink_every": 1e9,
}
"""A preset's settings in which every trial is the answer itself."""
Shown = tuple[NDArray[np.uint8], NDArray[np.float32], list[str]]
"""Pictures, their meanings and names."""


@dataclass(frozen=True, slots=True, eq=False)
class IdealObserver:
    """Knows what every picture is answered with, and how trials differ.

    A response is g x(t - d) + noise, with g of mean 1 and standard deviation `gain_jitter`, d about 0 with
    `latency_jitter`: to first order a Gaussian about x with the noise's covariance and that of x and x'.

    Attributes
    ----------
    answers : ndarray, shape (k, n_responses), float64
        Of every picture, without noise.
    slopes : ndarray, shape (k, n_responses), float64
        Their derivatives in time, by the second.
    noise : Noise
    gain_jitter, latency_jitter : float
        Standard deviations, from trial to trial; the latency's in seconds.
    """

    answers: Floats
    slopes: Floats
    noise: Noise
    gain_jitter: float
    latency_jitter: float

    def log_likelihood(self, responses: NDArray[np.floating]) -> Floats:
        """Compute how likely each response (n, n_responses) is for each picture; (k, n), to be added over repeats.

        Natural logarithms of densities, less what is the same for all pictures.
        """
        white = self.noise.whiten(responses).astype(np.float64)
        answers, slopes = (self.noise.whiten(each).astype(np.float64) for each in (self.answers, self.slopes))
        found = np.empty((len(answers), len(white)))
        for k, (answer, slope) in enumerate(zip(answers, slopes, strict=True)):
            off = white - answer
            ways = np.stack([self.gain_jitter * answer, self.latency_jitter * slope])
            # Woodbury's identity: two directions more than the noise has.
            inner, along = np.eye(2) + ways @ ways.T, ways @ off.T
            explained = (along * np.linalg.solve(inner, along)).sum(axis=0)
            found[k] = 0.5 * (explained - np.square(off).sum(axis=1) - np.linalg.slogdet(inner)[1])
        return found


def cut(config: Config, raw: Any) -> list[Window]:
    """Cut a recording (mne.io.Raw) of one's own making into the windows that a config asks for."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "run_raw.fif"
        raw.save(file, fmt="single", verbose="error")
        return [one for one in windows_of(read(file), config.window, config.filters) if one.event is not None]


def record(config: Config, participant: Participant, shown: Shown, run: int, repeats: int) -> Trials:
    """Record a participant, and cut it into windows."""
    pixels, meanings, names = shown
    raw, _ = participant.record(pixels, meanings, names, run=run, repeats=repeats, soa=config.data.soa)
    windows = cut(config, raw)
    places = {name: row for row, name in enumerate(names)}
    rows = np.array([places[one.event.label] for one in windows if one.event is not None], np.intp)
    times = windows[0].tmin + np.arange(windows[0].data.shape[1]) / (windows[0].sfreq or 1)
    return Trials(np.stack([one.data for one in windows]), rows, times, meanings, pixels)


def noise_of(config: Config, participant: Participant) -> Noise:
    """Learn the noise from a recording in which nothing is shown."""
    import mne

    onsets = 2 + config.data.soa * np.arange(NOISE_WINDOWS)
    data = participant.noise(round(SFREQ * (onsets[-1] + 4)), np.random.default_rng(NOISE_SEED))
    raw = mne.io.RawArray(data, participant.info.copy(), verbose="error")
    raw.set_annotations(mne.Annotations(onsets, [0.0] * len(onsets), ["nothing"] * len(onsets)))
    errors = np.stack([one.data for one in cut(config, raw)]).astype(np.float64)
    return fit_noise(errors.reshape(len(errors), -1), errors.shape[1])


def observer_and_trials(
    config: Config, preset: Preset, models: Models, stimuli: Sequence[Stimulus], repeats: int
) -> tuple[IdealObserver, Trials]:
    """Make the observer of a config's participant, and record the trials that it is to name.

    Raises
    ------
    ValueError
        If some answer cannot be cut whole.
    """
    spec = config.data
    modality: Literal["eeg", "meg"] = "meg" if spec.dataset == "simulated-meg" else "eeg"

    def as_shown(stimuli: Sequence[Stimulus]) -> Shown:
        concepts = [stimulus.concept for stimulus in stimuli]
        return images(stimuli), models.embed_texts(concepts), [stimulus.name for stimulus in stimuli]

    calibration = as_shown(compose(load_pack(), spec.pictures, CALIBRATION_SEED + spec.seed))
    shown = as_shown(stimuli)
    participant = Participant(modality, preset, spec.seed, *calibration[:2])
    quiet = copy(participant)
    quiet.preset = replace(preset, **STILL)
    trials = record(config, quiet, shown, QUIET_RUN, 1)
    answers, rows = trials.means(1)
    if len(rows) != len(stimuli):
        raise ValueError(f"{len(rows)} of {len(stimuli)} answers could be cut: lengthen --soa")
    slopes = np.gradient(answers, trials.times, axis=2)
    observer = IdealObserver(
        answers.reshape(len(rows), -1).astype(np.float64),
        slopes.reshape(len(rows), -1).astype(np.float64),
        noise_of(config, participant),
        preset.gain_jitter,
        preset.latency_jitter,
    )
    return observer, record(config, participant, shown, TEST_RUN, repeats)


def identified(
    observer: IdealObserver, trials: Trials, repeats: Sequence[int] = REPEATS
) -> dict[str, dict[str, float]]:
    """Count how often the picture shown is the likeliest, or among the five likeliest, by presentations.

    Returns
    -------
    shares : dict
        By presentations: 'top1', 'top5' and 'n', the groups of presentations that were named.
    """
    likelihood = observer.log_likelihood(trials.data.reshape(len(trials.data), -1))
    found = {}
    for k in (k for k in repeats if k <= np.bincount(trials.rows).min()):
        groups, rows = trials.groups(k)
        summed = np.stack([likelihood[:, own].sum(axis=1) for own in groups], axis=1)
        shares = {f"top{n}": round(float(top_k(summed, n, rows).mean()), 4) for n in (1, 5)}
        found[str(k)] = {**shares, "n": len(rows)}
    return found


def main() -> None:
    """Print one participant's figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of a simulated participant (EEG, MEG)")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="another than the config's")
    parser.add_argument("--soa", type=float, help="seconds from picture to picture; the config's by default")
    parser.add_argument("--pictures", type=int, default=60, help="that it has to tell apart")
    parser.add_argument("--repeats", type=int, default=max(REPEATS), help="presentations of each")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    config = load_config(given.config)
    if config.data.dataset not in {"simulated-eeg", "simulated-meg"}:
        parser.error(f"{given.config}: data.dataset is {config.data.dataset!r}, must be simulated-eeg or simulated-meg")
    if given.soa:
        config = config.model_copy(update={"data": config.data.model_copy(update={"soa": given.soa})})
    preset = PRESETS[given.preset or config.data.preset]
    models = load_models(config.engine.models, "cpu")
    stimuli = load_test_stimuli()[: given.pictures]
    found = identified(*observer_and_trials(config, preset, models, stimuli, given.repeats))
    if given.json:
        print(json.dumps({"pictures": given.pictures, "by_repeats": found, "machine": machine()} | versions(FIGURES)))
        return
    print(f"{config.data.dataset}, one of {given.pictures}, top-1 and top-5 (chance {1 / given.pictures:.3f})")
    for k, shares in found.items():
        print(f"  {k:>3} presentations  {shares['top1']:.3f}  {shares['top5']:.3f}  ({shares['n']})")


if __name__ == "__main__":
    main()
