"""Readers of THINGS-EEG2 and THINGS-MEG, on small files in the layout in which the sets are published."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from decoder.datasets import Dataset, Selection, load
from decoder.datasets.photographs import squared
from decoder.datasets.sessions import normaliser
from decoder.datasets.things import caption_of, concept_of
from decoder.errors import DatasetError
from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.types.recording import Recording
from stream.types.windows import Window
from tests.decoder.datasets.published import (
    EEG2_CHANNELS,
    MEG_CHANNELS,
    Things,
    write_eeg2_images,
    write_eeg2_preprocessed,
    write_eeg2_raw,
    write_eeg2_source,
    write_meg,
)


def cut(recording: Recording, tmin: float, tmax: float) -> list[Window]:
    """Cut windows about the events of a recording."""
    return list(windows_of(recording, WindowSpec(mode="event", tmin=tmin, tmax=tmax), FilterSpec()))


def shown(recordings: tuple[Recording, ...]) -> set[str]:
    """Give the labels of all events."""
    return {event.label for recording in recordings for event in recording.events}


@pytest.fixture
def things(tmp_path: Path) -> Things:
    """Write the pictures of THINGS-EEG2."""
    return write_eeg2_images(tmp_path)


def test_a_concept_is_the_file_name_without_its_number() -> None:
    """Concepts of several words, and numbers that tell two meanings apart, are kept; captions are plain words."""
    assert concept_of("images_test_meg/aircraft_carrier_06s.jpg") == "aircraft_carrier"
    assert concept_of("bat1_01b.jpg") == "bat1"
    assert caption_of("aircraft_carrier") == "aircraft carrier"
    assert caption_of("bat1") == "bat"


def test_photographs_are_cut_to_their_middle_square() -> None:
    """Of a wide or a high photograph the middle is kept, at its own proportions."""
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    for pixels in (wide, wide.transpose(1, 0, 2)):
        np.testing.assert_array_equal(squared(pixels, 10), np.full((10, 10, 3), 200, np.uint8))
    assert squared(wide, 4).shape == (4, 4, 3)


def test_a_session_is_normalised_to_white_noise_of_unit_size() -> None:
    """Noise that is mixed between channels comes out unmixed; other data get the same treatment, not their own."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6)).astype(np.float32)
    noise = mixing @ rng.normal(size=(400, 6, 50)).astype(np.float32)
    whitened = normaliser(noise, "whiten")(noise).transpose(1, 0, 2).reshape(6, -1)
    np.testing.assert_allclose(np.cov(whitened), np.eye(6), atol=0.05)
    scored = normaliser(noise, "zscore")
    np.testing.assert_allclose(scored(noise).std(axis=(0, 2)), 1, rtol=1e-3)
    np.testing.assert_allclose(scored(3 * noise).std(axis=(0, 2)), 3, rtol=1e-3)
    assert normaliser(noise, "none")(noise) is noise


def test_eeg2_windows_are_the_published_epochs(tmp_path: Path, things: Things) -> None:
    """Every training presentation gives one window that holds its own epoch, to the bit, under its own picture."""
    written = write_eeg2_preprocessed(tmp_path, things)["training"]["preprocessed_eeg_data"]
    dataset = load("things-eeg2", tmp_path)
    (train,) = dataset.train
    windows = cut(train, -0.2, 0.8)
    assert len(windows) == written.shape[0] * written.shape[1] == 60 * 4
    repeat: dict[str, int] = {}
    for window in windows:
        assert window.event is not None
        assert window.quality.rejected is None
        k = repeat[window.event.label] = repeat.get(window.event.label, -1) + 1
        picture = things.files["training"].index(f"{window.event.label}.jpg")
        np.testing.assert_array_equal(window.data, written[picture, k].astype(np.float32))
    stream = train.streams[0]
    assert (stream.sfreq, stream.channels.names) == (100.0, EEG2_CHANNELS)
    assert set(stream.channels.units) == {"z"}
    assert dataset.description == "human EEG (THINGS-EEG2, subject 1)"


def test_eeg2_windows_never_run_from_one_epoch_into_the_next(tmp_path: Path, things: Things) -> None:
    """A window that is longer than the epochs is rejected with the number of samples that are not there."""
    write_eeg2_preprocessed(tmp_path, things)
    windows = cut(load("things-eeg2", tmp_path).live, 0.0, 1.0)
    assert windows
    assert {window.quality.samples_lost for window in windows} == {20}


@pytest.mark.parametrize("repeats", [None, 3])
def test_eeg2_repeats_are_averaged_in_the_test_only(tmp_path: Path, things: Things, repeats: int | None) -> None:
    """A test picture has one epoch, the mean of all or of the first so many repeats."""
    written = write_eeg2_preprocessed(tmp_path, things)["test"]["preprocessed_eeg_data"]
    windows = cut(load("things-eeg2", tmp_path, Selection(repeats=repeats)).live, -0.2, 0.8)
    assert [f"{window.event.label}.jpg" for window in windows if window.event] == things.files["test"]
    wanted = written[:, :repeats].mean(axis=1)
    np.testing.assert_allclose(np.stack([window.data for window in windows]), wanted, rtol=1e-5, atol=1e-6)


def test_eeg2_test_concepts_are_none_of_the_training_concepts(tmp_path: Path, things: Things) -> None:
    """Training and test share neither picture nor concept, and pictures of one concept are one group."""
    write_eeg2_preprocessed(tmp_path, things)
    dataset = load("things-eeg2", tmp_path)
    train, test = shown(dataset.train), shown((dataset.live,))
    assert {concept_of(label) for label in train} & {concept_of(label) for label in test} == set()
    assert (len(train), len(test)) == (60, 6)
    groups = dict(zip(dataset.stimuli.ids, dataset.stimuli.groups, strict=True))
    assert groups["thing_aa1_01b"] == groups["thing_aa1_03s"] == "thing_aa1"
    assert len(set(groups.values())) == 26
    assert dataset.stimuli.captions is not None
    row = dataset.stimuli.rows(["thing_aa1_01b"])[0]
    assert dataset.stimuli.captions[row] == ("thing aa",)
    assert dataset.stimuli.concepts[row] == "thing aa"


def test_eeg2_pictures_are_those_that_were_shown(tmp_path: Path, things: Things) -> None:
    """Picture k of the metadata is under its file's name, at the size asked for."""
    write_eeg2_preprocessed(tmp_path, things)
    stimuli = load("things-eeg2", tmp_path, Selection(side=48)).stimuli
    for part in ("training", "test"):
        rows = stimuli.rows(Path(file).stem for file in things.files[part])
        difference = stimuli.images[rows].astype(int) - things.pictures[part]
        assert np.abs(difference).mean() < 12  # JPEG
    assert load("things-eeg2", tmp_path, Selection(side=20)).stimuli.images.shape[1:] == (20, 20, 3)


def test_eeg2_at_250_hz_has_the_last_of_its_times(tmp_path: Path, things: Things) -> None:
    """The 250 Hz files are bare pickles with 300 times for 250 samples: the samples begin with the picture."""
    written = write_eeg2_preprocessed(tmp_path, things, by_others=True)["test"]["preprocessed_eeg_data"]
    dataset = load("things-eeg2", tmp_path, Selection(form="preprocessed-250hz"))
    (window, *_) = cut(dataset.live, 0.0, 1.0)
    assert (window.sfreq, window.tmin, window.quality.rejected) == (250.0, pytest.approx(0, abs=1e-6), None)
    np.testing.assert_allclose(window.data, written[0].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_eeg2_sessions_of_the_preprocessed_form_cannot_be_told_apart(tmp_path: Path, things: Things) -> None:
    """They were shuffled together by the publishers, so a choice of sessions is refused with the way out."""
    write_eeg2_preprocessed(tmp_path, things)
    for selection in (Selection(sessions=1), Selection(per_session="whiten")):
        with pytest.raises(DatasetError, match=r"shuffled together.*data\.form 'raw'"):
            load("things-eeg2", tmp_path, selection)


def test_eeg2_raw_sessions_are_recordings_with_an_event_a_picture(tmp_path: Path, things: Things) -> None:
    """Four training recordings in volts with the EEG channels only; the target of the task is no stimulus."""
    written = write_eeg2_raw(tmp_path, things)
    dataset = load("things-eeg2", tmp_path, Selection(form="raw"))
    assert [recording.name for recording in dataset.train] == [
        f"things-eeg2 session {k} training" for k in (1, 2, 3, 4)
    ]
    for session, recording in enumerate(dataset.train, 1):
        data = written[session, "training"]
        stream = recording.streams[0]
        assert (stream.sfreq, stream.channels.names, set(stream.channels.units)) == (1000.0, EEG2_CHANNELS, {"V"})
        np.testing.assert_array_equal(stream.data, data[:17].T.astype(np.float32))
        rows = np.flatnonzero(data[17])
        assert [event.time for event in recording.events] == pytest.approx(rows / 1000)
        names = [Path(things.files["training"][int(code) - 1]).stem for code in data[17, rows[:-1]]]
        assert [event.label for event in recording.events] == [*names, "target"]
    assert "target" not in dataset.stimuli.ids
    assert shown((dataset.live,)) == {*(Path(file).stem for file in things.files["test"]), "target"}


def test_eeg2_raw_test_sessions_follow_one_another_with_their_own_windows(tmp_path: Path, things: Things) -> None:
    """Of four sessions, one after the other, each window holds the samples after its own event."""
    written = write_eeg2_raw(tmp_path, things)
    windows = cut(load("things-eeg2", tmp_path, Selection(form="raw")).live, 0.0, 0.4)
    wanted = [
        written[session, "test"][:17, row : row + 400]
        for session in (1, 2, 3, 4)
        for row in np.flatnonzero(written[session, "test"][17]).tolist()
    ]
    assert len(windows) == len(wanted) == 28
    for window, data in zip(windows, wanted, strict=True):
        np.testing.assert_array_equal(window.data, data.astype(np.float32))


@pytest.mark.parametrize("how", ["whiten", "zscore"])
def test_eeg2_sessions_are_normalised_by_their_own_training_alone(tmp_path: Path, things: Things, how: str) -> None:
    """Sessions recorded at different gains come out alike, and corrupt test data change nothing that is fitted."""
    written = write_eeg2_raw(tmp_path, things)
    selection = Selection(form="raw", per_session=how)  # type: ignore[arg-type]
    dataset = load("things-eeg2", tmp_path, selection)
    spreads = [recording.streams[0].data.std() for recording in dataset.train]
    assert spreads == pytest.approx([1] * 4, rel=0.1)
    assert set(dataset.live.streams[0].channels.units) == {"z"}
    assert dataset.live.streams[0].data.std() == pytest.approx(1, rel=0.1)
    file = tmp_path / "things-eeg2/eeg_dataset/raw_data/sub-01/ses-02/raw_eeg_test.npy"
    content = np.load(file, allow_pickle=True).item()
    content["raw_eeg_data"][:17] = 1e3 * written[2, "test"][:17]
    np.save(file, np.array(content, dtype=object), allow_pickle=True)
    again = load("things-eeg2", tmp_path, selection)
    for before, after in zip(dataset.train, again.train, strict=True):
        np.testing.assert_array_equal(before.streams[0].data, after.streams[0].data)


def test_eeg2_as_recorded_takes_its_pictures_from_the_behavioural_files(tmp_path: Path, things: Things) -> None:
    """BrainVision in volts, the first marker (New Segment) skipped, codes by what was shown, 0 the target."""
    samples = write_eeg2_source(tmp_path, things)
    dataset = load("things-eeg2", tmp_path, Selection(form="source", sessions=1))
    assert len(dataset.train) == 5
    first = dataset.train[0]
    np.testing.assert_allclose(first.streams[0].data, samples * 1e-7, rtol=1e-5)
    assert [event.time for event in first.events] == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])
    assert [event.label in dataset.stimuli.ids for event in first.events] == [True] * 4 + [False]
    assert [things.files["training"][(event.code or 0) - 1] for event in first.events[:4]] == [
        f"{event.label}.jpg" for event in first.events[:4]
    ]


def test_eeg2_markers_that_nothing_was_shown_for_are_said(
    tmp_path: Path, things: Things, caplog: pytest.LogCaptureFixture
) -> None:
    """More markers than pictures leave the pictures as they are, with a warning; fewer are refused."""
    write_eeg2_source(tmp_path, things, extra=1)
    with caplog.at_level(logging.WARNING):
        dataset = load("things-eeg2", tmp_path, Selection(form="source", sessions=1))
    assert {len(recording.events) for recording in dataset.train} == {5}
    assert "1 markers after the last picture" in caplog.text
    shutil.rmtree(tmp_path / "things-eeg2" / "eeg_dataset")
    write_eeg2_source(tmp_path, things, extra=-1)
    with pytest.raises(DatasetError, match="4 markers for 5 pictures"):
        load("things-eeg2", tmp_path, Selection(form="source", sessions=1))


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("preprocessed", "eeg_dataset/preprocessed_data/sub-01/preprocessed_eeg_test.npy"),
        ("preprocessed", "image_set/image_metadata.npy"),
        ("preprocessed", "image_set/test_images/00001_thing_au1/thing_au1_01b.jpg"),
        ("raw", "eeg_dataset/raw_data/sub-01/ses-03/raw_eeg_training.npy"),
        ("source", "eeg_dataset/source_data/sub-01/ses-01/eeg/sub-01_ses-01_task-train_part-05_eeg.vhdr"),
        ("source", "eeg_dataset/source_data/sub-01/ses-01/beh/sub-01_ses-01_task-test_beh.mat"),
    ],
)
def test_eeg2_that_is_half_there_names_the_missing_file(tmp_path: Path, things: Things, form: str, file: str) -> None:
    """The message names the path and where the public finds it."""
    {"preprocessed": write_eeg2_preprocessed, "raw": write_eeg2_raw, "source": write_eeg2_source}[form](
        tmp_path, things
    )
    (tmp_path / "things-eeg2" / file).unlink()
    with pytest.raises(DatasetError, match=rf"{file} is missing; the data come from osf\.io"):
        load("things-eeg2", tmp_path, Selection(form=form, sessions=1 if form == "source" else None))  # type: ignore[arg-type]


def test_eeg2_of_other_shapes_or_codes_is_refused(tmp_path: Path, things: Things) -> None:
    """Data that do not go with the metadata, and a participant that is not there, are named."""
    write_eeg2_preprocessed(tmp_path, things)
    write_eeg2_raw(tmp_path, Things({"training": ["x"] * 61, "test": ["x"]}, things.pictures))
    with pytest.raises(DatasetError, match="codes \\[61\\]; its pictures are numbered 1 to 60"):
        load("things-eeg2", tmp_path, Selection(form="raw"))
    with pytest.raises(DatasetError, match="sub-02 is missing"):
        load("things-eeg2", tmp_path, Selection(subject=2))
    file = tmp_path / "things-eeg2/eeg_dataset/preprocessed_data/sub-01/preprocessed_eeg_training.npy"
    content = np.load(file, allow_pickle=True).item()
    np.save(file, np.array(content | {"ch_names": ["Oz"]}, dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"shape \(60, 4, 17, 100\), wanted \(60 pictures, repeats, 1 channels"):
        load("things-eeg2", tmp_path)


def meg(root: Path, selection: Selection | None = None) -> Dataset:
    """Read what `write_meg` wrote."""
    return load("things-meg", root, selection)


def test_meg_sessions_are_recordings_without_the_test_concepts(tmp_path: Path) -> None:
    """Twelve recordings; pictures of a concept that the test shows are left out of training, as are catch trials."""
    rows = write_meg(tmp_path)
    dataset = meg(tmp_path)
    assert [recording.name for recording in dataset.train] == [f"things-meg session {k}" for k in range(1, 13)]
    unseen = {concept_of(row["image_path"]) for row in rows if row["trial_type"] == "test"}
    wanted = {
        Path(row["image_path"]).stem
        for row in rows
        if row["trial_type"] == "exp" and concept_of(row["image_path"]) not in unseen
    }
    assert (len(unseen), len(wanted)) == (5, 72)
    assert shown(dataset.train) == wanted
    assert sum(len(recording.events) for recording in dataset.train) == 72
    assert {concept_of(label) for label in shown((dataset.live,))} == unseen
    stream = dataset.live.streams[0]
    assert (stream.sfreq, stream.channels.names) == (200.0, MEG_CHANNELS)
    assert (set(stream.channels.kinds), set(stream.channels.units)) == ({"mag"}, {"z"})


def test_meg_trials_left_out_of_training_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is dropped in silence."""
    write_meg(tmp_path)
    with caplog.at_level(logging.INFO):
        meg(tmp_path)
    assert "30 of 102 trials left out of training: they show a concept of the test" in caplog.text


def test_meg_windows_are_the_published_epochs(tmp_path: Path) -> None:
    """A training window holds its own epoch; a test window the mean of its picture's epochs over the sessions."""
    import mne

    rows = write_meg(tmp_path)
    file = tmp_path / "things-meg/derivatives/preprocessed/preprocessed_P1-epo.fif"
    epochs = mne.read_epochs(file, verbose="error").get_data().astype(np.float32)
    place: dict[str, list[int]] = {}
    for row, attributes in enumerate(rows):
        place.setdefault(Path(attributes["image_path"]).stem, []).append(row)
    dataset = meg(tmp_path)
    for recording in dataset.train:
        for window in cut(recording, -0.1, 1.305):
            assert window.event is not None
            (row,) = place[window.event.label]
            np.testing.assert_array_equal(window.data, epochs[row])
    for window in cut(dataset.live, -0.1, 1.305):
        assert window.event is not None
        assert len(place[window.event.label]) == 12
        np.testing.assert_allclose(window.data, epochs[place[window.event.label]].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_meg_of_fewer_sessions_averages_over_those(tmp_path: Path) -> None:
    """`sessions` cuts training and the repeats of the test alike."""
    write_meg(tmp_path)
    dataset = meg(tmp_path, Selection(sessions=2, per_session="zscore"))
    assert len(dataset.train) == 2
    assert len(dataset.live.events) == 5
    spread = np.concatenate([recording.streams[0].data for recording in dataset.train]).std()
    assert spread == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    "file",
    [
        "derivatives/preprocessed/preprocessed_P1-epo.fif",
        "sourcedata/sample_attributes_P1.csv",
        "object_images/thing_aa1/thing_aa1_01s.jpg",
    ],
)
def test_meg_that_is_half_there_names_the_missing_file(tmp_path: Path, file: str) -> None:
    """The message names the path and where the public finds it."""
    write_meg(tmp_path)
    (tmp_path / "things-meg" / file).unlink()
    with pytest.raises(DatasetError, match=rf"{file} is missing; the data come from openneuro\.org"):
        meg(tmp_path)


def test_meg_whose_table_or_sessions_do_not_fit_is_refused(tmp_path: Path) -> None:
    """A table of other length, and a session that has no epochs, are named."""
    write_meg(tmp_path, sessions=3)
    with pytest.raises(DatasetError, match="no epochs of session 4"):
        meg(tmp_path)
    table = tmp_path / "things-meg/sourcedata/sample_attributes_P1.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(DatasetError, match=r"holds 120 epochs and sample_attributes_P1\.csv describes 119"):
        meg(tmp_path, Selection(sessions=3))


def test_recordings_of_the_large_sets_are_named_for_what_they_are(tmp_path: Path) -> None:
    """Participant and data set stand in the description of every recording, which is shown wherever the data are."""
    write_meg(tmp_path, sessions=1)
    dataset = meg(tmp_path, Selection(sessions=1))
    descriptions = {recording.description for recording in (*dataset.train, dataset.live)}
    assert descriptions == {dataset.description} == {"human MEG (THINGS-MEG, subject 1)"}
