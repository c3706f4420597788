"""A convolutional encoder from windows to a picture's pooled embedding.

In the family of NICE (Song et al. 2024, ICLR) and ATM (Li et al. 2024, NeurIPS): each subject has a spatial layer of
its own (Défossez et al. 2023, Nature Machine Intelligence 5), then come temporal and spatial convolutions and a
projection that all subjects share. Windows are whitened and averaged in time first, as fitted on the training windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decoder.encoders.braindecode import make_network
from decoder.encoders.network import Network
from decoder.spec import ConvSpec

Array = NDArray[np.float32]

AT_ONCE = 512
"""Windows encoded together: bounds memory."""
LIMIT = 6.0
"""Whitened inputs beyond so many standard deviations are an artefact's; they are bent back toward it."""


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
        """Prepare windows (n, n_channels, n_times); return (n, n_channels, n_bins), about unit variance."""
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
        """Encode windows (n, n_channels, n_times); return (n, n_targets), float32."""
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
        """Return everything that was fitted, by name."""
        out: dict[str, NDArray[Any]] = {name: getattr(self.preparation, name) for name in Preparation.__slots__}
        state = self.network.state_dict()
        return out | {f"network.{name}": tensor.cpu().numpy() for name, tensor in state.items()}

    def settings(self) -> dict[str, Any]:
        """Return what `from_tensors` needs besides the tensors; JSON-able."""
        return {"spec": self.spec.model_dump(mode="json"), "sfreq": self.sfreq, "gain": self.gain}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "ConvEncoder":
        """Rebuild an encoder from `tensors()` and `settings()`; it runs on the CPU."""
        preparation = Preparation(*(tensors[name] for name in Preparation.__slots__))
        state = {
            name.removeprefix("network."): torch.from_numpy(np.array(array))
            for name, array in tensors.items()
            if name.startswith("network.")
        }
        own = dict(settings["spec"])
        if own.get("attention") is False:  # a setting of before 0.1.0, of no effect where it was off
            del own["attention"]
        spec = ConvSpec(**own)
        shape = preparation.mean.shape
        n_targets, n_subjects = len(state["refine.bias"]), len(state["subjects"])
        network = make_network((shape[0], shape[1]), settings["sfreq"], n_targets, n_subjects, spec)
        network.load_state_dict(state)
        return cls(preparation, network, spec, settings["sfreq"], settings["gain"])
