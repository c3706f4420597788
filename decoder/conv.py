"""A convolutional encoder from windows to a picture's pooled embedding.

In the family of NICE (Song et al. 2024, ICLR) and ATM (Li et al. 2024, NeurIPS): channels may attend to each other,
each subject has a spatial layer of its own (Défossez et al. 2023, Nature Machine Intelligence 5), then come temporal
and spatial convolutions and a projection that all subjects share. Windows are whitened and averaged in time first, as
fitted on the training windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from decoder.spec import ConvSpec

Array = NDArray[np.float32]

ATTENTION_WIDTH = 16
AT_ONCE = 512
"""Windows encoded together: bounds memory."""
LIMIT = 6.0
"""Whitened inputs beyond so many standard deviations are an artefact's; they are bent back toward it."""


class ChannelAttention(nn.Module):
    """Let each channel add what similar channels carry; of no effect until trained."""

    def __init__(self, n_times: int) -> None:
        super().__init__()
        self.query = nn.Linear(n_times, ATTENTION_WIDTH)
        self.key = nn.Linear(n_times, ATTENTION_WIDTH)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Mix channels of (n, channels, times)."""
        return x + self.gain * functional.scaled_dot_product_attention(self.query(x), self.key(x), x)


class Network(nn.Module):
    """The encoder's network.

    Parameters
    ----------
    shape : (n_channels, n_times)
        Of prepared windows.
    sfreq : float
        Of prepared windows, in Hz.
    n_targets : int
        Size of the embedding.
    n_subjects : int
    spec : ConvSpec
    """

    def __init__(self, shape: tuple[int, int], sfreq: float, n_targets: int, n_subjects: int, spec: ConvSpec) -> None:
        super().__init__()
        n_channels, n_times = shape
        kernel = min(max(1, round(spec.kernel * sfreq)), n_times)
        pool = min(max(1, round(spec.pool * sfreq)), n_times - kernel + 1)
        stride = max(1, pool // 2)
        n_steps = (n_times - kernel + 1 - pool) // stride + 1
        self.attention = ChannelAttention(n_times) if spec.attention else nn.Identity()
        self.subjects = nn.Parameter(torch.eye(n_channels).repeat(n_subjects, 1, 1))
        # One sample, such as a volume, has no course in time to filter.
        n_temporal = spec.filters if n_times > 1 else 1
        self.temporal = nn.Conv2d(1, n_temporal, (1, kernel)) if n_times > 1 else nn.Identity()
        self.pool = nn.AvgPool2d((1, pool), (1, stride))
        self.spatial = nn.Conv2d(n_temporal, spec.filters, (n_channels, 1))
        self.norm = nn.BatchNorm2d(spec.filters)
        self.dropout = nn.Dropout(spec.dropout)
        self.project = nn.Linear(spec.filters * n_steps, n_targets)
        self.refine = nn.Linear(n_targets, n_targets)

    def forward(self, x: Tensor, subjects: Tensor) -> Tensor:
        """Embed prepared windows.

        Parameters
        ----------
        x : Tensor, shape (n, channels, times)
        subjects : Tensor of int64, shape (n,)

        Returns
        -------
        Tensor, shape (n, n_targets)
        """
        x = self.aligned(self.attention(x), subjects)
        x = self.spatial(self.pool(self.temporal(x[:, None])))
        x = self.dropout(functional.elu(self.norm(x)).flatten(1))
        x = self.project(x)
        out: Tensor = x + self.refine(self.dropout(functional.gelu(x)))
        return out

    def aligned(self, x: Tensor, subjects: Tensor) -> Tensor:
        """Apply to windows (n, channels, times) the layer of each one's subject."""
        # Of one subject, a copy of the layer for each window would cost more than all the rest.
        layers = self.subjects[0] if len(self.subjects) == 1 else self.subjects[subjects]
        return layers @ x


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What is done to windows before the network, fitted on training windows.

    Attributes
    ----------
    binning : ndarray, shape (n_times, n_bins), float32
        Picks times and averages them; whitens over time.
    whitener : ndarray, shape (n_channels, n_channels), float32
    mean : ndarray, shape (n_channels, n_bins), float32
        Of whitened training windows.
    """

    binning: Array
    whitener: Array
    mean: Array

    def __call__(self, data: Array) -> Array:
        """Prepare windows (n, n_channels, n_times); gives (n, n_channels, n_bins), about unit variance."""
        whitened = self.whitener @ (data @ self.binning) - self.mean
        return np.asarray(LIMIT * np.tanh(whitened / LIMIT), np.float32)


class ConvEncoder:
    """A trained encoder: windows in, deviations of the embedding from the mean picture's out.

    Parameters
    ----------
    preparation : Preparation
    network : Network
        With one subject's layer.
    spec : ConvSpec
    sfreq : float
        Of prepared windows, in Hz.
    gain : float
        Factor on the network's output.
    """

    def __init__(
        self, preparation: Preparation, network: Network, spec: ConvSpec, sfreq: float, gain: float = 1.0
    ) -> None:
        self.preparation = preparation
        self.network = network.eval()
        self.spec = spec
        self.sfreq = sfreq
        self.gain = gain

    def __call__(self, data: Array) -> Array:
        """Encode windows (n, n_channels, n_times); gives (n, n_targets), float32."""
        device = self.network.project.weight.device
        with torch.inference_mode():
            x = torch.from_numpy(self.preparation(data)).to(device)
            chosen = torch.zeros(len(x), dtype=torch.int64, device=device)
            parts = [
                self.network(a, b) for a, b in zip(torch.split(x, AT_ONCE), torch.split(chosen, AT_ONCE), strict=True)
            ]
        found: Array = torch.cat(parts).cpu().numpy() * np.float32(self.gain)
        return found

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Give everything that was fitted, by name."""
        out: dict[str, NDArray[Any]] = {name: getattr(self.preparation, name) for name in Preparation.__slots__}
        state = self.network.state_dict()
        return out | {f"network.{name}": tensor.cpu().numpy() for name, tensor in state.items()}

    def settings(self) -> dict[str, Any]:
        """Give what `from_tensors` needs besides the tensors; JSON-able."""
        return {"spec": self.spec.model_dump(mode="json"), "sfreq": self.sfreq, "gain": self.gain}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "ConvEncoder":
        """Rebuild an encoder from `tensors()` and `settings()`; it runs on the CPU."""
        from decoder.braindecode import make_network

        preparation = Preparation(*(tensors[name] for name in Preparation.__slots__))
        state = {
            name.removeprefix("network."): torch.from_numpy(np.array(array))
            for name, array in tensors.items()
            if name.startswith("network.")
        }
        spec = ConvSpec(**settings["spec"])
        shape = preparation.mean.shape
        n_targets, n_subjects = len(state["refine.bias"]), len(state["subjects"])
        network = make_network((shape[0], shape[1]), settings["sfreq"], n_targets, n_subjects, spec)
        network.load_state_dict(state)
        return cls(preparation, network, spec, settings["sfreq"], settings["gain"])
