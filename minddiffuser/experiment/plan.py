"""Which picture is shown when: a pure function of the pictures, the config and its seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from minddiffuser.archive.trials import Trial, TrialType
from minddiffuser.errors import AppError

if TYPE_CHECKING:
    from minddiffuser.config.experiment import ExperimentSpec, TaskSpec

SetName = Literal["calibration", "test"]
SETS: tuple[SetName, ...] = ("calibration", "test")


def split_sets(ids: Sequence[str], groups: Sequence[str], share: float, seed: int) -> dict[SetName, tuple[str, ...]]:
    """Choose the test pictures; a group lies in one set whole.

    Parameters
    ----------
    ids : sequence of str
        Of all pictures.
    groups : sequence of str
        Of each picture.
    share : float
        Of the pictures, for the test set; the groups drawn come as near to it as one group more or less allows.
    seed : int

    Returns
    -------
    dict
        Ids of 'calibration' and 'test', each in the order given; together all of them, none in both.

    Raises
    ------
    AppError
        The share leaves one of the sets empty.
    """
    if share == 0:
        return {"calibration": tuple(ids), "test": ()}
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    rng = np.random.default_rng((seed, 0))
    wanted, chosen, count = share * len(ids), set[str](), 0
    for place in rng.permutation(len(sizes)):
        group, size = list(sizes.items())[place]
        if abs(count + size - wanted) < abs(count - wanted):
            chosen.add(group)
            count += size
    if not 0 < count < len(ids):
        raise AppError(
            f"test_share {share:g} of {len(ids)} pictures in {len(sizes)} groups leaves "
            f"{'no picture for the test' if not count else 'none for the calibration'}; change it, or add pictures"
        )
    return {
        "calibration": tuple(name for name, group in zip(ids, groups, strict=True) if group not in chosen),
        "test": tuple(name for name, group in zip(ids, groups, strict=True) if group in chosen),
    }


def plan(ids: Sequence[str], spec: ExperimentSpec, which: SetName) -> tuple[Trial, ...]:
    """Order the presentations of a set's pictures.

    Every picture is shown as often as asked, never twice in a row except as a 'repeat' of the task, and each block
    shows every picture as often as any other block does, give or take once.

    Parameters
    ----------
    ids : sequence of str
        Of the set's pictures, targets of the task not among them.
    spec : ExperimentSpec
    which : {'calibration', 'test'}

    Raises
    ------
    AppError
        One picture alone cannot be shown several times without following itself.
    """
    repeats = spec.repeats if which == "calibration" else spec.test_repeats
    if len(ids) < 2 and repeats * len(ids) > 1:
        raise AppError(f"the {which} set has {len(ids)} picture, which would follow itself; give it two or more")
    rng = np.random.default_rng((spec.seed, 1 + SETS.index(which)))
    blocks = _in_blocks(ids, repeats, _block_count(len(ids), repeats, spec.blocks), rng)
    trials: list[Trial] = []
    for number, pictures in enumerate(blocks, 1):
        for picture, trial_type in _with_task(pictures, spec.task, rng):
            blank = spec.blank_s + spec.jitter_s * rng.uniform(-1, 1)
            trials.append(Trial(len(trials) + 1, number, picture, trial_type, round(max(blank, 0.0), 4)))
    return tuple(trials)


def _block_count(n_pictures: int, repeats: int, wanted: int) -> int:
    """Return how many blocks there can be, so that each has an order without a picture that follows itself."""
    most = min(wanted, max(1, n_pictures * repeats // 2))
    # Two pictures only alternate, which goes on over a break where both are left equally often.
    return next(n for n in range(most, 0, -1) if n_pictures > 2 or repeats % n == 0)


def _in_blocks(ids: Sequence[str], repeats: int, n_blocks: int, rng: np.random.Generator) -> list[list[str]]:
    """Deal every picture's presentations evenly to blocks, and order each block and the joints between them."""
    each, left = divmod(repeats, n_blocks)
    blocks: list[list[str]] = [[name for name in ids for _ in range(each)] for _ in range(n_blocks)]
    # What is left of each picture goes to the blocks that have the fewest trials so far, in a drawn order.
    sizes = np.zeros(n_blocks)
    for place in rng.permutation(len(ids)):
        order = np.lexsort((rng.permutation(n_blocks), sizes))[:left]
        for block in order:
            blocks[block].append(ids[place])
            sizes[block] += 1
    last = ""
    ordered = []
    for pictures in blocks:
        block = _apart(pictures, last, rng)
        last = block[-1] if block else last
        ordered.append(block)
    return ordered


def _apart(pictures: Sequence[str], last: str, rng: np.random.Generator) -> list[str]:
    """Draw an order in which no picture follows itself, nor begins where `last` was shown before.

    Presentations are shuffled; one that follows itself changes places with one drawn among those where neither then
    stands beside its own kind.
    """
    out = [pictures[place] for place in rng.permutation(len(pictures))]

    def stands(place: int, picture: str) -> bool:
        before = out[place - 1] if place else last
        after = out[place + 1] if place + 1 < len(out) else ""
        return picture not in {before, after}

    for place in range(len(out)):
        if out[place] != (out[place - 1] if place else last):
            continue
        for other in rng.permutation(len(out)):
            if out[other] != out[place] and stands(other, out[place]) and stands(place, out[other]):
                out[place], out[other] = out[other], out[place]
                break
        else:
            return _dealt(pictures, last, rng)
    return out


def _dealt(pictures: Sequence[str], last: str, rng: np.random.Generator) -> list[str]:
    """Order few pictures of many presentations: each time one of those with the most left that may follow."""
    counts: dict[str, int] = {}
    for picture in pictures:
        counts[picture] = counts.get(picture, 0) + 1
    out: list[str] = []
    for _ in pictures:
        before = out[-1] if out else last
        names = [name for name, count in counts.items() if count and name != before] or [before]
        most = max(counts[name] for name in names)
        names = [name for name in names if counts[name] == most]
        out.append(names[int(rng.integers(len(names)))])
        counts[out[-1]] -= 1
    return out


def _with_task(
    pictures: Sequence[str], task: TaskSpec | None, rng: np.random.Generator
) -> Iterable[tuple[str, TrialType]]:
    """Add the trials that ask for a response: never two in a row, and none at a block's beginning."""
    if task is None or not pictures:
        return [(picture, "picture") for picture in pictures]
    most = max(1, len(pictures) // 2)
    count = min(most, max(1, round(task.share * len(pictures))))
    after = set(rng.choice(len(pictures), size=count, replace=False).tolist())
    out: list[tuple[str, TrialType]] = []
    target = ""
    for place, picture in enumerate(pictures):
        out.append((picture, "picture"))
        if place in after and task.kind == "repeat":
            out.append((picture, "repeat"))
        elif place in after:
            others = [name for name in task.targets if name != target] or list(task.targets)
            target = others[int(rng.integers(len(others)))]
            out.append((target, "target"))
    return out


def without_targets(ids: Sequence[str], task: TaskSpec | None) -> tuple[str, ...]:
    """Return the pictures that are no targets of the task.

    Raises
    ------
    AppError
        A target is no picture, or all pictures are targets.
    """
    targets = set(task.targets) if task else set()
    if missing := sorted(targets - set(ids)):
        raise AppError(f"experiment.task.targets: no picture is called {missing[0]!r}; such as {ids[0]!r} are there")
    if not (left := tuple(name for name in ids if name not in targets)):
        raise AppError("experiment.task.targets names every picture: there is none left to show")
    return left


def groups_of(contents: Mapping[str, str], groups: Mapping[str, str]) -> dict[str, str]:
    """Join groups that hold the same picture under two ids, so that no picture lies in both sets.

    Parameters
    ----------
    contents : mapping
        Id -> what tells its content from others', such as a hash.
    groups : mapping
        Id -> its group.

    Returns
    -------
    dict
        Id -> the name of its joined group.
    """
    joined = {group: group for group in groups.values()}

    def root(group: str) -> str:
        while joined[group] != group:
            group = joined[group]
        return group

    first: dict[str, str] = {}
    for name, content in contents.items():
        joined[root(groups[name])] = root(first.setdefault(content, groups[name]))
    return {name: root(group) for name, group in groups.items()}
