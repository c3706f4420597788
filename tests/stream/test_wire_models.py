"""What a message may hold: one model, at both ends of the wire."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.epochs.ingest import IngestStats
from stream.epochs.stream_buffer import Gap, StreamStats
from stream.errors import PublishError, WireError
from stream.mqtt.messages import MAX_NESTING, to_json
from stream.mqtt.topics import read
from stream.mqtt.wire_models import MAX_DEPTH, MAX_TEXT, MAX_VALUES, printable, read_json

META: dict[str, Any] = {"window_id": "w", "stage": "abstained", "sha256": {}}


def refused(payload: bytes, kind: str = "meta") -> WireError:
    """Return the error that a payload is refused with; it is one line."""
    with pytest.raises(WireError) as caught:
        read(kind, payload, f"{kind} of session lab")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"{kind} of session lab: ")
    return caught.value


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("window_id", [3, "", None, ["w"]]),
        ("stage", ["final", 1, None]),
        ("sha256", [[], {"picture": "x"}, {"picture": 3}, {"other": "0" * 64}, None]),
        ("n", ["1", -1, 1.5, 2**53, True, [1]]),
        ("times", [[], {"published": [1]}, {"published": "2"}, {"published": 1e300}, {"ready": True}, 3]),
        ("event", [3, ["cat"], {"label": 3}, {"label": "cat", "time": "1"}]),
        ("confidence", ["0.5", 1.01, -0.1, [0.5], True]),
        ("categories", [["cat"], {"cat": "0.5"}, {"cat": {"p": 1}}]),
        ("models", ["x", {"unet": ["x"]}]),
        ("data", [1, ["simulated EEG"]]),
        ("reason", [1, {"why": "x"}]),
        ("samples_lost", ["3", [3]]),
        ("state", ["lost", 1, ["published"]]),
        ("names", ["bell", [3], ["x" * 201], ["x"] * 11]),
        ("truth", [3, ["bell"]]),
        ("right", ["yes", 1]),
        ("told", [3, {"right": 1}, {"right": -1, "of": 2}, {"right": 1, "of": 2, "chance": 2}]),
        ("index", ["1", -1, 1.5]),
        ("of", ["60", -1]),
        ("interpolated", ["Oz", [3], ["Oz"] * 5001]),
        ("abstain_below", ["0.1", 1.1]),
    ],
)
def test_a_field_of_the_wrong_kind_refuses_the_meta_and_is_named(field: str, values: list[object]) -> None:
    """Each field that somebody reads is held to its type and range, and the error and its reason name it."""
    for value in values:
        error = refused(json.dumps({**META, field: value}).encode())
        assert error.reason == field
        assert f": {field}" in str(error)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("status", {"state": 3}),
        ("status", {"detail": ["x"]}),
        ("status", {"participant": 3}),
        ("status", {"participant": "x" * 201}),
        ("status", {"started": 3}),
        ("status", {"versions": {"python": [3]}}),
        ("metrics", {"signal": {"channels": {"Fz": 1}}}),
        ("metrics", {"signal": {"channels": [{"level": 1.0}]}}),
        ("metrics", {"signal": {"channels": [{"name": "Fz", "status": "fine"}]}}),
        ("metrics", {"signal": {"channels": [{"name": "Fz", "x": 3.0}]}}),
        ("metrics", {"signal": {"channels": [{"name": "Fz"}] * 1025}}),
        ("metrics", {"notes": {"count": "1"}}),
        ("metrics", {"abstain_below": 2}),
        ("metrics", {"rejection": {"rejected": {"limit": -1}}}),
        ("metrics", {"ingest": []}),
        ("metrics", {"ingest": {"problems": "flat"}}),
        ("metrics", {"ingest": {"problems": [3]}}),
        ("metrics", {"ingest": {"gaps": 3}}),
        ("metrics", {"ingest": {"gaps": [{"length": "1"}]}}),
        ("metrics", {"ingest": {"channel_rms": [1]}}),
        ("metrics", {"ingest": {"streams": {"EEG": {"state": 1}}}}),
        ("metrics", {"ingest": {"samples": "many"}}),
        ("metrics", {"drops": {"windows": "3"}}),
        ("metrics", {"rates": 3}),
        ("metrics", {"latency_ms": {"total": 3}}),
        ("metrics", {"latency_ms": {"total": {"p50": [1]}}}),
    ],
)
def test_statuses_and_metrics_are_held_to_what_the_page_reads(kind: str, value: dict[str, Any]) -> None:
    """A status or metrics message with one wrong value is refused by the name of its field."""
    assert refused(json.dumps(value).encode(), kind).reason == next(iter(value))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff{}", "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[]", "not an object"),
        (b'"x"', "not an object"),
        (b'{"a": 1, "a": 2}', "key twice"),
        (b'{"a": NaN}', "number"),
        (b'{"a": -Infinity}', "number"),
        (b'{"a": 1e999}', "number"),
        (b'{"a": 9223372036854775808}', "number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": "\\ud800"}', "text"),
        (b'{"\\udfff": 1}', "text"),
        (b'{"a": "' + b"x" * (MAX_TEXT + 1) + b'"}', "text"),
        (b'{"a": [' + b"0," * MAX_VALUES + b"0]}", "values"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "depth"),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "depth"),
        (b"[" * 100_000, "depth"),
    ],
)
def test_what_is_no_json_of_ours_has_a_reason(payload: bytes, reason: str) -> None:
    """Broken, ambiguous, endless and bottomless JSON is refused, each by a reason of its own."""
    for kind in ("meta", "status", "metrics"):
        assert refused(payload, kind).reason == reason


@given(st.integers(1, 30), st.booleans())
def test_depth_is_counted_to_the_level(levels: int, lists: bool) -> None:
    """A message of `MAX_DEPTH` levels passes, one more does not, whatever it is nested of."""
    value: Any = 1
    for _ in range(levels - 1):
        value = [value] if lists else {"x": value}
    payload = json.dumps({"own": value}).encode()
    if levels <= MAX_DEPTH:
        assert read("status", payload, "x") == json.loads(payload)
    else:
        assert refused(payload, "status").reason == "depth"


def test_fields_of_the_users_own_pass_as_they_are() -> None:
    """What a user adds is kept, in any shape within the bounds, and nulls stand for what is not known."""
    value = {
        **META, "subject": {"age": 30, "notes": ["left-handed", None, True]}, "confidence": None, "n": None,
        "times": {"published": 5, "mine": 1.5}, "event": "cat", "seed": 2**62,
    }  # fmt: skip
    assert read("meta", json.dumps(value).encode(), "x") == value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(st.characters(categories=["Cs"]))
    | st.sampled_from([10**400, -(10**40), math.nan]) | st.floats(width=32).map(np.float32),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)  # fmt: skip


@given(VALUES)
def test_whatever_we_encode_every_receiver_takes(value: object) -> None:
    """Our own JSON is never refused for what it holds: what has no form in it was given another before."""
    read_json(to_json({"value": value}), "x", depth=MAX_NESTING + 2)


def test_integers_too_long_for_python_to_write_are_sent_as_text() -> None:
    """An integer beyond what Python writes as decimals is sent all the same, and taken."""
    assert int(read_json(to_json({"n": 10**5000}), "x")["n"], 16) == 10**5000


def test_what_is_nested_in_itself_is_an_error_where_it_is_given() -> None:
    """Metadata without an end is the caller's error in one line, and no RecursionError."""
    endless: dict[str, Any] = {}
    endless["x"] = endless
    with pytest.raises(PublishError, match="nested deeper than 64 levels"):
        to_json(endless)


def test_the_account_of_a_live_ingest_is_a_metrics_message() -> None:
    """What an ingest tells of itself, numbers that are not finite included, passes the model."""
    stats = IngestStats(
        samples=5, gaps=[Gap(1.0, math.nan, 3)], channel_rms={"Fz": math.inf}, streams={"EEG": StreamStats()},
        problems=["'Fz' is flat"],
    )  # fmt: skip
    assert read("metrics", to_json({"ingest": stats}), "x")["ingest"]["problems"] == ["'Fz' is flat"]


@given(st.text(), st.integers(0, 300))
def test_printable_text_moves_no_cursor(text: str, length: int) -> None:
    """Of any text, what is printed is one printable line of a bounded length."""
    assert printable(text, length).isprintable()
    assert len(printable(text, length)) == min(len(text), length)
