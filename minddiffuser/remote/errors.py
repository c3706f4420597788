"""Why no picture comes from an engine elsewhere."""

from engine.errors import EngineError


class RemoteError(EngineError):
    """A window got no picture from a pool."""


class ProtocolError(RemoteError):
    """What came over the network is not what the protocol says."""


class PoolLostError(RemoteError):
    """The pool cannot be reached, or is another one than the session began with."""


class PoolRefusedError(RemoteError):
    """The pool refused a request: its token, its version, its feature space, its size, its content."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class PoolFullError(RemoteError):
    """As many windows wait in the pool as may."""
