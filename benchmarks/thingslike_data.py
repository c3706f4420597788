"""Recordings of the simulated participant `thingslike`, cut into windows as a live session does, and kept between runs.

Training pictures are composed, test pictures are 200 of the held-out ones (one drawing of 200 concepts): they share
none. Each run is a recording of its own, with noise of its own, and a file of its own in the cache, so that what was
interrupted goes on where it was.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.simulation import VERSION
from decoder.simulation.eeg import Participant
from decoder.simulation.fmri import simulate_fmri, write_fmri
from engine.composing.compose import Stimulus, compose, images, load_test_stimuli
from engine.composing.pack import load_pack
from engine.models.loading import Models
from minddiffuser.cache import cache_dir, key_of
from minddiffuser.training.data import CALIBRATION_SEED
from stream.atomic import whole_folder
from stream.epochs.ingest import windows_of
from stream.files.registry import read
from stream.signal.filters import FilterSpec
from stream.types.window_spec import WindowSpec

Array = NDArray[np.float32]
Rows = NDArray[np.intp]

GALLERY = 200
REPEATS_A_RUN = 10
"""Of test pictures; training pictures are shown once a run."""
TEST_RUNS = 100
"""Number of the first test run."""
SOA = {"eeg": 0.75, "meg": 0.75, "fmri": 8.0}
WINDOWS = {
    "eeg": WindowSpec(tmin=0.0, tmax=0.6, baseline=(-0.1, 0.0)),
    "meg": WindowSpec(tmin=0.0, tmax=0.6, baseline=(-0.1, 0.0)),
    "fmri": WindowSpec(mode="mean", tmin=4.0, tmax=8.0),
}
FILTERS = {
    "eeg": FilterSpec(highpass=0.5, lowpass=40, decimate=2),
    "meg": FilterSpec(highpass=0.5, lowpass=40, decimate=2),
    "fmri": FilterSpec(percent_signal=128, drift=128),
}
FORMAT = 1
"""Of what is kept of a recording: raise it when windows are cut otherwise from the same settings."""


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Windows and the pictures that they answer to.

    Attributes
    ----------
    data : ndarray, shape (n, n_channels, n_times), float32
    rows : ndarray of int, shape (n,)
        Of the embeddings.
    times : ndarray, shape (n_times,)
        Seconds from the event.
    embeddings : ndarray, shape (n_pictures, d), float32
        Pooled CLIP embeddings.
    images : ndarray, shape (n_pictures, height, width, 3), uint8
    """

    data: Array
    rows: Rows
    times: NDArray[np.float64]
    embeddings: Array
    images: NDArray[np.uint8]

    def groups(self, k: int) -> tuple[list[Rows], Rows]:
        """Return windows of k presentations of a picture each, in the order in which they came, and its row."""
        groups, rows = [], []
        for row in np.unique(self.rows):
            own = np.flatnonzero(self.rows == row)
            for start in range(0, len(own) - k + 1, k):
                groups.append(own[start : start + k])
                rows.append(row)
        return groups, np.asarray(rows, np.intp)

    def means(self, k: int) -> tuple[Array, Rows]:
        """Average k presentations of a picture at a time, in the order in which they came; none is used twice."""
        groups, rows = self.groups(k)
        return np.stack([self.data[own].mean(axis=0) for own in groups]), rows


Cut = Callable[[int, int], tuple[Array, Rows, NDArray[np.float64]]]


def record(
    modality: str, models: Models, *, pictures: int, repeats: int, test_repeats: int, seed: int = 0
) -> tuple[Trials, Trials]:
    """Record a training and a test set of one participant, or read what is kept of them.

    Parameters
    ----------
    modality : {'eeg', 'meg', 'fmri'}
    models : Models
        Give the pictures' embeddings, and the participant the meaning of words.
    pictures, repeats : int
        Training pictures, and how often each is shown.
    test_repeats : int
        How often each of the 200 test pictures is shown; a multiple of 10.
    seed : int
        Another seed is another participant.
    """
    shown = (compose(load_pack(), pictures, CALIBRATION_SEED + seed), load_test_stimuli()[:GALLERY])
    folder = cache_dir() / "thingslike" / _key(modality, pictures, seed, models.feature_space)
    cut: list[Cut] = []
    train = [_kept(folder, run, cut, modality, models, shown, seed) for run in range(repeats)]
    n_test = test_repeats // REPEATS_A_RUN
    test = [_kept(folder, TEST_RUNS + run, cut, modality, models, shown, seed) for run in range(n_test)]
    return tuple(  # type: ignore[return-value]
        Trials(
            np.concatenate([run[0] for run in runs]),
            np.concatenate([run[1] for run in runs]),
            runs[0][2],
            models.embed_images(images(stimuli)),
            images(stimuli),
        )
        for runs, stimuli in ((train, shown[0]), (test, shown[1]))
    )


def _key(modality: str, pictures: int, seed: int, feature_space: str) -> str:
    windows = WINDOWS[modality].model_dump(mode="json"), FILTERS[modality].model_dump(mode="json")
    key = key_of({"version": [VERSION, FORMAT], "soa": SOA[modality], "models": feature_space, "windows": windows})
    return f"{modality}-{pictures}-{seed}-{key}"


def _kept(
    folder: Path,
    run: int,
    cut: list[Cut],
    modality: str,
    models: Models,
    shown: tuple[list[Stimulus], list[Stimulus]],
    seed: int,
) -> tuple[Array, Rows, NDArray[np.float64]]:
    """Read a run's windows, or record them; the participant, in `cut`, is made only when one is needed."""
    place = folder / f"run-{run:03d}"
    if not place.exists():
        if not cut:
            cut.append(_recorder(modality, models, shown, seed))
        data, rows, times = cut[0](int(run >= TEST_RUNS), run)
        with whole_folder(place) as scratch:
            np.savez(scratch / "windows.npz", data=data, rows=rows, times=times)
    with np.load(place / "windows.npz", allow_pickle=False) as held:
        return held["data"], held["rows"], held["times"]


def _recorder(modality: str, models: Models, shown: tuple[list[Stimulus], list[Stimulus]], seed: int) -> Cut:
    """Make a participant; gives what records and cuts one run of the training (0) or test pictures (1)."""
    parts = [
        (images(stimuli), models.embed_texts([one.concept for one in stimuli]), [one.name for one in stimuli])
        for stimuli in shown
    ]
    participant: Any = None
    if modality != "fmri":
        participant = Participant("meg" if modality == "meg" else "eeg", "thingslike", seed, parts[0][0], parts[0][1])

    def cut(which: int, run: int) -> tuple[Array, Rows, NDArray[np.float64]]:
        repeats = REPEATS_A_RUN if which else 1
        with tempfile.TemporaryDirectory() as scratch:
            if participant is not None:
                path = Path(scratch) / "run_raw.fif"
                raw, _ = participant.record(*parts[which], run=run, repeats=repeats, soa=SOA[modality])
                raw.save(path, fmt="single", verbose="error")
            else:
                path = Path(scratch) / "run.nii.gz"
                image, events, _ = simulate_fmri(
                    *parts[which],
                    preset="thingslike",
                    seed=seed,
                    run=run,
                    repeats=repeats,
                    soa=SOA[modality],
                    reference=parts[0][:2],
                )
                write_fmri(image, events, path)
            windows = list(windows_of(read(path), WINDOWS[modality], FILTERS[modality]))
        place = {name: row for row, name in enumerate(parts[which][2])}
        rows = np.array([place[w.event.label] for w in windows if w.event is not None], np.intp)
        first = windows[0]
        times = first.tmin + np.arange(first.data.shape[1]) / (first.sfreq or 1)
        return np.stack([w.data for w in windows]), rows, times

    return cut
