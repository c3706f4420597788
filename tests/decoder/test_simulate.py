"""The simulated participant against what it claims about itself."""

from pathlib import Path

import numpy as np
import pytest

from decoder.simulation import VERSION
from decoder.simulation.eeg import EEG_CHANNELS, SFREQ, Participant, Truth
from decoder.simulation.fmri import AREAS, FMRI_PRESETS, haemodynamic_response, simulate_fmri, write_fmri
from decoder.simulation.headmodel import leadfield
from decoder.visual_features import ORIENTATIONS, cells, contrast_energy, low_level, mid_level, opponent
from minddiffuser.maps.maps import regions
from stream.errors import RecordingError
from stream.files.registry import read

N = 60


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Coarse noise: pictures that differ in every cell."""
    coarse = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(6, axis=1).repeat(6, axis=2)


@pytest.fixture(scope="module")
def meanings() -> np.ndarray:
    """Semantic vectors of unit length."""
    vectors = np.random.default_rng(1).normal(size=(N, 40)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


LABELS = tuple(f"p{i}" for i in range(N))


@pytest.fixture(scope="module")
def recorded(pictures: np.ndarray, meanings: np.ndarray):
    """One EEG recording of 20 repeats, and its truth."""
    return Participant("eeg", "demo", 3, pictures, meanings).record(
        pictures, meanings, LABELS, run=3, repeats=20, soa=0.7
    )


def epochs(raw, truth: Truth) -> np.ndarray:
    """Cut 0 to 0.4 s, (trials, channels, times)."""
    data = raw.get_data()
    starts = np.round(truth.onsets * SFREQ).astype(int)
    return np.stack([data[:, s : s + 100] for s in starts])


def test_recording_is_what_it_says(recorded) -> None:
    """63 channels of easycap-M1 at 250 Hz, in volts, with an annotation at each onset that names the picture."""
    raw, truth = recorded
    assert tuple(raw.ch_names) == EEG_CHANNELS
    assert len(set(EEG_CHANNELS)) == 63
    assert raw.get_montage() is not None
    assert raw.info["sfreq"] == 250
    assert 5e-6 < np.sqrt(np.mean(raw.get_data() ** 2)) < 2e-5
    np.testing.assert_allclose(raw.annotations.onset, truth.onsets, atol=1e-6)
    assert tuple(raw.annotations.description) == truth.labels
    assert sorted(truth.labels) == sorted(LABELS * 20)


def test_averages_approach_the_true_response(recorded, pictures: np.ndarray, meanings: np.ndarray) -> None:
    """The mean over repeats correlates with the leadfield times the true amplitudes, picture by picture."""
    raw, truth = recorded
    participant = Participant("eeg", "demo", 3, pictures, meanings)
    found = epochs(raw, truth)
    found -= found.mean(axis=0)
    times = np.arange(100) / SFREQ
    labels = np.asarray(truth.labels)
    hits = []
    expected = {name: participant.response(truth.amplitudes[truth.labels.index(name)], times) for name in LABELS}
    for name in LABELS:
        mean = found[labels == name].mean(axis=0).ravel()
        r = [np.corrcoef(mean, expected[other].ravel())[0, 1] for other in LABELS]
        hits.append(np.mean(r[LABELS.index(name)] > np.delete(r, LABELS.index(name))))
    assert np.mean(hits) > 0.9


def test_areas_answer_in_their_order(recorded) -> None:
    """V1 answers at about 95 ms, V4 at 150, IT at 220; their dipoles lie at the back and along the temporal lobes."""
    _, truth = recorded
    area = np.asarray(truth.sources.area)
    mean = {name: truth.sources.latency[area == name].mean() for name in ("V1", "V4", "IT")}
    np.testing.assert_allclose([mean["V1"], mean["V4"], mean["IT"]], [0.095, 0.150, 0.220], atol=0.005)
    assert truth.sources.position[area == "V1", 1].max() < -0.05
    assert np.abs(truth.sources.position[area == "IT", 0]).min() > 0.04
    assert np.linalg.norm(truth.sources.position, axis=1).max() < 0.0855


def test_evoked_size_is_the_presets(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """What differs between pictures has the RMS that the preset names."""
    participant = Participant("eeg", "thingslike", 0, pictures, meanings)
    code = participant.code(pictures, meanings)
    evoked = np.stack([participant.response(each, np.arange(0, 0.4, 1 / SFREQ)) for each in code])
    assert np.sqrt(np.mean(evoked**2)) == pytest.approx(0.6e-6, rel=0.1)


def test_two_runs_share_the_brain_and_not_the_noise(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """A picture has the same amplitudes in every run; the data differ; the same run twice is bit-equal."""
    participant = Participant("eeg", "demo", 0, pictures, meanings)
    again = Participant("eeg", "demo", 0, pictures, meanings)
    one, a = participant.record(pictures, meanings, LABELS, run=1)
    two, b = participant.record(pictures, meanings, LABELS, run=2)
    same, _ = again.record(pictures, meanings, LABELS, run=1)
    np.testing.assert_array_equal(one.get_data(), same.get_data())
    assert np.abs(np.corrcoef(one.get_data()[0], two.get_data()[0])[0, 1]) < 0.3
    order = [a.labels.index(name) for name in b.labels]
    np.testing.assert_allclose(a.amplitudes[order], b.amplitudes, rtol=1e-5, atol=1e-12)


def test_another_seed_is_another_brain(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """Participants differ in how their sources are turned."""
    one, two = (Participant("eeg", "demo", seed, pictures, meanings) for seed in (0, 1))
    assert np.abs(one.sources.orientation - two.sources.orientation).max() > 0.1


def test_leadfield_is_that_of_a_sphere(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """A radial dipole is silent to MEG (Sarvas 1987) and not to EEG; EEG is referred to the average."""
    meg = Participant("meg", "demo", 0, pictures, meanings)
    eeg = Participant("eeg", "demo", 0, pictures, meanings)
    place = np.array([[0.0, -0.06, 0.03]])
    radial = place / np.linalg.norm(place)
    tangential = np.array([[1.0, 0.0, 0.0]])
    silent, loud = leadfield(meg.info, place, radial), leadfield(meg.info, place, tangential)
    assert np.abs(silent).max() < 1e-6 * np.abs(loud).max()
    seen = leadfield(eeg.info, place, radial)
    assert np.abs(seen.mean()) < 1e-9 * np.abs(seen).max()
    assert eeg.info["ch_names"][int(np.abs(seen).argmax())] in {"POz", "Oz", "PO3", "PO4", "Pz", "O1", "O2"}


def test_a_turned_cap_sees_the_head_from_its_new_place(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """Turned to the left by a quarter, the front of the cap sees what lies to the left; a full turn changes nothing."""
    straight, full, quarter = (
        Participant("eeg", "demo", 0, pictures, meanings, rotation=(0, 0, angle)).leadfield for angle in (0, 360, 90)
    )
    np.testing.assert_allclose(full, straight, atol=1e-6 * np.abs(straight).max())
    front, left, right, back = (EEG_CHANNELS.index(name) for name in ("AFz", "T7", "T8", "POz"))
    moved = np.corrcoef(np.concatenate([quarter, straight]))
    assert moved[front, 63 + left] > 0.9
    assert moved[right, 63 + front] > 0.9
    assert moved[front, 63 + left] > moved[front, 63 + right]
    assert moved[left, 63 + back] > moved[left, 63 + front]


def test_meg_is_recorded_in_tesla(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """102 magnetometers on the helmet, with noise of a few hundred femtotesla."""
    raw, truth = Participant("meg", "demo", 0, pictures, meanings).record(pictures, meanings, LABELS, run=0)
    assert raw.get_channel_types(unique=True) == ["mag"]
    assert len(raw.ch_names) == 102
    assert 5e-14 < np.sqrt(np.mean(raw.get_data() ** 2)) < 1e-12
    assert truth.leadfield.shape[0] == 102
    where = np.array([channel["loc"][:3] for channel in raw.info["chs"]])
    assert np.linalg.norm(where, axis=1).min() > 0.09


def test_truth_and_recording_are_read_back(recorded, tmp_path: Path) -> None:
    """FIF and .npz hold what was simulated."""
    import mne

    raw, truth = recorded
    raw.save(tmp_path / "run_raw.fif", verbose="error")
    truth.save(tmp_path / "truth.npz")
    again = mne.io.read_raw_fif(tmp_path / "run_raw.fif", verbose="error")
    np.testing.assert_allclose(again.get_data(), raw.get_data(), rtol=1e-5, atol=1e-12)
    assert tuple(again.annotations.description) == truth.labels
    np.testing.assert_allclose(again.annotations.onset, truth.onsets, atol=1e-6)
    loaded = Truth.load(tmp_path / "truth.npz")
    assert (loaded.labels, loaded.sources.area, loaded.snr_db) == (truth.labels, truth.sources.area, truth.snr_db)
    np.testing.assert_array_equal(loaded.amplitudes, truth.amplitudes)


def test_codes_say_what_is_where() -> None:
    """A red upper left quarter is luminance and red-green there, and edges where it ends."""
    image = np.zeros((1, 48, 48, 3), np.uint8)
    image[0, :24, :24, 0] = 255
    contrast, luminance, red_green, blue_yellow = low_level(image)[0]
    assert (luminance[:3, :3] > 0.3).all()
    assert (luminance[3:] == 0).all()
    assert (red_green[:3, :3] > 0.9).all()
    assert (blue_yellow[:3, :3] < -0.4).all()
    assert contrast.max() < 1e-3
    saturation, across, *_ = mid_level(image)[0]
    assert saturation[0, 0] > saturation[2, 2]
    assert across[0, 1] > across[0, 2]
    np.testing.assert_allclose(cells(opponent(image), 2)[0, 0], [[1 / 3, 0], [0, 0]], atol=1e-6)


def test_contrast_energy_knows_no_polarity() -> None:
    """A picture and its negative have the same oriented energy, and a plain one has none anywhere."""
    image = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    np.testing.assert_allclose(contrast_energy(image), contrast_energy(255 - image), atol=1e-4)
    assert contrast_energy(np.full((1, 64, 64, 3), 90, np.uint8)).max() < 0.05


@pytest.mark.parametrize("angle", ORIENTATIONS)
def test_a_bar_excites_its_own_orientation(angle: int) -> None:
    """Of the channels of one scale, that of a bar's orientation (clockwise from level) answers most."""
    down, across = np.mgrid[:96, :96] - 47.5
    away = down * np.cos(np.radians(angle)) - across * np.sin(np.radians(angle))
    bar = np.where(np.abs(away) < 6, 255, 0).astype(np.uint8)
    energy = contrast_energy(np.repeat(bar[None, :, :, None], 3, axis=3))[0].mean(axis=(1, 2))
    assert (energy.reshape(-1, 4).argmax(axis=1) == ORIENTATIONS.index(angle)).all()


def test_contrast_energy_tells_where_a_figure_is() -> None:
    """The centre of energy of a disc follows its centre, whatever its size and polarity."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:64, :64]
    true, found = [], []
    for number in range(40):
        x, y, radius = *rng.uniform(16, 48, 2), rng.uniform(5, 12)
        disc = np.hypot(down - y, across - x) < radius
        picture = np.where(disc ^ (number % 2 == 1), 220, 40).astype(np.uint8)
        energy = contrast_energy(np.repeat(picture[None, :, :, None], 3, axis=3))[0].sum(axis=0)
        place = (np.arange(6) + 0.5) / 6 * 64
        true.append((x, y))
        found.append(((energy.sum(axis=0) @ place) / energy.sum(), (energy.sum(axis=1) @ place) / energy.sum()))
    for axis in (0, 1):
        assert np.corrcoef(np.array(true)[:, axis], np.array(found)[:, axis])[0, 1] > 0.95


def test_thingslike_stays_as_it_was_published(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """Complex cells are the demo's alone: amplitudes and data of `thingslike` are those behind published figures."""
    published = [9.8333162e-7, 3.7542565e-6, -4.2835432e-6, 3.1985183e-8]
    participant = Participant("eeg", "thingslike", 0, pictures, meanings)
    raw, truth = participant.record(pictures, meanings, LABELS, run=0)
    assert len(truth.sources.area) == 221
    np.testing.assert_allclose(np.abs(truth.amplitudes).mean(), 3.8333274e-9, rtol=1e-4)
    np.testing.assert_allclose(raw.get_data()[::20, 500], published, rtol=1e-3)


def test_the_demo_participant_is_that_of_its_version(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """Kept recordings and the shipped decoder are of this participant: whoever changes it raises `VERSION`."""
    participant = Participant("eeg", "demo", 0, pictures, meanings)
    raw, truth = participant.record(pictures, meanings, LABELS, run=1)
    assert (VERSION, len(truth.sources.area), truth.labels[:3]) == (1, 509, ("p12", "p52", "p33"))
    np.testing.assert_allclose(np.abs(truth.amplitudes).mean(), 5.7976745e-8, rtol=1e-4)
    of_version = [8.8897797e-7, 1.2249066e-6, -8.3287489e-7, 1.4123743e-6]
    np.testing.assert_allclose(raw.get_data()[::20, 500], of_version, rtol=1e-3)


def test_a_thingslike_scan_stays_as_it_was_published(pictures: np.ndarray, meanings: np.ndarray) -> None:
    """More voxels and complex cells are the demo's alone: the data of `thingslike` are those behind published figures.

    Only figures are held to, and not a hash: how products are summed differs from processor to processor.
    """
    image, _, truth = simulate_fmri(pictures, meanings, LABELS, preset="thingslike", seed=2, soa=12)
    bold = image.get_fdata()
    assert bold.shape == (10, 9, 3, 369)
    np.testing.assert_allclose(np.abs(truth.amplitudes).mean(), 0.40420204, rtol=1e-4)
    np.testing.assert_allclose(bold[0, 0, :, 7], [1007.36633, 1018.90076, 1052.3768], rtol=1e-5)
    np.testing.assert_allclose(bold[3, 4, :, 100], [987.6598, 968.7029, 993.78613], rtol=1e-5)


def test_complex_cells_of_a_scan_see_contrast_whatever_its_polarity() -> None:
    """Inverting bars on mid-grey moves the demo's simple V1 voxels, and leaves those of contrast energy as they are."""
    rng = np.random.default_rng(4)
    bars = np.repeat(rng.integers(28, 228, (N, 1, 12), dtype=np.uint8), 48, axis=1).repeat(4, axis=2)
    pictures = np.repeat(bars[..., None], 3, axis=3)
    both = np.concatenate([pictures, 255 - pictures])
    meanings = np.eye(2 * N, dtype=np.float32)
    labels = [f"p{i}" for i in range(2 * N)]
    _, _, truth = simulate_fmri(both, meanings, labels, preset="demo", seed=2)
    shown = truth.amplitudes[np.argsort([labels.index(name) for name in truth.labels])]
    change = np.abs(shown[:N] - shown[N:]).mean(axis=0)
    kinds = np.broadcast_to(np.array(FMRI_PRESETS["demo"].slices), truth.areas.shape).ravel()
    assert change[kinds == "energy"].max() < 1e-2
    assert np.median(change[kinds == "low"]) > 1
    assert (truth.areas.ravel()[np.isin(kinds, ["low", "energy"])] == 1).all()


def test_scan_answers_with_the_haemodynamic_delay(pictures: np.ndarray, meanings: np.ndarray, tmp_path: Path) -> None:
    """Each area's voxels follow their true amplitudes some five seconds later, and files hold scan and events."""
    import nibabel

    image, events, truth = simulate_fmri(pictures, meanings, LABELS, seed=2, soa=12)
    write_fmri(image, events, tmp_path / "bold.nii.gz")
    again = nibabel.load(tmp_path / "bold.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(), image.get_fdata())
    assert again.header.get_zooms()[3] == 2
    lines = (tmp_path / "bold_events.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["onset", "duration", "trial_type"]
    assert len(lines) == N + 1
    bold = image.get_fdata().reshape(-1, image.shape[3])
    volumes = ((truth.onsets + 5) / 2).round().astype(int)
    before = (truth.onsets / 2).round().astype(int)
    rise = (bold[:, volumes] - bold[:, before]).T
    r = [np.corrcoef(rise[:, v], truth.amplitudes[:, v])[0, 1] for v in range(len(bold))]
    for area in (1, 2, 3):
        assert np.mean(np.asarray(r)[truth.areas.ravel() == area]) > 0.4
    assert np.unique(truth.areas).tolist() == [1, 2, 3]


def test_a_scan_with_areas_is_read_with_their_names(pictures: np.ndarray, meanings: np.ndarray, tmp_path: Path) -> None:
    """Voxels are named after the area that the mask's table gives them, which maps part them by; a gap is refused."""
    image, events, truth = simulate_fmri(pictures, meanings, LABELS, seed=2, soa=12)
    write_fmri(image, events, tmp_path / "run.nii.gz", truth.areas)
    channels = read(tmp_path / "run.nii.gz").streams[0].channels
    assert [name.split(":")[0] for name in channels.names] == [AREAS[area - 1] for area in truth.areas.ravel()]
    assert regions(channels) == tuple(AREAS[area - 1] for area in truth.areas.ravel())
    assert channels.names[0] == "V1:v0-0-0"
    (tmp_path / "run_mask.tsv").write_text("index\tname\n1\tV1\n3\tIT\n", "utf-8")
    with pytest.raises(RecordingError, match="names no region 2, which run_mask"):
        read(tmp_path / "run.nii.gz")


def test_haemodynamic_response_has_its_shape() -> None:
    """It peaks at about 5 s with 1, and dips below zero at about 15 s."""
    times = np.arange(0, 30, 0.1)
    response = haemodynamic_response(times)
    assert 4.5 < times[response.argmax()] < 5.5
    assert response.max() == pytest.approx(1, abs=1e-3)
    assert response[times > 12].min() < -0.05
