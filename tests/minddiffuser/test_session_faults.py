"""One bad window costs itself: the account of a session closes whatever fails, and everybody is told why."""

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.models.loading import Models
from minddiffuser.archive.archive import Archive, read_about
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.display.local import Local
from minddiffuser.live.beside import Beside
from minddiffuser.live.names import Namer
from minddiffuser.live.session import STREAK, Account
from stream.errors import PublishError
from stream.types.windows import Channels, Window
from tests.brokers import until
from tests.minddiffuser.faulty import CHANNELS, ERRORS, FATES, SFREQ, finished, label, live, outcome

pytestmark = pytest.mark.timeout(200)


def closes(account: Account) -> bool:
    """Tell whether every window has become one thing."""
    parts = (account.published, account.dropped, account.rejected, account.abstained, account.failed)
    return account.windows == sum(parts) and not account.unfinished


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fates=st.lists(st.sampled_from(FATES), min_size=6, max_size=14))
async def test_each_window_becomes_what_its_faults_make_of_it(tiny: Models, tmp_path: Path, fates: list[str]) -> None:
    """Whatever fails at whatever step, each window is published or left out with its reason, and counted once."""
    async with live(tiny, fates, tmp_path) as run:
        await finished(run)
    account = run.session.account
    assert closes(account)
    assert Counter(map(outcome, fates)) == Counter(
        published=account.published, abstained=account.abstained, failed=account.failed
    )
    assert [label(meta["window_id"]) for meta in run.metas("picture")] == [
        fate for fate in fates if outcome(fate) == "published"
    ]
    assert {meta["of"] for meta in run.metas("picture")} <= {len(fates)}  # a replay says how many markers it has
    previews = [fate for fate in fates if fate in {"fine", "original", "encode"} or fate.startswith("preview")]
    assert [label(meta["window_id"]) for meta in run.metas("preview")] == previews
    left_out = {meta["window_id"]: meta["reason"] for meta in run.metas("abstained")}
    assert sorted(map(label, left_out)) == sorted(fate for fate in fates if outcome(fate) != "published")
    states = {meta["window_id"]: meta["state"] for meta in run.metas("abstained")}
    assert states == {window_id: outcome(label(window_id)) for window_id in left_out}
    for window_id, reason in left_out.items():
        step, _, error = label(window_id).partition(":")
        assert reason
        assert "\n" not in reason
        if error:
            words = str(ERRORS[error]).splitlines() or [error]
            assert words[0].strip("'") in reason or error in reason
        elif step in {"nan-c", "nan-z", "overflow"}:
            assert "not finite" in reason
    pictures = run.publisher.counts["picture"]
    assert pictures.put == account.published == pictures.published + pictures.dropped + pictures.denied


async def test_a_session_says_who_and_what_it_is_and_what_it_shows(tiny: Models, tmp_path: Path) -> None:
    """Participant and versions, n of N, names beside the truth, the signal by channel, traces and an account kept."""
    archive = Archive(ArchiveSpec(folder=tmp_path / "archive"), "fateful", {})
    local, namer = Local("fateful", archive), Namer(tiny, ["bell", "pepper"], {"fine": "bell"})
    fates = ["fine", "unsure", *["fine"] * 10]
    options = {"local": local, "beside": Beside(namer), "total": 5}
    async with live(tiny, fates, tmp_path, options=options, participant="01") as run:
        await run.session.first_window()
        await local.traces()
        await local.note("halfway")
        async with asyncio.timeout(20):
            # The spread of a few samples of noise says nothing of its level.
            while (frame := await local.traces()) is None or len(frame["data"][0]) < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await finished(run)
    assert frame["channels"] == ["A1", "A2"]
    assert 1e-6 < np.std(frame["data"]) < 1e-4
    pictures = run.metas("picture")
    assert [(meta["index"], meta["of"]) for meta in pictures] == [(n % 5 + 1, 5) for n in (0, *range(2, 12))]
    right = [meta["right"] for meta in pictures]
    assert [meta["told"] for meta in pictures] == [
        {"right": sum(right[:n]), "of": n, "chance": 0.5} for n in range(1, len(pictures) + 1)
    ]
    for meta in pictures:
        assert (meta["truth"], sorted(meta["names"]), meta["state"]) == ("bell", ["bell", "pepper"], "published")
        assert meta["right"] == (meta["names"][0] == "bell")
    (left_out,) = run.metas("abstained")
    assert (left_out["state"], "names" in left_out) == ("abstained", False)
    status = next(said for kind, said in run.heard if kind == "status" and said["state"] == "running")
    assert status["participant"] == "01"
    assert datetime.fromisoformat(status["started"]).tzinfo is not None
    assert status["versions"]["models"] == tiny.feature_space
    assert {"python", "torch", "minddiffuser", "bundle"} <= set(status["versions"])
    last = [said for kind, said in run.heard if kind == "metrics"][-1]
    assert (last["notes"]["text"], last["abstain_below"]) == ("halfway", 0.5)
    assert [channel["name"] for channel in last["signal"]["channels"]] == ["A1", "A2"]
    assert all(5e-6 < channel["level"] < 2e-5 for channel in last["signal"]["channels"])
    about = read_about(archive.folder)
    assert (about["account"]["published"], about["account"]["abstained"]) == (11, 1)
    assert about["ended"] > about["started"]


async def test_every_fault_in_one_session(tiny: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After each kind of fault a sound window comes through; each reason is in the log, with no traceback."""
    fates = [fate for bad in FATES[1:] for fate in (bad, "fine")]
    caplog.set_level(logging.INFO, "minddiffuser")
    async with live(tiny, fates, tmp_path) as run:
        await finished(run)
    account = run.session.account
    assert closes(account)
    assert account.published == len(FATES)  # every 'fine' one, and the one whose original cannot be encoded
    for fate in FATES[1:]:
        if outcome(fate) == "failed":
            assert f"-{fate} failed: " in caplog.text
    assert "the picture shown, original, is not published" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]
    # On a busy machine the last windows may outlast the replay by more than the silence after which it is lost.
    states = [state for state, _ in groupby(run.states()) if state != "source-lost"]
    assert states == ["starting", "waiting", "running", "ended", "offline"]


async def test_why_a_session_ended_stays(tiny: Models, tmp_path: Path) -> None:
    """Its reason is in the account, in the status as it ends and in the last one, which brokers keep."""
    async with live(tiny, ["fine"] * 2, tmp_path) as run:
        await until(lambda: "source-lost" in run.states(), 60)
        run.session.ending = "its 5 s are over"
        run.stop.set()
        account = await run.running
    assert account.ended == f"its 5 s are over while stream {account.stream} was lost"
    last = [(said["state"], said.get("detail")) for kind, said in run.heard if kind == "status"][-2:]
    assert last == [("ended", account.ended), ("offline", account.ended)]
    async with live(tiny, [], tmp_path, source={"name": "nobody", "timeout_s": 0.5}) as run:
        await until(run.running.done, 30)
        error = str(run.running.exception())
    assert run.session.account.ended == error
    assert "no stream with name 'nobody' within 0.5 s" in error
    assert [said.get("detail") for kind, said in run.heard if kind == "status"][-2:] == [error, error]


async def test_when_every_window_fails_it_is_said_and_shown(
    tiny: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After some in a row the log and the metrics say that no picture comes, and why; later that they come again."""
    async with live(tiny, ["decode:MemoryError"] * (2 * STREAK) + ["fine"] * 2, tmp_path) as run:
        await finished(run)
    told = [record.getMessage() for record in caplog.records if "windows all failed" in record.getMessage()]
    assert [words.partition(" windows")[0] for words in told] == ["the last 5", "the last 10"]
    assert all("no picture comes: MemoryError" in words for words in told)
    assert "windows come through again" in caplog.text
    metrics = [said for kind, said in run.heard if kind == "metrics"]
    assert any("all failed" in problem for one in metrics for problem in one["ingest"]["problems"])
    assert not any("all failed" in problem for problem in metrics[-1]["ingest"]["problems"])


async def test_a_realigner_that_fails_costs_no_window(
    tiny: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What raises when a map is learned is a line in the log; the windows before and after are published."""
    async with live(tiny, ["fine"] * 6, tmp_path, realign={"every": 10}) as run:
        assert run.session._pipeline.realigner is not None
        run.session._pipeline.realigner._judge = lambda: (_ for _ in ()).throw(np.linalg.LinAlgError("no convergence"))  # type: ignore[method-assign]
        run.session._pipeline.realigner._since = 1000
        run.session._pipeline.realigner._memory.extend([None] * 30)  # type: ignore[list-item]
        await finished(run)
    assert closes(run.session.account)
    assert run.session.account.published == 6
    assert "realignment failed, and is left as it is: LinAlgError: no convergence" in caplog.text


async def test_a_picture_that_is_too_large_costs_its_window(
    tiny: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beyond what may be sent is a failure with the remedy in its reason, and counted once."""
    monkeypatch.setattr("stream.mqtt.publisher.MAX_PICTURE", 100)
    async with live(tiny, ["fine"] * 3, tmp_path) as run:
        await finished(run)
    assert closes(run.session.account)
    assert run.session.account.failed == 3
    assert all("set publish.size" in meta["reason"] for meta in run.metas("abstained"))


async def test_a_publisher_that_dies_ends_the_session_with_its_reason(tiny: Models, tmp_path: Path) -> None:
    """The session ends at once, says why, and its account closes; so it does while it still looks for its source."""
    async with live(tiny, ["fine"] * 20, tmp_path) as run:
        async with asyncio.timeout(60):
            await until(lambda: run.session.account.published >= 2, 60)
            run.publisher._task.cancel()
            with pytest.raises(PublishError, match="its task was cancelled"):
                await run.running
    assert closes(run.session.account)
    async with live(tiny, [], tmp_path, source={"name": "nobody", "timeout_s": 100}) as early:
        await asyncio.sleep(0)
        early.publisher._task.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(PublishError, match="its task was cancelled"):
                await early.running


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.integers(0, 6), policy=st.sampled_from(["latest", "every"]), cancel=st.booleans())
async def test_whenever_a_session_ends_its_account_closes(
    tiny: Models, tmp_path: Path, after: int, policy: str, cancel: bool
) -> None:
    """Stopped or cancelled after any window, with any queue, every window is one thing and every parcel is counted."""
    fates = ["fine", "decode:KeyError", "unsure", "preview:MemoryError", "fine", "fine", "encode", "fine"]
    async with live(tiny, fates, tmp_path, queue={"policy": policy}) as run:
        await until(lambda: run.session.account.windows >= after or run.running.done(), 60)
        if cancel:
            run.running.cancel()
        run.stop.set()
        await asyncio.gather(run.running, return_exceptions=True)
    assert closes(run.session.account)
    for counts in run.publisher.counts.values():
        assert counts.put == counts.published + counts.dropped + counts.denied


async def test_windows_that_are_not_finite_never_reach_decoder_or_engine(tiny: Models, tmp_path: Path) -> None:
    """Numbers that are not finite in a channel that the bundle takes are an abstention; in others they mean nothing."""
    async with live(tiny, ["fine"], tmp_path) as run:
        await finished(run)
        data = np.zeros((3, 20), np.float32)
        data[2] = np.nan
        channels = Channels((*CHANNELS.names, "ACC"), (*CHANNELS.kinds, "misc"), (*CHANNELS.units, "count"))
        window = Window("00001-fine", data, channels, SFREQ, 0.0, 0.0, None, 0.0, 0.0)
        assert run.session._pipeline.process(window, 0) is None
        data[1, 7] = np.inf
        reason = run.session._pipeline.process(replace(window, id="00002-decode:KeyError"), 0)
        assert reason == "the window holds numbers that are not finite"


async def test_originals_are_encoded_once_and_not_on_the_loop(
    tiny: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a picture was shown, it is encoded once, in the worker's thread."""
    import threading

    from minddiffuser.live import pipeline

    encode, threads = pipeline.encode, []

    def watched(pixels: np.ndarray, spec: object) -> bytes:
        if pixels.shape == (8, 8, 3):
            threads.append(threading.current_thread())
        return encode(pixels, spec)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "encode", watched)
    async with live(tiny, ["fine"] * 5, tmp_path) as run:
        await finished(run)
    assert len(run.metas("original")) == run.session.account.published == 5
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
