"""What is published beside a reconstruction: its names, and what was retrieved from pictures that nobody was shown."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.encoding.retrieval import Maps, predict_answers, probabilities
from minddiffuser.errors import AppError
from minddiffuser.live.names import namer_of
from minddiffuser.remote.engine import RemoteEngine
from minddiffuser.training.data import check_bank_folder, load_unseen_bank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decoder.data.feature_registry import Encoders
    from decoder.data.stimuli import StimulusTable
    from decoder.features import Features
    from decoder.models.bundle import Bundle
    from engine.models.loading import Models
    from minddiffuser.config.spec import Config
    from minddiffuser.live.names import Namer
    from minddiffuser.remote.engine import Engine

logger = logging.getLogger(__name__)


class Retriever:
    """Retrieves the likeliest pictures of a bank.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3), uint8
        The bank.
    names : sequence of str
        Of its pictures.
    models : sequence of mapping
        Maps of every encoding model by which windows are decoded.
    encoders : Encoders
        Compute the features that the maps go from.
    told : int
        Pictures that are named, the likeliest first.
    """

    def __init__(
        self, images: NDArray[np.uint8], names: Sequence[str], models: Sequence[Maps], encoders: Encoders, told: int
    ) -> None:
        self._images, self._names, self._told = images, names, told
        answers = predict_answers(images, models, encoders)
        self._models = [(maps, own) for maps, own in zip(models, answers, strict=True)]

    def __len__(self) -> int:
        return len(self._images)

    def __call__(self, features: Features) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """Return the likeliest picture and what its metadata say of it; None of a window that says nothing of any."""
        evidence = features.evidence
        if evidence is None or not np.isfinite(evidence.answer).all():
            return None
        odds = probabilities(next(own for maps, own in self._models if maps is evidence.maps), evidence)
        order = np.argsort(-odds, kind="stable")[: self._told]
        likeliest = [{"name": self._names[row], "probability": round(float(odds[row]), 4)} for row in order]
        return self._images[order[0]], {"pictures": len(self._names), "likeliest": likeliest}


@dataclass(frozen=True, slots=True)
class Beside:
    """What goes with a window's reconstruction.

    Attributes
    ----------
    namer : Namer or None
        Names final pictures.
    retriever : Retriever or None
        Retrieves pictures.
    """

    namer: Namer | None = None
    retriever: Retriever | None = None


def beside_for(config: Config, bundle: Bundle, engine: Engine, shown: StimulusTable | None) -> Beside:
    """Return what names and retrieves pictures in a session.

    Where the engine is a pool, pictures stay without names: the models are there.

    Parameters
    ----------
    config : Config
    bundle : Bundle
    engine : Engine
    shown : StimulusTable, optional
        The pictures shown; None: pictures are not named.

    Raises
    ------
    AppError
        Pictures are to be retrieved (`publish.retrieved`) and cannot be.
    """
    if isinstance(engine, RemoteEngine):
        if config.publish.retrieved:
            raise AppError("publish.retrieved needs the models in this process, and engine.remote has them in a pool")
        logger.info("pictures have no names: the models are in the pool")
        return Beside()
    models: Models = engine.models  # type: ignore[attr-defined]
    return Beside(
        namer_of(models, shown) if shown is not None else None,
        retriever_of(config, bundle, models, shown) if config.publish.retrieved else None,
    )


def check_retrieval(config: Config, bundle: Bundle) -> None:
    """Check that what `publish.retrieved` goes by is there, before the engine starts.

    Raises
    ------
    AppError
        The bundle holds no encoding model, or there is no folder of pictures.
    """
    if not config.publish.retrieved:
        return
    if not encoding_models(bundle):
        raise AppError(
            "publish.retrieved goes by the decoder's encoding model, and this bundle has none: set decoder.encoding to "
            "{} and train again"
        )
    check_bank_folder(config.data.image_bank)


def retriever_of(config: Config, bundle: Bundle, encoders: Encoders, shown: StimulusTable | None) -> Retriever:
    """Return what retrieves pictures of `data.image_bank`; those that are among the pictures shown are left out.

    Raises
    ------
    AppError
        As of `check_retrieval`, or no picture is left.
    """
    check_retrieval(config, bundle)
    models = encoding_models(bundle)
    bank = load_unseen_bank(config.data, shown, captions=False)
    assert bank is not None  # the config was checked
    return Retriever(bank.images, bank.concepts or bank.ids, models, encoders, config.publish.retrieved)


def encoding_models(bundle: Bundle) -> list[Maps]:
    """Return the maps of a bundle's encoding models, of the whole and of folds; none where it has none."""
    from decoder.models.embedding import linear_part

    parts = [linear_part(model) for model in bundle.models.values()]
    return [part.evidence.maps for part in parts if part is not None and part.evidence is not None]
