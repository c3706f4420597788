"""Small files in exactly the layout in which the field's large data sets are published; what they hold is simulated.

Every simulated response is linear in the colours of nine patches of its picture, plus noise.
"""

import csv
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

PATCHES = 3
EEG2_CHANNELS = (
    "Pz",
    "P3",
    "P7",
    "O1",
    "Oz",
    "O2",
    "P4",
    "P8",
    "P1",
    "P5",
    "PO7",
    "PO3",
    "POz",
    "PO4",
    "PO8",
    "P6",
    "P2",
)
MEG_CHANNELS = tuple(f"M{side}O{row}{place}-1609" for side in "LR" for row in (1, 2) for place in (1, 2, 3, 4, 5))
MEG_COLUMNS = (
    *("trial_type", "image_nr", "category_nr", "exemplar_nr", "test_image_nr", "things_category_nr"),
    *("things_image_nr", "things_exemplar_nr", "image_path", "onset", "image_on", "image_off", "responded", "key_id"),
    *("key_time", "RT", "session_nr", "run_nr"),
)
CATCH = 999999


def grid_pictures(n: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Draw pictures of nine patches of random colour, shape (n, side, side, 3)."""
    grid = np.random.default_rng(seed).integers(0, 256, (n, PATCHES, PATCHES, 3), dtype=np.uint8)
    edges = np.arange(side) * PATCHES // side
    return grid[:, edges][:, :, edges]


def colours(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Give the colours of pictures' patches, about grey; shape (n, 27)."""
    middle = (2 * np.arange(PATCHES) + 1) * pictures.shape[1] // (2 * PATCHES)
    return np.asarray(pictures[:, middle][:, :, middle].reshape(len(pictures), -1) / 255 - 0.5)


def responses(
    seen: NDArray[np.float64], shape: tuple[int, ...], rng: np.random.Generator, noise: float = 0.5
) -> NDArray[np.float64]:
    """Respond to colours (n, 27) by arrays of that shape; the same weights every time."""
    weights = np.random.default_rng(99).normal(size=(seen.shape[1], int(np.prod(shape))))
    out = seen @ weights + noise * rng.normal(size=(len(seen), int(np.prod(shape))))
    return np.asarray(out.reshape(len(seen), *shape))


def concept_names(n: int, start: int = 0) -> list[str]:
    """Give names as THINGS has them, some with a number to tell two meanings apart."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [f"thing_{letters[i // 26]}{letters[i % 26]}" for i in range(start, start + n)]
    return [name + "1" if i % 5 == 0 else name for i, name in enumerate(names)]


@dataclass(frozen=True)
class Things:
    """Pictures of THINGS by part, with their files' names."""

    files: dict[str, list[str]]
    pictures: dict[str, NDArray[np.uint8]]


def write_eeg2_images(root: Path, *, concepts: int = 20, exemplars: int = 3, tests: int = 6, side: int = 48) -> Things:
    """Write `image_set` with its metadata: concepts numbered anew in either part, as published."""
    folder = root / "things-eeg2" / "image_set"
    names = {"training": concept_names(concepts), "test": concept_names(tests, concepts)}
    metadata: dict[str, list[str]] = {}
    things = Things({}, {})
    for seed, (part, n) in enumerate((("training", exemplars), ("test", 1))):
        start = part.removesuffix("ing")
        folders = [f"{number:05d}_{name}" for number, name in enumerate(names[part], 1) for _ in range(n)]
        files = [
            f"{name}_{number:02d}{'b' if number == 1 else 's'}.jpg"
            for name in names[part]
            for number in range(1, n + 1)
        ]
        pictures = grid_pictures(len(files), side, seed)
        for where, file, picture in zip(folders, files, pictures, strict=True):
            path = folder / f"{part}_images" / where / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, quality=95)
        metadata[f"{start}_img_concepts"] = folders
        metadata[f"{start}_img_concepts_THINGS"] = folders
        metadata[f"{start}_img_files"] = files
        things.files[part], things.pictures[part] = files, pictures
    np.save(folder / "image_metadata.npy", np.array(metadata, dtype=object), allow_pickle=True)
    return things


def write_eeg2_preprocessed(root: Path, things: Things, *, by_others: bool = False, repeats: int = 8) -> dict[str, Any]:
    """Write the epochs of participant 1: at 100 Hz by `numpy.save`, or at 250 Hz as a bare pickle, with 300 times."""
    folder = (
        root / "things-eeg2" / ("Preprocessed_data_250Hz" if by_others else "eeg_dataset/preprocessed_data") / "sub-01"
    )
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    times = np.linspace(-0.2, 0.996, 300) if by_others else np.linspace(-0.2, 0.79, 100)
    n_times = 250 if by_others else 100
    written = {}
    for part, n in (("training", 4), ("test", repeats)):
        data = np.stack([responses(colours(things.pictures[part]), (17, n_times), rng) for _ in range(n)], axis=1)
        content = {"preprocessed_eeg_data": data, "ch_names": list(EEG2_CHANNELS), "times": times}
        file = folder / f"preprocessed_eeg_{part}.npy"
        if by_others:
            file.write_bytes(pickle.dumps(content, protocol=4))
        else:
            np.save(file, np.array(content, dtype=object), allow_pickle=True)
        written[part] = content
    return written


def write_eeg2_raw(root: Path, things: Things, *, sessions: int = 4) -> dict[tuple[int, str], NDArray[np.float64]]:
    """Write `raw_data` of participant 1: 1000 Hz, EEG in V and a stimulus channel whose last code is the target's."""
    rng = np.random.default_rng(2)
    written = {}
    for session in range(1, sessions + 1):
        folder = root / "things-eeg2" / "eeg_dataset" / "raw_data" / "sub-01" / f"ses-{session:02d}"
        folder.mkdir(parents=True)
        for part in ("training", "test"):
            codes = [*rng.permutation(len(things.files[part])) + 1, 99999]
            data = np.zeros((18, 1000 * (len(codes) + 1)))
            data[:17] = 1e-5 * session * rng.normal(size=(17, data.shape[1]))
            data[17, 500 + 1000 * np.arange(len(codes))] = codes
            content = {
                "raw_eeg_data": data,
                "ch_names": [*EEG2_CHANNELS, "stim"],
                "ch_types": ["eeg"] * 17 + ["stim"],
                "sfreq": 1000,
                "highpass": 0.01,
                "lowpass": 100,
            }
            np.save(folder / f"raw_eeg_{part}.npy", np.array(content, dtype=object), allow_pickle=True)
            written[session, part] = data
    return written


def write_eeg2_source(root: Path, things: Things, *, sessions: int = 1, extra: int = 0) -> NDArray[np.int16]:
    """Write `source_data` of participant 1: BrainVision in steps of 0.1 uV, and what was shown in MATLAB files.

    Gives the samples of the first part.
    """
    rng = np.random.default_rng(3)
    first: NDArray[np.int16] | None = None
    for session in range(1, sessions + 1):
        folder = root / "things-eeg2" / "eeg_dataset" / "source_data" / "sub-01" / f"ses-{session:02d}"
        (folder / "eeg").mkdir(parents=True)
        (folder / "beh").mkdir()
        for task in [*(f"train_part-{number:02d}" for number in range(1, 6)), "test"]:
            stem = f"sub-01_ses-{session:02d}_task-{task}"
            n = len(things.files["test" if task == "test" else "training"])
            shown = [*(rng.permutation(n)[:4] + 1).tolist(), 0]
            samples = rng.integers(-500, 500, (1000 * (len(shown) + 1), 3)).astype(np.int16)
            first = samples if first is None else first
            _write_brainvision(folder / "eeg" / f"{stem}_eeg", samples, 500 + 1000 * np.arange(len(shown) + extra))
            images = np.zeros((1, len(shown)), [("block", object), ("tot_img_number", object)])
            for place, number in enumerate(shown):
                images[0, place] = (1.0, float(number))
            data = {"paradigm_info": {"SOA": 0.2}, "subject_info": {"ID": 1.0}, "images": images}
            savemat(folder / "beh" / f"{stem}_beh.mat", {"data": data})
    assert first is not None
    return first


def _write_brainvision(stem: Path, samples: NDArray[np.int16], rows: NDArray[np.intp]) -> None:
    n_channels = samples.shape[1]
    channels = "\n".join(f"Ch{i + 1}={EEG2_CHANNELS[i]},,0.1,uV" for i in range(n_channels))
    stem.with_suffix(".vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem.name}.eeg\nMarkerFile={stem.name}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={n_channels}\nSamplingInterval=1000\n\n[Binary Infos]\nBinaryFormat=INT_16\n\n"
        f"[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    marks = "\n".join(f"Mk{i + 2}=Stimulus,S{i % 99 + 1:3d},{row + 1},1,0" for i, row in enumerate(rows.tolist()))
    stem.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem.name}.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101120000000000\n{marks}\n",
        encoding="utf-8",
    )
    samples.astype("<i2").tofile(stem.with_suffix(".eeg"))


def write_meg(
    root: Path, *, concepts: int = 12, exemplars: int = 6, tests: int = 5, sessions: int = 12
) -> list[dict[str, Any]]:
    """Write THINGS-MEG's epochs of participant 1 with their table, and the pictures; gives the table.

    As published: every concept, a test picture's too, has pictures of its own in training, each shown once; the test
    pictures are shown once a session; catch trials have no number.
    """
    folder = root / "things-meg"
    names = concept_names(concepts + tests)
    rng = np.random.default_rng(4)
    shown = [(name, number) for name in names for number in range(1, exemplars + 1)]
    tested = [(name, exemplars + 1) for name in names[concepts:]]
    pictures = dict(zip([*shown, *tested], grid_pictures(len(shown) + len(tested), 48, 5), strict=True))
    for (name, number), picture in pictures.items():
        path = folder / "object_images" / name / f"{name}_{number:02d}s.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95)
    rows: list[dict[str, Any]] = []
    order = rng.permutation(len(shown))
    for session in range(1, sessions + 1):
        trials = [("exp", *shown[i]) for i in order[session - 1 :: sessions]] + [("test", *one) for one in tested]
        rows += [_meg_row(*trials[i], names, session) for i in rng.permutation(len(trials))]
        rows.append(_meg_row("catch", "", 0, names, session))
    keys = [
        (row["image_path"].rpartition("/")[2][:-8], int(row["image_path"][-7:-5]))
        for row in rows
        if "things_image_nr" in row
    ]
    data = 0.5 * rng.normal(size=(len(rows), len(MEG_CHANNELS), 281))
    real = np.array(["things_image_nr" in row for row in rows])
    data[real] = responses(colours(np.stack([pictures[key] for key in keys])), (len(MEG_CHANNELS), 281), rng)
    _write_epochs(folder / "derivatives" / "preprocessed" / "preprocessed_P1-epo.fif", data, rows)
    table = folder / "sourcedata" / "sample_attributes_P1.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, MEG_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _meg_row(kind: str, name: str, number: int, names: Sequence[str], session: int) -> dict[str, Any]:
    row = {"trial_type": kind, "image_path": "images_catch_meg/catch047.jpg", "session_nr": session, "run_nr": 1}
    if kind == "catch":
        return row
    category = names.index(name) + 1
    folder = "images_test_meg" if kind == "test" else f"images_meg/{name}"
    row |= {"image_path": f"{folder}/{name}_{number:02d}s.jpg", "things_category_nr": float(category)}
    row["things_image_nr"] = float(100 * category + number)
    return row | ({"test_image_nr": float(category)} if kind == "test" else {})


def _write_epochs(path: Path, data: NDArray[np.float64], rows: Sequence[dict[str, Any]]) -> None:
    import mne

    path.parent.mkdir(parents=True)
    info = mne.create_info(list(MEG_CHANNELS), 200.0, "mag")
    events = np.zeros((len(rows), 3), int)
    events[:, 0] = 300 * np.arange(1, len(rows) + 1)
    events[:, 2] = [int(row.get("things_image_nr", CATCH)) for row in rows]
    mne.EpochsArray(data, info, events, tmin=-0.1, verbose="error").save(path, fmt="single", verbose="error")


def write_nsd(root: Path, *, sessions: int = 1, own: int = 40, shared: int = 8) -> dict[str, Any]:
    """Write NSD's participant 1: sessions of 750 trials that show `own` pictures and `shared` ones in turn."""
    import h5py
    import nibabel

    folder = root / "nsd"
    rng = np.random.default_rng(6)
    ids = rng.permutation(73000)[:10000] + 1
    places = np.concatenate([1000 + np.arange(own), 3 * np.arange(shared)]) + 1
    order = rng.integers(1, 10001, (1, 30000))
    for session in range(sessions):
        order[0, 750 * session : 750 * (session + 1)] = rng.permutation(np.resize(places, 750))
    experiment = folder / "nsddata" / "experiments" / "nsd"
    experiment.mkdir(parents=True)
    design = {"masterordering": order.astype(np.uint16), "sharedix": ids[None, :1000].astype(np.int32)}
    savemat(experiment / "nsd_expdesign.mat", design | {"subjectim": np.tile(ids.astype(np.int32), (8, 1))})
    used = np.sort(ids[places - 1] - 1)
    pictures = grid_pictures(len(used), 425, 7)
    seen = colours(pictures)
    stimuli = folder / "nsddata_stimuli" / "stimuli" / "nsd"
    stimuli.mkdir(parents=True)
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        brick = file.create_dataset("imgBrick", (73000, 425, 425, 3), np.uint8, chunks=(1, 425, 425, 3), compression=1)
        for row, picture in zip(used.tolist(), pictures, strict=True):
            brick[row] = picture
    with (experiment / "nsd_stim_info_merged.csv").open("w", newline="") as text:
        table = csv.writer(text)
        table.writerow(["", "cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"])
        for row in used.tolist():
            table.writerow(
                [row, 100000 + row, ("train2017", "val2017")[row % 2], "(0, 0, 0, 0)", 0.1, row, False, False, False]
            )
    (folder / "annotations").mkdir()
    for parity, split in enumerate(("train2017", "val2017")):
        chosen = [row for row in used.tolist() if row % 2 == parity]
        notes = [
            {"image_id": 100000 + row, "id": 2 * row + i, "caption": f"Picture {row}\nno. {i}."}
            for row in chosen
            for i in range(2)
        ]
        (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps({"annotations": notes}))
    roi = folder / "nsddata" / "ppdata" / "subj01" / "func1pt8mm" / "roi"
    roi.mkdir(parents=True)
    region = rng.integers(-1, 2, (7, 6, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(region, np.eye(4)), roi / "nsdgeneral.nii.gz")
    betas = folder / "nsddata_betas" / "ppdata" / "subj01" / "func1pt8mm" / "betas_fithrf_GLMdenoise_RR"
    betas.mkdir(parents=True)
    percent = []
    for session in range(sessions):
        shown = ids[order[0, 750 * session : 750 * (session + 1)] - 1] - 1
        volumes = responses(seen[np.searchsorted(used, shown)], region.shape, rng)
        whole = np.round(300 * volumes).clip(-32768, 32767).astype(np.int16)
        with h5py.File(betas / f"betas_session{session + 1:02d}.hdf5", "w") as file:
            file["betas"] = whole.transpose(0, 3, 2, 1)
        percent.append(whole / 300)
    trials = ids[order[0, : 750 * sessions] - 1] - 1
    return {
        "region": region,
        "percent": np.concatenate(percent),
        "trials": trials,
        "shared": set((ids[:1000] - 1).tolist()),
    }
