"""Which windows can be learned from."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from decoder.errors import TrainingError
from decoder.preprocessing.badchannels import readable
from stream.types.labels import mismatch
from stream.types.windows import Window

LEAST_WINDOWS = 20

logger = logging.getLogger(__name__)


def in_words(left_out: Mapping[str, int]) -> str:
    """Return in words how many windows were rejected, and how many are unmatched."""
    rejected = left_out.get("rejected", 0) + left_out.get("not finite", 0)
    return f"{rejected} rejected, {left_out.get('not a stimulus', 0)} unmatched"


def usable(windows: Sequence[Window], ids: Sequence[str]) -> tuple[list[tuple[Window, str]], dict[str, int]]:
    """Pick the windows that can be learned from.

    Returns
    -------
    used : list of (Window, stimulus id)
    left_out : dict
        How many windows were not used, by reason: 'rejected'; 'not a stimulus', which is unmatched; 'not finite', which
        is rejected too.

    Raises
    ------
    TrainingError
        If fewer than 20 are left.
    """
    known = set(ids)
    used = []
    left_out = {"rejected": 0, "not a stimulus": 0, "not finite": 0}
    for window in windows:
        label = window.event.label if window.event is not None else ""
        if window.quality.rejected:
            left_out["rejected"] += 1
        elif label not in known:
            left_out["not a stimulus"] += 1
        elif not readable(window.data[None]).all():
            left_out["not finite"] += 1
        else:
            used.append((window, label))
    if any(left_out.values()):
        logger.info("windows not used in training: %s", in_words(left_out))
    strangers = mismatch((window.event.label if window.event else "" for window in windows), ids)
    if len(used) < LEAST_WINDOWS:
        why = Counter(window.quality.rejected for window in windows if window.quality.rejected).most_common(1)
        raise TrainingError(
            f"{len(used)} of {len(windows)} windows can be learned from ({in_words(left_out)}"
            + "".join(f"; {count} of these for {reason!r}" for reason, count in why)
            + f"); give at least {LEAST_WINDOWS} whose event labels are stimulus ids such as {list(ids[:2])}"
            + (f"; {strangers}" if strangers else "")
        )
    if strangers:
        logger.warning("%s", strangers)
    return used, left_out
