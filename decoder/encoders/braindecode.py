"""Networks of braindecode (Schirrmeister et al. 2017, Human Brain Mapping 38) in the place of our convolutions.

A network comes in untrained, by its name, and encodes windows; the subjects' layers before it, the projection after it,
the losses and the training are those of `decoder.encoders.conv` and `decoder.training.train_conv`. braindecode is
optional; of its networks a few are not free for commercial use.
"""

import difflib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoder.encoders.network import Network
from decoder.errors import TrainingError
from decoder.spec import ConvSpec


def make_network(shape: tuple[int, int], sfreq: float, n_targets: int, n_subjects: int, spec: ConvSpec) -> Network:
    """Make the network that a spec names, with random weights; arguments as of `Network`.

    Raises
    ------
    TrainingError
        If braindecode is not installed, has no such network, or the network does not take such windows.
    """
    if spec.network is None:
        return Network(shape, sfreq, n_targets, n_subjects, spec)
    return BraindecodeNetwork(shape, sfreq, n_targets, n_subjects, spec)


class BraindecodeNetwork(Network):
    """A network of braindecode between the subjects' layers and the projection; parameters as of `Network`."""

    def __init__(self, shape: tuple[int, int], sfreq: float, n_targets: int, n_subjects: int, spec: ConvSpec) -> None:
        nn.Module.__init__(self)  # what `Network` would put between subjects and projection is braindecode's here
        self.subjects = nn.Parameter(torch.eye(shape[0]).repeat(n_subjects, 1, 1))
        self.encoder = _borrowed(shape, sfreq, n_targets, spec)
        self.dropout = nn.Dropout(spec.dropout)
        self.project = nn.Linear(n_targets, n_targets)
        self.refine = nn.Linear(n_targets, n_targets)

    def forward(self, x: Tensor, subjects: Tensor) -> Tensor:
        """Embed prepared windows (n, channels, times) of subjects (n,); return (n, n_targets)."""
        x = self.project(self.dropout(self.encoder(self.apply_subject_layer(x, subjects))))
        out: Tensor = x + self.refine(self.dropout(functional.gelu(x)))
        return out


def _borrowed(shape: tuple[int, int], sfreq: float, n_outputs: int, spec: ConvSpec) -> nn.Module:
    """Make braindecode's network, and see that it gives one vector a window."""
    n_channels, n_times = shape
    kind = _models().get(str(spec.network))
    if kind is None:
        close = difflib.get_close_matches(str(spec.network), _models(), n=3, cutoff=0.3)
        raise TrainingError(f"braindecode has no network {spec.network!r}; near it are {', '.join(close) or 'none'}")
    try:
        network: nn.Module = kind(
            n_chans=n_channels, n_outputs=n_outputs, n_times=n_times, sfreq=sfreq, **spec.parameters
        )
        with torch.no_grad():
            given = tuple(network.eval()(torch.zeros(2, n_channels, n_times)).shape)
    except Exception as error:  # what networks of others say to windows that do not suit them cannot be listed
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"braindecode's {spec.network} takes no windows of {n_channels} channels and {n_times} times at "
            f"{sfreq:g} Hz ({reason}); choose another network, window or decimation"
        ) from error
    if given != (2, n_outputs):
        raise TrainingError(
            f"braindecode's {spec.network} gives {given} for 2 windows, not (2, {n_outputs}); take another"
        )
    return network.train()


def _models() -> dict[str, Any]:
    """Return braindecode's networks by name."""
    try:
        from braindecode.models.util import models_dict
    except ImportError as error:
        raise TrainingError(
            f"family 'braindecode' needs braindecode, which cannot be imported ({error}): "
            "pip install 'minddiffuser[braindecode]'"
        ) from None
    return dict(models_dict)
