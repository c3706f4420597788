"""How structure hangs together in pictures: a network from decoded shallow CLIP features to what is likelier true.

Ridge decodes each unit by itself. In a picture units are bound to one another: a contour goes on in the next patch, a
figure is all in one place, backgrounds are even. A small convolutional network over CLIP's patches has learned that
from pictures that nobody was shown, with the errors that this decoder makes (`decoder.training.train_structure`), as
decoders have learned from unlabelled pictures through an encoding model before (Beliy et al. 2019, NeurIPS; Gaziv et
al. 2022, NeuroImage 254).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from decoder.features import Features, LayerTarget

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

GROUPS = 8
"""Of the normalisations; widths are multiples of it."""
NARROW = 256
"""Numbers through which all places of a picture speak to all others."""
AT_ONCE = 256
"""Windows put through the network together: bounds memory."""


class Dropout(nn.Module):
    """Dropout whose masks may come from a generator of its own, so that parts of a batch are computed side by side.

    Parameters
    ----------
    share : float
        Of what is left out.
    maps : bool
        Leave out whole maps of (n, channels, height, width).
    """

    generator: torch.Generator | None = None

    def __init__(self, share: float, *, maps: bool = False) -> None:
        super().__init__()
        self.share, self.maps = share, maps

    def forward(self, x: Tensor) -> Tensor:
        """Leave some out in training, and scale the others up."""
        if not self.training:
            return x
        kept = x.new_empty((*x.shape[:2], 1, 1) if self.maps else x.shape)
        return x * kept.bernoulli_(1 - self.share, generator=self.generator).div_(1 - self.share)


class ResidualBlock(nn.Module):
    """A block over neighbouring patches; of no effect until trained."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.body = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            Dropout(dropout, maps=True),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add to (n, width, height, width) what neighbours say."""
        added: Tensor = self.body(x)
        return x + added


class Network(nn.Module):
    """From decoded maps to true ones, both of unit spread: neighbours first, then the whole picture at half the grid.

    Parameters
    ----------
    channels : int
        Of the maps.
    grid : int
        Patches along a side, 2 at least.
    width : int
        Of the hidden maps; a multiple of 8.
    dropout : float
    """

    def __init__(self, channels: int, grid: int, width: int, dropout: float) -> None:
        super().__init__()
        half = (grid + 1) // 2
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, width, grid, grid))
        self.fine = nn.Sequential(*(ResidualBlock(width, dropout) for _ in range(3)))
        self.down = nn.Conv2d(width, width, 2, stride=2)
        self.coarse = nn.Sequential(*(ResidualBlock(width, dropout) for _ in range(2)))
        self.whole = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * half**2, NARROW),
            nn.SiLU(),
            Dropout(2 * dropout),
            nn.Linear(NARROW, width * half**2),
        )
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.again = nn.Sequential(*(ResidualBlock(width, dropout) for _ in range(3)))
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))
        self.direct = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Compute likelier maps of decoded ones, both (n, channels, grid, grid)."""
        x = self.fine(self.enter(maps) + self.place)
        grid = x.shape[-1]
        low = self.coarse(self.down(functional.pad(x, (0, grid % 2, 0, grid % 2))))
        low = low + self.whole(low).view_as(low)
        x = self.again(x + self.up(low)[..., :grid, :grid])
        out: Tensor = self.leave(x) + self.direct(maps)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Units of CLIP's blocks as few maps over its patches; the class token, which has no place, is left out.

    Attributes
    ----------
    grid : int
        Patches along a side.
    means : dict of int to ndarray, shape (units,), float32
        By block, over the pictures shown.
    axes : dict of int to ndarray, shape (n_components, width), float32
        Principal axes of a patch's deviations from them.
    """

    grid: int
    means: dict[int, Array]
    axes: dict[int, Array]

    @property
    def channels(self) -> int:
        """Maps of all blocks together."""
        return sum(len(axes) for axes in self.axes.values())

    def of(self, units: Mapping[int, NDArray[Any]], masks: Mapping[int, Mask] | None = None) -> Array:
        """Units by block, (n, units) each, as maps (n, channels, grid, grid); units outside `masks` count as mean."""
        out = []
        for block, mean in self.means.items():
            deviations = units[block].astype(np.float32) - mean
            out.append(self.of_deviations(block, deviations if masks is None else deviations * masks[block]))
        return np.concatenate(out, axis=1)

    def of_deviations(self, block: int, deviations: Array) -> Array:
        """Return a block's deviations from its means, (n, units), as maps (n, n_components, grid, grid)."""
        axes = self.axes[block]
        patches = deviations.reshape(len(deviations), -1, axes.shape[1])[:, 1:] @ axes.T
        return np.asarray(patches.transpose(0, 2, 1).reshape(len(deviations), -1, self.grid, self.grid))

    def deviations(self, maps: Array) -> dict[int, Array]:
        """Return units' deviations from their means by block, (n, units) each, of maps (n, channels, grid, grid)."""
        out, start = {}, 0
        for block, axes in self.axes.items():
            n_components, width = axes.shape
            own = maps[:, start : start + n_components].reshape(len(maps), n_components, -1).transpose(0, 2, 1)
            units = np.zeros((len(maps), 1 + self.grid**2, width), np.float32)
            units[:, 1:] = own @ axes
            out[block] = units.reshape(len(maps), -1)
            start += n_components
        return out


@dataclass(frozen=True, slots=True, eq=False)
class LatentMap:
    """A linear map from maps of structure to the latent that goes with them, the same at every patch.

    As it is linear, the mean of what a window may mean goes to the mean of the latents that it may mean.

    Attributes
    ----------
    weights : ndarray, shape (9 * channels, latent_channels * cells**2), float32
        Of a patch and its eight neighbours onto the latent's cells within it.
    mean : ndarray, shape (latent_channels, height, width), float32
        Over the pictures shown.
    """

    weights: Array
    mean: Array

    def __call__(self, maps: Array) -> Array:
        """Compute latents (n, latent_channels, height, width) of maps (n, channels, grid, grid)."""
        cells = cells_of(self.mean, maps.shape[-1])
        patches = torch.from_numpy(neighbourhoods(maps) @ self.weights).transpose(1, 2)
        latents = functional.fold(patches, (cells * maps.shape[-1],) * 2, cells, stride=cells)
        found: Array = self.mean + resize_latents(latents, self.mean.shape[1:]).numpy()
        return found


def neighbourhoods(maps: Array) -> Array:
    """Return each patch with its eight neighbours, (n, grid**2, 9 * channels), of maps (n, channels, grid, grid)."""
    padded = functional.pad(torch.from_numpy(maps), (1, 1, 1, 1), mode="replicate")
    around: Array = functional.unfold(padded, 3).transpose(1, 2).numpy()
    return around


def cells_of(latent: Array, grid: int) -> int:
    """Count how many of a latent's cells, shape (channels, height, width), a patch counts along a side."""
    height: int = latent.shape[1]
    return max(1, round(height / grid))


def resize_latents(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Latents (n, channels, height, width) of another height and width."""
    if latents.shape[2:] == shape:
        return latents
    return functional.interpolate(latents, shape, mode="bilinear", antialias=True)


class StructurePrior:
    """A trained network with what it needs to read and to write units.

    Parameters
    ----------
    maps : Maps
    network : Network
    read, write : ndarray, shape (channels,), float32
        Spread of decoded maps, and of true ones.
    masks : dict of int to ndarray of bool, shape (units,)
        By block: the units that are handed on.
    gains : dict of int to float
        By block: factor on their deviations from the mean.
    latent_map : LatentMap, optional
        From structure to the latent that goes with it.
    """

    def __init__(
        self,
        maps: Maps,
        network: Network,
        read: Array,
        write: Array,
        masks: Mapping[int, Mask],
        gains: Mapping[int, float],
        latent_map: LatentMap | None = None,
    ) -> None:
        self.maps = maps
        self.network = network.eval()
        self.read, self.write = read, write
        self.masks = {block: _frozen(mask) for block, mask in masks.items()}
        self.gains = dict(gains)
        self.latent_map = latent_map

    def likelier(self, decoded: Array) -> Array:
        """Compute likelier maps, without gain, of decoded ones, both (n, channels, grid, grid)."""
        with torch.inference_mode():
            x = torch.from_numpy(decoded / self.read[:, None, None])
            found: Array = torch.cat([self.network(part) for part in torch.split(x, AT_ONCE)]).numpy()
        return found * self.write[:, None, None]

    def __call__(self, features: Sequence[Features]) -> list[Features]:
        """Return features of windows with likelier `s`, and with `structure_latent` where there is a map to it."""
        s = [one.s for one in features]
        masks = {block: s[0][block].mask for block in self.maps.means}
        units = {block: np.stack([one[block].values for one in s]) for block in self.maps.means}
        maps = self.likelier(self.maps.of(units, masks))
        found = {
            block: np.where(self.masks[block], self.maps.means[block] + self.gains[block] * own, np.float32(0))
            for block, own in self.maps.deviations(maps).items()
        }
        structure_latents = [None] * len(s) if self.latent_map is None else self.latent_map(maps)
        return [
            replace(
                one,
                s={block: LayerTarget(values[row], self.masks[block]) for block, values in found.items()},
                structure_latent=structure_latents[row],
            )
            for row, one in enumerate(features)
        ]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything that was fitted, by name."""
        out: dict[str, NDArray[Any]] = {"read": self.read, "write": self.write}
        for block, mean in self.maps.means.items():
            out |= {f"{block}.mean": mean, f"{block}.axes": self.maps.axes[block], f"{block}.mask": self.masks[block]}
            out[f"{block}.gain"] = np.array([self.gains[block]], np.float32)
        if self.latent_map is not None:
            out |= {"latent_map.weights": self.latent_map.weights, "latent_map.mean": self.latent_map.mean}
        return out | {f"network.{name}": tensor.numpy() for name, tensor in self.network.state_dict().items()}

    def settings(self) -> dict[str, Any]:
        """Return what `from_tensors` needs besides the tensors; JSON-able."""
        return {"grid": self.maps.grid, "blocks": list(self.maps.means)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "StructurePrior":
        """Rebuild a prior from `tensors()` and `settings()`."""
        blocks = [int(block) for block in settings["blocks"]]

        def of_each(name: str) -> dict[int, NDArray[Any]]:
            return {block: tensors[f"{block}.{name}"] for block in blocks}

        maps = Maps(int(settings["grid"]), of_each("mean"), of_each("axes"))
        state = {
            name.removeprefix("network."): torch.from_numpy(np.array(array))
            for name, array in tensors.items()
            if name.startswith("network.")
        }
        network = Network(maps.channels, maps.grid, state["enter.bias"].shape[0], 0.0)
        network.load_state_dict(state)
        gains = {block: float(gain[0]) for block, gain in of_each("gain").items()}
        latent_map = None
        for start in ("latent_map", "layout"):  # bundles of before 0.1.0 have it under the second name
            if f"{start}.mean" in tensors:
                latent_map = LatentMap(tensors[f"{start}.weights"], tensors[f"{start}.mean"])
        return cls(maps, network, tensors["read"], tensors["write"], of_each("mask"), gains, latent_map)


def _frozen(mask: Mask) -> Mask:
    mask = np.array(mask, np.bool_)
    mask.flags.writeable = False
    return mask
