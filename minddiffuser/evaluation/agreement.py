"""Compare what came out of a live session with what the same windows give offline, picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minddiffuser.archive.pictures import decode, encode
from minddiffuser.errors import AppError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minddiffuser.archive.archive import Received
    from minddiffuser.config.spec import PublishSpec


@dataclass(frozen=True, slots=True)
class Agreement:
    """Live pictures beside offline ones of the same window id.

    Attributes
    ----------
    windows : int
        With pictures on both sides.
    same_seed : int
        Of these, drawn from the same seed.
    identical : int
        Of these, with the same pixels at every stage, once the offline picture is encoded as the live one was.
    largest_difference : int
        Of any pixel so compared, 0 to 255.
    mean_difference : float
        Over all pixels so compared.
    encoding_difference : float
        What encoding alone changes, mean over all pixels: how far a received picture is from the one that was drawn.
    missing, extra : tuple of str
        Windows with a picture only offline, and only live.
    """

    windows: int
    same_seed: int
    identical: int
    largest_difference: int
    mean_difference: float
    encoding_difference: float
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Agreement of live and offline pictures, and each window's pictures on both sides."""
        return self.windows == self.same_seed == self.identical > 0 and not self.missing and not self.extra

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-able values, the verdict first."""
        return {"equal": self.equal, **asdict(self)}


def agreement(offline: Sequence[Received], live: Sequence[Received], spec: PublishSpec) -> Agreement:
    """Compare what was received of a live session with the same windows' pictures before any encoding.

    Parameters
    ----------
    offline : sequence of Received
        Pictures as the engine drew them; `meta` holds 'window_id' and 'seed'.
    live : sequence of Received
        Of a subscriber or an archive (`minddiffuser.archive.archive.read_received`).
    spec : PublishSpec
        How the live pictures were encoded.

    Raises
    ------
    AppError
        The pictures of a window differ in size: they were published with other settings.
    """
    ours, theirs = ({str(one.meta["window_id"]): one for one in side} for side in (offline, live))
    both = [name for name in ours if name in theirs]
    same_seed = sum(str(ours[name].meta.get("seed")) == str(theirs[name].meta.get("seed")) for name in both)
    identical, largest, means, encodings = 0, 0, [0.0], [0.0]
    for name in both:
        stages = ours[name].stages
        differences = []
        for stage, pixels in stages.items():
            sent = decode(encode(pixels, spec))
            differences.append(_difference(name, sent, theirs[name].stages.get(stage)))
            if sent.shape == pixels.shape:
                encodings.append(float(_difference(name, sent, pixels).mean()))
        identical += not any(one.any() for one in differences)
        largest = max(largest, *(int(one.max()) for one in differences))
        means += [float(one.mean()) for one in differences]
    return Agreement(
        windows=len(both),
        same_seed=same_seed,
        identical=identical,
        largest_difference=largest,
        mean_difference=round(float(np.mean(means[1:] or means)), 4),
        encoding_difference=round(float(np.mean(encodings[1:] or encodings)), 4),
        missing=tuple(name for name in ours if name not in theirs),
        extra=tuple(name for name in theirs if name not in ours),
    )


def _difference(name: str, one: NDArray[np.uint8], other: NDArray[np.uint8] | None) -> NDArray[np.int16]:
    """Absolute difference of two pictures; a stage that never came is all difference."""
    if other is None:
        return np.full(one.shape, 255, np.int16)
    if one.shape != other.shape:
        shapes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (one.shape, other.shape))
        raise AppError(f"window {name}: pictures of {shapes} pixels cannot be compared; use the session's own config")
    difference: NDArray[np.int16] = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return difference
