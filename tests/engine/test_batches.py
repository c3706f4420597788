from hypothesis import given
from hypothesis import strategies as st

from engine.models.batches import LARGEST, PROFILE, sizes


@given(st.integers(0, 500), st.integers(1, 40))
def test_windows_are_cut_into_few_sizes(count: int, largest: int) -> None:
    """No window is lost, and only powers of two up to the largest are used, so that few programs are compiled."""
    found = sizes(count, largest)
    assert sum(found) == count
    assert set(found) <= {1 << n for n in range(largest.bit_length())}
    assert found == sorted(found, reverse=True)
    assert found == [] or len(found) <= count // (1 << (largest.bit_length() - 1)) + largest.bit_length()


def test_built_engines_take_the_largest_batch_with_guidance() -> None:
    """Guidance doubles a batch, and the profile of built engines has room for it."""
    assert PROFILE[2] >= 2 * LARGEST
    assert sizes(7) == [4, 2, 1]
    assert sizes(20) == [8, 8, 4]
