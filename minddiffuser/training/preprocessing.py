"""Check that a config prepares windows as those that a decoder was trained on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from minddiffuser.errors import AppError
from stream.epochs.follower import FollowerSpec
from stream.signal.filters import FilterSpec
from stream.types.window_spec import WindowSpec

if TYPE_CHECKING:
    from decoder.models.bundle import Bundle
    from minddiffuser.config.spec import Config

logger = logging.getLogger(__name__)

REFUSED_WINDOW = ("mode", "tmin", "tmax", "baseline", "detrend")
REFUSED_FILTERS = ("reference", "highpass", "lowpass", "notch", "percent_signal", "drift")
"""What makes other numbers of the same brain: a decoder that never saw such windows decodes nonsense from them."""
MENTIONED_WINDOW = ("delay", "events", "repeats", "step", "rejected")
MENTIONED_FILTERS = ("decimate", "resample", "interpolate", "reject_peak_to_peak", "flat", "levels")
"""What may well differ: how late a screen is, which windows there are, how a rate is reached (which the bundle checks),
today's bad channels.
`channels` is not even mentioned: the bundle picks its own, of those that `filters.channels` leaves it."""

Difference = tuple[str, Any, Any]
"""Key in the config, its value there, its value in training."""


def check_preprocessing(config: Config, bundle: Bundle) -> None:
    """Refuse a config whose windows or filters are others than in training; log what differs and does no harm.

    Raises
    ------
    AppError
        In one line: each key, its value and the value in training, and the way out.
    """
    trained = bundle.meta.get("config")
    try:
        window, filters, extra = _trained_with(trained)
    except (ValidationError, TypeError, AttributeError) as error:
        logger.warning(
            "the bundle does not say with which filters and windows it was trained (%s): make sure that config %s has "
            "the same",
            str(error).splitlines()[0],
            config.name,
        )
        return
    refused = [*_windows(config.window, window), *_filters(config.filters, filters, "filters"), *_extra(config, extra)]
    if refused:
        raise AppError(
            f"config {config.name}: {'; '.join(map(_words, refused))}: a decoder reads only windows like those it was "
            "trained on; set this as in training, or train a bundle with this config (`minddiffuser train`)"
        )
    _check_channels(config, bundle)
    mentioned = [
        *_differences(config.window, window, MENTIONED_WINDOW, "window"),
        *_differences(config.filters, filters, MENTIONED_FILTERS, "filters"),
    ]
    if mentioned:
        logger.warning("config %s, which does no harm: %s", config.name, "; ".join(map(_words, mentioned)))


def _trained_with(config: Any) -> tuple[WindowSpec, FilterSpec, tuple[FollowerSpec, ...]]:
    return (
        WindowSpec.model_validate(config.get("window", {})),
        FilterSpec.model_validate(config.get("filters", {})),
        TypeAdapter(tuple[FollowerSpec, ...]).validate_python(config.get("extra", ())),
    )


def _check_channels(config: Config, bundle: Bundle) -> None:
    """Refuse `filters.channels` that leave out what the bundle reads.

    Raises
    ------
    AppError
        Names those channels.
    """
    chosen = config.filters.channels
    if chosen is None or config.extra:  # with further streams, the bundle's channels are several streams'
        return
    channels = bundle.channels
    pairs = zip(channels.names, channels.kinds, strict=True)
    if lacking := [name for name, kind in pairs if not {name, kind} & {*chosen}]:
        more = f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
        raise AppError(
            f"config {config.name}: filters.channels leaves out {', '.join(lacking[:6])}{more}, which the bundle has: "
            "set it as in training, or train a bundle with this config (`minddiffuser train`)"
        )


def _windows(own: WindowSpec, trained: WindowSpec) -> Iterator[Difference]:
    for difference in _differences(own, trained, REFUSED_WINDOW, "window"):
        key, *_ = difference
        # Sliding windows begin at their own first sample: only their length counts.
        if own.mode == "sliding" and key in {"window.tmin", "window.tmax"}:
            if abs((own.tmax - own.tmin) - (trained.tmax - trained.tmin)) > 1e-9:
                yield difference
        # Windows that begin at the event may slide, too.
        elif key != "window.mode" or (own.mode, trained.mode, trained.tmin) != ("sliding", "event", 0):
            yield difference


def _filters(own: FilterSpec, trained: FilterSpec, place: str) -> Iterator[Difference]:
    yield from _differences(own, trained, REFUSED_FILTERS, place)
    if any(spec.highpass or spec.lowpass for spec in (own, trained)):
        yield from _differences(own, trained, ("order",), place)
    if own.notch and trained.notch:
        yield from _differences(own, trained, ("notch_quality",), place)


def _extra(config: Config, trained: tuple[FollowerSpec, ...]) -> Iterator[Difference]:
    if len(config.extra) != len(trained):
        yield "extra streams", len(config.extra), len(trained)
        return
    for number, (own, other) in enumerate(zip(config.extra, trained, strict=True)):
        yield from _differences(own, other, ("prefix", "unit"), f"extra.{number}")
        yield from _filters(own.filters, other.filters, f"extra.{number}.filters")


def _differences(own: BaseModel, trained: BaseModel, keys: tuple[str, ...], place: str) -> Iterator[Difference]:
    here, there = own.model_dump(mode="json"), trained.model_dump(mode="json")
    for key in keys:
        if here[key] != there[key]:
            yield f"{place}.{key}", here[key], there[key]


def _words(difference: Difference) -> str:
    key, own, trained = difference
    return f"{key} is {json.dumps(own)} and was {json.dumps(trained)} in training"
