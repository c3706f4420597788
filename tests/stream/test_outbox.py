"""The account of what waits for the broker, and what broken connections tell of the size that it takes."""

from hypothesis import given
from hypothesis import strategies as st

from stream.mqtt.outbox import Outbox, Parcel
from stream.mqtt.publisher import COUNTED
from stream.mqtt.size_limit import AGAIN_S, SizeLimit

STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(COUNTED)),
    st.tuples(st.sampled_from(["take", "give_back", "hold", "resume", "close"]), st.just("")),
    st.tuples(st.just("settle"), st.sampled_from(["published", "dropped", "denied"])),
)


def parcel(kind: str, number: int = 0) -> Parcel:
    """Make a parcel of a kind, put at a time."""
    return Parcel(kind, (("meta", b"{}", False),), put=float(number))


@given(st.lists(STEPS, max_size=80), st.integers(1, 5))
def test_every_parcel_is_counted_once(steps: list[tuple[str, str]], limit: int) -> None:
    """Whatever happens in whatever order, what was put has been published, dropped or denied in the end, exactly."""
    outbox = Outbox(COUNTED, limit)
    put = dict.fromkeys(COUNTED, 0)
    under_way = False
    for number, (step, what) in enumerate(steps):
        if step == "put":
            outbox.put(parcel(what, number))
            put[what] += 1
        elif step == "take":
            under_way = under_way or outbox.take() is not None
        elif step == "settle":
            outbox.settle(what)  # type: ignore[arg-type]
            under_way = False
        else:
            getattr(outbox, step)()
            under_way = under_way and step in {"hold", "resume"}
    outbox.close()
    for kind, counts in outbox.counts.items():
        assert put[kind] == counts.put == counts.published + counts.dropped + counts.denied
    assert outbox.idle


def test_the_newest_picture_goes_first_when_the_broker_is_back() -> None:
    """Of what came while it was away the newest of each kind waits; the picture leads, and no older preview follows."""
    outbox = Outbox(COUNTED, 9)
    outbox.hold()
    for number, kind in enumerate(("picture", "metrics", "original", "preview", "picture", "original")):
        outbox.put(parcel(kind, number))
    outbox.resume()
    order = []
    while (one := outbox.take()) is not None:
        order.append((one.kind, one.put))
        outbox.settle("published")
    assert order == [("picture", 4.0), ("metrics", 1.0), ("original", 5.0)]
    assert outbox.counts["preview"].dropped == 1


def test_a_size_is_refused_after_it_broke_two_connections() -> None:
    """Twice, each time let in again at once; smaller ones go, and the size is tried again after a while."""
    sizes = SizeLimit()
    for now in (0.0, 1.0):
        assert not sizes.refuses(60_000, now)
        sizes.sent(60_000, now)
        sizes.broke(now)
        sizes.back(None, now)
    assert sizes.refuses(60_000, 2.0)
    assert not sizes.refuses(59_999, 2.0)
    assert not sizes.refuses(60_000, 1.0 + AGAIN_S)
    sizes.sent(60_000, 70.0)
    sizes.taken()
    assert not sizes.refuses(10**9, 71.0)


def test_a_broker_that_crashes_is_not_taken_for_one_that_refuses() -> None:
    """Breaks after which the broker is away, under a message of a size once taken, or far apart, say nothing."""
    sizes = SizeLimit()
    for now in range(10):
        sizes.sent(60_000, now)
        sizes.broke(now)
        sizes.away()
        sizes.back(None, now)
    for now in range(0, 10_000, 1000):
        sizes.sent(60_000, now)
        sizes.broke(now)
        sizes.back(None, now)
    assert not sizes.refuses(60_000, 10_000.0)
    sizes.sent(60_000, 10_001.0)
    sizes.taken()
    for now in (10_002.0, 10_003.0):
        sizes.sent(50_000, now)
        sizes.broke(now)
        sizes.back(None, now)
    assert not sizes.refuses(60_000, 10_004.0)


def test_what_the_broker_states_holds_at_once() -> None:
    """The largest packet of a CONNACK is believed, and forgotten with the connection."""
    sizes = SizeLimit()
    sizes.back(1000, 0.0)
    assert (sizes.refuses(1000, 0.0), sizes.refuses(1001, 0.0)) == (False, True)
    sizes.back(None, 1.0)
    assert not sizes.refuses(1001, 1.0)
