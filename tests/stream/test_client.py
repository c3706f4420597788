"""The adapter that uses private names of aiomqtt fits the version that is installed."""

import inspect
from importlib.metadata import version

import aiomqtt

from stream.mqtt.client import WRITTEN_FOR, Client


def test_the_adapter_was_written_for_this_version() -> None:
    """Another version wants a look at `Client` first: the names below are private and may change at any time."""
    assert version("aiomqtt").startswith(f"{WRITTEN_FOR}.")
    for name in ("_on_connect", "_on_publish", "_on_disconnect"):
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Client, aiomqtt.Client))
        assert list(ours) == list(theirs), name
    source = inspect.getsource(aiomqtt.Client)
    assert "self._connected: asyncio.Future[None]" in source
    assert "self._disconnected: asyncio.Future[None]" in source
