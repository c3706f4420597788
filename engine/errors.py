"""Errors of the engine; every message names the thing, its value and the way out."""


class EngineError(Exception):
    """Anything that went wrong between decoded features and a picture."""


class ModelError(EngineError):
    """Weights or configurations are missing, unsafe, or don't fit together."""


class FeatureError(EngineError):
    """Decoded features don't have the shape that the models take."""


class BackendError(EngineError):
    """A backend that was asked for by name cannot run on this machine."""


class CacheError(EngineError):
    """The engine cache cannot be written, or the disk has no room for what is to be built."""


class MemoryBudgetError(EngineError):
    """The models do not fit into the memory that the configuration allows."""
