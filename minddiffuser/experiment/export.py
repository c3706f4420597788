"""`minddiffuser export`: what was recorded, as a BIDS data set with its pictures."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.archive.trials import COLUMNS
from minddiffuser.config.spec import Config, load_config
from minddiffuser.errors import AppError
from stream.atomic import check_folder, reason_of
from stream.errors import OutputError
from stream.files.bids_export import RunName, datatype, export_run
from stream.types.recording import choose_streams

if TYPE_CHECKING:
    from stream.types.events import Event
    from stream.types.labels import LabelMatcher
    from stream.types.recording import Recording

SUFFIXES = (".xdf", ".xdfz", ".npz", ".fif", ".edf", ".bdf", ".vhdr", ".set")
"""Of recordings in a folder."""
LABEL = re.compile(r"[A-Za-z0-9]+")
NEAR_S = 0.02
"""Between the flip that a table of trials tells and its marker: clocks of two machines are measured to less."""
TRIAL = {"trial_type": "trial", "trial": "trial_number"}
"""Columns of a table of trials that go by another name in BIDS, where trial_type is the picture."""
LEFT_OUT = {"onset", "stim_file", "stim_id", "marker", "lsl_time"}


def run_export(
    source: Path,
    out: Path,
    config_file: Path | None,
    *,
    subject: str | None = None,
    session: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """Write the recordings of a folder, or one, into a BIDS data set, new or one that is there.

    Parameters
    ----------
    source : Path
        A folder as `calibrate` makes it, or a recording.
    out : Path
        The data set's folder.
    config_file : Path or None
        Says which stream, which markers and which pictures; left out, `source`/config.yaml where there is one.
    subject, session, task : str, optional
        Labels; left out, those of the folder's name (sub-01/ses-01) and of each recording's (calibration-01.xdf).

    Returns
    -------
    dict
        `folder`, and what became of each recording in `runs`.

    Raises
    ------
    AppError, StreamError, DecoderError
        There is no recording, a label is none, or a run is there already; nothing is written then.
    """
    from minddiffuser.training.data import matcher_of, shown_pictures

    recordings = _recordings(source)
    folder = source if source.is_dir() else source.parent
    config = (
        load_config(config_file or default) if config_file or (default := folder / "config.yaml").exists() else None
    )
    names = [_name_of(file, folder, subject, session, task, several=len(recordings) > 1) for file in recordings]
    if len(set(names)) < len(names):
        raise AppError(f"{source}: two recordings would be one run ({names[0]}); export them one by one with --task")
    check_folder(out)
    _check_new(out, names)
    pictures = shown_pictures(config.data) if config else None
    labels = matcher_of(pictures, config.labels) if config and pictures is not None else None
    files: dict[str, Path] = {}
    if config and config.data.stimuli and pictures is not None and pictures.files:
        stimuli = config.data.stimuli
        files = {name: stimuli / file for name, file in zip(pictures.ids, pictures.files, strict=True)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
        root = Path(scratch) / "bids"
        _begin(out, root, names, config.name if config else folder.name)
        runs = [_export(file, name, root, config, labels, files) for file, name in zip(recordings, names, strict=True)]
        _merge(root, out)
    return {"folder": str(out), "runs": runs}


def _recordings(source: Path) -> list[Path]:
    if not source.exists():
        raise AppError(f"{source}: no such file or folder")
    if source.is_file():
        return [source]
    found = sorted(file for file in source.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise AppError(f"{source}: holds no recording ({', '.join(SUFFIXES)})")
    return found


def _name_of(
    file: Path, folder: Path, subject: str | None, session: str | None, task: str | None, *, several: bool
) -> RunName:
    """Name a run: calibration-01.xdf in sub-01/ses-02 is sub-01_ses-02_task-calibration_run-01.

    Raises
    ------
    AppError
        A label is no letters and digits.
    """
    of_folder = dict(re.findall(r"(sub|ses)-([A-Za-z0-9]+)", "/".join(folder.resolve().parts[-3:])))
    stem, _, number = file.stem.partition("-") if re.fullmatch(r".*-\d+", file.stem) else (file.stem, "", "")
    stem = "".join(LABEL.findall(stem)) or "task"
    # Two recordings of a task must differ in their runs.
    own = f"{stem}{number}" if task is None and not number else stem
    chosen_labels = {
        "--subject": (subject or of_folder.get("sub") or "01").removeprefix("sub-"),
        "--session": (session or of_folder.get("ses") or "").removeprefix("ses-"),
        "--task": (task or own).removeprefix("task-"),
    }
    for option, label in chosen_labels.items():
        if label and not LABEL.fullmatch(label):
            raise AppError(f"{option} {label!r}: a label is letters and digits, such as 01")
    run = number or (stem if task and several else None)
    return RunName(chosen_labels["--subject"], chosen_labels["--task"], chosen_labels["--session"] or None, run or None)


def _check_new(out: Path, names: Sequence[RunName]) -> None:
    if not out.exists():
        return
    if any(out.iterdir()) and not (out / "dataset_description.json").is_file():
        raise AppError(f"{out}: is there and no BIDS data set; name a new folder")
    for name in names:
        parts = [f"sub-{name.subject}", *([f"ses-{name.session}"] if name.session else []), f"task-{name.task}"]
        stem = "_".join([*parts, *([f"run-{name.run}"] if name.run else [])])
        if there := next(out.glob(f"sub-{name.subject}/**/{stem}_*"), None):
            raise AppError(f"{there}: that run is there already; choose another --subject, --session or --task")


def _begin(out: Path, root: Path, names: Sequence[RunName], title: str) -> None:
    """Begin a data set in a scratch folder; of one that is there with what a new run adds a line to."""
    import mne_bids

    root.mkdir()
    if not (out / "dataset_description.json").is_file():
        mne_bids.make_dataset_description(path=root, name=title, verbose="error")
        return
    tables = [file for name in {(name.subject, name.session) for name in names} for file in _tables(out, *name)]
    for file in (*(each for each in out.iterdir() if each.is_file()), *tables):
        target = root / file.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if (stimuli := out / "stimuli").is_dir():
        shutil.copytree(stimuli, root / "stimuli")


def _tables(out: Path, subject: str, session: str | None) -> list[Path]:
    own = out / f"sub-{subject}"
    return [*own.glob("*_scans.*"), *((own / f"ses-{session}").glob("*_scans.*") if session else ())]


def _merge(root: Path, out: Path) -> None:
    """Move a data set to where it belongs; the runs first, so that no table names what is not there.

    Raises
    ------
    OutputError
        A file could not be moved; the data set is as it was.
    """
    if not out.exists():
        root.rename(out)
        return
    files = sorted((file for file in root.rglob("*") if file.is_file()), key=lambda file: -len(file.parts))
    earlier = root.with_name("earlier")
    moved, folders = list[Path](), list[Path]()
    try:
        for file in files:
            target = out / file.relative_to(root)
            folders += [each for each in target.parents if not each.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                kept = earlier / target.relative_to(out)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(target, kept)
            os.replace(file, target)  # noqa: PTH105  (over what is there)
            moved.append(target)
    except OSError as error:
        for target in moved:
            kept = earlier / target.relative_to(out)
            if kept.exists():
                os.replace(kept, target)  # noqa: PTH105
            else:
                target.unlink()
        for folder in folders:  # inner ones first
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise OutputError(f"{out}: cannot be written ({reason_of(error)}); it is as it was") from None


def _export(
    file: Path, name: RunName, root: Path, config: Config | None, labels: LabelMatcher | None, files: Mapping[str, Path]
) -> dict[str, Any]:
    from stream.files.registry import read
    from stream.markers.choice import select_events

    recording = read(file)
    source = config.source if config else None
    stream = choose_streams(recording, source)[0]
    datatype(stream)
    selectors = source.markers if source else ()
    events = select_events((*recording.events, *(recording.other_events if selectors else ())), selectors, stream)
    named = [labels.name_event(event) if labels else event for event in events]
    run = export_run(recording, stream, named, name, root, pictures=files, columns=trials_of(file, recording, events))
    return {"recording": str(file), **asdict(run)}


def trials_of(file: Path, recording: Recording, events: Sequence[Event]) -> dict[int, dict[str, str]]:
    """Find what the presenter has written of each event: the row of its table whose flip is the marker's.

    Parameters
    ----------
    file : Path
        The recording: beside calibration-01.xdf lies calibration_events.tsv.
    recording : Recording
    events : sequence of Event

    Returns
    -------
    dict of int to dict
        Columns by the number of the event; nothing where there is no such table.
    """
    from stream.tables.rows import read_rows

    stem = re.sub(r"-\d+$", "", file.stem)
    table = file.with_name(f"{stem}_events.tsv")
    if recording.lsl_begun is None or not table.is_file():
        return {}
    rows = read_rows(table, COLUMNS)
    found: dict[int, dict[str, str]] = {}
    for number, event in enumerate(events):
        time = recording.lsl_begun + event.time
        near = min(rows, key=lambda row: abs(float(row["lsl_time"]) - time), default=None)
        if near and abs(float(near["lsl_time"]) - time) < NEAR_S:
            found[number] = {TRIAL.get(key, key): cell for key, cell in near.items() if key not in LEFT_OUT}
    return found
