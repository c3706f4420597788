"""Where weights lie: folders and hub ids, safetensors only, and the hash that names a feature space."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.models.weights import check_weights, weight_files
from engine.shipped import shipped
from engine.spec import ModelSpec

_PARTS = {
    "unet": ("unet-lcm", "unet"),
    "vae": ("vae", "autoencoder"),
    "preview_vae": (),
    "scheduler": ("scheduler",),
    "text": ("text_encoder", "clip"),
    "tokenizer": ("tokenizer",),
    "clip": ("clip",),
    "gradient": ("gradient",),
}
_NEEDED = ("unet", "vae", "scheduler", "text")
_CHUNK = 1 << 22


def locate(reference: str, parts: tuple[str, ...] = (), *, fetch: bool = True) -> Path:
    """Folder of a local path or a hub id; of a hub id only JSON, vocabulary and safetensors are ever fetched.

    Parameters
    ----------
    reference : str
        A folder (relative to the working directory, else to what is shipped: models/desk) or "owner/name[@revision]".
    parts : tuple of str
        Sub-folders wanted of a hub id; () is its top level.
    fetch : bool
        False: of a hub id only what was fetched before.

    Raises
    ------
    ModelError
        If there is no such folder and the hub does not have it or cannot be reached.
    """
    given = Path(reference).expanduser()
    for path in (given, shipped("engine") / given):
        if path.is_dir():
            return path.resolve()
    name, _, revision = reference.partition("@")
    if given.is_absolute() or name.count("/") != 1 or name.startswith("."):
        msg = f"no model folder {reference!r}: give a folder that exists, or a hub id such as 'stabilityai/sd-turbo'"
        raise ModelError(msg)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def snapshot(*wanted: str) -> Path:
        allowed = [f"{part}/{pattern}" for part in parts for pattern in wanted] if parts else list(wanted)
        folder = snapshot_download(name, revision=revision or None, allow_patterns=allowed, local_files_only=not fetch)
        return Path(folder)

    try:
        folder = snapshot("*.json", "*.txt", "*model.safetensors", "*model-*-of-*.safetensors")
        places = [folder / part for part in parts] or [folder]
        if any((place / "config.json").is_file() and not weight_files(place) for place in places):
            snapshot("*model.fp16*.safetensors")  # the only weights that some models have
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        msg = f"no folder and no reachable hub model {reference!r} ({type(error).__name__}): check the name"
        raise ModelError(msg) from error


def find_parts(spec: ModelSpec, *, fetch: bool = True) -> dict[str, Path]:
    """Folder of each part of the models: unet, vae, scheduler, text, and where there are any tokenizer, clip, gradient.

    Parameters
    ----------
    spec : ModelSpec
    fetch : bool
        False: only what lies on this machine.

    Raises
    ------
    ModelError
        If a needed part is missing, or has weights that are not safetensors, not whole, or called otherwise than what
        reads them expects.
    """
    named = {part: value for part in _PARTS if (value := getattr(spec, part)) is not None}
    wanted = {name for names in _PARTS.values() for name in names} | set(named.values())
    folder = locate(spec.folder, tuple(sorted(wanted)), fetch=fetch)
    found: dict[str, Path] = {}
    for part, names in _PARTS.items():
        if named.get(part) == "none":
            continue
        if part in named:
            inside = folder / named[part]
            found[part] = inside if inside.is_dir() else locate(named[part], fetch=fetch)
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
        if part not in {"scheduler", "tokenizer"}:
            check_weights(part, path)
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration that diffusers, transformers or open_clip saved.

    Raises
    ------
    ModelError
        If it is missing or no JSON.
    """
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path} is missing: the folder is not in the layout that diffusers saves"
        raise ModelError(msg) from error
    except json.JSONDecodeError as error:
        msg = f"{path} is not JSON ({error}): fetch the model anew"
        raise ModelError(msg) from error
    return config


def hash_folders(folders: list[Path]) -> str:
    """sha256 over the configurations and weights of some folders, as 64 hexadecimal digits."""
    return hash_files(
        [path for folder in folders for path in sorted((*folder.glob("*config.json"), *weight_files(folder)))]
    )


def hash_files(files: list[Path]) -> str:
    """sha256 over some files and their names, as 64 hexadecimal digits."""
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
