"""Which safetensors files of a folder are its weights: one file or shards, as saved or a variant such as fp16."""

import json
import re
import struct
from math import prod
from pathlib import Path

from engine.errors import ModelError

_NAME = re.compile(r"(?P<base>.+?)(?:\.(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?\.safetensors")
_PREFERRED = "fp16"
_DIFFUSERS = dict.fromkeys(("unet", "vae", "preview_vae"), "diffusion_pytorch_model")
_BASES = {**_DIFFUSERS, "text": "model", "gradient": "model"}
"""What the library that reads a part calls its file (diffusers, transformers, our own)."""
OPEN_CLIP = "open_clip_config.json"
_AS_SAVED = "give a CLIP as open_clip saves it"
_SAME_WEIGHTS = (
    "take the same weights as open_clip has them (timm/vit_base_patch32_clip_224.openai for "
    "openai/clip-vit-base-patch32)"
)


def variant_of(folder: Path) -> str | None:
    """Return the variant that is loaded: None where the plain weights are there, else fp16, else the first."""
    variants = {match["variant"] for path in folder.glob("*.safetensors") if (match := _NAME.fullmatch(path.name))}
    if not variants or None in variants:
        return None
    return _PREFERRED if _PREFERRED in variants else min(str(variant) for variant in variants)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that are loaded: beside `model.safetensors`, `model.fp16.safetensors` is not."""
    wanted = variant_of(folder)
    return [
        path
        for path in sorted(folder.glob("*.safetensors"))
        if (match := _NAME.fullmatch(path.name)) and match["variant"] == wanted
    ]


def count_weights(folder: Path) -> int:
    """Count the numbers in a folder's safetensors files, from their headers (8 bytes of length, then JSON)."""
    total = 0
    for path in weight_files(folder):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        total += sum(prod(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__")
    return total


def check_weights(part: str, folder: Path) -> None:
    """Refuse a folder whose weights the part's library would not find, or find whole.

    Raises
    ------
    ModelError
        There are no safetensors, they are called otherwise, or shards or their index are missing.
    """
    files = weight_files(folder)
    if not files:
        msg = f"{folder}: no .safetensors file for the {part}: convert the weights (pickled ones are never loaded)"
        raise ModelError(msg)
    if part == "clip" and not (folder / OPEN_CLIP).is_file():
        # transformers' own file beside its weights
        instead = (
            f"it is laid out as transformers saves it: {_SAME_WEIGHTS}" if (folder / "config.json").is_file() else ""
        )
        msg = f"{folder}: no {OPEN_CLIP} for the clip: {instead or _AS_SAVED}, or set models.clip to 'none'"
        raise ModelError(msg)
    if part == "clip" or (folder / OPEN_CLIP).is_file():
        if len(files) > 1 and any("-of-" in path.name for path in files):
            msg = (
                f"{folder}: the weights of the {part} are in {len(files)} shards: open_clip reads one file; merge them"
            )
            raise ModelError(msg)
        return
    base, variant = _BASES[part], variant_of(folder)
    middle = f".{variant}" if variant else ""
    if (folder / f"{base}{middle}.safetensors").is_file():
        return
    index = folder / f"{base}.safetensors.index{middle}.json"
    if not index.is_file():
        sharded = any(path.name.startswith(base) and "-of-" in path.name for path in files)
        wanted = index.name if sharded else f"{base}{middle}.safetensors"
        msg = f"{folder}: no {wanted} for the {part}, beside {files[0].name}: fetch the model anew, or rename the file"
        raise ModelError(msg)
    try:
        named = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{index}: no index of shards ({type(error).__name__}): fetch the model anew"
        raise ModelError(msg) from error
    if missing := sorted(name for name in named if not (folder / name).is_file()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        msg = f"{folder}: shard {missing[0]}{more} of the {part} missing: fetch the model anew"
        raise ModelError(msg)
