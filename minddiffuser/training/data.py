"""Data sets by name: simulated participants, recorded data sets, and one's own recordings."""

from __future__ import annotations

import logging
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from minddiffuser.cache import cache_dir, key_of
from minddiffuser.config.experiment import rgb
from minddiffuser.config.spec import Config, DataSpec, Recorded
from minddiffuser.errors import AppError
from minddiffuser.training.recorded import check_markers, complete
from stream.atomic import whole_folder
from stream.types.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decoder.data.stimuli import StimulusTable
    from decoder.datasets import Dataset
    from decoder.evaluation.pose import Pose
    from engine.composing.compose import Stimulus
    from engine.composing.pack import Pack
    from engine.models.loading import Models
    from stream.tables.label_table import LabelSpec
    from stream.types.labels import LabelMatcher
    from stream.types.recording import Recording
    from stream.types.source_spec import SourceSpec

logger = logging.getLogger(__name__)
CALIBRATION_SEED = 7_000_000
"""Calibration pictures are composed from this seed plus the participant's; test pictures are files of their own."""
BANK_SEED = 8_000_000
"""Captioned pictures that nobody is shown are composed from this seed plus the participant's."""
COMPOSED_AT_ONCE = 300
RUNS = ("calibration", "test")
SUFFIX = {"eeg": "fif", "meg": "fif", "fmri": "nii.gz"}
"""Of a simulated participant's recordings."""


def load_dataset(config: Config, data_dir: Path | None, models: Models, report: Progress) -> Dataset:
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
        return own_recording(spec, config.source, config.labels)
    one = partial(_of_one, spec, data_dir=data_dir, models=models, report=report)
    if len(spec.subject) == 1:
        return one(spec.subject[0])
    return together({f"subject {subject}": one(subject) for subject in spec.subject})


def _of_one(spec: DataSpec, subject: int, *, data_dir: Path | None, models: Models, report: Progress) -> Dataset:
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
        session=spec.session,
        per_session=spec.per_session,
        repeats=spec.repeats,
        form=spec.form,
        region=spec.region,
        side=models.image_size,
    )
    return load(spec.dataset, data_dir, selection)


def own_recording(spec: DataSpec, source: SourceSpec | None = None, labels: LabelSpec | None = None) -> Dataset:
    """Read calibration recordings of one's own, and the folder of pictures that their events name.

    Each event that names a picture bears its id, in whatever spelling the marker came (see `stream.types.labels`).

    Parameters
    ----------
    spec : DataSpec
    source : SourceSpec, optional
        Which stream and markers count, and the unit of channels whose file does not say.
    labels : LabelSpec, optional
        Which picture each code stands for.

    Raises
    ------
    AppError
        A recording is still being written, or holds no markers.
    """
    from decoder.datasets import Dataset
    from stream.types.source_spec import SourceSpec

    if not spec.train or spec.stimuli is None:
        raise AppError("data.dataset 'recording' needs data.train (a recording) and data.stimuli (a folder)")
    if spec.live is None:
        logger.info("data.live names no test recording: `evaluate` takes one by --recording")
    stimuli = shown_pictures(spec)
    matcher = matcher_of(stimuli, labels)
    source = source or SourceSpec()
    calibration = tuple(_recorded(where, source).name_events(matcher) for where in spec.train)
    for where, recording in zip(spec.train, calibration, strict=True):
        check_markers(recording, where, source)
    subjects, sessions = _origins(spec, calibration)
    return Dataset(
        name=calibration[0].name.partition(".")[0],
        description=calibration[0].description,
        train=calibration,
        live=_recorded(spec.live, source).name_events(matcher) if spec.live else calibration[-1],
        stimuli=stimuli,
        sessions=sessions,
        subjects=subjects,
    )


def _recorded(where: Recorded, source: SourceSpec) -> Recording:
    """Read a recording as its config's `source` says."""
    from stream.files.formats.mne_files import apply_reading_spec
    from stream.files.registry import read

    with complete(where) if isinstance(where, Path) else nullcontext():
        return apply_reading_spec(read(where), source)


def shown_pictures(spec: DataSpec) -> StimulusTable:
    """Read the folder of pictures that a config's recordings and live session show; empty where it names none."""
    from decoder.data.stimuli import StimulusTable, read_stimuli

    if spec.stimuli is None:
        return StimulusTable((), np.empty((0, 1, 1, 3), np.uint8))
    return read_stimuli(spec.stimuli, rgb(spec.background), spec.picture_size)


def matcher_of(stimuli: StimulusTable, labels: LabelSpec | None) -> LabelMatcher:
    """Return what finds the picture that a marker names, live, in training and in evaluation.

    Raises
    ------
    stream.errors.StreamError
        `labels` cannot be read, or names pictures that there are not.
    """
    from stream.tables.label_table import read_labels
    from stream.types.labels import LabelMatcher

    table = read_labels(labels) if labels else {}
    origin = str(labels.file) if labels and labels.file else "labels"
    return LabelMatcher(stimuli.ids, stimuli.files, table, origin)


def _origins(spec: DataSpec, calibration: Sequence[Recording]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the participant and session of each run of a BIDS data set, from its file name."""
    from stream.files.bids import entities

    of_bids = [
        (recording.name, entities(recording.name))
        for where, recording in zip(spec.train, calibration, strict=True)
        if not isinstance(where, Path)
    ]
    subjects = {name: own["sub"] for name, own in of_bids}
    sessions = {name: f"{own['sub']} {own['ses']}" for name, own in of_bids if "ses" in own}
    return subjects, sessions


def check_image_bank(config: Config) -> None:
    """Check that the folder from which priors are to learn is there, before anything slow.

    Raises
    ------
    AppError
        It is not.
    """
    if config.decoder.image_bank_features:
        check_bank_folder(config.data.image_bank)


def check_bank_folder(bank: Path | int | None) -> None:
    """Check that pictures that nobody was shown are there, where they are in a folder.

    Raises
    ------
    AppError
        They are not.
    """
    if isinstance(bank, Path) and not (bank / "stimuli.csv").is_file():
        raise AppError(f"data.image_bank {bank}: no stimuli.csv in it, or no such folder; name a folder of pictures")


def load_unseen_bank(spec: DataSpec, shown: StimulusTable | None, *, captions: bool) -> StimulusTable | None:
    """Load `data.image_bank` without pictures that are shown in training or test; those are counted in the log.

    Raises
    ------
    AppError
        As of `load_image_bank`, or no picture is left.
    """
    bank = load_image_bank(spec, captions=captions)
    if bank is None or shown is None or isinstance(spec.image_bank, int):
        return bank
    left = bank.without(shown)
    if not left.ids:
        raise AppError("every picture of data.image_bank is among those shown; name other pictures")
    if len(left.ids) < len(bank.ids):
        words = "%d pictures of data.image_bank are among those shown, and are left out"
        logger.warning(words, len(bank.ids) - len(left.ids))
    return left


def load_image_bank(spec: DataSpec, *, captions: bool) -> StimulusTable | None:
    """Compose or read the pictures from which priors learn, that of the text conditioning from their captions too.

    Raises
    ------
    AppError
        If captions are wanted of a folder's pictures that have none.
    """
    from decoder.data.stimuli import read_stimuli

    if spec.image_bank is None:
        return None
    if isinstance(spec.image_bank, int):
        return stimulus_table(_compose(spec.image_bank, BANK_SEED + spec.seed))
    pictures = read_stimuli(spec.image_bank, rgb(spec.background), spec.picture_size)
    if captions and pictures.captions is None:
        raise AppError(
            f"the pictures of data.image_bank {spec.image_bank} have no captions; give stimuli.csv a caption column"
        )
    return pictures


def calibration_stimuli(spec: DataSpec) -> list[Stimulus]:
    """Compose the pictures of a simulated participant's calibration run, which set its tuning."""
    return _compose(spec.pictures, CALIBRATION_SEED + spec.seed)


def _compose(n: int, seed: int) -> list[Stimulus]:
    """Compose pictures, as `engine.composing.compose.compose` does, by the workers there are."""
    from decoder.parallel import apply_each

    parts = [range(start, min(n, start + COMPOSED_AT_ONCE)) for start in range(0, n, COMPOSED_AT_ONCE)]
    composed = apply_each(partial(_compose_some, seed), parts, about="composing pictures")
    return [stimulus for part in composed for stimulus in part]


def _compose_some(seed: int, numbers: range) -> list[Stimulus]:
    from engine.composing.compose import compose_one

    return [compose_one(_pack(), seed, number) for number in numbers]


@cache
def _pack() -> Pack:
    from engine.composing.pack import load_pack

    return load_pack()


def simulated(spec: DataSpec, models: Models, report: Progress) -> Dataset:
    """Record a simulated participant, or read what was recorded before with the same settings, pictures and models.

    The calibration run shows composed pictures, the test run the 300 held-out ones: they share none.
    """
    from decoder.datasets import Dataset
    from decoder.simulation import VERSION
    from stream.files.registry import read

    modality = _modality(spec)
    calibration, test = _simulated_pictures(spec, report)
    stimuli = stimulus_table([*calibration, *test])
    settings = spec.model_dump(mode="json", include={"dataset", "preset", "pictures", "soa", "subject", "seed"})
    parts = {"version": VERSION, **settings, "stimuli": stimuli.content_hash(), "models": models.feature_space}
    folder = cache_dir() / "simulated" / f"{modality}-{spec.preset}-{key_of(parts)}"
    suffix = SUFFIX[modality]
    if not folder.exists():
        with whole_folder(folder) as scratch:
            record(modality, spec, models, (calibration, test), scratch, report)
    return Dataset(
        name=f"simulated {modality.upper().replace('FMRI', 'fMRI')}",
        description=f"simulated {modality.upper().replace('FMRI', 'fMRI')}",
        train=(read(folder / f"calibration_raw.{suffix}"),),
        live=read(folder / f"test_raw.{suffix}"),
        stimuli=stimuli,
    )


def simulated_test(spec: DataSpec, models: Models, report: Progress) -> tuple[Recording, StimulusTable]:
    """Record the test run alone: of the participant, the tuning and the noise that `simulated` gives.

    Returns
    -------
    recording : Recording
    stimuli : StimulusTable
        The pictures that it shows.
    """
    from stream.files.registry import read

    modality = _modality(spec)
    calibration, test = _simulated_pictures(spec, report)
    with tempfile.TemporaryDirectory(prefix="minddiffuser-simulated-") as name:
        record(modality, spec, models, (calibration, test), Path(name), report, runs=("test",))
        recording = read(Path(name) / f"test_raw.{SUFFIX[modality]}")
        return recording, stimulus_table(test)


def _modality(spec: DataSpec) -> Literal["eeg", "meg", "fmri"]:
    return spec.dataset.removeprefix("simulated-")  # type: ignore[return-value]


def _simulated_pictures(spec: DataSpec, report: Progress) -> tuple[list[Stimulus], list[Stimulus]]:
    """Compose the calibration pictures and load the test pictures of a simulated participant."""
    from engine.composing.compose import load_test_stimuli

    report("composing calibration pictures", 0, 1)
    calibration = calibration_stimuli(spec)
    report("composing calibration pictures", 1, 1)
    return calibration, load_test_stimuli()


def record(
    modality: Literal["eeg", "meg", "fmri"],
    spec: DataSpec,
    models: Models,
    shown: tuple[list[Stimulus], list[Stimulus]],
    folder: Path,
    report: Progress,
    runs: Sequence[str] = RUNS,
) -> None:
    """Simulate runs of one participant, the calibration run and the test run, and write them as recordings."""
    from engine.composing.compose import images

    both = [
        Run(images(run), models.embed_texts([stimulus.concept for stimulus in run]), [one.name for one in run])
        for run in shown
    ]
    write = _scan if modality == "fmri" else partial(record_waves, modality)
    report("recording the simulated participant", 0, 1)
    write(spec, both, folder, runs)
    report("recording the simulated participant", 1, 1)


@dataclass(frozen=True, slots=True)
class Run:
    """What is shown in a run: pictures, what they mean to the participant, and their ids."""

    images: NDArray[np.uint8]
    meanings: NDArray[np.float32]
    labels: list[str]


def record_waves(
    modality: Literal["eeg", "meg"], spec: DataSpec, shown: list[Run], folder: Path, runs: Sequence[str] = RUNS
) -> None:
    """Record what a simulated participant's sensors say to the calibration run and to the test run."""
    from decoder.simulation.eeg import Participant

    # Another participant has another head and other noise; the pictures are the same.
    seed, before = spec.seed + spec.subject[0] - 1, len(RUNS) * (spec.subject[0] - 1)
    participant = Participant(modality, spec.preset, seed, shown[0].images, shown[0].meanings)
    for number, (name, run) in enumerate(zip(RUNS, shown, strict=True), before):
        if name not in runs:
            continue
        raw, truth = participant.record(run.images, run.meanings, run.labels, run=number, soa=spec.soa)
        raw.save(folder / f"{name}_raw.fif", fmt="single", overwrite=True, verbose="error")
        truth.save(folder / f"{name}_truth.npz")


def _scan(spec: DataSpec, shown: list[Run], folder: Path, runs: Sequence[str] = RUNS) -> None:
    from decoder.simulation.fmri import simulate_fmri, write_fmri

    tuning = (shown[0].images, shown[0].meanings)
    for number, (name, run) in enumerate(zip(RUNS, shown, strict=True)):
        if name not in runs:
            continue
        image, events, truth = simulate_fmri(
            run.images,
            run.meanings,
            run.labels,
            preset=spec.preset,
            seed=spec.seed,
            run=number,
            soa=spec.soa,
            reference=tuning,
        )
        write_fmri(image, events, folder / f"{name}_raw.nii.gz", truth.areas)


def stimulus_table(stimuli: list[Stimulus]) -> StimulusTable:
    """Convert composed pictures to the table that training and evaluation read."""
    from decoder.data.stimuli import StimulusTable
    from engine.composing.compose import images

    return StimulusTable(
        ids=tuple(stimulus.name for stimulus in stimuli),
        images=images(stimuli),
        captions=tuple(stimulus.captions for stimulus in stimuli),
        concepts=tuple(stimulus.concept for stimulus in stimuli),
    )


def originals(stimuli: StimulusTable) -> dict[str, Any]:
    """Return the pictures by the label of the event that announces them."""
    return dict(zip(stimuli.ids, np.asarray(stimuli.images), strict=True))


def true_poses(stimuli: StimulusTable) -> list[Pose]:
    """Return the pose of the drawing in each held-out stimulus; empty if a picture is not one of those."""
    from decoder.evaluation.pose import pose_of_mask
    from engine.composing.compose import alpha_of, load_test_stimuli
    from engine.composing.pack import load_pack

    by_name = {stimulus.name: stimulus for stimulus in load_test_stimuli()}
    held_out = [by_name[name] for name in stimuli.ids if name in by_name]
    if len(held_out) < len(stimuli):
        return []
    # Other pictures may go by the same names.
    if not all(np.array_equal(one.image, image) for one, image in zip(held_out, stimuli.images, strict=True)):
        return []
    pack = load_pack()
    return [pose_of_mask(alpha_of(pack, one)) for one in held_out]
