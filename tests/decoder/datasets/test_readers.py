"""Readers of recorded data sets, on small files in the layout in which the sets are published."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Selection, load
from decoder.datasets.captions import describe
from decoder.errors import DatasetError
from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of


def write_muse(
    root: Path, *, codes: tuple[int, ...] = (1, 2), runs: int = 6, where: str = "N170/subject1/session1"
) -> None:
    """Write runs of muse-lsl's CSV, two seconds each, with one marker of each code."""
    folder = root / "muse_eeg_visual" / where
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for run in range(runs):
        table = np.zeros((512, 7))
        table[:, 0] = 1000 + np.arange(512) / 256
        table[:, 1:6] = rng.normal(size=(512, 5)) * 10
        for place, code in enumerate(codes):
            table[100 * (place + 1), 6] = code
        with gzip.open(folder / f"data_2017-09-13-15.3{run}.00.csv.gz", "wt") as file:
            file.write("timestamps,TP9,AF7,AF8,TP10,Right AUX,Marker0\n")
            np.savetxt(file, table, delimiter=",", fmt="%.3f")
    for name, level in (("faces", 200), ("houses", 50)):
        pictures = root / "muse_eeg_visual" / "stimuli" / "face_house" / name
        pictures.mkdir(parents=True, exist_ok=True)
        for offset in (-10, 10):
            Image.new("L", (30, 30), level + offset).save(pictures / f"{name}{offset}.jpg")


def test_muse_marker_one_is_a_house_and_two_a_face(tmp_path: Path) -> None:
    """The codes mean what the stimulus script of that day meant; the last run is for testing."""
    write_muse(tmp_path)
    dataset = load("muse-faces", tmp_path)
    assert [len(run.events) for run in dataset.train] == [2] * 5
    for run in (*dataset.train, dataset.live):
        assert [(event.code, event.label) for event in run.events] == [(1, "house"), (2, "face")]
        assert run.events[0].time == pytest.approx(100 / 256, abs=1e-3)
    assert dataset.live.name == "muse-faces run 6"
    assert {event.label for event in dataset.live.events} == set(dataset.stimuli.ids)


def test_muse_pictures_are_the_means_of_their_categories(tmp_path: Path) -> None:
    """Which photograph was shown is not known, so a category's picture is the mean of its photographs."""
    write_muse(tmp_path)
    stimuli = load("muse-faces", tmp_path).stimuli
    levels = dict(zip(stimuli.ids, stimuli.images.mean(axis=(1, 2, 3)), strict=True))
    assert levels["face"] == pytest.approx(200, abs=2)
    assert levels["house"] == pytest.approx(50, abs=2)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"codes": (1, 7)}, "'7'"), ({"runs": 0}, r"subject1 holds no recordings; fetch it")]
)
def test_muse_files_of_another_task_are_refused(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    """Unknown markers, or a person without runs, are named."""
    write_muse(tmp_path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=message):
        load("muse-faces", tmp_path)


def test_muse_reads_whoever_is_there_with_as_many_runs_as_there_are(tmp_path: Path) -> None:
    """Any person of any task: all sessions, the first so many, or one by its folder's name."""
    for where, runs in (("subject2/session1", 2), ("subject2/session10", 1), ("subject2/session2", 3)):
        write_muse(tmp_path, runs=runs, where=f"left-right/{where}")
    write_muse(tmp_path, runs=1, where="left-right/subject2/test")
    every = load("muse-sides", tmp_path, Selection(subject=2))
    runs = [every.sessions[run.name] for run in (*every.train, every.live)]
    assert runs == ["session1"] * 2 + ["session2"] * 3 + ["session10"]
    first = load("muse-sides", tmp_path, Selection(subject=2, sessions=2))
    assert (len(first.train), first.sessions[first.live.name]) == (4, "session2")
    only = load("muse-sides", tmp_path, Selection(subject=2, session="test"))
    assert only.train == (only.live,)
    assert not only.reported
    with pytest.raises(DatasetError, match=r"no session 'session3'; it holds test, session1, session2, session10"):
        load("muse-sides", tmp_path, Selection(subject=2, session="session3"))
    with pytest.raises(DatasetError, match="holds 3 sessions, not 4"):
        load("muse-sides", tmp_path, Selection(subject=2, sessions=4))
    with pytest.raises(DatasetError, match="subject5 is missing"):
        load("muse-sides", tmp_path, Selection(subject=5))


def test_muse_gratings_are_told_apart_by_their_stripes_and_other_markers_are_left_out(tmp_path: Path) -> None:
    """Ends of gratings announce nothing; a run that lies there packed and not is read once."""
    write_muse(tmp_path, codes=(1, 3, 2, 4), runs=2, where="spatial_freq/subject1/session1")
    folder = tmp_path / "muse_eeg_visual" / "spatial_freq" / "subject1" / "session1"
    packed = min(folder.iterdir())
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    dataset = load("muse-gratings", tmp_path)
    assert len(dataset.train) == 1
    assert [event.label for event in dataset.live.events] == ["coarse", "fine"]
    changes = [np.abs(np.diff(image[64, :, 0].astype(int))).sum() for image in dataset.stimuli.images]
    assert changes[1] > 4 * changes[0]


def write_exo(
    root: Path,
    codes: tuple[int, ...] = (1, 2, 4),
    subject: int = 3,
    dates: tuple[str, ...] = ("2012.07.11-15.25.23", "2012.07.11-15.33.08"),
) -> None:
    """Write sessions of eight channels with one event of each code, two seconds apart."""
    import mne

    folder = root / "ssvep_exo_kalunga2016" / f"subject{subject:02d}"
    folder.mkdir(parents=True)
    info = mne.create_info(["Oz", "O1", "O2", "PO3", "POz", "PO7", "PO8", "PO4"], 256.0, "eeg")
    for date in dates:
        data = np.random.default_rng(0).normal(size=(8, 256 * 8))
        raw = mne.io.RawArray(data, info, verbose="error")
        raw.save(folder / f"record-[{date}]_raw.fif", verbose="error")
        events = np.array([[512 * (place + 1), 0, code] for place, code in enumerate(codes)])
        mne.write_events(folder / f"record-[{date}]-eve.fif", events, verbose="error")


def test_exo_reads_whoever_is_there_with_as_many_sessions_as_there_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions that the authors left out are named, and read only where they are chosen."""
    dates = ("2014.02.26-15.10.48", "2014.02.26-15.32.36", "2014.02.26-15.40.22")
    write_exo(tmp_path, subject=10, dates=dates)
    dataset = load("ssvep-exo", tmp_path, Selection(subject=10))
    assert (len(dataset.train), dataset.live.name) == (1, "ssvep-exo session 2")
    assert not dataset.reported
    assert "subject 10: session 2014.02.26-15.10.48 was left out by the authors" in caplog.text
    only = load("ssvep-exo", tmp_path, Selection(subject=10, session=dates[0]))
    assert only.train == (only.live,)
    write_exo(tmp_path)
    assert load("ssvep-exo", tmp_path).reported


def test_exo_events_name_the_light_and_rest_is_no_stimulus(tmp_path: Path) -> None:
    """Code 4 is 17 Hz (not 21), times are the samples' own, and trials without a light are no stimulus."""
    write_exo(tmp_path)
    dataset = load("ssvep-exo", tmp_path)
    for session in (*dataset.train, dataset.live):
        assert [(event.time, event.label) for event in session.events] == [
            (2.0, "rest"),
            (4.0, "13 Hz"),
            (6.0, "17 Hz"),
        ]
    assert dataset.stimuli.ids == ("13 Hz", "17 Hz", "21 Hz")


def test_exo_events_of_another_experiment_are_refused(tmp_path: Path) -> None:
    """Unknown codes are named."""
    write_exo(tmp_path, codes=(1, 9))
    with pytest.raises(DatasetError, match=r"\['9'\]"):
        load("ssvep-exo", tmp_path)


def write_haxby(root: Path, labels: tuple[str, ...], n_runs: int = 2) -> np.ndarray:
    """Write runs of those labels, volumes of 3 x 2 x 1 voxels of which five are inside; gives the volumes."""
    import nibabel

    folder = root / "haxby2001_pymvpa_slice"
    folder.mkdir(parents=True)
    bold = np.random.default_rng(0).integers(0, 1000, (3, 2, 1, n_runs * len(labels))).astype(np.int16)
    mask = np.ones((3, 2, 1), np.int16)
    mask[0, 0, 0] = 0
    nibabel.save(nibabel.Nifti1Image(bold, np.eye(4)), folder / "bold.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "mask.nii.gz")
    lines = [f"{label} {run}" for run in range(n_runs) for label in labels]
    (folder / "attributes_literal.txt").write_text("\n".join(lines) + "\n")
    return bold


def test_haxby_runs_are_recordings_with_an_event_a_block(tmp_path: Path) -> None:
    """A block begins where the label changes, within its own run only; rest is no event."""
    bold = write_haxby(tmp_path, ("rest", "face", "face", "cat"))
    dataset = load("haxby", tmp_path)
    runs = (*dataset.train, dataset.live)
    assert [[(event.time, event.label) for event in run.events] for run in runs] == [[(2.5, "face"), (7.5, "cat")]] * 2
    assert runs[1].streams[0].data.shape == (4, 5)
    np.testing.assert_array_equal(runs[1].streams[0].data[:, 0], bold[0, 1, 0, 4:])


def test_haxby_labels_of_another_experiment_are_refused(tmp_path: Path) -> None:
    """An unknown label is named."""
    write_haxby(tmp_path, ("rest", "dog"))
    with pytest.raises(DatasetError, match="dog"):
        load("haxby", tmp_path)


def test_muse_sides_are_drawn_where_they_were_shown(tmp_path: Path) -> None:
    """Marker 1 is the left grating, and its picture varies on the left half only."""
    write_muse(tmp_path, runs=5, where="left-right/subject1/session1")
    dataset = load("muse-sides", tmp_path)
    assert [(event.code, event.label) for event in dataset.live.events] == [(1, "left"), (2, "right")]
    left = dataset.stimuli.images[dataset.stimuli.rows(["left"])[0]]
    assert left[:, :64].std() > 10 * left[:, 64:].std()


def write_v4(root: Path, n: int = 40, n_pictures: int | None = None, session: str = "201025") -> np.ndarray:
    """Write a session whose photographs have their number's grey level."""
    folder = root / "v4_natural_images_cowley2023"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "responses_repeat_averaged").mkdir(exist_ok=True)
    responses = np.random.default_rng(0).uniform(0, 3, (5, n))
    np.save(folder / "responses_repeat_averaged" / f"responses_{session}.npy", responses)
    with zipfile.ZipFile(folder / "images" / f"images_{session}.zip", "w") as archive:
        for number in range(n_pictures or n, 0, -1):
            picture = root / "one.jpg"
            Image.new("RGB", (16, 16), (5 * number,) * 3).save(picture)
            # Unpadded numbers: sorted as text, 10 would come before 2.
            archive.write(picture, f"image{number}.jpg")
    return responses


def test_v4_each_vector_answers_to_its_photograph(tmp_path: Path) -> None:
    """Column k of the responses belongs to image number k + 1, in windows as in the stimulus table."""
    responses = write_v4(tmp_path)
    dataset = load("v4-photos", tmp_path)
    level = dict(zip(dataset.stimuli.ids, dataset.stimuli.images.mean(axis=(1, 2, 3)), strict=True))
    for recording in (*dataset.train, dataset.live):
        windows = list(windows_of(recording, WindowSpec(mode="sample", tmin=0, tmax=0.5), FilterSpec()))
        assert len(windows) == len(recording.events)
        for window in windows:
            assert window.event is not None
            number = round(level[window.event.label] / 5)
            np.testing.assert_allclose(window.data[:, 0], responses[:, number - 1], rtol=1e-6)


def test_v4_held_out_photographs_are_a_tenth_and_not_in_training(tmp_path: Path) -> None:
    """Training and test share no photograph; the seed, and only it, chooses."""
    write_v4(tmp_path)
    dataset, again, other = (load("v4-photos", tmp_path, Selection(seed=seed)) for seed in (0, 0, 1))
    train, test = ({event.label for event in recording.events} for recording in (dataset.train[0], dataset.live))
    assert not train & test
    assert (len(train), len(test)) == (36, 4)
    assert again.live.events == dataset.live.events
    assert other.live.events != dataset.live.events
    assert dataset.description == "macaque V4 spikes"


def test_v4_pictures_that_do_not_match_the_responses_are_refused(tmp_path: Path) -> None:
    """A photograph too few is named, not shifted past."""
    write_v4(tmp_path, n_pictures=39)
    with pytest.raises(DatasetError, match="39 photographs and responses to 40"):
        load("v4-photos", tmp_path)


def test_v4_session_is_chosen_by_its_name(tmp_path: Path) -> None:
    """Any session is read by its name, with as many photographs as it has; figures are of the one they came with."""
    write_v4(tmp_path)
    write_v4(tmp_path, n=20, session="210224")
    own, other = load("v4-photos", tmp_path), load("v4-photos", tmp_path, Selection(session="210224"))
    assert (len(own.stimuli), len(other.stimuli)) == (40, 20)
    assert own.reported
    assert not other.reported
    with pytest.raises(DatasetError, match=r"responses_999999\.npy is missing"):
        load("v4-photos", tmp_path, Selection(session="999999"))


def write_miyawaki(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write 44 trials of 20 figures, shuffled and split as the published file is; gives them in measured order."""
    rng = np.random.default_rng(0)
    figures = rng.integers(0, 2, (20, 784)).astype(float)
    shown = figures[np.concatenate([np.arange(20), rng.integers(0, 20, 24)])]
    responses = rng.normal(size=(44, 6))
    place = rng.permutation(44)
    content = {"train_indices": place[None, :40], "test_indices": place[None, 40:]}
    for name, values in (("fmri", responses), ("stim", shown)):
        content |= {f"{name}Trn": values[place[:40]], f"{name}Test": values[place[40:]]}
    (root / "miyawaki2008_figures_v1").mkdir(parents=True)
    savemat(root / "miyawaki2008_figures_v1" / "miyawaki_structured_28x28.mat", content)
    return responses, shown


def test_miyawaki_trials_are_in_measured_order_with_their_own_figures(tmp_path: Path) -> None:
    """The published shuffle is undone, and each label names the figure that was shown."""
    responses, shown = write_miyawaki(tmp_path)
    dataset = load("miyawaki", tmp_path)
    np.testing.assert_allclose(dataset.live.streams[0].data, responses, rtol=1e-6)
    rows = dataset.stimuli.rows(event.label for event in dataset.live.events)
    np.testing.assert_array_equal(dataset.stimuli.images[rows][:, ::4, ::4, 0].reshape(44, -1), shown * 255)


def test_miyawaki_figures_are_each_their_own_group(tmp_path: Path) -> None:
    """Leaving one group out leaves one figure out, with all its trials."""
    write_miyawaki(tmp_path)
    dataset = load("miyawaki", tmp_path)
    assert len(dataset.stimuli) == 20
    assert dataset.stimuli.groups == dataset.stimuli.ids
    assert dataset.train == (dataset.live,)


@pytest.mark.parametrize("name", ["muse-faces", "muse-sides", "ssvep-exo", "haxby", "v4-photos", "miyawaki"])
def test_data_that_are_not_there_are_said_to_be_missing_and_where_to_find_them(name: str, tmp_path: Path) -> None:
    """The message names the missing path and the public source."""
    with pytest.raises(DatasetError, match=r"is missing; the data come from github\.com/"):
        load(name, tmp_path)


def test_a_data_set_without_a_reader_is_refused_by_name(tmp_path: Path) -> None:
    """The message lists what there is."""
    with pytest.raises(DatasetError, match=r"'eeg3'.*v4-photos"):
        load("eeg3", tmp_path)


class OneHot:
    """Encoders in whose space picture k is word k, and a little of word k + 1."""

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Picture k: word k, and half of the next."""
        rows = images[:, 0, 0, 0]
        return (np.eye(4)[rows] + 0.5 * np.eye(4)[(rows + 1) % 4]).astype(np.float32)

    def embed_texts(self, captions: list[str]) -> np.ndarray:
        """Words are their numbers."""
        return np.eye(4)[[int(caption) for caption in captions]].astype(np.float32)


def test_pictures_are_captioned_by_the_most_similar_words_best_first() -> None:
    """Of four words, a picture gets the two that are most like it; captions that exist are kept."""
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    bare = StimulusTable(("a", "b", "c", "d"), images)
    described = describe(bare, OneHot(), ["3", "2", "1", "0"], best=2)
    assert described.captions == (("0", "1"), ("1", "2"), ("2", "3"), ("3", "0"))
    assert describe(described, OneHot(), ["0"]) is described
    assert describe(bare, OneHot(), []) is bare
