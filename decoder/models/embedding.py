"""The decoder that goes by way of the pooled embedding: from a convolutional encoder, or to tokens by a prior."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decoder.encoders.conv import ConvEncoder
from decoder.encoders.prior import Prior
from decoder.features import Features
from decoder.models.confidence import Calibration, window_statistics
from decoder.models.linear import LinearModel
from stream.types.windows import Window

Array = NDArray[np.float32]
Rows = NDArray[np.intp]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class CalibratedEncoder:
    """A trained encoder, the mean embedding about which it decodes, and how far to believe it."""

    encoder: ConvEncoder
    mean: Array
    calibration: Calibration


class EmbeddingModel:
    """A linear decoder whose `e` comes from a convolutional encoder, or whose `c` comes from `e`, or both.

    Parameters
    ----------
    base : LinearModel
        Decodes all else.
    calibrated_encoder : CalibratedEncoder or None
        Where given, `e` and the confidence are its own.
    prior : Prior or None
        Where given, `c` is its answer to `e`.
    """

    family: ClassVar[str] = "embedding"

    def __init__(self, base: LinearModel, calibrated_encoder: CalibratedEncoder | None, prior: Prior | None) -> None:
        self.base, self.calibrated_encoder, self.prior = base, calibrated_encoder, prior

    def predict(self, windows: Sequence[Window], data: Array) -> list[Features]:
        """Decode windows (n, n_channels, n_times), as `LinearModel.predict` does."""
        found = self.base.predict(windows, data)
        if self.calibrated_encoder is not None:
            found = self._with_embedding(found, windows, data)
        if self.prior is None:
            return found
        tokens = self.prior(np.stack([np.asarray(one.e) for one in found]))
        return [replace(one, c=c) for one, c in zip(found, tokens, strict=True)]

    def _with_embedding(self, found: list[Features], windows: Sequence[Window], data: Array) -> list[Features]:
        assert self.calibrated_encoder is not None
        encoder, mean = self.calibrated_encoder.encoder, self.calibrated_encoder.mean
        data, finite = self.base.replace_unreadable(data)
        deviations = encoder(data)
        sure = self.calibrated_encoder.calibration(conv_statistics(encoder, data, deviations))
        sure = sure * self.base.typicality(data) * finite
        return [
            replace(one, e=mean + deviation, confidence=0.0 if window.quality.rejected else float(each))
            for one, window, deviation, each in zip(found, windows, deviations, sure, strict=True)
        ]

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name."""
        out = {f"base.{name}": array for name, array in self.base.tensors().items()}
        if self.calibrated_encoder is not None:
            calibrated = self.calibrated_encoder
            out |= {f"encoder.{name}": array for name, array in calibrated.encoder.tensors().items()}
            out |= {f"calibration.{name}": getattr(calibrated.calibration, name) for name in Calibration.__slots__}
            out["mean"] = calibrated.mean
        if self.prior is not None:
            out |= {f"prior.{name}": array for name, array in self.prior.tensors().items()}
        return out

    def settings(self) -> dict[str, Any]:
        """Return what `from_tensors` needs besides the tensors; JSON-able."""
        return {
            "base": self.base.settings(),
            "encoder": None if self.calibrated_encoder is None else self.calibrated_encoder.encoder.settings(),
            "prior": self.prior is not None,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "EmbeddingModel":
        """Rebuild a model from `tensors()` and `settings()`."""

        def part(start: str) -> dict[str, NDArray[Any]]:
            return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}

        calibrated_encoder = None
        if settings["encoder"] is not None:
            calibration = Calibration(*(tensors[f"calibration.{name}"] for name in Calibration.__slots__))
            encoder = ConvEncoder.from_tensors(part("encoder."), settings["encoder"])
            calibrated_encoder = CalibratedEncoder(encoder, tensors["mean"], calibration)
        prior = Prior.from_tensors(part("prior.")) if settings["prior"] else None
        return cls(LinearModel.from_tensors(part("base."), settings["base"]), calibrated_encoder, prior)


def linear_part(model: object) -> LinearModel | None:
    """Return the linear model that a model is or holds; None of a decoder of categories."""
    base = model.base if isinstance(model, EmbeddingModel) else model
    return base if isinstance(base, LinearModel) else None


def conv_statistics(encoder: ConvEncoder, data: Array, deviations: Array) -> Array:
    """Summarise encoded windows, for the calibration: log size of what went in and of what came out."""
    prepared = encoder.preparation(data)
    return window_statistics(prepared.reshape(len(data), encoder.preparation.mean.size), [deviations])
