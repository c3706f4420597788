"""Subprocesses that are told to stop say their last words, even when their parent closes its end in the same moment."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from minddiffuser.stopping import TIED
from stream.mqtt.broker import EmbeddedBroker
from tests.conftest import ROOT

GONE_S = 60
ROUNDS = 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None], ids=["SIGINT", "SIGTERM", "closed"])
async def test_the_last_line_always_arrives(number: signal.Signals | None) -> None:
    """Told to stop and left by its parent at once, in every round, `subscribe` prints its account and exits with 0."""
    async with EmbeddedBroker(0) as broker:
        for _ in range(ROUNDS):
            await asyncio.to_thread(start_and_stop, f"127.0.0.1:{broker.spec.port}", number)


def start_and_stop(broker: str, number: signal.Signals | None) -> None:
    """Start, wait until it is ready, stop, and close its stdin in the same moment; or only close it."""
    command = [sys.executable, "-m", "minddiffuser", "subscribe", "--broker", broker, "--json"]
    tied = {"env": os.environ | {TIED: "1"}, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, stderr=subprocess.PIPE, **tied) as child:
        assert child.stdout
        assert json.loads(child.stdout.readline()) == {"ready": True}
        if number is not None:
            child.send_signal(number)
        out, errors = child.communicate(timeout=GONE_S)  # closes stdin first
    assert child.returncode == 0, errors
    assert json.loads(out)["pictures"] == 0
    assert errors == ""  # its parent says what there is to say
