"""Data sets by name: simulated participants, recorded data sets, and one's own recordings."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from minddiffuser.cache import cache_dir, code_hash
from minddiffuser.config import Config, DataSpec, rgb
from minddiffuser.console import Report
from minddiffuser.errors import AppError
from stream.atomic import whole_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decoder.datasets import Dataset
    from decoder.pose import Pose
    from decoder.stimuli import StimulusTable
    from engine.desk.compose import Stimulus
    from engine.models import Models
    from stream.label_table import LabelSpec
    from stream.labels import LabelMatcher
    from stream.recordings import Recording

LOG = logging.getLogger(__name__)
CALIBRATION_SEED = 7_000_000
"""Calibration pictures are composed from this seed plus the participant's; test pictures are files of their own."""
BANK_SEED = 8_000_000
"""Captioned pictures that nobody is shown are composed from this seed plus the participant's."""


def load_dataset(config: Config, data_dir: Path | None, models: Models, report: Report) -> Dataset:
    """Load the data set that a config names.

    Parameters
    ----------
    config : Config
    data_dir : Path or None
        Folder of recorded data sets; simulated ones need none.
    models : Models
        Gives simulated participants the meaning of words, and their pictures the size that the models take.
    report : callable
        Progress.

    Raises
    ------
    AppError
        A recorded data set without a folder to look in.
    """
    from decoder.datasets import together

    spec = config.data
    if spec.dataset == "recording":
        return own_recording(spec, config.source.unit, config.labels)
    one = partial(_of_one, spec, data_dir=data_dir, models=models, report=report)
    if len(spec.subject) == 1:
        return one(spec.subject[0])
    return together({f"subject {subject}": one(subject) for subject in spec.subject})


def _of_one(spec: DataSpec, subject: int, *, data_dir: Path | None, models: Models, report: Report) -> Dataset:
    """Load one participant."""
    if spec.dataset.startswith("simulated-"):
        return simulated(spec.model_copy(update={"subject": (subject,)}), models, report)
    if data_dir is None:
        raise AppError(
            f"data set {spec.dataset!r} is not part of the project: say where it lies with --data or MINDDIFFUSER_DATA"
        )
    from decoder.datasets import Selection, load

    selection = Selection(
        seed=spec.seed,
        subject=subject,
        sessions=spec.sessions,
        per_session=spec.per_session,
        repeats=spec.repeats,
        form=spec.form,
        region=spec.region,
        side=models.image_size,
    )
    return load(spec.dataset, data_dir, selection)


def own_recording(spec: DataSpec, unit: str | None = None, labels: LabelSpec | None = None) -> Dataset:
    """Read calibration recordings of one's own, and the folder of pictures that their events name.

    Each event that names a picture bears its id, in whatever spelling the marker came (see `stream.labels`).

    Parameters
    ----------
    spec : DataSpec
    unit : str, optional
        Of channels whose file does not say (`source.unit`).
    labels : LabelSpec, optional
        Which picture each code stands for.
    """
    from decoder.datasets import Dataset
    from stream.formats import in_unit
    from stream.recordings import read

    if not spec.train or spec.stimuli is None:
        raise AppError("data.dataset 'recording' needs data.train (a recording) and data.stimuli (a folder)")
    if spec.live is None:
        LOG.warning("data.live names no recording: what is evaluated is what the decoder was trained on")
    stimuli = shown_pictures(spec)
    matcher = matcher_of(stimuli, labels)
    calibration = tuple(matcher.named_all(in_unit(read(where), unit)) for where in spec.train)
    subjects, sessions = _origins(spec, calibration)
    return Dataset(
        name=calibration[0].name.partition(".")[0],
        description=calibration[0].description,
        train=calibration,
        live=matcher.named_all(in_unit(read(spec.live), unit)) if spec.live else calibration[-1],
        stimuli=stimuli,
        sessions=sessions,
        subjects=subjects,
    )


def shown_pictures(spec: DataSpec) -> StimulusTable:
    """Read the folder of pictures that a config's recordings and live session show; empty where it names none."""
    from decoder.stimuli import StimulusTable, read_stimuli

    if spec.stimuli is None:
        return StimulusTable((), np.empty((0, 1, 1, 3), np.uint8))
    return read_stimuli(spec.stimuli, rgb(spec.background))


def matcher_of(stimuli: StimulusTable, labels: LabelSpec | None) -> LabelMatcher:
    """Return what finds the picture that a marker names, live, in training and in evaluation.

    Raises
    ------
    stream.errors.StreamError
        `labels` cannot be read, or names pictures that there are not.
    """
    from stream.label_table import read_labels
    from stream.labels import LabelMatcher

    table = read_labels(labels) if labels else {}
    origin = str(labels.file) if labels and labels.file else "labels"
    return LabelMatcher(stimuli.ids, stimuli.files, table, origin)


def _origins(spec: DataSpec, calibration: Sequence[Recording]) -> tuple[dict[str, str], dict[str, str]]:
    """Say which participant and session each run of a BIDS data set is of, as its file's name has it."""
    from stream.bids import entities

    of_bids = [
        (recording.name, entities(recording.name))
        for where, recording in zip(spec.train, calibration, strict=True)
        if not isinstance(where, Path)
    ]
    subjects = {name: own["sub"] for name, own in of_bids}
    sessions = {name: f"{own['sub']} {own['ses']}" for name, own in of_bids if "ses" in own}
    return subjects, sessions


def picture_bank(spec: DataSpec, *, captions: bool) -> StimulusTable | None:
    """Compose or read the pictures from which priors learn, that of the text conditioning from their captions too.

    Raises
    ------
    AppError
        If captions are wanted of a folder's pictures that have none.
    """
    from decoder.stimuli import read_stimuli
    from engine.desk.compose import compose
    from engine.desk.pack import load_pack

    if spec.bank is None:
        return None
    if isinstance(spec.bank, int):
        return stimulus_table(compose(load_pack(), spec.bank, BANK_SEED + spec.seed))
    bank = read_stimuli(spec.bank, rgb(spec.background))
    if captions and bank.captions is None:
        raise AppError(f"the pictures of data.bank {spec.bank} have no captions; give stimuli.csv a caption column")
    return bank


def simulated(spec: DataSpec, models: Models, report: Report) -> Dataset:
    """Record a simulated participant, or read what was recorded before with the same settings and code.

    The calibration run shows composed pictures, the test run the 300 held-out ones: they share none.
    """
    from decoder.datasets import Dataset
    from engine.desk.compose import compose, load_test_stimuli
    from engine.desk.pack import load_pack
    from stream.recordings import read

    modality: Literal["eeg", "meg", "fmri"] = spec.dataset.removeprefix("simulated-")  # type: ignore[assignment]
    report("composing calibration pictures", 0, 1)
    calibration = compose(load_pack(), spec.pictures, CALIBRATION_SEED + spec.seed)
    report("composing calibration pictures", 1, 1)
    test = load_test_stimuli()
    settings = {**spec.model_dump(mode="json"), "models": models.feature_space, "code": code_hash()}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir() / "simulated" / f"{modality}-{spec.preset}-{key}"
    suffix = "nii.gz" if modality == "fmri" else "fif"
    if not folder.exists():
        with whole_folder(folder) as scratch:
            record(modality, spec, models, (calibration, test), scratch, report)
    return Dataset(
        name=f"simulated {modality.upper().replace('FMRI', 'fMRI')}",
        description=f"simulated {modality.upper().replace('FMRI', 'fMRI')}",
        train=(read(folder / f"calibration_raw.{suffix}"),),
        live=read(folder / f"test_raw.{suffix}"),
        stimuli=stimulus_table([*calibration, *test]),
    )


def record(
    modality: Literal["eeg", "meg", "fmri"],
    spec: DataSpec,
    models: Models,
    shown: tuple[list[Stimulus], list[Stimulus]],
    folder: Path,
    report: Report,
) -> None:
    """Simulate the calibration run and the test run of one participant and write them as recordings."""
    from engine.desk.compose import images

    runs = [
        Run(images(run), models.embed_texts([stimulus.concept for stimulus in run]), [one.name for one in run])
        for run in shown
    ]
    write = _scan if modality == "fmri" else partial(record_waves, modality)
    report("recording the simulated participant", 0, 1)
    write(spec, runs, folder)
    report("recording the simulated participant", 1, 1)


@dataclass(frozen=True, slots=True)
class Run:
    """What is shown in a run: pictures, what they mean to the participant, and their ids."""

    images: NDArray[np.uint8]
    meanings: NDArray[np.float32]
    labels: list[str]


RUNS = ("calibration", "test")


def record_waves(modality: Literal["eeg", "meg"], spec: DataSpec, runs: list[Run], folder: Path) -> None:
    """Record what a simulated participant's sensors say to the calibration run and to the test run."""
    from decoder.simulate import Participant

    # Another participant has another head and other noise; the pictures are the same.
    seed, before = spec.seed + spec.subject[0] - 1, len(RUNS) * (spec.subject[0] - 1)
    participant = Participant(modality, spec.preset, seed, runs[0].images, runs[0].meanings)
    for number, (name, run) in enumerate(zip(RUNS, runs, strict=True), before):
        raw, truth = participant.record(run.images, run.meanings, run.labels, run=number, soa=spec.soa)
        raw.save(folder / f"{name}_raw.fif", fmt="single", overwrite=True, verbose="error")
        truth.save(folder / f"{name}_truth.npz")


def _scan(spec: DataSpec, runs: list[Run], folder: Path) -> None:
    from decoder.simulate_fmri import simulate_fmri, write_fmri

    tuning = (runs[0].images, runs[0].meanings)
    for number, (name, run) in enumerate(zip(RUNS, runs, strict=True)):
        image, events, truth = simulate_fmri(
            *(run.images, run.meanings, run.labels),
            preset=spec.preset,
            seed=spec.seed,
            run=number,
            soa=spec.soa,
            reference=tuning,
        )
        write_fmri(image, events, folder / f"{name}_raw.nii.gz", truth.areas)


def stimulus_table(stimuli: list[Stimulus]) -> StimulusTable:
    """Put composed pictures into the table that training and evaluation read."""
    from decoder.stimuli import StimulusTable
    from engine.desk.compose import images

    return StimulusTable(
        ids=tuple(stimulus.name for stimulus in stimuli),
        images=images(stimuli),
        captions=tuple(stimulus.captions for stimulus in stimuli),
        concepts=tuple(stimulus.concept for stimulus in stimuli),
    )


def originals(stimuli: StimulusTable) -> dict[str, Any]:
    """Give the pictures by the label of the event that announces them."""
    return dict(zip(stimuli.ids, np.asarray(stimuli.images), strict=True))


def true_poses(stimuli: StimulusTable) -> list[Pose]:
    """Give the pose of the drawing in each of some held-out stimuli; empty if one of the pictures is none of those."""
    from decoder.pose import pose_of_mask
    from engine.desk.compose import alpha_of, load_test_stimuli
    from engine.desk.pack import load_pack

    by_name = {stimulus.name: stimulus for stimulus in load_test_stimuli()}
    held_out = [by_name[name] for name in stimuli.ids if name in by_name]
    if len(held_out) < len(stimuli):
        return []
    # Other pictures may go by the same names.
    if not all(np.array_equal(one.image, image) for one, image in zip(held_out, stimuli.images, strict=True)):
        return []
    pack = load_pack()
    return [pose_of_mask(alpha_of(pack, one)) for one in held_out]
