"""Runs of a BIDS data set: which one is meant, and the files beside it that describe it.

The standard is https://bids-specification.readthedocs.io (1.10). EEG and MEG are read by mne-bids; what a run inherits
from higher folders (events, sidecars of fMRI) is found here, by the standard's inheritance principle.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from stream.errors import RecordingError
from stream.files.annotations import is_mark
from stream.files.formats import FORMATS
from stream.files.formats.mne_files import from_raw, reading_options
from stream.files.formats.nifti import read_volumes
from stream.tables.delimited import number
from stream.tables.plain_tables import plain_tables
from stream.tables.rows import read_events, read_rows, read_units
from stream.types.events import Event
from stream.types.recording import BadSegment, Recording

logger = logging.getLogger(__name__)
LISTED = 12
"""Runs named in an error."""
DESCRIPTION = "MinddiffuserDescription"
"""Key of a run's sidecar: what was measured ('simulated EEG'), where `stream.files.bids_export` wrote the run."""


class BidsRun(BaseModel):
    """One run of a BIDS data set; what is left out may be anything, but one run must be left."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, coerce_numbers_to_str=True)

    bids: Path
    """The data set's folder, a folder in it (one subject's, a derivative), or the run's file."""
    subject: str | None = None
    session: str | None = None
    task: str | None = None
    run: str | None = None
    label: str | None = None
    """Column of events.tsv whose text names each event; left out, trial_type, else stim_file, else value."""
    mask: Path | None = None
    """Mask of an fMRI run; left out, the one that the data set or its derivatives hold for it."""

    def __str__(self) -> str:
        choices = {key: getattr(self, key) for key in ("subject", "session", "task", "run")}
        return ", ".join(f"{key} {value!r}" for key, value in choices.items() if value is not None) or "anything"


@dataclass(frozen=True, slots=True)
class _Name:
    """A file's name taken apart: {'sub': '01', 'task': 'x'}, 'eeg', '.vhdr'."""

    entities: dict[str, str]
    suffix: str
    extension: str


def find_run(run: BidsRun) -> Path:
    """Find the one file that holds a run.

    Raises
    ------
    RecordingError
        No file or several match; lists what is there.
    """
    if not run.bids.exists():
        raise RecordingError(f"{run.bids}: no such BIDS folder or file")
    if not run.bids.is_dir() and not _is_run(run.bids):
        raise RecordingError(f"{run.bids}: is neither a BIDS folder nor a run named as BIDS does")
    runs = [run.bids] if _is_run(run.bids) else sorted(_runs(run.bids))
    matching = [path for path in runs if _matches(run, _name(path).entities)]
    if len(matching) == 1:
        return matching[0]
    if not runs:
        raise RecordingError(f"{run.bids}: holds no run named as BIDS does (sub-01_task-x_eeg.vhdr)")
    if not matching:
        raise RecordingError(f"{run.bids}: no run with {run}; there are: {_listed(runs)}")
    raise RecordingError(
        f"{run.bids}: {len(matching)} runs with {run}; say which by subject, session, task and run, "
        f"or name the file: {_listed(matching)}"
    )


def read_run(run: BidsRun) -> Recording:
    """Read a run with what its data set says about it.

    Raises
    ------
    RecordingError
        See `find_run`; or the run's files are broken or do not go together.
    """
    path = find_run(run)
    root = root_of(path)
    if root is None:
        raise RecordingError(f"{path}: lies in no BIDS data set (no dataset_description.json above it)")
    tables = _sidecars(path, root, "events", ".tsv")
    warnings: list[str] = []
    events = read_events(tables[-1], run.label, warnings) if tables else ()
    if not tables:
        logger.warning("%s has no events.tsv: it is read without events", path.name)
    marks = tuple(event for event in events if is_mark(event.label))
    events = tuple(event for event in events if event not in marks)
    if _name(path).suffix == "bold":
        recording = _marked(_read_bold(path, root, run.mask), marks, tables[-1:])
    else:
        recording = _read_raw(path, root, events)
    title = str(_json(root / "dataset_description.json").get("Name", ""))
    data_set = root.name if title.strip("[] ").lower() in {"", "unspecified"} else title  # as mne-bids leaves it
    doubts = (*recording.warnings, *warnings)
    measured = str(_sidecar(path, root).get(DESCRIPTION, recording.streams[0].type)).removesuffix(" recording")
    return replace(recording, events=events, warnings=doubts, description=f"{measured} of {data_set}")


def _marked(recording: Recording, marks: tuple[Event, ...], tables: list[Path]) -> Recording:
    """Make bad segments of a run's marks, as long as its table says."""
    rows = [row for table in tables for row in read_rows(table, ("onset",))]
    lengths = {_number(row["onset"]): _number(row.get("duration", "")) for row in rows}
    bad = tuple(BadSegment(mark.time, lengths.get(mark.time, 0.0), mark.label) for mark in marks)
    return replace(recording, streams=tuple(replace(stream, bad=bad) for stream in recording.streams))


def _number(text: str) -> float:
    """Read a cell of a table; 0 where it holds no finite number."""
    try:
        return number(text) if np.isfinite(number(text)) else 0.0
    except ValueError:
        return 0.0


def root_of(path: Path) -> Path | None:
    """Find the data set that a file or folder lies in: the nearest folder with dataset_description.json."""
    # The file itself may be a link into an archive of contents (git-annex); its folder is the data set's.
    folder = path.resolve() if path.is_dir() else path.parent.resolve()
    return next((each for each in [folder, *folder.parents] if (each / "dataset_description.json").is_file()), None)


def run_at(path: Path) -> BidsRun | None:
    """Return a path as a run where it is a folder of runs, or a file that BIDS names in a data set; else None."""
    folder = path.is_dir() and path.suffix not in FORMATS
    return BidsRun(bids=path) if folder or (_is_run(path) and root_of(path)) else None


def entities(file: str) -> dict[str, str]:
    """Return the entities in a file's name: {'sub': '01', 'ses': '2', 'task': 'x'}."""
    return _name(Path(file)).entities


def _name(path: Path) -> _Name:
    stem, dot, extension = path.name.partition(".")
    *parts, suffix = stem.split("_")
    pairs = [part.partition("-") for part in parts]
    return _Name({key: value for key, _, value in pairs if value}, suffix, f"{dot}{extension}".lower())


def _is_run(path: Path) -> bool:
    name = _name(path)
    return (
        name.extension in FORMATS
        and name.suffix in FORMATS[name.extension].bids
        and "sub" in name.entities
        # The later parts of a split file are read with the first; calibration files of Maxfilter are no runs.
        and name.entities.get("split", "1").lstrip("0") == "1"
        and name.entities.get("acq") not in {"crosstalk", "calibration"}
    )


def _runs(folder: Path) -> Iterator[Path]:
    """Yield the runs below a folder; a data set's own only, not its derivatives' or sources'."""
    subjects = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith("sub-")]
    for start in subjects or [folder]:
        yield from (path for path in start.rglob("sub-*") if _is_run(path))


def _matches(run: BidsRun, entities: dict[str, str]) -> bool:
    pairs = (("sub", run.subject), ("ses", run.session), ("task", run.task), ("run", run.run))
    return all(value is None or _same(value.removeprefix(f"{key}-"), entities.get(key)) for key, value in pairs)


def _same(label: str, other: str | None) -> bool:
    """Compare labels; YAML makes 1 of 01, and run-1 is run-01 to the standard."""
    return other is not None and (
        label == other or (label.isdecimal() and other.isdecimal() and int(label) == int(other))
    )


def _listed(runs: list[Path]) -> str:
    names = [path.name for path in runs[:LISTED]]
    return ", ".join(names) + (f" and {len(runs) - LISTED} more" if len(runs) > LISTED else "")


def _sidecars(path: Path, root: Path, suffix: str, extension: str) -> list[Path]:
    """Find the files that describe a run, the most general first: those whose entities all are the run's too.

    A derivative's run is also described by what the raw data set says about it.
    """
    raw = root.parent.parent if root.parent.name == "derivatives" else None
    entities_of_run = _name(path).entities
    below = path.parent.resolve().relative_to(root.resolve())
    sidecars = []
    for top in [raw, root] if raw else [root]:
        folders = [top, *(top / Path(*below.parts[: i + 1]) for i in range(len(below.parts)))]
        for folder in folders:
            here = [file for file in folder.glob(f"*{suffix}{extension}") if _name(file).suffix == suffix]
            fitting = [file for file in here if _name(file).entities.items() <= entities_of_run.items()]
            sidecars += sorted(fitting, key=lambda file: len(_name(file).entities))
    return sidecars


def _sidecar(path: Path, root: Path) -> dict[str, Any]:
    """Merge the JSON files that describe a run; the nearer ones rule."""
    merged: dict[str, Any] = {}
    for file in _sidecars(path, root, _name(path).suffix, ".json"):
        merged |= _json(file)
    return merged


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RecordingError(f"{file}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise RecordingError(f"{file}: holds no object of keys and values")
    return content


def _read_raw(path: Path, root: Path, events: tuple[Event, ...]) -> Recording:
    import mne_bids

    used = [table for kind in ("events", "channels", "electrodes") for table in _sidecars(path, root, kind, ".tsv")]
    used += [*root.glob("participants.tsv"), *path.parent.parent.glob("*_scans.tsv")]
    with plain_tables(path, root, used) as (file, top), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="loadtxt: input contained no data")  # a table of no events
        place = mne_bids.get_bids_path_from_fname(file, check=False, verbose="error").update(root=top)
        raw = mne_bids.read_raw_bids(place, extra_params=reading_options(path), verbose="error").load_data(
            verbose="error"
        )
    tables = _sidecars(path, root, "channels", ".tsv")
    sidecar = _sidecar(path, root)
    reference = str(sidecar.get("EEGReference") or sidecar.get("iEEGReference") or "")
    return from_raw(
        raw, path,
        units=read_units(tables[-1]) if tables else None, reference=reference.replace("n/a", ""),
        typed=bool(tables), events=events,
    )  # fmt: skip


def _read_bold(path: Path, root: Path, mask: Path | None) -> Recording:
    sidecar = _sidecar(path, root)
    mask = mask or _mask(path, root)
    try:
        repetition = float(sidecar["RepetitionTime"]) if "RepetitionTime" in sidecar else None
        times = [float(time) for time in sidecar["VolumeTiming"]] if "VolumeTiming" in sidecar else None
    except (TypeError, ValueError):
        raise RecordingError(f"{path}: RepetitionTime or VolumeTiming in its sidecars is no number") from None
    recording = read_volumes(path, mask=mask, repetition=repetition, times=times)
    no_mask = [] if mask else [f"{path.name}: no mask found; every voxel that varies becomes a channel"]
    return replace(recording, begun=_acquired(path, root), warnings=(*no_mask, *recording.warnings))


def _acquired(path: Path, root: Path) -> float | None:
    """Return when a run was begun, from its subject's or session's scans.tsv (mne-bids reads those of other kinds)."""
    for folder in (path.parent.parent, path.parent.parent.parent):
        for table in folder.glob("*_scans.tsv") if folder.resolve() != root.resolve() else ():
            name = path.relative_to(folder).as_posix()
            for row in read_rows(table, ("filename", "acq_time")):
                if row["filename"] == name and row["acq_time"] != "n/a":
                    try:
                        return datetime.fromisoformat(
                            row["acq_time"]
                        ).timestamp()  # without a zone: local, as in mne-bids
                    except ValueError:
                        raise RecordingError(f"{table}: acq_time {row['acq_time']!r} is no date and time") from None
    return None


def _mask(path: Path, root: Path) -> Path | None:
    """Find the mask made for a run: beside it, else in the data set's derivatives; it must lie on the run's grid."""
    entities_of_run = _name(path).entities
    folders = [path.parent, *sorted((root / "derivatives").glob(f"*/sub-{entities_of_run['sub']}/**/func"))]
    for folder in folders:
        masks = [
            file for file in sorted(folder.glob("*_mask.nii*")) if _made_for(_name(file).entities, entities_of_run)
        ]
        if fitting := [file for file in masks if _same_grid(file, path)]:
            if len(fitting) > 1:
                raise RecordingError(f"{path}: several masks, {_listed(fitting)}; say which as mask")
            logger.info("%s: voxels of %s", path.name, fitting[0])
            return fitting[0]
    return None


def _made_for(mask: dict[str, str], run: dict[str, str]) -> bool:
    return {key: value for key, value in mask.items() if key != "desc"}.items() <= run.items()


def _same_grid(mask: Path, run: Path) -> bool:
    import nibabel

    one, other = nibabel.load(mask), nibabel.load(run)
    flat = one.shape[:3] if set(one.shape[3:]) <= {1} else one.shape  # a mask may be a run of one volume
    return flat == other.shape[:3] and np.allclose(one.affine, other.affine, atol=1e-3)
