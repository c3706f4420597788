"""Where weights lie: folders and hub ids, safetensors only, and the hash that names a feature space."""

import hashlib
import json
import struct
from functools import lru_cache
from math import prod
from pathlib import Path

from engine.errors import ModelError
from engine.spec import ModelSpec

_ROOT = Path(__file__).resolve().parents[1]
_PARTS = {
    "unet": ("unet-lcm", "unet"),
    "vae": ("vae", "autoencoder"),
    "scheduler": ("scheduler",),
    "text": ("text_encoder", "clip"),
    "tokenizer": ("tokenizer",),
    "clip": ("clip",),
    "gradient": ("gradient",),
}
_NEEDED = ("unet", "vae", "scheduler", "text")
_CHUNK = 1 << 22


def locate(reference: str, parts: tuple[str, ...] = ()) -> Path:
    """Folder of a local path or a hub id; of a hub id only JSON, vocabulary and safetensors are ever fetched.

    Parameters
    ----------
    reference : str
        A folder (relative to the working directory, else to the project) or "owner/name[@revision]".
    parts : tuple of str
        Sub-folders wanted of a hub id; () is its top level.

    Raises
    ------
    ModelError
        If there is no such folder and the hub does not have it or cannot be reached.
    """
    given = Path(reference).expanduser()
    for path in (given, _ROOT / given):
        if path.is_dir():
            return path.resolve()
    name, _, revision = reference.partition("@")
    if given.is_absolute() or name.count("/") != 1 or name.startswith("."):
        msg = f"no model folder {reference!r}: give a folder that exists, or a hub id such as 'stabilityai/sd-turbo'"
        raise ModelError(msg)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", "*model.safetensors"]
    allowed = [f"{part}/{pattern}" for part in parts for pattern in wanted] if parts else wanted
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=allowed))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        msg = f"no folder and no reachable hub model {reference!r} ({type(error).__name__}): check the name"
        raise ModelError(msg) from error


def find_parts(spec: ModelSpec) -> dict[str, Path]:
    """Folder of each part of the models: unet, vae, scheduler, text, and where there are any tokenizer, clip, gradient.

    Raises
    ------
    ModelError
        If a needed part is missing, or has weights that are not safetensors.
    """
    named = {part: value for part in _PARTS if (value := getattr(spec, part)) is not None}
    wanted = {name for names in _PARTS.values() for name in names} | set(named.values())
    folder = locate(spec.folder, tuple(sorted(wanted)))
    found: dict[str, Path] = {}
    for part, names in _PARTS.items():
        if named.get(part) == "none":
            continue
        if part in named:
            inside = folder / named[part]
            found[part] = inside if inside.is_dir() else locate(named[part])
            continue
        # a student's schedule is beside it: unet-lcm goes with scheduler-lcm
        beside = (found["unet"].name.replace("unet", "scheduler"),) if part == "scheduler" else ()
        present = [folder / name for name in (*beside, *names) if (folder / name).is_dir()]
        if present:
            found[part] = present[0]
        elif part in _NEEDED:
            msg = f"{folder}: no {' or '.join(names)} folder for the {part}: name one in the models' configuration"
            raise ModelError(msg)
    for part, path in found.items():
        if part not in {"scheduler", "tokenizer"} and not list(path.glob("*.safetensors")):
            msg = f"{path}: no .safetensors file for the {part}: convert the weights (pickled ones are never loaded)"
            raise ModelError(msg)
    return found


def hash_folders(folders: list[Path]) -> str:
    """sha256 over the configurations and weights of some folders, as 64 hexadecimal digits."""
    files = [path for folder in folders for path in sorted((*folder.glob("*config.json"), *weight_files(folder)))]
    return _hash_files(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=32)
def _hash_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Read files once, as long as their size and time stay: gigabytes are asked for several times at a start."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Give the safetensors files that are loaded: beside `model.safetensors`, `model.fp16.safetensors` is not."""
    files = list(folder.glob("*.safetensors"))
    return [path for path in files if "." not in path.stem] or files


def count_weights(folder: Path) -> int:
    """Numbers in a folder's safetensors files, read from their headers (8 bytes of length, then JSON)."""
    total = 0
    for path in weight_files(folder):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        total += sum(prod(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__")
    return total
