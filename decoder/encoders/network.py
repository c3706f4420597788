"""Convolutions over channels and times, with a layer of each subject's own."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from decoder.spec import ConvSpec

Array = NDArray[np.float32]


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
        x = self.apply_subject_layer(x, subjects)
        x = self.spatial(self.pool(self.temporal(x[:, None])))
        x = self.dropout(functional.elu(self.norm(x)).flatten(1))
        x = self.project(x)
        out: Tensor = x + self.refine(self.dropout(functional.gelu(x)))
        return out

    def apply_subject_layer(self, x: Tensor, subjects: Tensor) -> Tensor:
        """Apply to windows (n, channels, times) the layer of each one's subject."""
        # Of one subject, a copy of the layer for each window would cost more than all the rest.
        layers = self.subjects[0] if len(self.subjects) == 1 else self.subjects[subjects]
        return layers @ x
