"""Live pictures beside offline ones."""

from dataclasses import replace

import numpy as np
import pytest

from minddiffuser.archive.archive import Received
from minddiffuser.archive.pictures import decode, encode
from minddiffuser.config.spec import PublishSpec
from minddiffuser.errors import AppError
from minddiffuser.evaluation.agreement import Agreement, agreement

SPEC = PublishSpec()


def drawn(name: str, seed: int = 1) -> Received:
    """Make a window with two stages of noise, smooth enough for JPEG."""
    rng = np.random.default_rng([seed, len(name), ord(name[-1])])
    stages = {
        stage: np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for stage in ("preview", "picture")
    }
    return Received({"window_id": name, "seed": str(seed)}, stages)


def published(one: Received) -> Received:
    """Send a window's pictures through the encoder, as a session does."""
    return replace(one, stages={stage: decode(encode(pixels, SPEC)) for stage, pixels in one.stages.items()})


def test_the_same_pictures_after_encoding_are_equal() -> None:
    """What only the file format changed is equal, and what the format changed is said."""
    offline = [drawn(name) for name in ("w0", "w1", "w2")]
    found = agreement(offline, [published(one) for one in reversed(offline)], SPEC)
    pixels = [(one.stages[stage], published(one).stages[stage]) for one in offline for stage in one.stages]
    encoding = np.mean([np.abs(a.astype(float) - b).mean() for a, b in pixels])
    assert found.equal
    assert found == Agreement(3, 3, 3, 0, 0.0, pytest.approx(encoding, abs=1e-4), (), ())
    assert encoding > 0


def test_a_single_pixel_another_seed_and_missing_windows_are_found() -> None:
    """Nothing of what can differ passes for equal."""
    offline = [drawn(name) for name in ("w0", "w1", "w2")]
    live = [published(one) for one in offline]
    pixels = live[0].stages["preview"].copy()
    pixels[3, 4, 1] ^= 16
    other = agreement(offline, [replace(live[0], stages={**live[0].stages, "preview": pixels}), *live[1:]], SPEC)
    assert (other.equal, other.identical, other.largest_difference) == (False, 2, 16)
    assert other.mean_difference == pytest.approx(16 / (6 * pixels.size), abs=1e-4)

    seed = agreement(offline, [replace(live[0], meta={"window_id": "w0", "seed": "2"}), *live[1:]], SPEC)
    assert (seed.equal, seed.same_seed, seed.identical) == (False, 2, 3)

    odd = agreement(offline, [*live[1:], published(drawn("w9"))], SPEC)
    assert (odd.equal, odd.windows, odd.missing, odd.extra) == (False, 2, ("w0",), ("w9",))

    half = agreement(offline, [replace(live[0], stages={"picture": live[0].stages["picture"]}), *live[1:]], SPEC)
    assert (half.equal, half.identical, half.largest_difference) == (False, 2, 255)
    assert not agreement([], [], SPEC).equal


def test_pictures_of_another_size_are_refused() -> None:
    """A session published at another size is not compared in silence."""
    one = drawn("w0")
    with pytest.raises(AppError, match="w0"):
        agreement([one], [published(replace(one, stages={"picture": np.zeros((4, 4, 3), np.uint8)}))], SPEC)
