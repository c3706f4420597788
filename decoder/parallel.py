"""Independent fits, one after the other or by several processes, here or on a Ray cluster."""

import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from joblib import Parallel, delayed, parallel_config
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits

from decoder.errors import TrainingError
from stream.types.progress import Progress, no_progress

T = TypeVar("T")
R = TypeVar("R")


class OnCpu(Protocol):
    """Models that know where they run; pickled, they are the files that they were read from."""

    @property
    def on_cpu(self) -> bool:
        """Return whether they run on the CPU."""


@contextmanager
def workers(jobs: int, cluster: str | None = None) -> Iterator[None]:
    """Have `apply_each` use several processes, each with its share of this machine's cores for torch's threads.

    What comes out is the same to the bit.

    Parameters
    ----------
    jobs : int
        Processes; 1 is this one alone. On a cluster, processes there; 1 is as many as it has cores.
    cluster : str or None
        Address of a Ray cluster, or 'auto' for the one that runs on this machine; this version of the package is
        installed on its nodes.

    Raises
    ------
    TrainingError
        Ray is not installed, or no cluster answers at the address.
    """
    if cluster is not None:
        with _cluster(cluster), parallel_config(backend="ray", n_jobs=jobs if jobs > 1 else -1):
            yield
    elif jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        with (
            warnings.catch_warnings(),
            parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=threads, mmap_mode="c"),
        ):
            # Processes whose memory has grown are replaced, which costs time and nothing else.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            yield
    else:
        yield


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Connect to a Ray cluster."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise TrainingError("Ray is not installed: pip install 'minddiffuser[pool]'") from None
    _check_answers(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()
        raise TrainingError(f"no Ray cluster at {address!r}: {line[0] if line else type(error).__name__}") from None
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Check that something listens at HOST:PORT: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(f"no Ray cluster at {address!r}: {reason}") from None


def in_batches(progress: Progress, batch: int, n: int) -> Progress:
    """Return a progress that counts n items where batches of them are counted."""
    return lambda what, done, _: progress(what, min(n, done * batch), n)


def apply_each(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    about: str,
    progress: Progress = no_progress,
    name: Callable[[int], str] = lambda number: str(number + 1),
) -> list[R]:
    """Apply a function to each task; as `iterate_each`, all answers at once."""
    return list(iterate_each(function, tasks, about=about, progress=progress, name=name))


def iterate_each(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    about: str,
    progress: Progress = no_progress,
    name: Callable[[int], str] = lambda number: str(number + 1),
    models: OnCpu | None = None,
) -> Iterator[R]:
    """Apply a function to each task; yield the answers in the tasks' order, whoever computed them.

    Without `workers` around it, this process does all, one after the other.

    Parameters
    ----------
    function : callable
        Other processes import it: a function of a module, or a `functools.partial` of one.
    tasks : sequence
    about : str
        What a task is, for the progress: 'held-out folds'.
    progress : callable
    name : callable
        What a task is called in an error, by its number from 0.
    models : OnCpu, optional
        What the function runs. On a GPU, and where the workers are those of a cluster that lacks their files, this
        process does all.

    Raises
    ------
    Exception
        Of a task that failed; its message, or a note, names the task.
    """
    backend, _ = get_active_backend()
    named = (delayed(_named)(function, f"{about}, {name(number)}", task) for number, task in enumerate(tasks))
    progress(about, 0, len(tasks))
    on_cluster = "ray" in type(backend).__name__.lower()
    here = models is not None and (on_cluster or not models.on_cpu)
    options: dict[str, Any] = {"backend": "sequential", "n_jobs": 1} if here else {}
    # Ray's backend has its answers only when all are there.
    answers = Parallel(return_as="list" if on_cluster and not here else "generator", **options)(named)
    for done, answer in enumerate(answers, 1):
        yield answer
        progress(about, done, len(tasks))


def _named(function: Callable[[T], R], name: str, task: T) -> R:
    """Apply the function; an error names the task.

    Linear algebra takes one thread, in whatever process: with several its sums are added up in another order.
    """
    try:
        with threadpool_limits(1, user_api="blas"):
            return function(task)
    except TrainingError as error:
        raise TrainingError(f"{name}: {error}") from error
    except Exception as error:
        error.add_note(f"in {name}")
        raise
