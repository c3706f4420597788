"""The way of one window: decoded, reconstructed, published."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pylsl import local_clock

from decoder.alignment.realign import Realigner
from decoder.models.confidence import threshold_of
from decoder.smoothing import FeatureSmoother
from engine.picture import fault_of
from minddiffuser.archive.latency import Latencies, Steps
from minddiffuser.archive.pictures import encode
from minddiffuser.live.beside import Beside
from stream.tasks import one_line

if TYPE_CHECKING:
    from decoder.features import Features
    from decoder.models.bundle import Bundle
    from engine.picture import Picture
    from minddiffuser.config.spec import Config
    from minddiffuser.remote.engine import Engine
    from stream.mqtt.publisher import Publisher
    from stream.mqtt.wire_models import State
    from stream.types.windows import Window

logger = logging.getLogger(__name__)

ORIGINALS = 128
"""Encoded pictures of those shown that are kept: most are shown again."""


class Pipeline:
    """Decodes windows and publishes what comes of them, one at a time; for one thread.

    Parameters
    ----------
    config : Config
    bundle : Bundle
    reconstructor : Engine
    publisher : Publisher
    latencies : Latencies
        Gets the times of each published picture.
    originals : mapping of str to ndarray
        The pictures shown, by event label, (height, width, 3) uint8.
    beside : Beside, optional
        Names the final pictures, and retrieves others.
    total : int, optional
        How many windows there are in all, where that is known; beyond, they are counted anew.

    Attributes
    ----------
    realigner : Realigner or None
    steps : Steps
        How long each step of the engine took.
    total : int or None
        As given; may be set once the source is found.
    abstain_below : float
        Confidence below which no picture is published: the config's, or else the bundle's own.
    """

    def __init__(
        self,
        config: Config,
        bundle: Bundle,
        reconstructor: Engine,
        publisher: Publisher,
        latencies: Latencies,
        originals: Mapping[str, NDArray[np.uint8]],
        beside: Beside | None = None,
        total: int | None = None,
    ) -> None:
        self._beside, self.total = beside or Beside(), total
        self._config, self._bundle, self._reconstructor = config, bundle, reconstructor
        self._publisher, self._latencies, self._originals = publisher, latencies, originals
        self.realigner = Realigner(bundle, config.realign) if config.realign is not None else None
        asked = config.publish.abstain_below
        self.abstain_below = (
            threshold_of(bundle.meta, sliding=config.window.mode == "sliding") if asked is None else asked
        )
        self._models = reconstructor.about_models
        self.steps = Steps()
        self._smoother = FeatureSmoother(config.smooth) if config.smooth is not None else None
        self._original = lru_cache(ORIGINALS)(lambda label: encode(originals[label], config.publish))

    def process(self, window: Window, dropped: int) -> str | None:
        """Decode and reconstruct one window, and publish the picture.

        Parameters
        ----------
        window : Window
        dropped : int
            Windows that were dropped before it.

        Returns
        -------
        str or None
            Why no picture came of it; None where one was published. Whatever is raised, none was.
        """
        times = {"acquired": window.acquired, "ready": window.ready, "taken": local_clock()}
        self._publish_original(window)
        if not np.isfinite(self._bundle.in_bundle_order(window).data).all():
            return self._abstain(window, "the window holds numbers that are not finite")
        features = (self.realigner or self._bundle).decode([window])[0]
        times["decoded"] = local_clock()
        if fault := fault_of(features):
            return self._abstain(window, f"decoded {fault}")
        scored = {
            "confidence": round(features.confidence, 4),
            "abstain_below": self.abstain_below,
            "categories": features.categories,
        }
        meta = {**self.meta(window), "dropped": dropped, **scored}
        if features.confidence < self.abstain_below:
            reason = f"confidence {features.confidence:.2g} is below {self.abstain_below:.2g}, the least that is shown"
            return self._abstain(window, reason, {**meta, "times": times})

        meta |= self._retrieved(window, features, meta)
        if self._smoother is not None:
            features = self._smoother.update(features, window.onset)

        def send_preview(pictures: list[Picture]) -> None:
            times["stage1"] = local_clock()
            if not pictures[0].fault:
                self._publisher.preview(*self._encoded(pictures[0], meta, times))
                times["preview_published"] = local_clock()

        picture = self._reconstructor.reconstruct([features], on_preview=send_preview)[0]
        times["stage2"] = local_clock()
        if picture.fault:
            return self._abstain(window, picture.fault, meta)
        meta |= self._names(window, picture, features.categories)
        self._publisher.picture(*self._encoded(picture, {**meta, "state": "published"}, times))
        self._latencies.add(times | {"published": local_clock()})
        self.steps.add(picture.timings, picture.batch)
        return None

    def follow(self) -> None:
        """Update the realigner when nobody waits for a picture; a failure there costs no window."""
        if self.realigner is None:
            return
        try:
            self.realigner.follow()
        except Exception as error:  # a map that cannot be learned is not taken; the one in use stays
            logger.warning("realignment failed, and is left as it is: %s", one_line(error))

    def leave_out(
        self, window: Window, reason: str, meta: Mapping[str, Any] | None = None, *, state: State = "abstained"
    ) -> None:
        """Publish that a window gave no picture, what became of it and why; what fails there is logged."""
        try:
            self._publisher.abstained({**(meta or self.meta(window)), "reason": reason, "state": state})
        except Exception as error:  # the window is accounted for all the same
            logger.error("cannot say what became of window %s: %s", window.id, one_line(error))

    def meta(self, window: Window) -> dict[str, Any]:
        """Describe a window for whoever receives it."""
        event = window.event
        return {
            "window_id": window.id,
            "event": {"label": event.label, "code": event.code, "time": event.time} if event else None,
            "index": (window.number - 1) % self.total + 1 if self.total else window.number,
            "of": self.total,
            "repeats": window.repeats,
            "samples_lost": window.quality.samples_lost,
            "interpolated": list(window.quality.interpolated),
            "config": self._config.name,
            "models": self._models,
        }

    def _names(self, window: Window, picture: Picture, categories: Mapping[str, float]) -> dict[str, Any]:
        """Return what the picture seems to show, where that is asked for and succeeds."""
        if self._beside.namer is None:
            return {}
        try:
            return self._beside.namer.about(picture.pixels, window.event.label if window.event else None, categories)
        except Exception as error:  # the picture does not hang on its names
            logger.warning("the picture of window %s is not named: %s", window.id, one_line(error))
            return {}

    def _abstain(self, window: Window, reason: str, meta: Mapping[str, Any] | None = None) -> str:
        self.leave_out(window, reason, meta)
        return reason

    def _publish_original(self, window: Window) -> None:
        label = window.event.label if window.event else None
        if label is None or label not in self._originals:
            return
        try:
            self._publisher.original(self._original(label), self.meta(window))
        except Exception as error:  # the window's own picture does not hang on it
            logger.warning("the picture shown, %s, is not published: %s", label, one_line(error))

    def _retrieved(self, window: Window, features: Features, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Publish what the window makes likeliest of a bank, where that is asked for and succeeds; say what it is."""
        if self._beside.retriever is None:
            return {}
        try:
            if (found := self._beside.retriever(features)) is None:
                return {}
            pixels, about = found
            self._publisher.publish_picture(
                "retrieved", encode(pixels, self._config.publish), {**meta, "retrieved": about}
            )
        except Exception as error:  # the reconstruction does not hang on it
            logger.warning("nothing is retrieved for window %s: %s", window.id, one_line(error))
            return {}
        return {"retrieved": about}

    def _encoded(
        self, picture: Picture, meta: Mapping[str, Any], times: Mapping[str, float]
    ) -> tuple[bytes, dict[str, Any]]:
        steps = {step: round(seconds * 1e3, 2) for step, seconds in picture.timings.items()}
        about = {
            "seed": str(picture.seed),  # 63 bits: more than a number in a browser holds
            "backend": picture.backend,
            "note": picture.note,
            "batch": picture.batch,
            "steps_ms": steps,
            "times": dict(times),
        }
        return encode(picture.pixels, self._config.publish), {**meta, **about}
