"""Pickled dictionaries of arrays: read to the bit, and nothing in them is run."""

import collections
import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoder.datasets.pickled import read_pickled
from decoder.errors import DatasetError

CONTENT = {
    "preprocessed_eeg_data": np.asfortranarray(np.random.default_rng(0).normal(size=(3, 2, 4, 5))),
    "big endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "ch_names": ["Oz", "P7"],
    "times": np.linspace(-0.2, 0.79, 100),
    "names": np.array(["aardvark", "ox"]),
    "flags": np.array([True, False]),
    "sfreq": 1000,
    "highpass": 0.01,
    "numpy's numbers": [np.float64(0.1), np.int32(-3), np.str_("ä")],
    "nothing": None,
    "pair": (1, b"2"),
}


def assert_same(found: object, wanted: object) -> None:
    """Compare, arrays with their type and shape."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted, strict=True)
    else:
        assert found == wanted


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_come_back_to_the_bit_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    """Arrays of any order, type and byte order, text and numbers, as pickled by any version."""
    file = tmp_path / "preprocessed_eeg_training.npy"
    file.write_bytes(pickle.dumps(CONTENT, protocol))
    assert_same(read_pickled(file), CONTENT)


def test_a_dictionary_saved_by_numpy_is_the_same_dictionary(tmp_path: Path) -> None:
    """`numpy.save` wraps a dictionary in an array of objects; what is inside comes out."""
    np.save(tmp_path / "image_metadata.npy", np.array(CONTENT, dtype=object), allow_pickle=True)
    assert_same(read_pickled(tmp_path / "image_metadata.npy"), CONTENT)


def test_a_plain_array_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    """An NPY file without objects needs no unpickling."""
    np.save(tmp_path / "a.npy", CONTENT["times"])
    assert_same(read_pickled(tmp_path / "a.npy"), CONTENT["times"])


class Runs:
    """What pickles as a call of the operating system."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("deep", [False, True])
def test_a_call_is_named_and_not_made(tmp_path: Path, deep: bool) -> None:
    """A pickle that would run a command does not, whether the command stands alone or inside an array of objects."""
    trace = tmp_path / "trace"
    content: object = np.array([Runs(trace)], dtype=object) if deep else {"args": Runs(trace)}
    (tmp_path / "bad.npy").write_bytes(pickle.dumps(content))
    with pytest.raises(DatasetError, match=r"holds (posix|nt)\.system, which is not plain data"):
        read_pickled(tmp_path / "bad.npy")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (collections.OrderedDict(a=1), r"collections\.OrderedDict"),
        (np.zeros(3, [("a", "f4")]), "an array of records"),
        (np.array([[1, "a"], [2, "b"]], dtype=object), "a table of objects"),
        ({1, 2}, "a set"),
        (int, r"builtins\.int"),
        ([[[[[[[[1]]]]]]]], "levels"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(tmp_path: Path, content: object, name: str) -> None:
    """Other classes, records, tables of objects, sets, types and deep nesting are named."""
    (tmp_path / "bad.npy").write_bytes(pickle.dumps(content))
    with pytest.raises(DatasetError, match=name):
        read_pickled(tmp_path / "bad.npy")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes are cut or changed, there is plain data or a `DatasetError`."""
    whole = bytearray(pickle.dumps({"x": np.arange(4.0), "names": ["a", "b"]}, 4))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "damaged.npy"
    file.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    with contextlib.suppress(DatasetError):
        read_pickled(file)


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    """Whatever the file makes the parser say."""
    (tmp_path / "bad.npy").write_bytes(b"Pa persistent object\n.")
    with pytest.raises(DatasetError, match=r"^[^\n]*is broken[^\n]*$"):
        read_pickled(tmp_path / "bad.npy")
