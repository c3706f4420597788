"""Saving a bundle where one lies already: whatever happens in between, one of the two is there, whole."""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from decoder.errors import BundleError
from decoder.models.bundle import FORMAT, Bundle
from decoder.models.bundlefiles import DESCRIPTION, digest_of, read_bundle, write_bundle
from decoder.models.confidence import Calibration, Typicality
from decoder.models.linear import Head, LinearModel
from decoder.preprocessing.preprocess import Preprocessor
from decoder.preprocessing.session_moments import SessionMoments, fit_session_moments
from stream.types.windows import Channels

CHANNELS = Channels(("Cz",), ("eeg",), ("V",))
Zeros = np.zeros(1, np.float32)
KILLED = 9


def bundle(number: float, size: int = 4) -> Bundle:
    """Make a bundle that is known by one number."""
    head = Head("z", (size,), np.arange(size, dtype=np.int32), *np.full((3, 1, size), number, np.float32))
    head = Head("z", (size,), head.active, head.weights, head.intercept[0], head.constant[0])
    typicality = Typicality(Zeros, Zeros + 1, np.zeros((0, 0), np.float32), Zeros, Zeros + 1, Zeros + 1)
    one = np.ones((1, 1), np.float32)
    model = LinearModel(Preprocessor(one, one, Zeros), [head], typicality, Calibration(Zeros, Zeros + 1, Zeros))
    return Bundle({"all": model}, CHANNELS, sfreq=0.0, n_times=1, tmin=0.0, meta={"number": number})


def number_of(folder: Path) -> float:
    """Load a bundle, and check that description and weights are of one."""
    loaded = Bundle.load(folder)
    weights = loaded.models["all"].tensors()["z.intercept"]
    assert (weights == loaded.meta["number"]).all()
    return float(loaded.meta["number"])


def with_old_names(folder: Path, names: dict[str, str]) -> None:
    """Rewrite a bundle's weights under the names that they had in an earlier version."""
    content, weights = read_bundle(folder, FORMAT)
    tensors = load(weights)
    for new, old in names.items():
        tensors = {name.replace(new, old): array for name, array in tensors.items()}
    write_bundle(folder, content, save(tensors))


def in_a_child(act: Callable[[], None]) -> int:
    """Do something in a forked process; gives its exit status."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_moments_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """What is 'moments' now was 'reference' in the weights of before 0.1.0."""
    whole = bundle(1.0)
    whole.moments = fit_session_moments(np.random.default_rng(0).normal(size=(20, 3, 8)).astype(np.float32))
    whole.save(tmp_path / "b")
    with_old_names(tmp_path / "b", {"moments/": "reference/"})
    read = Bundle.load(tmp_path / "b").moments
    assert read is not None
    for name in SessionMoments.__slots__:
        np.testing.assert_array_equal(getattr(read, name), getattr(whole.moments, name))


def killed_at(step: int, folder: Path, act: Callable[[], None]) -> int:
    """Do something in a child that is killed when it is about to touch the folder for the so-manieth time."""

    def traced() -> None:
        seen = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event in {"open", "os.rename", "os.remove", "os.mkdir"} and str(folder.parent) in str(arguments[0]):
                seen += 1
                if seen > step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        act()

    return in_a_child(traced)


def test_a_save_killed_at_any_step_leaves_the_old_bundle_or_the_new(tmp_path: Path) -> None:
    """Step by step until the save gets through: one of the two loads, and another save puts the folder in order."""
    found = []
    for step in range(40):
        folder = tmp_path / str(step) / "b"
        bundle(1).save(folder)
        (folder / "notes.txt").write_text("precious")
        status = killed_at(step, folder, partial(bundle(2).save, folder))
        found.append(number_of(folder))
        bundle(3).save(folder)
        assert number_of(folder) == 3
        assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "notes.txt", "weights.safetensors"]
        if status == 0:
            break
        assert status == -KILLED
    assert status == 0
    assert found[0] == 1
    assert found[-1] == 2
    assert found == sorted(found)
    assert len(found) > 6


def test_a_first_save_killed_at_any_step_leaves_nothing_or_the_bundle(tmp_path: Path) -> None:
    """No half bundle appears under the name, and what was left beside it hinders no later save."""
    for step in range(40):
        folder = tmp_path / str(step) / "b"
        folder.parent.mkdir()
        status = killed_at(step, folder, partial(bundle(1).save, folder))
        if folder.exists():
            assert number_of(folder) == 1
        bundle(2).save(folder)
        assert number_of(folder) == 2
        if status == 0:
            break
    assert status == 0
    assert step > 3


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    """Notes and reports beside a bundle are nobody's to remove."""
    folder = tmp_path / "own"
    bundle(1).save(folder)
    (folder / "report.html").write_text("x")
    (folder / "maps").mkdir()
    (folder / "maps" / "weights.safetensors").write_text("y")
    bundle(2).save(folder)
    assert number_of(folder) == 2
    assert (folder / "report.html").read_text() == "x"
    assert (folder / "maps" / "weights.safetensors").read_text() == "y"


@pytest.mark.parametrize("first", [True, False])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path, first: bool) -> None:
    """Where no more than a few kilobytes can be written, one error says so, and the old bundle is the bundle."""
    folder = tmp_path / "b"
    if not first:
        bundle(1).save(folder)
    before = sorted(tmp_path.rglob("*"))

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        with pytest.raises(BundleError, match="cannot write the bundle to"):
            bundle(2, size=100_000).save(folder)

    assert in_a_child(fill) == 0
    assert sorted(tmp_path.rglob("*")) == before
    if not first:
        assert number_of(folder) == 1


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """One line names it."""
    (tmp_path / "b").write_text("not a folder")
    with pytest.raises(BundleError, match="is a file; name a folder"):
        bundle(1).save(tmp_path / "b")


def test_a_description_that_names_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    """A hash that is none leads to no file outside the folder."""
    bundle(1).save(tmp_path / "b")
    content = json.loads((tmp_path / "b" / DESCRIPTION).read_text())
    del content["sha256"]
    content["weights_sha256"] = "/../../x"
    (tmp_path / "b" / DESCRIPTION).write_text(json.dumps(content | {"sha256": digest_of(content)}))
    with pytest.raises(BundleError, match="was changed since it was saved"):
        Bundle.load(tmp_path / "b")
