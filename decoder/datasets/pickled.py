"""Dictionaries of arrays that others pickled, read without running anything of theirs.

A pickle is a program. Here the few calls that make up numpy arrays are answered by stand-ins that only write down what
they are given; arrays are built from that afterwards, and any other call ends the reading.
"""

import codecs
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decoder.errors import DatasetError

KINDS = "biufcSU"
"""Of arrays that are read as they are; object arrays are read as what they hold."""
DEEPEST = 6
"""Levels of lists and dictionaries in one another: the files read here have three."""


class _RefusedError(Exception):
    """The pickle holds what is not plain data; the message names it."""


@dataclass(slots=True)
class _Type:
    """Stands for a numpy dtype."""

    code: str
    order: str = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) < 5 or state[2] is not None or state[3] is not None or state[4] is not None:
            raise _RefusedError("an array of records")
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        kind = np.dtype(f"{self.order}{self.code}")
        if kind.kind not in KINDS or not kind.itemsize:
            raise _RefusedError(f"an array of type {self.code!r}")
        return kind


@dataclass(slots=True)
class _Array:
    """Stands for a numpy array."""

    shape: tuple[int, ...] = ()
    type: _Type | None = None
    fortran: bool = False
    data: Any = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.fortran, self.data = state

    def real(self) -> Any:
        if not isinstance(self.type, _Type) or (self.type.code.startswith("O") and len(self.shape) > 1):
            raise _RefusedError("an array without a type, or a table of objects")
        if self.type.code.startswith("O"):
            return _plain(self.data[0] if self.shape == () else list(self.data), 1)
        array: NDArray[Any] = np.frombuffer(self.data, self.type.real())
        return array.reshape(self.shape, order="F" if self.fortran else "C")


class _Ndarray:
    """Stands for the class of arrays, which is only ever named."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: Any, kind: _Type, shape: tuple[int, ...], order: str, *_: object) -> _Array:
    return _Array(shape, kind, order == "F", data)


def _scalar(kind: _Type, data: bytes = b"") -> Any:
    return np.frombuffer(data, kind.real())[0].item()


def _type(code: str, *_: object) -> _Type:
    return _Type(str(code))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return codecs.encode(text, "latin1" if encoding == "latin1" else "ascii")


class _PlainUnpickler(pickle._Unpickler):
    """Reads numbers, strings, lists, tuples, dictionaries and numpy arrays; refuses all else.

    The one in Python, as that in C takes gigabytes where a damaged file numbers its objects high.
    """

    stand_ins: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy", "ndarray"): _Ndarray,
        ("numpy", "dtype"): _type,
        ("multiarray", "_reconstruct"): _reconstruct,
        ("multiarray", "scalar"): _scalar,
        ("numeric", "_frombuffer"): _from_buffer,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        place = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        try:
            return self.stand_ins[place, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


def read_pickled(path: Path) -> Any:
    """Read a pickle, or an NPY file that holds one (as `numpy.save` writes a dictionary).

    Parameters
    ----------
    path : Path

    Returns
    -------
    content
        Made of dict, list, tuple, str, bytes, numbers, None and numpy arrays. Arrays may be read-only.

    Raises
    ------
    DatasetError
        If the file holds anything else, which is named and not run, or is broken.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start == b"\x93NUMPY" and not _holds_objects(file):
                file.seek(0)
                return np.load(file, allow_pickle=False)
            return _plain(_PlainUnpickler(file).load(), 0)
    except _RefusedError as error:
        named = " ".join(str(error).split())
        raise DatasetError(
            f"{path} holds {named}, which is not plain data and is not run; take the publisher's"
        ) from None
    except Exception as error:  # what a damaged pickle makes of its parser cannot be listed
        raise DatasetError(f"{path} is broken ({' '.join(str(error).split())}); fetch it anew") from None


def _holds_objects(file: IO[bytes]) -> bool:
    """Read the header of an NPY file, up to where its data begin."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return bool(read(file)[2].hasobject)


def _plain(value: Any, depth: int) -> Any:
    """Replace the stand-ins by real arrays."""
    if depth > DEEPEST:
        raise _RefusedError(f"more than {DEEPEST} levels of lists")
    if isinstance(value, _Array):
        return value.real()
    if isinstance(value, dict):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, depth + 1) for item in value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    raise _RefusedError(f"a {type(value).__name__.strip('_')}")
