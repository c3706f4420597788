"""Networks that judge reconstructions: the engine's CLIP, and those of the field whose weights lie at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.evaluation import metrics
from minddiffuser.cache import cache_dir
from minddiffuser.errors import AppError
from minddiffuser.evaluation.quality import Judge

if TYPE_CHECKING:
    from engine.models.loading import Models

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


class Judges:
    """What turns pictures into features to compare: the engine's CLIP, and every network whose weights are at hand.

    Parameters
    ----------
    models : Models

    Attributes
    ----------
    embed : dict of str to callable
        From pictures (n, height, width, 3), uint8, to features (n, d); 'clip' and 'clip1', the MLP output of its first
        block, are always there. The latter is what stage 2 pulls toward: it tells whether that succeeds, and is no
        judge from outside.

    Raises
    ------
    AppError
        A file of weights is not what its name says.
    """

    def __init__(self, models: Models) -> None:
        absent = missing_networks()
        present = {name: network for name, network in NETWORKS.items() if name not in absent}
        self._names = models.embed_texts
        self.embed: dict[str, Embed] = {
            "clip": models.embed_images,
            "clip1": lambda pictures: models.structure(pictures, (1,))[1],
        }
        self.embed |= {name: _load(network) for name, network in present.items()}

    def against(self, gallery: Pixels, concepts: Sequence[str] = ()) -> Judge:
        """Prepare to score reconstructions of the pictures shown, whose features are computed once.

        Parameters
        ----------
        gallery : ndarray, shape (k, height, width, 3), uint8
            The pictures shown, each once.
        concepts : sequence of str, length k
            What each picture of the gallery shows; may be empty.

        Returns
        -------
        scores : callable
            From the row of each reconstruction's truth (n,) and the reconstructions (n, height, width, 3), uint8, to
            'two_way_<network>', or 'distance_<network>' (1 - correlation, lower is better). Of CLIP also
            'retrieval_top1' and 'retrieval_top5': own picture among the one or five most similar of the k, chance
            1/k and 5/k; 'concept_top1' and 'concept_top5': own concept's name among the nearest of all names that
            the gallery has. Each of the shape of the rows, which may be (permutations, n).
        """
        shown = {name: embed(gallery) for name, embed in self.embed.items()}
        names = sorted(set(concepts))
        texts = self._names(names) if names else None
        row_of = np.array([names.index(concept) for concept in concepts], dtype=np.intp)

        def scores(own: NDArray[np.intp], reconstruction: Pixels) -> dict[str, Floats]:
            found: dict[str, Floats] = {}
            for name, embed in self.embed.items():
                seen = embed(reconstruction)
                r = metrics.correlation_matrix(shown[name], seen)
                if name in NETWORKS and NETWORKS[name].distance:
                    found[f"distance_{name}"] = 1 - r[own, np.arange(r.shape[1])]
                    continue
                found[f"two_way_{name}"] = metrics.two_way(r, own)
                if name == "clip":
                    found |= {f"retrieval_top{k}": metrics.top_k(r, k, own) for k in (1, 5)}
                    if texts is not None:
                        similarity = (texts @ seen.T).astype(np.float64)
                        found |= {f"concept_top{k}": metrics.top_k(similarity, k, row_of[own]) for k in (1, 5)}
            return found

        return scores


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
