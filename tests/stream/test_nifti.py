"""fMRI runs as scanners and tools write them: holes, axes, repetition times and masks."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.files.formats.nifti import read_volumes
from stream.files.registry import read
from stream.types.recording import Recording

SHAPE = (3, 4, 2)
PLACED = np.diag([3.0, 3, 3, 1])


def volumes(n: int = 6) -> NDArray[np.float32]:
    """Return noise, shape (3, 4, 2, n)."""
    return np.random.default_rng(1).normal(100, 5, (*SHAPE, n)).astype(np.float32)


def write(
    path: Path, data: NDArray[Any], step: float = 2.0, unit: str | None = "sec", affine: NDArray[np.float64] = PLACED
) -> Path:
    """Write a run with its time step at the last axis."""
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_zooms((*image.header.get_zooms()[: data.ndim - 1], step) if data.ndim > 3 else (3, 3, 3))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


def mask(path: Path, inside: NDArray[Any], affine: NDArray[np.float64] | None = PLACED) -> None:
    """Write a mask; without an affine, its header states no place."""
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.float32), affine), path)


def values(recording: Recording) -> NDArray[np.float32]:
    """Return the samples of a run."""
    return recording.streams[0].data


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("masked", [True, False])
def test_a_voxel_that_is_not_finite_is_left_out(tmp_path: Path, bad: float, masked: bool) -> None:
    """One such voxel spoils no volume: it is left out and counted, and a volume of such is lost."""
    data = volumes()
    data[0, 0, 0, 2] = bad
    data[1, 1, 1] = bad
    data[..., 4] = bad
    write(tmp_path / "run.nii.gz", data)
    if masked:
        inside = np.ones(SHAPE)
        inside[2, 3, 1] = np.nan
        inside[2, 2, 1] = 0
        mask(tmp_path / "run_mask.nii.gz", inside)
    recording = read(tmp_path / "run.nii.gz")
    names = recording.streams[0].channels.names
    assert len(names) == (20 if masked else 22)
    assert not {"v0-0-0", "v1-1-1"} & set(names)
    assert np.isnan(values(recording)).all(axis=1).tolist() == [place == 4 for place in range(6)]
    np.testing.assert_array_equal(values(recording)[3, names.index("v2-0-1")], data[2, 0, 1, 3])
    assert recording.warnings == (
        "1 of 6 volumes are mostly not finite and are taken as lost",
        f"2 of {len(names) + 2} voxels are not finite throughout and are left out",
    )


@pytest.mark.parametrize("shape", [(*SHAPE, 1, 6), (*SHAPE, 6, 1), (*SHAPE, 1, 1, 6)])
def test_axes_of_length_one_hold_nothing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """(x, y, z, 1, t) is a run, wherever its header states the time step."""
    data = volumes()
    write(tmp_path / "run.nii", data.reshape(shape), 1.5)
    recording = read(tmp_path / "run.nii")
    if shape[-1] == 6:
        np.testing.assert_array_equal(recording.streams[0].times, np.arange(6) * 1.5)
    np.testing.assert_array_equal(values(recording), data.reshape(-1, 6).T)


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2, 3)])
def test_what_is_no_run_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A single volume, or volumes along two axes, is refused with its shape."""
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.float32), PLACED), tmp_path / "run.nii")
    with pytest.raises(RecordingError, match=r"of shape \(3, 4, 2.*one of time"):
        read(tmp_path / "run.nii")


@pytest.mark.parametrize(
    ("step", "unit", "seconds", "said"),
    [
        (2.0, "sec", 2.0, ""), (2000.0, "msec", 2.0, ""), (2e6, "usec", 2.0, ""), (1.0, "sec", 1.0, ""),
        (2000.0, "sec", 2.0, "2000 sec in the header is taken as 2 s"), (2.0, "msec", 2.0, "2 msec in the header"),
        (2000.0, "unknown", 2.0, "2000 unknown in the header is taken as 2 s"), (2.0, "unknown", 2.0, ""),
        (1.0, "unknown", 1.0, "is 1 without a unit, as where nobody filled it in"), (0.8, "sec", 0.8, ""),
        (2.0, "usec", 2.0, "2 usec in the header is taken as 2 s"),
    ],
)  # fmt: skip
def test_the_header_states_the_repetition_time(
    tmp_path: Path, step: float, unit: str, seconds: float, said: str
) -> None:
    """In any unit; a time that no scanner has is of another unit, and it is said, as for one nobody filled in."""
    write(tmp_path / "run.nii", volumes(), step, unit)
    recording = read(tmp_path / "run.nii")
    assert recording.streams[0].sfreq == pytest.approx(1 / seconds)
    assert recording.streams[0].times[-1] == pytest.approx(5 * seconds)
    assert said in " ".join(recording.warnings)
    assert bool(recording.warnings) == bool(said)


def test_a_sidecar_states_the_repetition_time(tmp_path: Path) -> None:
    """RepetitionTime of a JSON file beside the run rules, aloud; without it a header of 0 is refused."""
    write(tmp_path / "run_bold.nii.gz", volumes(), 0.0)
    with pytest.raises(RecordingError, match=r"repetition time 0 s; state it in pixdim.* RepetitionTime in a JSON"):
        read(tmp_path / "run_bold.nii.gz")
    (tmp_path / "run_bold.json").write_text(json.dumps({"RepetitionTime": 2.5}))
    assert read(tmp_path / "run_bold.nii.gz").streams[0].sfreq == 0.4
    write(tmp_path / "run_bold.nii.gz", volumes(), 1.0)
    assert "2.5 s in the sidecar rules over 1 s" in read(tmp_path / "run_bold.nii.gz").warnings[0]
    (tmp_path / "run_bold.json").write_text('{"RepetitionTime": "soon"}')
    with pytest.raises(RecordingError, match=r"run_bold\.json: no RepetitionTime can be read"):
        read(tmp_path / "run_bold.nii.gz")


def test_masks_lie_on_the_runs_grid(tmp_path: Path) -> None:
    """A mask of one volume is a mask; one of another shape or place is refused, one that states no place is named."""
    run = write(tmp_path / "run.nii", volumes())
    inside = np.zeros(SHAPE)
    inside[1, 2, 0] = 1
    mask(tmp_path / "m.nii", inside[..., None])
    assert read_volumes(run, mask=tmp_path / "m.nii").streams[0].channels.names == ("v1-2-0",)
    mask(tmp_path / "m.nii", np.ones((5, 5, 5)))
    with pytest.raises(RecordingError, match=r"mask .* has shape \(5, 5, 5\), the run's volumes \(3, 4, 2\)"):
        read_volumes(run, mask=tmp_path / "m.nii")
    mask(tmp_path / "m.nii", np.ones((*SHAPE, 2)))
    with pytest.raises(RecordingError, match=r"has shape \(3, 4, 2, 2\)"):
        read_volumes(run, mask=tmp_path / "m.nii")
    moved = PLACED.copy()
    moved[0, 3] = 6
    mask(tmp_path / "m.nii", inside, moved)
    with pytest.raises(RecordingError, match="lies elsewhere in space"):
        read_volumes(run, mask=tmp_path / "m.nii")
    mask(tmp_path / "m.nii", inside, None)
    assert "one of them states no place" in read_volumes(run, mask=tmp_path / "m.nii").warnings[0]
    mask(tmp_path / "m.nii", inside * 0)
    with pytest.raises(RecordingError, match="picks no voxel"):
        read_volumes(run, mask=tmp_path / "m.nii")


def test_regions_are_named_by_numbers_in_any_form(tmp_path: Path) -> None:
    """A table that writes 1.0 for 1, or a number of seven digits, names its regions."""
    write(tmp_path / "run.nii", volumes())
    inside = np.zeros(SHAPE)
    inside[0, 0, 0], inside[1, 0, 0] = 1, 1_000_003
    mask(tmp_path / "run_mask.nii", inside)
    (tmp_path / "run_mask.tsv").write_text("Index\tName\r\n1.0\tV1\r\n1000003\tV4\r\n")
    assert read(tmp_path / "run.nii").streams[0].channels.names == ("V1:v0-0-0", "V4:v1-0-0")
    (tmp_path / "run_mask.tsv").write_text("index\tname\n1\tV1\n")
    with pytest.raises(RecordingError, match="names no region 1000003"):
        read(tmp_path / "run.nii")


def test_scaled_whole_numbers(tmp_path: Path) -> None:
    """Integers are read with the slope and intercept that the header gives them."""
    image = nibabel.Nifti1Image(np.arange(3 * 4 * 2 * 6, dtype=np.int16).reshape(*SHAPE, 6), PLACED)
    image.header.set_slope_inter(0.5, 10)
    image.header.set_zooms((3, 3, 3, 2))
    nibabel.save(image, tmp_path / "run.nii.gz")
    np.testing.assert_allclose(values(read(tmp_path / "run.nii.gz"))[1, 0], 0.5 * 1 + 10, rtol=1e-6)


@pytest.mark.parametrize("packed", [True, False])
def test_a_truncated_run_is_one_line(tmp_path: Path, packed: bool) -> None:
    """A file that ends early is named, in one line."""
    path = write(tmp_path / ("run.nii.gz" if packed else "run.nii"), volumes(60))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    if packed:
        with pytest.raises(EOFError):
            gzip.decompress(path.read_bytes())
    with pytest.raises(RecordingError, match=r"run\.nii.*cannot be read") as error:
        read(path)
    assert "\n" not in str(error.value)
