"""A short soak: real processes killed, stalled and holed, and an account that adds up."""

import json
from pathlib import Path

import pytest

from benchmarks.soak import plans
from tests.soak.account import account
from tests.soak.live import LiveProgram
from tests.soak.run import soak

SECONDS = 80.0
SEED = 219  # everybody who sends is killed and stalled, and everybody who receives is stalled
PAUSE_S = (1.5, 6.0)


CALM_SEED = 3
CALM_SECONDS = 60.0


@pytest.mark.big
def test_a_stimulus_script_that_dies_takes_nothing_along(tmp_path: Path) -> None:
    """Killed and started again while the data go on, it costs its own markers, and not one sample or connection."""
    planned = plans(tmp_path, CALM_SECONDS, CALM_SEED)
    answer = soak(planned, CALM_SECONDS, CALM_SEED, print, None, PAUSE_S, ("markers killed",))
    assert answer["wrong"] == []
    assert answer["happened"]["markers killed"] > 3
    for plan in planned:
        assert len(plan.marker_outages) > 0
        said = json.loads((Path(plan.folder) / "account.json").read_text("utf-8"))
        sent = int((plan.ledger("sent") > 0).sum())
        for ingest in ("samples", "markers"):  # what was left out on purpose is lost, and nothing else
            assert (said[ingest]["samples"], said[ingest]["lost"]) == (sent, plan.places - sent)
            assert said[ingest]["disconnections"] <= 1  # the silence after the last sample
        assert said["markers"]["marker_disconnections"] > 0
        figures = answer[plan.name]["markers"]
        assert figures["not sent"]
        assert figures["used"] > figures["lost"]


@pytest.mark.slow
def test_everything_sent_is_used_flagged_or_lost(program: LiveProgram, tmp_path: Path) -> None:
    """Through kills, stalls and holes every sample and marker is accounted for, by ingest and live session alike."""
    planned = plans(tmp_path, SECONDS, SEED, program)
    answer = soak(planned, SECONDS, SEED, print, program, PAUSE_S)
    assert answer["wrong"] == []
    assert all(answer["happened"].values()), answer["happened"]
    figures = answer[planned[0].name]
    assert figures["samples"]["lost"] + figures["samples"]["never sent"]
    assert figures["samples"]["flagged"]
    assert answer["live"]["published"]

    # The account is one that can fail: a single sample or marker that goes astray is found.
    for ledger in ("used", "markers-used"):
        book = planned[0].ledger(ledger)
        place = int(book.argmax())
        for entry in (0, 2):
            book[place] = entry
            assert account(planned[0], answer["begin"]).wrong
        book[place] = 1
    assert account(planned[0], answer["begin"]).wrong == []
