"""What a calibration's signal was like, learned from its recordings, and the account of windows held against it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from stream.epochs.ingest import windows_of
from stream.quality.rejection import Rejection, RejectionCount
from stream.quality.signal_profile import SignalProfile, SignalRecorder
from stream.types.units import UNIT_OF_KIND

if TYPE_CHECKING:
    from minddiffuser.config.spec import Config
    from stream.types.progress import Progress
    from stream.types.recording import Recording
    from stream.types.windows import Window

logger = logging.getLogger(__name__)


def learn_profile(recordings: Sequence[Recording], config: Config, report: Progress) -> SignalProfile | None:
    """Learn limits and levels from the recordings of a calibration, cut as the config says.

    No label is looked at. Each recording counts once, however often it is listed.

    Returns
    -------
    SignalProfile or None
        None where no channel is of a kind that has limits (voxels, spikes).
    """
    recorder = SignalRecorder()
    once = list({id(recording): recording for recording in recordings}.values())
    for done, recording in enumerate(once):
        report("learning limits", done, len(once))
        for _ in windows_of(recording, config.window, config.filters, config.source, config.extra, recorder=recorder):
            pass
    report("learning limits", len(once), len(once))
    return recorder.profile()


def counting(config: Config, profile: SignalProfile | None, pictures: Collection[str] | None) -> RejectionCount:
    """Return what counts windows that are held against a config's limits.

    Parameters
    ----------
    config : Config
    profile : SignalProfile or None
        The bundle's.
    pictures : collection of str or None
        Labels that name a picture; None or none: they are not known.
    """
    fixed = config.filters.reject_peak_to_peak
    if not isinstance(fixed, str):
        limits = {kind: (UNIT_OF_KIND.get(kind, ""), [limit]) for kind, limit in fixed.items()}
    else:
        limits = profile.limits_by_kind() if profile else {}
    return RejectionCount(pictures or None, limits)


def rejection(
    windows: Iterable[Window], config: Config, profile: SignalProfile | None, pictures: Collection[str] | None
) -> Rejection:
    """Count windows, and log the line that says what became of them; parameters as `counting` has them."""
    count = counting(config, profile, pictures)
    for window in windows:
        count.add(window)
    result = count.result()
    logger.info("%s", result.text)
    return result


def kept_of(profile: SignalProfile | None, names: Sequence[str]) -> dict[str, Any] | None:
    """Return what a bundle that reads some channels keeps of a profile, JSON-able."""
    return profile.subset(names).model_dump(mode="json") if profile else None
