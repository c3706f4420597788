"""The linear decoder: one product to inputs, one product to all features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decoder.data.feature_registry import Feature, feature_of
from decoder.features import Features, block_of
from decoder.models.confidence import Calibration, Typicality, window_statistics
from decoder.preprocessing.badchannels import readable
from decoder.preprocessing.preprocess import Preprocessor
from decoder.solvers.kernel import Kernel
from stream.types.windows import Window

if TYPE_CHECKING:
    from decoder.encoding.evidence import EvidenceReader
    from decoder.encoding.posterior import Posterior
    from decoder.models.nearest_caption import NearestCaption
    from decoder.models.structure_prior import StructurePrior

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Weights onto one feature.

    Attributes
    ----------
    name : str
        'c', 'z', 'e', or 's1', 's2', ... by CLIP block.
    shape : tuple of int
        Of the feature.
    active : ndarray of int32, shape (n_active,)
        The feature's flat numbers that are decoded.
    weights : ndarray, shape (n_inputs, n_active), float32
    intercept : ndarray, shape (n_active,), float32
        The training mean, as inputs have mean 0.
    constant : ndarray, shape `shape`, float32
        The feature where it is not decoded (the text encoder's constant first token).
    """

    name: str
    shape: tuple[int, ...]
    active: NDArray[np.int32]
    weights: Array
    intercept: Array
    constant: Array

    @property
    def feature(self) -> Feature:
        """Return the entry of the feature that it decodes."""
        feature = feature_of(self.name)
        if feature is None:
            raise ValueError(f"feature {self.name!r}")
        return feature

    @property
    def believed(self) -> bool:
        """Return whether the size of what it decodes tells how far to believe a window."""
        return self.feature.believed


class LinearModel:
    """A linear decoder.

    A fitted preprocessor, its heads, how far to believe them, and where they were wanted a prior of structure, what an
    encoding model makes of a window, features decoded through that, and captions to choose from.
    """

    family: ClassVar[str] = "linear"

    def __init__(
        self,
        preprocessor: Preprocessor,
        heads: Sequence[Head],
        typicality: Typicality,
        calibration: Calibration,
        structure: "StructurePrior | None" = None,
        evidence: "EvidenceReader | None" = None,
        posterior: "Posterior | None" = None,
        captions: "NearestCaption | None" = None,
    ) -> None:
        self.captions = captions
        self.structure = structure
        self.evidence = evidence
        self.posterior = posterior
        self.preprocessor = preprocessor
        self.heads = tuple(heads)
        self.typicality = typicality
        self.calibration = calibration
        # One product for all heads: a window at a time, what costs is reading the weights.
        self._weights = np.ascontiguousarray(np.concatenate([head.weights for head in self.heads], axis=1))
        edges = np.cumsum([0, *(len(head.active) for head in self.heads)])
        self._columns = [slice(low, high) for low, high in pairwise(edges)]
        self._active = {head.name: mask_of(head) for head in self.heads}
        self._masks = {name: mask for name, mask in self._active.items() if block_of(name) is not None}

    def predict(self, windows: Sequence[Window], data: Array) -> list[Features]:
        """Decode windows.

        Parameters
        ----------
        windows : sequence of Window
        data : ndarray, shape (n, n_channels, n_times), float32
            Of the windows, channels in the bundle's order. A window that holds a number that is not finite is
            decoded as silence, with confidence 0.

        Returns
        -------
        features : list of Features
        """
        data, finite = self.replace_unreadable(data)
        inputs = self.preprocessor(data)
        deviations = inputs @ self._weights
        believed = [deviations[:, part] for head, part in zip(self.heads, self._columns, strict=True) if head.believed]
        confidence = self.calibration(window_statistics(inputs, believed)) * self.typicality(data) * finite
        found = [
            self._features(window, row, 0.0 if window.quality.rejected else float(sure))
            for window, row, sure in zip(windows, deviations, confidence, strict=True)
        ]
        if self.captions is not None and found:
            found = self.captions(found, self._active["c"])
        if self.structure is not None and found:
            found = self.structure(found)
        if self.evidence is None or not found:
            return found
        found = [replace(one, evidence=own) for one, own in zip(found, self.evidence(data), strict=True)]
        if self.posterior is None:
            return found
        return self.posterior(found, self._active)

    def values(self, data: Array) -> dict[str, Array]:
        """Decode windows (n, n_channels, n_times) to all numbers of each feature, by name: (n, *shape)."""
        deviations = self.preprocessor(data) @ self._weights
        out = {}
        for head, part in zip(self.heads, self._columns, strict=True):
            flat = np.repeat(head.constant.reshape(1, -1), len(data), axis=0)
            flat[:, head.active] = deviations[:, part] + head.intercept
            out[head.name] = flat.reshape(-1, *head.shape)
        return out

    def replace_unreadable(self, data: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Replace windows that hold a number that is not finite by the training mean, and return which are good."""
        finite = readable(data)
        if not finite.all():
            data = np.where(finite[:, None, None], data, self.typicality.mean[:, None])
        return data, finite

    def _features(self, window: Window, deviations: Array, confidence: float) -> Features:
        values = {}
        for head, part in zip(self.heads, self._columns, strict=True):
            flat = head.constant.flatten()
            flat[head.active] = deviations[part] + head.intercept
            values[head.name] = flat.reshape(head.shape)
        return Features.from_values(window.id, values, self._masks, confidence)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name."""
        out: dict[str, NDArray[np.generic]] = {
            "preprocess.binning": self.preprocessor.binning,
            "preprocess.matrix": self.preprocessor.matrix,
            "preprocess.offset": self.preprocessor.offset,
        }
        if self.preprocessor.kernel is not None:
            for name in Kernel.__slots__:
                out[f"kernel.{name}"] = getattr(self.preprocessor.kernel, name)
        if self.structure is not None:
            out |= {f"structure.{name}": array for name, array in self.structure.tensors().items()}
        if self.evidence is not None:
            out |= {f"evidence.{name}": array for name, array in self.evidence.tensors().items()}
        if self.posterior is not None:
            out |= {f"posterior.{name}": array for name, array in self.posterior.tensors().items()}
        if self.captions is not None:
            out |= {f"captions.{name}": array for name, array in self.captions.tensors().items()}
        for name in Typicality.__slots__:
            out[f"typicality.{name}"] = getattr(self.typicality, name)
        for name in Calibration.__slots__:
            out[f"calibration.{name}"] = getattr(self.calibration, name)
        for head in self.heads:
            for name in ("active", "weights", "intercept", "constant"):
                out[f"{head.name}.{name}"] = getattr(head, name)
        return out

    def settings(self) -> dict[str, Any]:
        """Return what `from_tensors` needs besides the tensors; JSON-able."""
        return {
            "compress": self.preprocessor.compress,
            "heads": [head.name for head in self.heads],
            "structure": None if self.structure is None else self.structure.settings(),
            "evidence": None if self.evidence is None else self.evidence.compress,
            "posterior": self.posterior is not None,
            "captions": self.captions is not None,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "LinearModel":
        """Rebuild a model from `tensors()` and `settings()`."""
        heads = []
        for name in settings["heads"]:
            parts = {part: tensors[f"{name}.{part}"] for part in ("active", "weights", "intercept", "constant")}
            heads.append(Head(name, parts["constant"].shape, **parts))
        bent = "kernel.basis" in tensors
        kernel = Kernel(*(tensors[f"kernel.{name}"] for name in Kernel.__slots__)) if bent else None
        return cls(
            Preprocessor(
                tensors["preprocess.binning"],
                tensors["preprocess.matrix"],
                tensors["preprocess.offset"],
                settings["compress"],
                kernel,
            ),
            heads,
            Typicality(*(tensors[f"typicality.{name}"] for name in Typicality.__slots__)),
            Calibration(*(tensors[f"calibration.{name}"] for name in Calibration.__slots__)),
            _structure(tensors, settings["structure"]) if settings.get("structure") else None,
            _evidence(tensors, settings["evidence"]) if settings.get("evidence") else None,
            _posterior(tensors) if settings.get("posterior") else None,
            _captions(tensors) if settings.get("captions") else None,
        )


def _structure(tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "StructurePrior":
    from decoder.models.structure_prior import StructurePrior

    return StructurePrior.from_tensors(_part(tensors, "structure."), settings)


def _evidence(tensors: Mapping[str, NDArray[Any]], compress: str) -> "EvidenceReader":
    from decoder.encoding.evidence import EvidenceReader

    return EvidenceReader.from_tensors(_part(tensors, "evidence."), compress)


def _posterior(tensors: Mapping[str, NDArray[Any]]) -> "Posterior":
    from decoder.encoding.posterior import Posterior

    return Posterior.from_tensors(_part(tensors, "posterior."))


def _captions(tensors: Mapping[str, NDArray[Any]]) -> "NearestCaption":
    from decoder.models.nearest_caption import NearestCaption

    return NearestCaption.from_tensors(_part(tensors, "captions."))


def _part(tensors: Mapping[str, NDArray[Any]], start: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}


def mask_of(head: Head) -> NDArray[np.bool_]:
    """Return the feature's numbers that a head decodes, of all: shape (n_numbers,)."""
    mask = np.zeros(head.constant.size, dtype=np.bool_)
    mask[head.active] = True
    mask.flags.writeable = False
    return mask
