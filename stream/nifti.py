"""fMRI runs in NIfTI files: the voxels of a mask as channels, volumes as samples."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.recordings import RecordedStream, Recording
from stream.tables import read_events, read_rows
from stream.windows import Channels

LOG = logging.getLogger(__name__)


def read_nifti(path: Path) -> Recording:
    """NIfTI with '<name>_events.tsv' (BIDS) or 'events.tsv' beside it; '<name>_mask.nii(.gz)' picks the voxels.

    Volume k is stamped with its start, k TR. Events are labelled by `trial_type`, else by `stim_file`.
    """
    base = path.name.removesuffix(".gz").removesuffix(".nii").removesuffix("_bold")
    masks = [path.with_name(f"{base}_mask{suffix}") for suffix in (".nii.gz", ".nii")]
    tables = [path.with_name(f"{base}_events.tsv"), path.with_name("events.tsv")]
    recording = read_volumes(path, mask=next((file for file in masks if file.is_file()), None))
    events = next((read_events(file) for file in tables if file.is_file()), ())
    return Recording(recording.name, recording.description, recording.streams, events)


def read_volumes(
    path: Path, *, mask: Path | None = None, repetition: float | None = None, times: Sequence[float] | None = None
) -> Recording:
    """Read the volumes of a NIfTI file, without events.

    Parameters
    ----------
    path : Path
    mask : Path, optional
        Picks the voxels; left out, all that vary. Where a table lies beside it under its name (`..._mask.tsv`, columns
        index and name as of BIDS' segmentations), its numbers are regions, and voxels are named after theirs.
    repetition : float, optional
        Seconds from one volume to the next; the header's by default.
    times : sequence of float, optional
        When each volume began, where they are not evenly spaced.

    Raises
    ------
    RecordingError
        No run of volumes, no repetition time, a mask of another grid, or one with regions that its table lacks.
    """
    import nibabel

    image = nibabel.load(path)
    volumes = np.asarray(image.dataobj, dtype=np.float32)
    if volumes.ndim != 4:
        raise RecordingError(f"{path}: {volumes.ndim} dimensions; a run of volumes has 4")
    stamps = _stamps(path, image, repetition) if times is None else np.asarray(times, dtype=np.float64)
    if len(stamps) != volumes.shape[3]:
        raise RecordingError(f"{path}: {volumes.shape[3]} volumes but times of {len(stamps)}")
    labels = np.asarray(nibabel.load(mask).dataobj) if mask else volumes.std(axis=3)
    inside = labels > 0
    if inside.shape != volumes.shape[:3] or not inside.any():
        raise RecordingError(
            f"{path}: mask {mask or 'of what varies'} of shape {inside.shape} picks no voxel of {volumes.shape[:3]}"
        )
    data = np.ascontiguousarray(volumes[inside].T)
    regions = _regions(mask, labels[inside]) if mask else ("",) * len(data[0])
    names = tuple(
        "{}v{}-{}-{}".format(region, *place)
        for region, place in zip(regions, np.argwhere(inside).tolist(), strict=True)
    )
    channels = Channels(names, ("voxel",) * len(names), ("count",) * len(names))
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    sfreq = 1.0 / float(stamps[1] - stamps[0]) if times is None and len(stamps) > 1 else 0.0
    stream = RecordedStream(stem, "fMRI", f"replay-{stem}", channels, sfreq, stamps, data)
    description = bytes(image.header["descrip"]).split(b"\0")[0].decode("latin-1").strip()
    return Recording(path.name, description or "fMRI recording", (stream,), ())


def _stamps(path: Path, image: Any, repetition: float | None) -> NDArray[np.float64]:
    """Evenly spaced volumes, the first at 0."""
    unit = {"msec": 1e-3, "usec": 1e-6}.get(image.header.get_xyzt_units()[1], 1.0)
    stated = float(image.header.get_zooms()[3]) * unit
    if repetition is not None and abs(stated - repetition) > 0.01 * stated:
        LOG.warning("%s: repetition time %g s in the sidecar rules over %g s in the header", path, repetition, stated)
    step = stated if repetition is None else repetition
    if not 0.01 < step < 100:
        raise RecordingError(f"{path}: repetition time {step:g} s; state it in pixdim[4], or in the sidecar")
    return np.arange(image.shape[3], dtype=np.float64) * step


def _regions(mask: Path, labels: NDArray[Any]) -> tuple[str, ...]:
    """Give what each voxel's name begins with, 'V1:', by the table beside a mask; nothing where there is none."""
    table = mask.with_name(mask.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    if not table.is_file():
        return ("",) * len(labels)
    known = {row["index"].strip(): f"{row['name'].strip()}:" for row in read_rows(table, ("index", "name"))}
    numbers = [f"{label:g}" for label in labels.tolist()]
    if missing := set(numbers) - set(known):
        raise RecordingError(f"{table}: names no region {', '.join(sorted(missing)[:8])}, which {mask.name} holds")
    return tuple(known[number] for number in numbers)
