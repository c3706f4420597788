"""Networks that judge how alike two pictures are: the engine's CLIP, and those of the field where they lie at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder import metrics
from minddiffuser.cache import cache_dir
from minddiffuser.errors import AppError

if TYPE_CHECKING:
    from engine.models import Models

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Embed = Callable[[Pixels], NDArray[np.float32]]

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
BATCH = 32


@dataclass(frozen=True, slots=True)
class Network:
    """A published judge: Ozcelik & VanRullen 2023 and Scotti et al. 2023 report these.

    Attributes
    ----------
    model : str
        torchvision's name of the architecture.
    file : str
        Weights, in the folder of judges.
    node : str
        Output that is compared.
    side : int
        Pixels a side that it is shown.
    distance : bool
        The field reports the mean correlation distance (lower is better), not two-way identification.
    """

    model: str
    file: str
    node: str
    side: int
    distance: bool = False


NETWORKS = {
    "alexnet2": Network("alexnet", "alexnet.safetensors", "features.4", 256),
    "alexnet5": Network("alexnet", "alexnet.safetensors", "features.11", 256),
    "inception": Network("inception_v3", "inception_v3.safetensors", "avgpool", 342),
    "efficientnet": Network("efficientnet_b1", "efficientnet_b1.safetensors", "avgpool", 255, distance=True),
    "swav": Network("resnet50", "swav_resnet50.safetensors", "avgpool", 224, distance=True),
}


def judges_dir() -> Path:
    """Folder where weights of judges are looked for: MINDDIFFUSER_JUDGES, or `judges` in the cache.

    Each file is the state dict of torchvision's own model (SwAV's: of its authors' ResNet-50), saved with
    `safetensors.torch.save_file(model.state_dict(), file)`: a pickled checkpoint from elsewhere could run code.
    """
    named = os.environ.get("MINDDIFFUSER_JUDGES")
    return Path(named) if named else cache_dir() / "judges"


def missing_networks() -> list[str]:
    """Judges whose weights are not on this machine, by name."""
    return [name for name, network in NETWORKS.items() if not (judges_dir() / network.file).is_file()]


def judges(models: Models) -> dict[str, Embed]:
    """Give what turns pictures (n, height, width, 3) into features (n, d), for every judge at hand; 'clip' always is.

    Raises
    ------
    AppError
        A file of weights is not what its name says.
    """
    present = {name: network for name, network in NETWORKS.items() if name not in missing_networks()}
    return {"clip": models.embed_images} | {name: _load(network) for name, network in present.items()}


def _load(network: Network) -> Embed:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torchvision.models import get_model
    from torchvision.models.feature_extraction import create_feature_extractor

    path = judges_dir() / network.file
    more: dict[str, Any] = {"transform_input": True, "init_weights": False} if network.model == "inception_v3" else {}
    model = get_model(network.model, weights=None, **more)
    try:
        lacking = model.load_state_dict(load_file(path), strict=False).missing_keys
    except (SafetensorError, RuntimeError, OSError) as error:
        raise AppError(f"{path} holds no weights of {network.model}: {str(error).splitlines()[0]}") from error
    # SwAV has a head of its own in place of the classifier, and neither is used
    if wrong := [name for name in lacking if not name.startswith("fc.")]:
        raise AppError(f"{path} lacks {wrong[0]!r} of {network.model}")
    trunk = create_feature_extractor(model.eval(), [network.node])

    def embed(images: Pixels) -> NDArray[np.float32]:
        found = []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                shown = metrics.resize(images[start : start + BATCH], network.side).astype(np.float32) / 255
                shown = (shown - IMAGENET_MEAN) / IMAGENET_STD
                out = trunk(torch.from_numpy(shown).permute(0, 3, 1, 2))[network.node]
                found.append(out.flatten(1).numpy())
        return np.concatenate(found)

    return embed


def judge(
    judges_: dict[str, Embed], gallery: Pixels, own: NDArray[np.intp], reconstruction: Pixels
) -> dict[str, Floats]:
    """Score reconstructions as networks see them.

    Parameters
    ----------
    judges_ : dict
        From `judges`.
    gallery : ndarray, shape (k, height, width, 3), uint8
        The pictures shown, each once.
    own : ndarray of int, shape (n,)
        Which of them each reconstruction is held against.
    reconstruction : ndarray, shape (n, height, width, 3), uint8

    Returns
    -------
    scores : dict
        'two_way_<network>', or 'distance_<network>' (1 - correlation, lower is better); of CLIP also 'retrieval_top1'
        and 'retrieval_top5' (own picture among the one or five most similar of the k; chance 1/k and 5/k). Each of
        shape (n,).
    """
    scores: dict[str, Floats] = {}
    for name, embed in judges_.items():
        r = metrics.correlation_matrix(embed(gallery), embed(reconstruction))
        if name in NETWORKS and NETWORKS[name].distance:
            scores[f"distance_{name}"] = 1 - r[own, np.arange(len(own))]
            continue
        scores[f"two_way_{name}"] = metrics.two_way(r, own)
        if name == "clip":
            scores["retrieval_top1"] = metrics.top_k(r, 1, own)
            scores["retrieval_top5"] = metrics.top_k(r, 5, own)
    return scores


def concept_accuracy(
    models: Models, pictures: Pixels, concepts: Sequence[str], own: NDArray[np.intp], k: int = 1
) -> Floats:
    """Tell by zero-shot CLIP whether pictures show their concept: its name among the k nearest of all names.

    Parameters
    ----------
    models : Models
    pictures : ndarray, shape (n, height, width, 3), uint8
    concepts : sequence of str
        Names to choose from, each once.
    own : ndarray of int, shape (n,)
        Which of them each picture should show.
    k : int

    Returns
    -------
    hits : ndarray, shape (n,)
        Chance is k / number of concepts.
    """
    texts = models.embed_texts(list(concepts))
    similarity = texts @ models.embed_images(pictures).T
    return metrics.top_k(similarity.astype(np.float64), k, own)
