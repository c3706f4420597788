"""Pictures find their metadata, in whatever order and however often they come."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from stream.errors import WireError
from stream.mqtt.frames import MAX_SESSIONS, Assembler, Assemblers
from stream.mqtt.messages import Message

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


def final(session: str, name: str) -> list[Message]:
    """Make the picture and the meta of a window of a session."""
    payload = JPEG + name.encode()
    about = {"window_id": name, "stage": "picture", "sha256": {"picture": hashlib.sha256(payload).hexdigest()}}
    return [Message(session, "picture", payload), Message(session, "meta", json.dumps(about).encode())]


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=400))
def test_no_session_pushes_anothers_halves_out(others: list[tuple[int, bool]]) -> None:
    """However many sessions a stranger makes up between the halves of a window, an own session's window is whole."""
    assemblers = Assemblers()
    first, second = final("good", "w1"), final("good", "w2")
    assert [frame.window_id for message in first if (frame := assemblers.add(message))] == ["w1"]
    assert assemblers.add(second[0]) is None
    for number, whole in others:
        for message in final(f"other-{number}", "x")[: 1 + whole]:
            assemblers.add(message)
    if len({number for number, _ in others}) < MAX_SESSIONS:
        frame = assemblers.add(second[1])
        assert frame is not None
        assert frame.pictures == {"picture": second[0].payload}


def test_silent_sessions_go_before_those_that_give_frames_and_all_are_counted() -> None:
    """A thousand made-up sessions with halves only cost none that gives frames; what they left is counted."""
    assemblers = Assemblers()
    for message in final("good", "w0"):
        assemblers.add(message)
    half = final("good", "w1")
    assemblers.add(half[0])
    for number in range(1000):
        assemblers.add(final(f"other-{number}", "x")[0])
    assert (frame := assemblers.add(half[1])) is not None
    assert frame.window_id == "w1"
    for number in range(1000):
        assemblers.add(Message(f"other-{number}", "meta", b"no meta"))
    assert assemblers.count("bad") == 1000
    assert assemblers.refusals.as_dict() == {"meta: not JSON": 1000}


def test_all_sessions_together_keep_a_bounded_number_of_bytes() -> None:
    """Pictures of many sessions that wait for their metas are kept up to a limit; the greediest lose theirs first."""
    assemblers = Assemblers()
    (small, meta) = final("good", "w")
    assemblers.add(small)
    for number in range(30):
        assemblers.add(Message(f"s{number}", "picture", JPEG + bytes(15 * 2**20)))
    assert sum(one.size for one in assemblers._sessions.values()) <= 256 * 2**20
    assert assemblers.add(meta) is not None


def test_metas_that_wait_are_bounded_in_bytes() -> None:
    """Large metas that name pictures which never come do not pile up."""
    assembler = Assembler()
    for number in range(40):
        about = {
            "window_id": f"w{number}", "stage": "picture", "sha256": {"picture": f"{number:064x}"},
            "caption": "x" * 250_000, "own": "y" * 250_000,
        }  # fmt: skip
        assembler.add(Message("lab", "meta", json.dumps(about).encode()))
    assert sum(len(message.payload) for _, message in assembler._metas.values()) <= 4 * 2**20
    assert assembler.unpaired == 40 - len(assembler._metas) > 0


def test_a_picture_that_does_not_pass_the_check_is_none() -> None:
    """What a check refuses costs itself, is counted by its reason, and the next picture is taken."""

    def check(payload: bytes) -> None:
        if payload.endswith(b"bad"):
            raise WireError("picture too large", "60000 x 60000 pixels")

    assembler = Assembler(check)
    assert [assembler.add(message) for message in final("lab", "bad")] == [None, None]
    assert [assembler.add(message) is not None for message in final("lab", "good")] == [False, True]
    assert assembler.refusals.as_dict() == {"picture: picture too large": 1}
