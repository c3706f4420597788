"""Pictures that a report shows: the best, those around the median and the worst, each with its own figures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from decoder.evaluation import metric_registry, metrics
from minddiffuser.evaluation.quality import Judge, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoder.data.stimuli import StimulusTable
    from minddiffuser.archive.archive import Received

N_SHOWN = 6
"""Of each group, at most."""
SIDE = 256
"""Most pixels of a picture's side on a page."""
Trio = tuple[str, str, str]
"""Shown, preview and final as data URIs."""
_EMBEDDED = re.compile(r'<img src="(data:image/webp;base64,[^"]+)"')


def choose(received: Sequence[Received], stimuli: StimulusTable, judge: Judge | None) -> list[dict[str, Any]]:
    """Choose by PixCorr of the final picture, never the best alone.

    Parameters
    ----------
    received : sequence of Received
        With 'preview' and 'picture', each of a picture of `stimuli`.
    stimuli : StimulusTable
        The pictures shown, each once, as the judge knows them.
    judge : callable or None
        As in `minddiffuser.evaluation.quality.score`.

    Returns
    -------
    examples : list of dict
        JSON-able: 'group' ('best', 'median' or 'worst'), 'window', 'label', 'pixcorr', 'pixcorr_stage1' and, where the
        judge has CLIP, 'clip_rank': which place the picture shown takes among all shown ('of' so many), by CLIP's
        likeness to the final picture.
    """
    own = stimuli.rows(one.label for one in received)
    first, final = (np.stack([one.stages[stage] for one in received]) for stage in ("preview", "picture"))
    pixcorr = metric_registry.pixcorr(stimuli.images[own], final)
    order = np.argsort(-pixcorr, kind="stable")
    n = min(N_SHOWN, max(1, len(order) // 3))  # of few, none is in two groups
    middle = (len(order) - n) // 2
    chosen = {"best": order[:n], "median": order[middle : middle + n], "worst": order[-n:]}
    rows = np.concatenate(list(chosen.values()))
    scores = measure(stimuli.images, own[rows], final[rows], judge)
    of_first = metric_registry.pixcorr(stimuli.images[own[rows]], first[rows])
    groups = [group for group, its_rows in chosen.items() for _ in its_rows]
    examples = []
    for place, (group, row) in enumerate(zip(groups, rows.tolist(), strict=True)):
        one: dict[str, Any] = {
            "group": group,
            "window": str(received[row].meta.get("window_id", "")),
            "label": received[row].label,
            "pixcorr": round(float(pixcorr[row]), 4),
            "pixcorr_stage1": round(float(of_first[place]), 4),
        }
        if "two_way_clip" in scores:
            worse = scores["two_way_clip"][place] * (len(stimuli) - 1)
            one |= {"clip_rank": len(stimuli) - round(float(worse)), "of": len(stimuli)}
        examples.append(one)
    return examples


def trios(
    examples: Sequence[Mapping[str, Any]], received: Sequence[Received], stimuli: StimulusTable
) -> Iterator[Trio]:
    """Return the pictures of examples, as data URIs."""
    by_window = {str(one.meta.get("window_id", "")): one.stages for one in received}
    for example in examples:
        stages = by_window[example["window"]]
        shown = stimuli.images[stimuli.rows([example["label"]])[0]]
        yield _webp(shown), _webp(stages["preview"]), _webp(stages["picture"])


def trios_in(page: str) -> list[Trio]:
    """Return the pictures that a page of ours holds, so that it can be made again of its figures."""
    found = iter(_EMBEDDED.findall(page))
    return list(zip(found, found, found, strict=True))


def _webp(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    side = min(SIDE, *image.shape[:2])
    buffer = io.BytesIO()
    Image.fromarray(metrics.resize(image[None], side)[0]).save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
