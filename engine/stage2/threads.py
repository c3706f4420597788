"""How many threads of the CPU small gradients take."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_SMALL = (
    4  # windows whose optimisation takes longer on several threads than on one (two cores, OMP_WAIT_POLICY=passive)
)


@contextmanager
def threads_for(latents: Tensor) -> Iterator[None]:
    """Run on one thread what is too small to be shared out: waking another costs more than it does."""
    threads = torch.get_num_threads()
    if latents.device.type != "cpu" or len(latents) > _SMALL or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
