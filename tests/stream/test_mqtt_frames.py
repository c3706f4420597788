"""Pictures find their metadata, in whatever order and however often they come."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from stream.frames import Assembler
from stream.messages import Message

WINDOWS = 5
JPEG = b"\xff\xd8\xff\xe0"


def messages_of(window: int) -> list[Message]:
    """All six messages of one window."""
    pictures = {stage: JPEG + f"{stage} {window}".encode() for stage in ("original", "preview", "picture")}
    digests = {stage: hashlib.sha256(data).hexdigest() for stage, data in pictures.items()}
    metas = [
        {"window_id": f"w{window}", "stage": stage, "sha256": digests, "times": {"published": float(window)}}
        for stage in pictures
    ]
    return [Message("lab", stage, data) for stage, data in pictures.items()] + [
        Message("lab", "meta", json.dumps(meta).encode()) for meta in metas
    ]


@given(st.permutations([message for window in range(WINDOWS) for message in messages_of(window)]), st.data())
def test_each_frame_once_in_any_order(order: list[Message], data: st.DataObject) -> None:
    """Whatever the order and whatever comes twice, every stage of every window comes out once, with its own bytes."""
    again = data.draw(st.lists(st.sampled_from(order)))
    assembler = Assembler()
    frames = [frame for message in [*order, *again] if (frame := assembler.add(message))]
    assert len(frames) == 3 * WINDOWS
    for frame in frames:
        assert frame.pictures[frame.stage] == JPEG + f"{frame.stage} {frame.window_id[1:]}".encode()
        assert frame.digest(frame.stage) == hashlib.sha256(frame.pictures[frame.stage]).hexdigest()
    assert assembler.unpaired == assembler.bad == 0


@given(st.sampled_from(["meta", "picture", "status", "nonsense"]), st.binary() | st.text().map(str.encode))
def test_rubbish_never_raises(kind: str, payload: bytes) -> None:
    """No payload on any topic makes the assembler raise or give out a frame."""
    assert Assembler().add(Message("lab", kind, payload)) is None


@given(
    st.dictionaries(
        st.sampled_from(["window_id", "stage", "sha256", "times", "n"]),
        st.none()
        | st.text()
        | st.integers()
        | st.dictionaries(st.sampled_from(["picture", "x"]), st.text() | st.none()),
    )
)
def test_half_right_metas_never_raise(meta: dict[str, object]) -> None:
    """A meta with our keys and anything for values is passed over, unless it says that it abstained."""
    frame = Assembler().add(Message("lab", "meta", json.dumps(meta).encode()))
    assert frame is None or frame.stage == "abstained"


def test_halves_that_never_meet_are_counted_and_let_go() -> None:
    """Pictures without metas, and the reverse, do not pile up."""
    assembler = Assembler()
    for window in range(200):
        assembler.add(messages_of(window)[2])
        assembler.add(messages_of(1000 + window)[5])
    assert len(assembler._pictures) == len(assembler._metas) == 48
    assert assembler.unpaired == 2 * (200 - 48)
