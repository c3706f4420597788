"""The two files of a bundle on disk: written so that a reader finds the old bundle or the new one, whole.

`bundle.json` names the hash of its weights, and replacing it is the one step that makes a new bundle the bundle. New
weights lie beside it under a name of their own before that step, and move to `weights.safetensors` after it; until they
have, a reader takes them from where they lie.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decoder.errors import BundleError
from stream.atomic import SCRATCH, whole_folder, write_whole
from stream.system import sync

logger = logging.getLogger(__name__)
JSON_LIMIT = 64 * 2**20
DESCRIPTION, WEIGHTS = "bundle.json", "weights.safetensors"
OURS = re.compile(
    r"bundle\.json|weights(\.[0-9a-f]{16})?\.safetensors"
    rf"|{SCRATCH.pattern}"
)
"""Names of files that a bundle consists of, or that an interrupted save leaves."""
SHA256 = re.compile(r"[0-9a-f]{64}")


def write_bundle(folder: Path, content: Mapping[str, Any], weights: bytes) -> None:
    """Write a bundle's files.

    A new folder appears whole or not at all. In an existing one the bundle is replaced in one step; other files stay.

    Parameters
    ----------
    folder : Path
    content : mapping
        JSON-able; the hashes are added here.
    weights : bytes

    Raises
    ------
    BundleError
        If `folder` holds files and no bundle, or cannot be written; an earlier bundle is then as it was.
    """
    plain = json.loads(json.dumps({**content, "weights_sha256": hashlib.sha256(weights).hexdigest()}))
    text = (json.dumps(plain | {"sha256": digest_of(plain)}, indent=1) + "\n").encode()
    try:
        if not folder.exists():
            _write_new(folder, text, weights)
            return
        if not folder.is_dir():
            raise BundleError(f"{folder} is a file; name a folder for the bundle")
        names = [path.name for path in folder.iterdir()]
        if DESCRIPTION not in names and not all(OURS.fullmatch(name) for name in names):
            raise BundleError(f"{folder} exists and is not a bundle; choose another folder")
        _replace(folder, text, weights, plain["weights_sha256"])
    except OSError as error:
        raise BundleError(
            f"cannot write the bundle to {folder} ({error.strerror or error}); name another folder, or make room: what "
            "was there before is as it was"
        ) from error


def _write_new(folder: Path, text: bytes, weights: bytes) -> None:
    with whole_folder(folder) as scratch:
        (scratch / WEIGHTS).write_bytes(weights)
        (scratch / DESCRIPTION).write_bytes(text)


def _replace(folder: Path, text: bytes, weights: bytes, digest: str) -> None:
    beside = _beside(folder, digest)
    try:
        write_whole(beside, weights)
        write_whole(folder / DESCRIPTION, text)
    except BaseException:
        if not _is_weights_of(folder / DESCRIPTION, text):
            beside.unlink(missing_ok=True)
        raise
    try:
        beside.replace(folder / WEIGHTS)
        for path in folder.iterdir():
            if path.name not in {DESCRIPTION, WEIGHTS} and OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
        sync(folder)
    except OSError as error:  # the new bundle is in force, and is read from where it lies
        logger.warning("the bundle at %s is saved, but its folder is not tidied: %s", folder, error)


def _is_weights_of(description: Path, text: bytes) -> bool:
    """Check whether the description on disk is the new one, so that the new weights must stay."""
    try:
        return description.read_bytes() == text
    except OSError:
        return False


def read_bundle(folder: Path, version: int) -> tuple[dict[str, Any], bytes]:
    """Read a bundle's files and check that they are what was saved.

    Returns
    -------
    content : dict
        Of `bundle.json`.
    weights : bytes

    Raises
    ------
    BundleError
        If a file is missing, unreadable, of another format, or was changed since it was saved.
    """
    description = folder / DESCRIPTION
    try:
        text = _description(description)
        content = _parsed(folder, text, version)
        digest = str(content.get("weights_sha256"))
        weights = _weights(folder, digest)
        if weights is None and _description(description) != text:  # replaced while it was read
            text = _description(description)
            content = _parsed(folder, text, version)
            digest = str(content.get("weights_sha256"))
            weights = _weights(folder, digest)
    except OSError as error:
        raise BundleError(f"no bundle at {folder} ({error.strerror}: {error.filename}); train one first") from None
    if weights is None:
        raise BundleError(f"{folder / WEIGHTS} was changed since it was saved; train the bundle again")
    return content, weights


def _description(path: Path) -> bytes:
    if path.stat().st_size > JSON_LIMIT:
        raise BundleError(f"{path} is larger than {JSON_LIMIT} bytes; this is not a bundle")
    return path.read_bytes()


def _parsed(folder: Path, text: bytes, version: int) -> dict[str, Any]:
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder / DESCRIPTION} is not JSON ({error}); train the bundle again") from None
    if not isinstance(content, dict) or content.get("format") != version:
        raise BundleError(f"{folder} is not a bundle of format {version}; train it again with this version")
    if content.pop("sha256", None) != digest_of(content):
        raise BundleError(f"{folder / DESCRIPTION} was changed since it was saved; train the bundle again")
    return content


def _weights(folder: Path, digest: str) -> bytes | None:
    """Find the weights of a hash: where a save was interrupted before they got to their place, or there."""
    places = [folder / WEIGHTS]
    if SHA256.fullmatch(digest) and (beside := _beside(folder, digest)).exists():
        places.insert(0, beside)
    for place in places:
        try:
            weights = place.read_bytes()
        except FileNotFoundError:  # moved to its place in this moment
            if place == places[-1]:
                raise
            continue
        if hashlib.sha256(weights).hexdigest() == digest:
            return weights
    return None


def _beside(folder: Path, digest: str) -> Path:
    return folder / f"weights.{digest[:16]}.safetensors"


def digest_of(content: Mapping[str, Any]) -> str:
    """Compute the hash that a description holds of itself, without it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
