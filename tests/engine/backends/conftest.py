from collections.abc import Iterator

import pytest
import torch

from engine.cache import EngineCache


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    """One cache for all tests of backends: an export of the desk models takes seconds."""
    return EngineCache(tmp_path_factory.mktemp("engines"))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Nothing here is differentiated."""
    with torch.no_grad():
        yield
