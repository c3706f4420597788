"""What a report is made of, without a decoder: pictures shown and reconstructions of them, from good to bad."""

from typing import Any

import numpy as np

from decoder.data.stimuli import StimulusTable
from minddiffuser.archive.archive import Received
from minddiffuser.evaluation.examples import choose


def examples_of(n: int, side: int = 32) -> tuple[list[dict[str, Any]], list[Received], StimulusTable]:
    """Reconstruct n pictures, the k-th with k parts of noise; return examples, what was received and the pictures."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 4, 4, 3))
    images = np.repeat(np.repeat(coarse, side // 4, axis=1), side // 4, axis=2).astype(np.uint8)
    stimuli = StimulusTable(tuple(f"stim_{k:02d}" for k in range(n)), images)
    received = []
    for k, image in enumerate(images):
        final, first = (
            (1 - share) * image + share * rng.integers(0, 256, image.shape) for share in (k / n, (k + 1) / n)
        )
        stages = {"picture": final.astype(np.uint8), "preview": first.astype(np.uint8)}
        received.append(Received({"window_id": f"w{k}", "event": {"label": f"stim_{k:02d}"}}, stages))
    return choose(received, stimuli, None), received, stimuli
