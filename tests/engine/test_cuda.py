"""What holds on a GPU; `python -m benchmarks.gpu` runs it there, and everywhere else it is skipped."""

import pytest
import torch

from engine.backends.cache import EngineCache
from engine.backends.choice import open_backend
from engine.backends.proof import prove
from engine.backends.reference import reference_of
from engine.models.loading import Models, load_models
from engine.registry import BACKENDS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
MINUTES = {name for name, entry in BACKENDS.items() if entry.minutes_to_start}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in MINUTES])
def test_a_backend_is_proven_and_stays_so(tiny: Models, cache: EngineCache, name: str, dtype: str) -> None:
    """Ten proofs in other orders on the same instance find no fault, and nothing is captured after the first."""
    models = load_models(tiny.spec.model_copy(update={"dtype": dtype}), "cuda")
    if reason := BACKENDS[name].unavailable_because(models.device):
        pytest.skip(reason)
    backend = open_backend(name, models, cache)
    compiled = []
    for seed in range(10):
        assert prove(backend, models, reference_of(models, None, seed), seed=seed).fault == ""
        compiled.append(backend.compiled)
    assert len(set(compiled)) == 1
