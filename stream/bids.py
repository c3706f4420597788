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

from stream.annotations import is_mark
from stream.delimited import number
from stream.errors import RecordingError
from stream.events import Event
from stream.formats import from_raw
from stream.nifti import read_volumes
from stream.plain_tables import plain_tables
from stream.recordings import BadStretch, Recording
from stream.tables import read_events, read_rows, read_units

LOG = logging.getLogger(__name__)
FORMATS = {
    "eeg": (".vhdr", ".set", ".edf", ".bdf"),
    "ieeg": (".vhdr", ".set", ".edf"),
    "meg": (".fif", ".ds"),
    "bold": (".nii", ".nii.gz"),
}
"""What a run's file ends in, by its suffix (what stands behind the last underscore)."""
LISTED = 12  # runs named in an error


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
        wanted = {key: getattr(self, key) for key in ("subject", "session", "task", "run")}
        return ", ".join(f"{key} {value!r}" for key, value in wanted.items() if value is not None) or "anything"


@dataclass(frozen=True, slots=True)
class _Name:
    """A file's name taken apart: {'sub': '01', 'task': 'x'}, 'eeg', '.vhdr'."""

    entities: dict[str, str]
    suffix: str
    extension: str


def find_run(wanted: BidsRun) -> Path:
    """Find the one file that holds a run.

    Raises
    ------
    RecordingError
        No file or several match; lists what is there.
    """
    if not wanted.bids.exists():
        raise RecordingError(f"{wanted.bids}: no such BIDS folder or file")
    if not wanted.bids.is_dir() and not _is_run(wanted.bids):
        raise RecordingError(f"{wanted.bids}: is neither a BIDS folder nor a run named as BIDS does")
    runs = [wanted.bids] if _is_run(wanted.bids) else sorted(_runs(wanted.bids))
    found = [path for path in runs if _matches(wanted, _name(path).entities)]
    if len(found) == 1:
        return found[0]
    if not runs:
        raise RecordingError(f"{wanted.bids}: holds no run named as BIDS does (sub-01_task-x_eeg.vhdr)")
    if not found:
        raise RecordingError(f"{wanted.bids}: no run with {wanted}; there are: {_listed(runs)}")
    raise RecordingError(
        f"{wanted.bids}: {len(found)} runs with {wanted}; say which by subject, session, task and run, "
        f"or name the file: {_listed(found)}"
    )


def read_run(wanted: BidsRun) -> Recording:
    """Read a run with what its data set says about it.

    Raises
    ------
    RecordingError
        See `find_run`; or the run's files are broken or do not go together.
    """
    path = find_run(wanted)
    root = root_of(path)
    if root is None:
        raise RecordingError(f"{path}: lies in no BIDS data set (no dataset_description.json above it)")
    tables = _sidecars(path, root, "events", ".tsv")
    warnings: list[str] = []
    events = read_events(tables[-1], wanted.label, warnings) if tables else ()
    if not tables:
        LOG.warning("%s has no events.tsv: it is read without events", path.name)
    marks = tuple(event for event in events if is_mark(event.label))
    events = tuple(event for event in events if event not in marks)
    if _name(path).suffix == "bold":
        recording = _marked(_read_bold(path, root, wanted.mask), marks, tables[-1:])
    else:
        recording = _read_raw(path, root, events)
    stated = str(_json(root / "dataset_description.json").get("Name", ""))
    data_set = root.name if stated.strip("[] ").lower() in {"", "unspecified"} else stated  # as mne-bids leaves it
    told = (*recording.warnings, *warnings)
    return replace(recording, events=events, warnings=told, description=f"{recording.streams[0].type} of {data_set}")


def _marked(recording: Recording, marks: tuple[Event, ...], tables: list[Path]) -> Recording:
    """Make bad stretches of a run's marks, as long as its table says."""
    rows = [row for table in tables for row in read_rows(table, ("onset",))]
    lengths = {_number(row["onset"]): _number(row.get("duration", "")) for row in rows}
    bad = tuple(BadStretch(mark.time, lengths.get(mark.time, 0.0), mark.label) for mark in marks)
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
    """Take a path as a run where it is a folder of runs, or a file that BIDS names in a data set."""
    folder = path.is_dir() and path.suffix != ".ds"
    return BidsRun(bids=path) if folder or (_is_run(path) and root_of(path)) else None


def entities(file: str) -> dict[str, str]:
    """Give what a file's name says of its run: {'sub': '01', 'ses': '2', 'task': 'x'}."""
    return _name(Path(file)).entities


def _name(path: Path) -> _Name:
    stem, dot, extension = path.name.partition(".")
    *parts, suffix = stem.split("_")
    pairs = [part.partition("-") for part in parts]
    return _Name({key: value for key, _, value in pairs if value}, suffix, f"{dot}{extension}".lower())


def _is_run(path: Path) -> bool:
    name = _name(path)
    return (
        name.extension in FORMATS.get(name.suffix, ())
        and "sub" in name.entities
        # The later parts of a split file are read with the first; calibration files of Maxfilter are no runs.
        and name.entities.get("split", "1").lstrip("0") == "1"
        and name.entities.get("acq") not in {"crosstalk", "calibration"}
    )


def _runs(folder: Path) -> Iterator[Path]:
    """Give the runs below a folder; a data set's own only, not its derivatives' or sources'."""
    subjects = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith("sub-")]
    for start in subjects or [folder]:
        yield from (path for path in start.rglob("sub-*") if _is_run(path))


def _matches(wanted: BidsRun, entities: dict[str, str]) -> bool:
    pairs = (("sub", wanted.subject), ("ses", wanted.session), ("task", wanted.task), ("run", wanted.run))
    return all(value is None or _same(value.removeprefix(f"{key}-"), entities.get(key)) for key, value in pairs)


def _same(wanted: str, had: str | None) -> bool:
    """Compare labels; YAML makes 1 of 01, and run-1 is run-01 to the standard."""
    return had is not None and (wanted == had or (wanted.isdecimal() and had.isdecimal() and int(wanted) == int(had)))


def _listed(runs: list[Path]) -> str:
    names = [path.name for path in runs[:LISTED]]
    return ", ".join(names) + (f" and {len(runs) - LISTED} more" if len(runs) > LISTED else "")


def _sidecars(path: Path, root: Path, suffix: str, extension: str) -> list[Path]:
    """Find the files that describe a run, the most general first: those whose entities all are the run's too.

    A derivative's run is also described by what the raw data set says about it.
    """
    raw = root.parent.parent if root.parent.name == "derivatives" else None
    own = _name(path).entities
    below = path.parent.resolve().relative_to(root.resolve())
    found = []
    for top in [raw, root] if raw else [root]:
        folders = [top, *(top / Path(*below.parts[: i + 1]) for i in range(len(below.parts)))]
        for folder in folders:
            here = [file for file in folder.glob(f"*{suffix}{extension}") if _name(file).suffix == suffix]
            fitting = [file for file in here if _name(file).entities.items() <= own.items()]
            found += sorted(fitting, key=lambda file: len(_name(file).entities))
    return found


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

    options = {"encoding": "latin1"} if path.suffix.lower() in {".edf", ".bdf"} else {}  # see `formats.read_mne`
    used = [table for kind in ("events", "channels", "electrodes") for table in _sidecars(path, root, kind, ".tsv")]
    used += [*root.glob("participants.tsv"), *path.parent.parent.glob("*_scans.tsv")]
    with plain_tables(path, root, used) as (file, top), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="loadtxt: input contained no data")  # a table of no events
        place = mne_bids.get_bids_path_from_fname(file, check=False, verbose="error").update(root=top)
        raw = mne_bids.read_raw_bids(place, extra_params=options, verbose="error").load_data(verbose="error")
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
    """When a run was begun, as its subject's or session's scans.tsv says (mne-bids reads it for the other kinds)."""
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
    own = _name(path).entities
    folders = [path.parent, *sorted((root / "derivatives").glob(f"*/sub-{own['sub']}/**/func"))]
    for folder in folders:
        found = [file for file in sorted(folder.glob("*_mask.nii*")) if _made_for(_name(file).entities, own)]
        if fitting := [file for file in found if _same_grid(file, path)]:
            if len(fitting) > 1:
                raise RecordingError(f"{path}: several masks, {_listed(fitting)}; say which as mask")
            LOG.info("%s: voxels of %s", path.name, fitting[0])
            return fitting[0]
    return None


def _made_for(mask: dict[str, str], run: dict[str, str]) -> bool:
    return {key: value for key, value in mask.items() if key != "desc"}.items() <= run.items()


def _same_grid(mask: Path, run: Path) -> bool:
    import nibabel

    one, other = nibabel.load(mask), nibabel.load(run)
    flat = one.shape[:3] if set(one.shape[3:]) <= {1} else one.shape  # a mask may be a run of one volume
    return flat == other.shape[:3] and np.allclose(one.affine, other.affine, atol=1e-3)
