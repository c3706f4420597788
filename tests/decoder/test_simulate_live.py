"""The simulated participant as a stream without end, against the recordings of the same participant."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt, welch
from sklearn.linear_model import RidgeCV

from decoder.errors import TrainingError
from decoder.simulation.eeg import EEG_CHANNELS, SFREQ, Participant, Preset
from decoder.simulation.live import LiveParticipant
from decoder.simulation.ongoing import DRIFT, Misbehaviour

N = 120
LABELS = tuple(f"p{i}" for i in range(N))


@pytest.fixture(scope="module")
def shown() -> tuple[np.ndarray, np.ndarray]:
    """Pictures that differ in every cell, and what they mean."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(6, axis=1).repeat(6, axis=2), rng.normal(size=(N, 40)).astype(np.float32)


@pytest.fixture(scope="module")
def participant(shown: tuple[np.ndarray, np.ndarray]) -> Participant:
    """One that is as hard to read as a person."""
    return Participant("eeg", "thingslike", 3, *shown)


def spectrum(data: np.ndarray, sfreq: float) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies and the power of (n_channels, n_times) at each, the mean of all channels."""
    frequencies, power = welch(data, sfreq, nperseg=round(sfreq * 10))
    return frequencies, power.mean(axis=0)


@pytest.mark.parametrize("sfreq", [250.0, 500.0])
def test_what_goes_on_is_as_in_a_recording(participant: Participant, sfreq: float) -> None:
    """In each band the power is that of a recording within 1.2 dB (alpha: 2), and channels go together."""
    offline = participant.noise(round(300 * SFREQ), np.random.default_rng(1))
    live = LiveParticipant(participant, sfreq, 1).take(round(200 * sfreq)).T.astype(float)
    frequencies, expected = spectrum(offline, SFREQ)
    _, power = spectrum(live, sfreq)
    for low, high in ((0.2, 1), (1, 4), (4, 8), (8, 13), (13, 30), (30, 60), (60, 100)):
        band = (frequencies >= low) & (frequencies < high)
        ratio = 10 * np.log10(power[: len(expected)][band].mean() / expected[band].mean())
        assert abs(ratio) < (2 if low == 8 else 1.2), (low, high, ratio)  # bursts of alpha are few
    sos = butter(4, [1, 40], "bandpass", fs=sfreq, output="sos")
    same = butter(4, [1, 40], "bandpass", fs=SFREQ, output="sos")
    one, two = np.corrcoef(sosfiltfilt(sos, live)), np.corrcoef(sosfiltfilt(same, offline))
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.97


def test_samples_do_not_depend_on_how_they_are_asked_for(participant: Participant) -> None:
    """One seed gives the same samples in chunks of any length; another one gives others."""
    whole = LiveParticipant(participant, 250, 5).take(600)
    live = LiveParticipant(participant, 250, 5)
    np.testing.assert_array_equal(np.concatenate([live.take(n) for n in (1, 4, 95, 150, 350)]), whole)
    assert np.abs(LiveParticipant(participant, 250, 6).take(600) - whole).max() > 1e-6
    assert live.sent == 600


@pytest.mark.parametrize("onset", [1.0, 1.0013])
def test_a_response_begins_where_its_picture_came(
    participant: Participant, shown: tuple[np.ndarray, np.ndarray], onset: float
) -> None:
    """What a picture adds is exactly the model's response, from the onset on, and nothing before."""
    code = participant.code(*shown)[7]
    still, seeing = (LiveParticipant(participant, 500, 5) for _ in range(2))
    seeing.see(onset, code)
    change = np.concatenate([seeing.take(10) - still.take(10) for _ in range(100)])
    times = np.arange(1000) / 500
    assert np.abs(change[times < onset]).max() == 0
    since = times[(times >= onset) & (times < onset + 0.6)] - onset
    expected = participant.response(code, since).T
    found = change[(times >= onset) & (times < onset + 0.6)]
    # Gain and latency vary from trial to trial: the trial's own are found, and nothing else is left.
    lags = np.linspace(-0.04, 0.04, 161)
    fits = [np.corrcoef(participant.response(code, since - lag).T.ravel(), found.ravel())[0, 1] for lag in lags]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.7
    assert max(fits) > 0.999
    assert abs(lags[int(np.argmax(fits))]) < 4 * participant.preset.latency_jitter
    assert np.abs(change[times >= onset + 0.6]).max() == 0


def test_a_picture_told_late_lacks_its_beginning_only(
    participant: Participant, shown: tuple[np.ndarray, np.ndarray]
) -> None:
    """Samples that were taken stay as they are; later ones are as if the picture had been told in time."""
    code = participant.code(*shown)[7]
    late, early = (LiveParticipant(participant, 250, 5) for _ in range(2))
    early.see(0.1, code)
    late.take(50)
    late.see(0.1, code)
    np.testing.assert_array_equal(late.take(150), early.take(200)[50:])


def test_misbehaviour_does_what_it_says(participant: Participant) -> None:
    """Drifting electrodes wander by about 100 uV; whoever blinks often has larger peaks on Fp1 more of the time."""
    plain, drifting, blinking = (
        LiveParticipant(participant, 250, 5, each).take(250 * 120)
        for each in (Misbehaviour(), Misbehaviour(drift=True), Misbehaviour(blinks=True))
    )
    assert 0.5 < np.std(drifting - plain, axis=0).mean() / (DRIFT * 1e-6) < 1.5
    front = EEG_CHANNELS.index("Fp1")
    peaks = [np.mean(np.abs(each[:, front]) > 40e-6) for each in (plain, blinking)]
    assert peaks[1] > 2 * peaks[0]


def test_any_electrodes_of_the_10_05_system(shown: tuple[np.ndarray, np.ndarray]) -> None:
    """A headset has its own electrodes, at their places; what is no electrode is named."""
    muse = Participant("eeg", "demo", 0, *shown, channels=("TP9", "AF7", "AF8", "TP10"))
    assert LiveParticipant(muse, 256, 0).take(10).shape == (10, 4)
    assert Participant("eeg", "demo", 0, *shown, channels=("T3", "AFF1h", "I1")).info.get_montage() is not None
    with pytest.raises(TrainingError, match="no electrode of the 10-05 system is called 'Counter'"):
        Participant("eeg", "demo", 0, *shown, channels=("Oz", "Counter"))


def two_way(train: np.ndarray, train_code: np.ndarray, test: np.ndarray, test_code: np.ndarray) -> np.ndarray:
    """Decode codes from windows by ridge; return each test picture's share of rivals it is told from."""
    model = RidgeCV(np.logspace(0, 6, 13)).fit(train, train_code)
    predicted = model.predict(test)
    r = np.corrcoef(predicted, test_code)[: len(test), len(test) :]
    rivals = ~np.eye(len(test), dtype=bool)
    return np.array([np.mean(r[i, i] > r[i, rivals[i]]) for i in range(len(test))])


def test_live_is_decoded_as_well_as_a_recording(shown: tuple[np.ndarray, np.ndarray]) -> None:
    """Trained and tested live or on recordings, one participant is read equally well, within the intervals."""
    easy = Preset(evoked_rms=4.0, low=0.4, mid=0.2, semantic=0.4)
    participant = Participant("eeg", easy, 3, *shown)
    code = participant.code(*shown)
    axes = np.linalg.svd(code - code.mean(axis=0), full_matrices=False)[2][:20]
    target = code @ axes.T / 1e-9
    train, test = np.arange(N) >= 30, np.arange(N) < 30
    scores = []
    for live in (False, True):
        windows, rows = [], []
        for run in (1, 2):
            data, onsets, order = live_run(participant, code, run) if live else recorded_run(participant, shown, run)
            sos = butter(2, [0.5, 40], "bandpass", fs=SFREQ, output="sos")
            data = sosfiltfilt(sos, data)
            windows += [data[:, start : start + 100 : 4].ravel() for start in np.round(onsets * SFREQ).astype(int)]
            rows += list(order)
        x, of = np.array(windows), np.array(rows)
        x = (x - x.mean(axis=0)) / x.std()
        means = np.array([x[of == row].mean(axis=0) for row in range(N)])
        scores.append(two_way(x[train[of]], target[of][train[of]], means[test], target[test]))
    rng = np.random.default_rng(0)
    differences = [(scores[1] - scores[0])[rng.integers(0, 30, 30)].mean() for _ in range(1000)]
    low, high = np.percentile(differences, [1, 99])
    assert min(score.mean() for score in scores) > 0.65, "neither can be read: nothing is compared"
    assert low <= 0 <= high, (scores[0].mean(), scores[1].mean(), low, high)


def recorded_run(
    participant: Participant, shown: tuple[np.ndarray, np.ndarray], run: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Record a run: data, onsets, and the row of each picture."""
    raw, truth = participant.record(*shown, LABELS, run=run, repeats=2)
    return raw.get_data(), truth.onsets, [LABELS.index(label) for label in truth.labels]


def live_run(participant: Participant, code: np.ndarray, run: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Do the same live: each picture is told when the samples before it have been taken."""
    order = [*np.random.default_rng(run).permutation(N), *np.random.default_rng(run + 100).permutation(N)]
    onsets = 2.0 + 0.6 * np.arange(len(order))
    live, parts = LiveParticipant(participant, SFREQ, run), []
    for onset, row in zip(onsets, order, strict=True):
        parts.append(live.take(round(onset * SFREQ) - live.sent))
        live.see(float(onset), code[row])
    parts.append(live.take(round(2.6 * SFREQ)))
    return np.concatenate(parts).T.astype(float), onsets, order
