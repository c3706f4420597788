"""What a room and a pool say to each other, in version `PROTOCOL`.

`GET /v1/about` answers with an `About`. `POST /v1/pictures` takes one window: a frame of a `WindowHead` and its
features as safetensors. The answer is a stream of frames, each a `PictureHead` with raw pixels: the preview as soon as
it is there, then the final picture; or a `Failure` in place of either. A refusal is a status of 4xx or 503 with a
`Refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from decoder.features import Features, LayerTarget, block_name, block_of
from engine.picture import Picture
from minddiffuser.remote.errors import ProtocolError
from minddiffuser.remote.frames import pack, unpack

PROTOCOL = 1
VERSION_HEADER = "Minddiffuser-Protocol"
ABOUT, PICTURES, ACCOUNT, METRICS = "/v1/about", "/v1/pictures", "/v1/account", "/metrics"

Name = Annotated[str, Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, frozen=True)


M = TypeVar("M", bound=_Message)


class About(_Message):
    """What a pool is: shapes of what it takes, size of what it makes."""

    protocol: int
    version: Name
    feature_space: Name
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    """Height and width of its pictures."""
    latent_shape: Annotated[list[int], Field(min_length=3, max_length=3)]
    tokens: int
    context_dim: int
    units: Annotated[int, Field(ge=0)]
    """Numbers of a CLIP block; 0: it makes no stage 2."""
    backend: Name
    models: dict[str, str]
    batch: int
    replicas: int
    body_bytes: int


class WindowHead(_Message):
    """Which window it is, and for what pool it was decoded."""

    room: Name
    window_id: Annotated[str, Field(min_length=1, max_length=2**18)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    feature_space: Name
    size: Annotated[list[int], Field(min_length=2, max_length=2)]


class PictureHead(_Message):
    """A picture but for its pixels, and how long it took."""

    kind: Literal["preview", "picture"]
    stage: Literal[1, 2]
    shape: Annotated[list[int], Field(min_length=3, max_length=3)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    backend: Name
    note: Annotated[str, Field(max_length=10_000)] = ""
    fault: Annotated[str, Field(max_length=10_000)] = ""
    batch: Annotated[int, Field(ge=1)] = 1
    timings: dict[str, Seconds] = {}
    """Seconds of each step of the engine."""
    queue_s: Seconds = 0.0
    """Waited for an engine and for the others of its batch."""
    pool_s: Seconds = 0.0
    """From the request's last byte to this part of the answer."""


class Failure(_Message):
    """Why a window got no picture."""

    kind: Literal["failed"]
    reason: Annotated[str, Field(max_length=10_000)]


class Refusal(_Message):
    """Why a request was not taken: a word that is counted, and a line."""

    refused: Name
    line: Annotated[str, Field(max_length=10_000)]


def write_window(head: WindowHead, features: Features, *, half: bool, stage2: bool) -> bytes:
    """Return the body of a request; without stage 2, what only that takes is left out."""
    arrays: dict[str, NDArray[Any]] = {"c": features.c}
    if features.z is not None:
        arrays["z"] = features.z
    if stage2:
        if features.structure_latent is not None:
            arrays["structure_latent"] = features.structure_latent
        for block, target in features.s.items():
            arrays[block_name(block)] = target.values[target.mask]
            arrays[f"{block_name(block)}.mask"] = np.packbits(target.mask)
    packed = {name: np.ascontiguousarray(_narrow(array) if half else array) for name, array in arrays.items()}
    return pack(head.model_dump(), save(packed))


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in half precision, unless one would overflow."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float16)
    return narrow if (np.isfinite(narrow) == np.isfinite(array)).all() else array


def read_window(body: bytes, about: About) -> tuple[WindowHead, Features]:
    """Read and check the body of a request.

    Raises
    ------
    ProtocolError
        It is none, or its shapes are not those that the pool takes.
    """
    raw, payload = unpack(body)
    head = checked(WindowHead, raw, "window")
    try:
        arrays = load(payload)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ProtocolError(f"features are no safetensors: {str(error).splitlines()[0][:200]}") from None
    if "c" not in arrays:
        raise ProtocolError("features without c")
    c = _floats("c", arrays.pop("c"), None)
    if c.ndim != 2 or not 1 <= len(c) <= about.tokens or c.shape[1] != about.context_dim:
        raise ProtocolError(f"c has shape {c.shape}; wanted (1 to {about.tokens}, {about.context_dim})")
    latents = {
        name: _floats(name, arrays.pop(name), tuple(about.latent_shape))
        for name in ("z", "structure_latent")
        if name in arrays
    }
    s = {}
    for name in [name for name in arrays if block_of(name) is not None]:
        s[block_of(name) or 0] = _block(name, arrays.pop(name), arrays.pop(f"{name}.mask", None), about.units)
    if arrays:
        raise ProtocolError(f"features of unknown names: {', '.join(sorted(arrays))[:200]}")
    return head, Features(head.window_id, c, latents.get("z"), s, structure_latent=latents.get("structure_latent"))


def _floats(name: str, array: NDArray[Any], shape: tuple[int, ...] | None) -> NDArray[np.float32]:
    if array.dtype not in (np.float16, np.float32):
        raise ProtocolError(f"{name} is of {array.dtype}; wanted float32 or float16")
    if shape is not None and array.shape != shape:
        raise ProtocolError(f"{name} has shape {array.shape}; wanted {shape}")
    return array.astype(np.float32)


def _block(name: str, values: NDArray[Any], bits: NDArray[Any] | None, units: int) -> LayerTarget:
    """Return a block of `s` from the numbers that its mask selects."""
    if bits is None or bits.dtype != np.uint8 or bits.shape != (-(-units // 8),):
        raise ProtocolError(f"{name} has no mask of {units} bits")
    mask = np.unpackbits(bits, count=units).astype(bool)
    target = np.zeros(units, np.float32)
    target[mask] = _floats(name, values, (int(mask.sum()),))
    return LayerTarget(target, mask)


def write_picture(
    picture: Picture, kind: Literal["preview", "picture"], queue_s: float
) -> tuple[dict[str, Any], bytes]:
    """Return head and pixels of a picture; who sends it adds its `pool_s`."""
    head = PictureHead(
        kind=kind,
        stage=2 if picture.stage == 2 else 1,
        shape=list(picture.pixels.shape),
        seed=picture.seed,
        backend=picture.backend,
        note=picture.note,
        fault=picture.fault,
        batch=picture.batch,
        timings=picture.timings,
        queue_s=queue_s,
    )
    return head.model_dump(), picture.pixels.tobytes()


def read_picture(head: PictureHead, pixels: bytes, features: Features, size: list[int]) -> Picture:
    """Return a picture as an engine of one's own would.

    Raises
    ------
    ProtocolError
        It has another size than the pool said, or other bytes than its size.
    """
    if head.shape != [*size, 3] or len(pixels) != size[0] * size[1] * 3:
        raise ProtocolError(f"a picture of {head.shape} and {len(pixels)} bytes; wanted {[*size, 3]}")
    array = np.frombuffer(pixels, np.uint8).reshape(head.shape)
    timings = head.timings | {"queue": head.queue_s}
    picture = Picture(features.window_id, head.stage, array, head.seed, head.backend, timings, features.confidence)
    return replace(picture, note=head.note, fault=head.fault, batch=head.batch)


def checked(model: type[M], raw: Mapping[str, Any], what: str) -> M:
    """Validate a message.

    Raises
    ------
    ProtocolError
        In one line.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(f"{what}: {where}: {first['msg']}") from None
