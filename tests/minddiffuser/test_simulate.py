"""`minddiffuser simulate`: an amplifier as any other, whose signal answers what markers name."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from decoder.data.stimuli import StimulusTable, write_stimuli
from decoder.errors import TrainingError
from decoder.simulation.eeg import Participant
from decoder.simulation.live import LiveParticipant
from decoder.simulation.ongoing import Misbehaviour
from minddiffuser.config.spec import Config, load_config
from minddiffuser.errors import AppError
from minddiffuser.experiment.amplifier import DELAY_S, Account, Amplifier
from minddiffuser.experiment.meanings import meanings_of
from minddiffuser.experiment.simulate import Rehearsal, SimulationSpec, modality_of, prepare, simulate
from minddiffuser.live.live import data_of
from stream.errors import SourceError
from stream.lsl.discovery import describe, load_lsl
from stream.types.events import Event
from stream.types.labels import LabelMatcher
from stream.types.source_spec import MarkerSelector
from tests.conftest import Cli
from tests.stream.amp import markers

SFREQ = 250.0
IDS = tuple(f"p{i:02d}" for i in range(40))


@pytest.fixture(scope="module")
def participant() -> Participant:
    """Somebody whose answers stand out of the noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (len(IDS), 8, 8, 3), dtype=np.uint8)
    return Participant("eeg", "demo", 0, coarse.repeat(6, 1).repeat(6, 2), rng.normal(size=(len(IDS), 40)))


def meaning(models: Any) -> Callable[[StimulusTable], np.ndarray]:
    """Return what gives pictures their meaning by models of this process."""
    return lambda pictures: meanings_of(pictures, models)


@pytest.fixture(scope="module")
def amplitudes(participant: Participant) -> dict[str, np.ndarray]:
    """Draw what each picture evokes."""
    spread = participant.sources.latency.shape[0]
    code = np.random.default_rng(1).normal(size=(len(IDS), spread)) * participant._code_scale
    return dict(zip(IDS, code.astype(np.float32), strict=True))


def amplifier(
    participant: Participant, amplitudes: dict[str, np.ndarray], misbehaviour: Misbehaviour | None = None
) -> Amplifier:
    """Make an amplifier whose sample 0 is of time 100."""
    misbehaviour = misbehaviour or Misbehaviour()
    return Amplifier(
        LiveParticipant(participant, SFREQ, 1, misbehaviour),
        amplitudes,
        LabelMatcher(IDS),
        begin=100.0,
        factor=1e6,
        misbehaviour=misbehaviour,
        rng=np.random.default_rng(1),
    )


def sent(amplifier: Amplifier, until: float, step: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Run an amplifier by a clock of one's own; return all samples and their stamps."""
    parts = [chunk for now in np.arange(100, until, step) for chunk in amplifier.due(now)]
    return np.concatenate([data for data, _ in parts]), np.concatenate([stamps for _, stamps in parts])


def test_samples_come_by_the_clock(participant: Participant, amplitudes: dict[str, np.ndarray]) -> None:
    """Every sample comes once, stamped by its number, the stated delay after its time at the earliest."""
    amp = amplifier(participant, amplitudes)
    stamps: list[float] = []
    for now in np.arange(100, 103, 0.013):
        for _, times in amp.due(now):
            assert times[-1] + DELAY_S <= now + 1e-9
            stamps += times.tolist()
        assert now - stamps[-1] < DELAY_S + 0.02 + 0.013 if stamps else now < 100.1
    np.testing.assert_allclose(stamps, 100 + np.arange(len(stamps)) / SFREQ, atol=1e-9)
    assert amp.account == Account(samples=len(stamps))


def test_a_marker_is_answered_where_it_says(participant: Participant, amplitudes: dict[str, np.ndarray]) -> None:
    """A marker that arrives within the delay puts the response to its own time; others are counted."""
    plain, _ = sent(amplifier(participant, amplitudes), 103)
    amp = amplifier(participant, amplitudes)
    onset = 101.0037
    parts = [chunk for now in np.arange(100, onset + 0.04, 0.01) for chunk in amp.due(now)]
    for label in ("p07", "blank", "blank", "pause"):
        amp.mark(Event(onset, label))
    parts += [chunk for now in np.arange(onset + 0.04, 103, 0.01) for chunk in amp.due(now)]
    data, stamps = (np.concatenate(part) for part in zip(*parts, strict=True))
    change = data - plain[: len(data)]
    during = (stamps >= onset) & (stamps < onset + 0.6)
    assert np.abs(change[~during]).max() == 0
    since = stamps[during] - onset
    lags = np.arange(-0.012, 0.0121, 0.0005)
    fits = [np.corrcoef(participant.response(amplitudes["p07"], since - lag).T.ravel(), change[during].ravel())[0, 1]
            for lag in lags]  # fmt: skip
    # The trial's own latency varies by 2 ms.
    assert max(fits) > 0.999
    assert abs(lags[int(np.argmax(fits))]) <= 0.008
    account = amp.account
    assert (account.markers, account.answered, account.unknown, account.late) == (4, 1, 3, 0)
    assert account.unknown_labels == ["blank", "pause"]


def test_a_late_marker_is_counted(participant: Participant, amplitudes: dict[str, np.ndarray]) -> None:
    """Markers of samples that were sent are answered as far as they can be, and counted."""
    amp = amplifier(participant, amplitudes)
    sent(amp, 102)
    amp.mark(Event(101.7, "p07"))
    sent(amp, 103)
    assert (amp.account.answered, amp.account.late) == (1, 1)


def test_losses_and_jitter_are_as_asked_for(participant: Participant, amplitudes: dict[str, np.ndarray]) -> None:
    """Lost chunks are counted and leave holes of 20 to 100 ms; jitter moves stamps by some ms; the rate stays."""
    amp = amplifier(participant, amplitudes, Misbehaviour(drop=True))
    _, stamps = sent(amp, 160)
    holes = np.diff(stamps)[np.diff(stamps) > 1.5 / SFREQ] - 1 / SFREQ
    assert 4 <= len(holes) <= 30
    assert holes.min() > 0.019
    assert amp.account.dropped == round(holes.sum() * SFREQ)
    assert amp.account.samples + amp.account.dropped == round((stamps[-1] - 100) * SFREQ) + 1
    jittered, plain = (
        sent(amplifier(participant, amplitudes, Misbehaviour(jitter=on)), 130)[1] for on in (True, False)
    )
    assert 0.003 < np.std(jittered - plain) < 0.005


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a config of one's own recording with a folder of pictures, and no marker stream named."""
    folder = tmp_path_factory.mktemp("own")
    images = np.random.default_rng(2).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    captions = tuple((f"a thing number {i}",) for i in range(40))
    write_stimuli(StimulusTable(IDS, images, captions), folder / "pictures")
    raw = {
        "name": "own",
        "data": {"dataset": "recording", "train": "calibration.xdf", "stimuli": str(folder / "pictures")},
        "source": {"name": "cap", "type": "EEG", "properties": {"desc/manufacturer": "somebody"}},
        "filters": {"channels": ["eeg"]},
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return path


@pytest.fixture(scope="module")
def rehearsal(config: Path, participant: Participant, amplitudes: dict[str, np.ndarray]) -> Rehearsal:
    """All that is needed, without models."""
    spec = SimulationSpec(run=4, sfreq=SFREQ)
    return Rehearsal(
        load_config(config), spec, participant, amplitudes, LabelMatcher(IDS), (MarkerSelector(type="Markers"),)
    )


@pytest.fixture
def running(rehearsal: Rehearsal) -> Iterator[list[Account]]:
    """Run the amplifier in a thread; its account is there at the end."""
    stop, accounts = threading.Event(), list[Account]()
    thread = threading.Thread(target=lambda: accounts.append(simulate(rehearsal, Misbehaviour(), stop=stop)))
    thread.start()
    yield accounts
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_over_lsl_the_answer_comes_to_a_marker_of_any_program(
    running: list[Account], rehearsal: Rehearsal, participant: Participant, amplitudes: dict[str, np.ndarray]
) -> None:
    """The stream announces itself as a simulated one; a response begins at its marker."""
    lsl = load_lsl()
    outlet = markers("presenter")
    deadline, found = time.monotonic() + 20, list[Any]()
    while not found and time.monotonic() < deadline:
        found = lsl.resolve_byprop("name", "cap", 1, 1.0)
    inlet = lsl.StreamInlet(found[0])
    source = describe(inlet.info())
    assert (source.type, source.sfreq, source.description) == ("EEG", SFREQ, "simulated EEG")
    assert source.channels.names == tuple(participant.info["ch_names"])
    assert set(source.channels.units) == {"V"}
    assert all(source.channels.montage.places)
    assert inlet.info().desc().child_value("manufacturer") == "somebody"
    inlet.open_stream()
    rows, stamps, onset, ready = list[Any](), list[float](), 0.0, np.inf
    while not onset or stamps[-1] < onset + 0.7:
        assert time.monotonic() < deadline
        chunk, times = inlet.pull_chunk(timeout=0.05)
        rows, stamps = rows + chunk, stamps + times
        if outlet.have_consumers():  # its clock is measured before a marker is read
            ready = min(ready, lsl.local_clock() + 1.5)
        if not onset and stamps and lsl.local_clock() > ready:
            onset = lsl.local_clock()
            outlet.push_sample(["Stimulus/p07"], onset)
    data, at = np.array(rows, np.float32), np.array(stamps)
    # Noise of the same seed tells which sample is which.
    noise = 1e6 * LiveParticipant(participant, SFREQ, 4).take(round(60 * SFREQ))
    first = int(np.flatnonzero(np.all(noise == data[0], axis=1))[0])
    change = data - noise[first : first + len(data)]
    begins = at[np.flatnonzero(np.abs(change).max(axis=1))[0]]
    assert 0 <= begins - onset <= 1 / SFREQ
    during = (at >= onset) & (at < onset + 0.6)
    expected = participant.response(amplitudes["p07"], at[during] - onset).T
    assert np.corrcoef(expected.ravel(), change[during].ravel())[0, 1] > 0.9
    np.testing.assert_allclose(np.diff(at), 1 / SFREQ, atol=1e-6)


def test_no_second_amplifier_of_a_name(running: list[Account], rehearsal: Rehearsal) -> None:
    """Beside a stream that runs, a simulated one of its name is refused: live would take the one for the other."""
    lsl, deadline = load_lsl(), time.monotonic() + 20
    while not lsl.resolve_byprop("name", "cap", 1, 1.0) and time.monotonic() < deadline:
        pass
    with pytest.raises(SourceError, match="a stream 'cap' is running already"):
        simulate(rehearsal, Misbehaviour())


def test_the_participant_is_the_configs(config: Path, tiny: Any) -> None:
    """Pictures, electrodes, seed and markers come from the config; pictures mean what their captions say."""
    own = load_config(config)
    first, again, other = (prepare(own, SimulationSpec(seed=seed), meaning(tiny)) for seed in (None, 0, 1))
    assert set(first.amplitudes) == set(IDS)
    assert first.markers == (MarkerSelector(type="Markers"),)
    np.testing.assert_array_equal(first.amplitudes["p03"], again.amplitudes["p03"])
    assert np.abs(first.participant.leadfield - other.participant.leadfield).max() > 0
    muse = own.model_copy(update={"filters": own.filters.model_copy(update={"channels": ("TP9", "AF7")})})
    assert prepare(muse, SimulationSpec(), meaning(tiny)).participant.info["ch_names"] == ["TP9", "AF7"]
    meg = own.model_copy(update={"source": own.source.model_copy(update={"type": "MEG"})})
    assert modality_of(meg, None) == "meg"
    assert modality_of(meg, "eeg") == "eeg"


def changed(config: Path, part: str, **values: Any) -> Config:
    """Change a part of a config."""
    own = load_config(config)
    return own.model_copy(update={part: getattr(own, part).model_copy(update=values)})


def test_what_cannot_be_simulated_is_told(config: Path, tiny: Any) -> None:
    """No pictures, a trigger channel, no electrode, and fMRI: one line each."""
    with pytest.raises(AppError, match=r"no pictures .*name a folder as data\.stimuli"):
        prepare(changed(config, "data", stimuli=None), SimulationSpec(), meaning(tiny))
    with pytest.raises(AppError, match=r"source\.markers names channel 'Trig1'"):
        prepare(changed(config, "source", markers=(MarkerSelector(channel="Trig1"),)), SimulationSpec(), meaning(tiny))
    with pytest.raises(TrainingError, match="no electrode of the 10-05 system is called 'Counter'"):
        prepare(load_config(config), SimulationSpec(channels=("Oz", "Counter")), meaning(tiny))
    with pytest.raises(AppError, match="sends EEG or MEG, no fMRI"):
        prepare(changed(config, "source", type="fMRI"), SimulationSpec(), meaning(tiny))


def test_the_command_runs_and_answers(cli: Cli, config: Path) -> None:
    """As a program of its own it says what it sends, ends by itself, and accounts for its samples."""
    run = cli("simulate", str(config), "--seconds", "1", "--channels", "Oz,Pz,O1,O2", "--rate", "500", "--json")
    assert run.returncode == 0, run.stderr
    assert "Simulated EEG: stream 'cap' (type EEG), 4 channels at 500 Hz" in " ".join(run.stderr.split())
    account = json.loads(run.stdout)
    assert 400 < account["samples"] <= 500
    assert account["markers"] == 0


def test_models_and_their_libraries_are_not_loaded_by_the_amplifier(cli: Cli, config: Path, tiny: Any) -> None:
    """They are by a process that ends; the participant is the same, and what is refused there is one line here."""
    code = (
        "import sys; from pathlib import Path; from minddiffuser.config.spec import load_config\n"
        "from minddiffuser.experiment.meanings import meanings_apart\n"
        "from minddiffuser.experiment.simulate import SimulationSpec, prepare\n"
        "own = load_config(Path(sys.argv[1]))\n"
        "made = prepare(own, SimulationSpec(), lambda pictures: meanings_apart(pictures, own.engine))\n"
        "print('torch' in sys.modules, made.amplitudes['p03'].tobytes().hex())"
    )
    path = config.with_name("tiny.yaml")
    own = yaml.safe_load(config.read_text("utf-8")) | {"engine": {"models": {"folder": str(tiny.spec.folder)}}}
    path.write_text(yaml.safe_dump(own), "utf-8")
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=cli.environment, capture_output=True, text=True, check=True
    )
    here = prepare(load_config(path), SimulationSpec(), meaning(tiny)).amplitudes["p03"]
    assert run.stdout.split() == ["False", here.tobytes().hex()]
    own["engine"] = {"models": {"folder": str(config.parent)}}
    path.write_text(yaml.safe_dump(own), "utf-8")
    refused = cli("simulate", str(path))
    assert (refused.returncode, refused.stderr.count("minddiffuser: ")) == (1, 1), refused.stderr
    assert str(config.parent) in refused.stderr


@pytest.mark.parametrize(
    ("calibration", "source", "told"),
    [
        ("EEG", "simulated EEG", "simulated EEG"),
        ("human EEG", "", "human EEG"),
        ("simulated EEG", "simulated EEG", "simulated EEG"),
        ("EEG", "macaque V4 spikes recording", "macaque V4 spikes"),
        ("EEG", "g.USBamp", "EEG"),
    ],
)
def test_pictures_of_a_simulated_stream_are_called_so(calibration: str, source: str, told: str) -> None:
    """Whatever a decoder was trained on: what comes from nobody's brain, or no person's, is called by its name."""
    assert data_of(calibration, source) == told
