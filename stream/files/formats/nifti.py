"""fMRI runs in NIfTI files: the voxels of a mask as channels, volumes as samples."""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.files.file_format import GZIP, Description, FileFormat
from stream.tables.delimited import number
from stream.tables.rows import read_events, read_rows
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels

SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
"""By the header's unit of time."""
LIKELY_S = (0.1, 30.0)
"""Repetition times that scanners have; a header's number outside is read in the one unit that gives such a time."""


def read_nifti(path: Path) -> Recording:
    """Read NIfTI with '<name>_events.tsv' (BIDS) or 'events.tsv' beside it; '<name>_mask.nii(.gz)' picks the voxels.

    Volume k is stamped with its start, k TR: the `RepetitionTime` of '<name>.json' beside it, else the header's.
    Events are named as `stream.tables.rows.read_events` does.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    base = stem.removesuffix("_bold")
    masks = [path.with_name(f"{base}_mask{suffix}") for suffix in (".nii.gz", ".nii")]
    tables = [path.with_name(f"{base}_events.tsv"), path.with_name("events.tsv")]
    recording = read_volumes(
        path,
        mask=next((file for file in masks if file.is_file()), None),
        repetition=_stated(path.with_name(f"{stem}.json")),
    )
    warnings = list(recording.warnings)
    events = next((read_events(file, None, warnings) for file in tables if file.is_file()), ())
    return replace(recording, events=events, warnings=tuple(warnings))


def read_volumes(
    path: Path, *, mask: Path | None = None, repetition: float | None = None, times: Sequence[float] | None = None
) -> Recording:
    """Read the volumes of a NIfTI file, without events.

    A voxel that is not finite in some volume is left out; a volume most of whose voxels are not is NaN, which is taken
    as lost. Both are counted in `Recording.warnings`.

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

    warnings: list[str] = []
    image = nibabel.load(path)
    volumes, axis = _run(path, image)
    stamps = _stamps(path, image, axis, repetition, warnings) if times is None else np.asarray(times, dtype=np.float64)
    if len(stamps) != volumes.shape[3]:
        raise RecordingError(f"{path}: {volumes.shape[3]} volumes but times of {len(stamps)}")
    if not np.isfinite(stamps).all():
        raise RecordingError(f"{path}: a volume has no finite time")
    labels = _labels(mask, image, warnings) if mask else None
    inside = _picked(path, volumes, labels, mask, warnings)
    data = np.ascontiguousarray(volumes[inside].T)
    data[~np.isfinite(data).all(axis=1)] = np.nan
    regions = _regions(mask, labels[inside]) if mask and labels is not None else ("",) * len(data[0])
    names = tuple(
        "{}v{}-{}-{}".format(region, *place)
        for region, place in zip(regions, np.argwhere(inside).tolist(), strict=True)
    )
    channels = Channels(names, ("voxel",) * len(names), ("count",) * len(names))
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    sfreq = 1.0 / float(stamps[1] - stamps[0]) if times is None and len(stamps) > 1 else 0.0
    stream = RecordedStream(stem, "fMRI", f"replay-{stem}", channels, sfreq, stamps, data)
    description = bytes(image.header["descrip"]).split(b"\0")[0].decode("latin-1").strip()
    return Recording(path.name, description or "fMRI recording", (stream,), (), warnings=tuple(warnings))


def _run(path: Path, image: Any) -> tuple[NDArray[np.float32], int]:
    """Return the volumes, time last, and the header's axis of time; axes of length 1 beside it hold nothing."""
    volumes = np.asarray(image.dataobj, dtype=np.float32)
    longer = [axis for axis in range(3, volumes.ndim) if volumes.shape[axis] > 1]
    if volumes.ndim < 4 or len(longer) > 1:
        raise RecordingError(f"{path}: of shape {volumes.shape}; a run of volumes has three axes of space, one of time")
    return volumes.reshape(*volumes.shape[:3], -1), longer[0] if longer else 3


def _stamps(path: Path, image: Any, axis: int, repetition: float | None, warnings: list[str]) -> NDArray[np.float64]:
    """Return the times of evenly spaced volumes, the first at 0."""
    zooms, unit = image.header.get_zooms(), image.header.get_xyzt_units()[1]
    # Of (x, y, z, 1, t), the time step may stand at either axis; 0 and 1 stand where nobody wrote one.
    steps = [float(zooms[place]) for place in (axis, 3)]
    given = next((step for step in steps if step not in {0.0, 1.0} and math.isfinite(step)), steps[0])
    stated = given * SECONDS.get(unit, 1.0)
    step = repetition
    if step is None:
        step = _likely(given, stated)
        if step != stated:
            warnings.append(f"repetition time {given:g} {unit} in the header is taken as {step:g} s")
        elif given == 1.0 and unit not in SECONDS:
            warnings.append(
                "the header's repetition time is 1 without a unit, as where nobody filled it in: taken "
                "as 1 s; state RepetitionTime in a JSON file of the same name"
            )
    elif abs(stated - step) > 0.01 * abs(stated):
        warnings.append(f"repetition time {step:g} s in the sidecar rules over {stated:g} s in the header")
    if not 0.01 < step < 100:
        raise RecordingError(
            f"{path}: repetition time {step:g} s; state it in pixdim[4], or as RepetitionTime in a JSON file of the "
            "same name"
        )
    volumes: int = math.prod(image.shape[3:])
    return np.arange(volumes, dtype=np.float64) * step


def _likely(given: float, stated: float) -> float:
    """Return a header's repetition time in seconds; one that no scanner has is of another unit, where only one fits."""
    if 0.01 < stated < 100:
        return stated
    fitting = [given * factor for factor in SECONDS.values() if LIKELY_S[0] <= given * factor <= LIKELY_S[1]]
    return fitting[0] if len(fitting) == 1 else stated


def _stated(sidecar: Path) -> float | None:
    """Return the repetition time of a sidecar, in seconds; None where there is no sidecar, or it does not say."""
    if not sidecar.is_file():
        return None
    try:
        content = json.loads(sidecar.read_text("utf-8-sig"))
        value = content.get("RepetitionTime") if isinstance(content, dict) else None
        return None if value is None else number(str(value))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordingError(f"{sidecar}: no RepetitionTime can be read from it ({error})") from None


def _labels(mask: Path, image: Any, warnings: list[str]) -> NDArray[Any]:
    """Read a mask: a number a voxel, on the run's grid."""
    import nibabel

    other = nibabel.load(mask)
    labels = np.asarray(other.dataobj)
    if labels.ndim > 3 and math.prod(labels.shape[3:]) == 1:
        labels = labels.reshape(labels.shape[:3])
    if labels.shape != image.shape[:3]:
        raise RecordingError(f"mask {mask} has shape {labels.shape}, the run's volumes {image.shape[:3]}; resample it")
    if not np.allclose(other.affine, image.affine, atol=0.5 * float(min(image.header.get_zooms()[:3]))):
        placed = all(int(each.header["sform_code"]) or int(each.header["qform_code"]) for each in (other, image))
        if placed:
            raise RecordingError(
                f"mask {mask} lies elsewhere in space than the run (their affines differ); resample it"
            )
        warnings.append(f"{mask.name}: its affine is not the run's, but one of them states no place; taken as it lies")
    return labels


def _picked(
    path: Path, volumes: NDArray[np.float32], labels: NDArray[Any] | None, mask: Path | None, warnings: list[str]
) -> NDArray[np.bool_]:
    """Find the voxels that become channels: those of the mask, else all that vary, where they are finite throughout."""
    finite = np.isfinite(volumes)
    numbers = np.ones(volumes.shape[:3], np.bool_) if labels is None else np.nan_to_num(labels) > 0
    if not numbers.any():
        raise RecordingError(f"{path}: mask {mask} picks no voxel of {volumes.shape[:3]}")
    voxels = finite[numbers]
    if not voxels.any():
        raise RecordingError(f"{path}: no voxel is finite in any volume")
    # Of the voxels that are ever finite, a volume holds most, or it was not recorded.
    whole = voxels[voxels.any(axis=1)].mean(axis=0) > 0.5
    if lost := int((~whole).sum()):
        warnings.append(f"{lost} of {len(whole)} volumes are mostly not finite and are taken as lost")
    inside: NDArray[np.bool_] = numbers & finite[..., whole].all(axis=3)
    if left := int(numbers.sum() - inside.sum()):
        warnings.append(f"{left} of {int(numbers.sum())} voxels are not finite throughout and are left out")
    if labels is None:
        regions = np.where(inside[..., None], volumes, 0)[..., whole]
        inside &= regions.max(axis=3) > regions.min(axis=3)
    if not inside.any():
        raise RecordingError(
            f"{path}: no voxel {'of mask ' + str(mask) if mask else 'varies and'} is finite throughout"
        )
    return inside


def _regions(mask: Path, labels: NDArray[Any]) -> tuple[str, ...]:
    """Return what each voxel's name begins with, 'V1:', by the table beside a mask; nothing where there is none."""
    table = mask.with_name(mask.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    if not table.is_file():
        return ("",) * len(labels)
    try:
        known = {number(row["index"]): f"{row['name']}:" for row in read_rows(table, ("index", "name"))}
    except ValueError as error:
        raise RecordingError(f"{table}: an index is no number ({error})") from None
    numbers = np.round(labels.astype(np.float64), 6).tolist()
    if missing := set(numbers) - set(known):
        few = ", ".join(f"{each:.12g}" for each in sorted(missing)[:8])
        raise RecordingError(f"{table}: names no region {few}, which {mask.name} holds")
    return tuple(known[each] for each in numbers)


HEADER_SIZES = tuple(struct.pack(order, size) for size in (348, 540) for order in ("<i", ">i"))
"""First four bytes: the header's size, of NIfTI-1 and 2, in either byte order."""
NIFTI = Description(
    "NIfTI",
    "`<name>_events.tsv` or `events.tsv` beside it ([which column](#tables-of-text))",
    "none: counts",
)
FORMATS = (
    FileFormat(".nii", read_nifti, HEADER_SIZES, ("bold",), NIFTI),
    FileFormat(".nii.gz", read_nifti, (GZIP,), ("bold",), NIFTI),
)
