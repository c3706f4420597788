"""Families of decoders: a module of this folder is one when it holds a class whose `family` is the module's name."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from decoder import models
from decoder.features import Features
from stream.types.windows import Window

if TYPE_CHECKING:
    from decoder.data.targets import Targets
    from decoder.data.training_set import TrainingSet
    from decoder.spec import DecoderSpec


class Model(Protocol):
    """What decodes windows whose channels are already in the bundle's order."""

    family: ClassVar[str]

    def predict(self, windows: Sequence[Window], data: NDArray[np.float32], /) -> list[Features]:
        """Decode data of shape (n, n_channels, n_times)."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything that was fitted, by name."""

    def settings(self) -> dict[str, Any]:
        """Return what else `from_tensors` needs; JSON-able."""

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "Model":
        """Rebuild the model."""


@runtime_checkable
class Remembering(Protocol):
    """A model of which earlier windows change what it says of later ones."""

    def without_memory(self) -> Model:
        """Return the model without what it remembers."""


Fit = Callable[["TrainingSet", "Targets", "DecoderSpec"], Model]
"""A module's `fit`: trains its family on the samples it is given; `decoder.family` names such a module."""


def model_class(family: str) -> type[Model] | None:
    """Return the class of a family, or None where no module of this folder is it."""
    module = _module(family)
    found = (value for value in vars(module).values() if isinstance(value, type)) if module else ()
    return next((cast(type[Model], each) for each in found if getattr(each, "family", None) == family), None)


def fit_of(family: str) -> Fit | None:
    """Return how a family of that name is trained, or None where it has no `fit` of its own."""
    return None if model_class(family) is None else getattr(_module(family), "fit", None)


def families(*, trained_by_name: bool = False) -> list[str]:
    """Return the names of all families, or of those that have a `fit` of their own."""
    has = fit_of if trained_by_name else model_class
    return sorted(module.name for module in iter_modules(models.__path__) if has(module.name) is not None)


def _module(name: str) -> Any:
    """Import a module of this folder by its name; None if there is none."""
    if name not in {module.name for module in iter_modules(models.__path__)}:
        return None
    return import_module(f"{models.__name__}.{name}")
