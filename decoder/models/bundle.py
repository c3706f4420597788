"""A decoder bundle: a folder of weights and one JSON, which refuses what does not fit it."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.errors import BundleError
from decoder.features import Features
from decoder.models.bundlefiles import read_bundle, write_bundle
from decoder.models.family import Model, Remembering, families, model_class
from decoder.preprocessing.session_moments import SessionMoments
from decoder.preprocessing.units import alike
from stream.types.windows import Channels, Window

logger = logging.getLogger(__name__)
FORMAT = 1
WHOLE = "all"
"""Name of the model that was fitted on every picture."""
MOMENTS = "moments"
"""Name under which the moments of the training windows are kept beside the models."""
OLD_MOMENTS = "reference"
"""The same in bundles of before 0.1.0."""


class Bundle:
    """A trained decoder with all that it needs to know about its input.

    Parameters
    ----------
    models : mapping of str to Model
        'all', fitted on every picture, and where folds were held out one model a fold, fitted without it.
    channels : Channels
        What the models take, in order.
    sfreq : float
        Samples a second; 0 for an irregular stream.
    n_times : int
        Samples a window.
    tmin : float
        Time of a window's first sample from its event, in seconds.
    held_out : mapping of str to str
        Stimulus id -> the fold that never saw that picture. Windows of these stimuli are decoded by that fold.
    meta : mapping
        JSON-able: data, window, filters, feature_space, scores, versions, ...
    moments : SessionMoments or None
        Of the training windows, for realignment.

    Attributes
    ----------
    digest : str
        SHA-256 of the weights as they were loaded; empty for a bundle that was not.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        channels: Channels,
        *,
        sfreq: float,
        n_times: int,
        tmin: float,
        held_out: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        moments: SessionMoments | None = None,
    ) -> None:
        self.models = dict(models)
        self.channels = channels
        self.sfreq = sfreq
        self.n_times = n_times
        self.tmin = tmin
        self.held_out = dict(held_out or {})
        self.meta = dict(meta or {})
        self.moments = moments
        self.digest = ""
        self._orders: dict[Channels, NDArray[np.intp]] = {}
        self._reference_compared = False

    def check(self, channels: Channels, sfreq: float) -> NDArray[np.intp]:
        """Find the bundle's channels in a stream.

        Parameters
        ----------
        channels : Channels
            The stream's; more than the bundle uses is fine, and so is another order.
        sfreq : float
            The rate of the windows, in Hz.

        Returns
        -------
        order : ndarray of int
            The stream's channel for each of the bundle's.

        Raises
        ------
        BundleError
            If a channel is missing or has another unit, or the rate differs by more than 0.1 %.
        """
        trained, live = self.channels.montage.reference, channels.montage.reference
        if trained and live and trained != live and not self._reference_compared:
            self._reference_compared = True
            logger.warning(
                "the decoder was trained on EEG against %s, this is against %s: record against the same, or set "
                "filters.reference and train again",
                trained,
                live,
            )
        if abs(sfreq - self.sfreq) > 1e-3 * self.sfreq:
            raise BundleError(
                f"the bundle was trained at {self.sfreq:g} Hz but windows come at {sfreq:g} Hz; "
                "set the filters' decimation so that they agree, or train on such data"
            )
        place = {name: row for row, name in enumerate(channels.names)}
        missing = [name for name in self.channels.names if name not in place]
        if missing:
            raise BundleError(
                f"the stream lacks {len(missing)} of the bundle's {len(self.channels)} channels: "
                f"{', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}; "
                "use a bundle trained on this montage, or rename the stream's channels"
            )
        order = np.array([place[name] for name in self.channels.names], dtype=np.intp)
        for row, name, unit in zip(order, self.channels.names, self.channels.units, strict=True):
            if channels.units[row] != unit:
                raise BundleError(
                    f"channel {name} comes in {channels.units[row]!r} but the bundle was trained in {unit!r}; "
                    "set the source's unit"
                )
        return order

    def check_feature_space(self, feature_space: str) -> None:
        """Refuse an engine whose models differ from those that the targets came from.

        Raises
        ------
        BundleError
            If the feature spaces differ.
        """
        own = self.meta.get("feature_space")
        if own != feature_space:
            raise BundleError(
                f"the bundle decodes into feature space {own} but the engine's models are {feature_space}; "
                "train it again with these models, or name the models it was trained with"
            )

    def decode(self, windows: Sequence[Window]) -> list[Features]:
        """Decode windows, each by the fold that never saw its picture where there is one.

        Raises
        ------
        BundleError
            If a window's channels, rate or times are not the bundle's.
        """
        by_model: dict[str, list[int]] = {}
        for row, window in enumerate(windows):
            label = window.event.label if window.event is not None else ""
            by_model.setdefault(self.held_out.get(label, WHOLE), []).append(row)
        out: dict[int, Features] = {}
        for name, rows in by_model.items():
            chosen = [windows[row] for row in rows]
            data = alike(self.channels, np.stack([self._data(window) for window in chosen]))
            out |= dict(zip(rows, self.models[name].predict(chosen, data), strict=True))
        return [out[row] for row in range(len(windows))]

    def without_memory(self) -> "Bundle":
        """Return a bundle that decodes as this one did before its first window, and leaves this one as it is.

        Of the models, those that remember windows (category decoders that add up evidence) are new; what was fitted is
        shared.
        """
        twin = copy.copy(self)
        twin.models = {
            name: model.without_memory() if isinstance(model, Remembering) else model
            for name, model in self.models.items()
        }
        return twin

    def in_bundle_order(self, window: Window) -> Window:
        """Return a window with the bundle's channels, in its order.

        Raises
        ------
        BundleError
            If the window's channels, rate or times are not the bundle's.
        """
        return replace(window, data=self._data(window), channels=self.channels)

    def _data(self, window: Window) -> NDArray[np.float32]:
        """Return a window's data in the bundle's channel order."""
        if window.channels not in self._orders:
            self._orders[window.channels] = self.check(window.channels, window.sfreq)
        n_times = window.data.shape[1]
        # An event lies up to half a sample from the one its window is cut at, here and in training.
        if n_times != self.n_times or abs(window.tmin - self.tmin) > 1.01 / (self.sfreq or 1):
            raise BundleError(
                f"window {window.id} holds {n_times} samples from {window.tmin:g} s; the bundle takes "
                f"{self.n_times} from {self.tmin:g} s: set the window as in training"
            )
        return window.data[self._orders[window.channels]]

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors` and `bundle.json`, as `decoder.models.bundlefiles.write_bundle` does.

        An earlier bundle at `folder` is replaced, other files in it stay; a folder that is anything else is refused.

        Raises
        ------
        BundleError
            If `folder` exists and is not a bundle, or cannot be written; an earlier bundle is then as it was.
        """
        from safetensors.numpy import save

        tensors = {
            f"{name}/{key}": array for name, model in self.models.items() for key, array in model.tensors().items()
        }
        if self.moments is not None:
            tensors |= {f"{MOMENTS}/{key}": getattr(self.moments, key) for key in SessionMoments.__slots__}
        weights = save({key: np.ascontiguousarray(array) for key, array in tensors.items()})
        content = {
            "format": FORMAT,
            "models": {name: {"family": m.family, "settings": m.settings()} for name, m in self.models.items()},
            "channels": {k: list(getattr(self.channels, k)) for k in ("names", "kinds", "units")},
            "reference": self.channels.montage.reference,
            "sfreq": self.sfreq,
            "n_times": self.n_times,
            "tmin": self.tmin,
            "held_out": self.held_out,
            "meta": self.meta,
        }
        write_bundle(folder, content, weights)

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle.

        Raises
        ------
        BundleError
            If a file is missing, unreadable, of another format, or was changed since it was saved.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content, weights = read_bundle(folder, FORMAT)
        try:
            tensors = {key: _in_single(array) for key, array in load(weights).items()}
            models = {}
            for name, entry in content["models"].items():
                start = f"{name}/"
                own = {key.removeprefix(start): array for key, array in tensors.items() if key.startswith(start)}
                models[name] = _family(entry["family"]).from_tensors(own, entry["settings"])
            channels = _channels(content["channels"], str(content.get("reference", "")))
            rest = {key: content[key] for key in ("sfreq", "n_times", "tmin", "held_out", "meta")}
            moments = None
            for start in (MOMENTS, OLD_MOMENTS):
                if f"{start}/unit" in tensors:
                    moments = SessionMoments(*(tensors[f"{start}/{key}"] for key in SessionMoments.__slots__))
            bundle = cls(models, channels, **rest, moments=moments)
            bundle.digest = str(content["weights_sha256"])
            return bundle
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise BundleError(
                f"{folder} lacks {reason} that this version needs; train the bundle again with this version"
            ) from None


def _in_single(array: NDArray[Any]) -> NDArray[Any]:
    """Return weights that are kept in half precision, to save room, as everything computes with them."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _channels(content: Mapping[str, Sequence[str]], reference: str) -> Channels:
    names, kinds, units = (tuple(content[key]) for key in ("names", "kinds", "units"))
    return Channels(names, kinds, units).against(reference)


def _family(name: str) -> type[Model]:
    known = model_class(name)
    if known is None:
        raise BundleError(f"the bundle holds a decoder of family {name!r}; this version knows {families()}")
    return known
