"""Make the demo's decoder, as it is shipped, from a trained bundle: `make demo-decoder` runs this.

Large weights are kept in half precision; the mean of the calibration pictures, a baseline, lies beside them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load, save

from decoder.models.bundle import FORMAT, Bundle
from decoder.models.bundlefiles import read_bundle, write_bundle
from engine.composing.compose import images
from minddiffuser.config.spec import config_of
from minddiffuser.training.data import calibration_stimuli

LARGE = 10_000
"""Numbers; smaller tensors (means, scales, penalties) stay as they are."""
TOLERANCE = 1e-3
"""Largest error of a tensor in half precision, as a share of its root mean square."""


def halved(array: NDArray[Any]) -> NDArray[Any]:
    """Return a tensor in half precision where it is large and loses nothing that counts, else as it is."""
    if array.dtype != np.float32 or array.size < LARGE:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    error, scale = (np.linalg.norm(each.astype(np.float64)) for each in (half.astype(np.float32) - array, array))
    return half if error <= TOLERANCE * scale else array


def pack(trained: Path, out: Path) -> int:
    """Write the shipped form of a bundle of a simulated participant; return its size in bytes.

    Raises
    ------
    decoder.errors.BundleError
        There is no bundle, or it cannot be written.
    """
    bundle = Bundle.load(trained)
    config = config_of(bundle.meta, trained)
    bundle.meta["config"] = config.own()  # by today's names
    bundle.save(out)
    content, weights = read_bundle(out, FORMAT)
    tensors = {name: halved(array) for name, array in load(weights).items()}
    own = {key: value for key, value in content.items() if key not in {"sha256", "weights_sha256"}}
    write_bundle(out, own, save(tensors))
    pictures = images(calibration_stimuli(config.data))
    mean = np.round(pictures.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    Image.fromarray(mean).save(out / "mean.png")
    return sum(file.stat().st_size for file in out.iterdir())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="bundle that `minddiffuser train configs/demo.yaml` made")
    parser.add_argument("out", type=Path, help="folder to write, models/demo")
    given = parser.parse_args(arguments)
    print(f"{given.out}: {pack(given.trained, given.out) / 1e6:.1f} MB")  # noqa: T201  its answer


if __name__ == "__main__":
    main()
