"""What pictures mean, computed by a process of its own, which takes the models and their libraries with it.

A simulated amplifier runs for hours and needs the numbers only: without torch it holds a fifth of the memory.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from minddiffuser.errors import AppError
from stream.system import own_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoder.data.stimuli import StimulusTable
    from engine.models.loading import Models
    from engine.spec import EngineSpec


def meanings_of(pictures: StimulusTable, models: Models) -> NDArray[np.float32]:
    """Return what pictures mean to a participant: the embedding of their concepts, else of captions, else their own."""
    return _embed(_texts_of(pictures), pictures.images, models)


def meanings_apart(pictures: StimulusTable, engine: EngineSpec) -> NDArray[np.float32]:
    """Return `meanings_of` with the models of a config, which are not loaded here.

    Raises
    ------
    AppError
        The models cannot be loaded, in their words, or the process was ended.
    """
    texts = _texts_of(pictures)
    asked = {"models": engine.models.model_dump(mode="json"), "device": engine.device, "texts": texts}
    request = io.BytesIO(json.dumps(asked).encode() + b"\n")
    request.seek(0, io.SEEK_END)
    np.save(request, pictures.images[: 0 if texts else None])
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(  # noqa: S603  our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **own_group()
    ) as process:
        try:
            content, _ = process.communicate(request.getvalue())
        except BaseException:
            process.kill()
            raise
    head, _, rest = content.partition(b"\n")
    if process.returncode or not head:
        raise AppError(f"the process that loads the models ended with exit code {process.returncode}")
    if error := json.loads(head)["error"]:
        raise AppError(error)
    meanings: NDArray[np.float32] = np.load(io.BytesIO(rest), allow_pickle=False)
    return meanings


def _texts_of(pictures: StimulusTable) -> list[str] | None:
    if pictures.concepts:
        return list(pictures.concepts)
    return None if pictures.captions is None else [captions[0] for captions in pictures.captions]


def _embed(texts: list[str] | None, images: NDArray[np.uint8], models: Models) -> NDArray[np.float32]:
    return models.embed_images(images) if texts is None else models.embed_texts(texts)


def main() -> None:
    """Answer a request on stdin: on stdout a line of JSON with the error, if there is one, then the meanings."""
    from engine.errors import EngineError
    from engine.models.loading import load_models
    from engine.spec import ModelSpec

    asked: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    images = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    answer = io.BytesIO()
    error = None
    try:
        np.save(answer, _embed(asked["texts"], images, load_models(ModelSpec(**asked["models"]), asked["device"])))
    except EngineError as reason:
        error = str(reason)
    sys.stdout.buffer.write(json.dumps({"error": error}).encode() + b"\n" + answer.getvalue())


if __name__ == "__main__":
    main()
