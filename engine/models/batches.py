"""In what sizes windows share a batch: few and known beforehand, because runtimes compile each size anew."""

LARGEST = 8
"""Windows reconstructed at once at most; more are done in turn."""
PROFILE = (1, 1, 2 * LARGEST)
"""Smallest, best tuned and largest batch of a built engine: guidance takes two a window."""


def sizes(count: int, largest: int = LARGEST) -> list[int]:
    """Cut `count` windows into batches whose sizes are powers of two, the largest first: 7 gives 4, 2, 1."""
    found = []
    while count > 0:
        found.append(1 << (min(count, largest).bit_length() - 1))
        count -= found[-1]
    return found
