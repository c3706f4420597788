"""Exported networks in a runtime that reads ONNX, compared with eager torch before they are kept."""

from collections.abc import Callable
from pathlib import Path

import torch

from engine.backends.base import NetworkBackend, Runner
from engine.backends.cache import EngineCache, Key
from engine.backends.export import FILE, OPSETS, exportable, exported, onnx_key
from engine.backends.proof import REPORT_IT, compare
from engine.backends.reference import Reference, reference_of
from engine.errors import BackendError
from engine.models.loading import Models
from engine.models.parts import Part, parts_of
from stream.types.progress import Progress

OpenFile = Callable[[Path, Part, Key], Runner]
"""ONNX file of a part, and the key under which it is kept -> what runs it; raises a BackendError."""


def open_exported(
    name: str, models: Models, cache: EngineCache, open_file: OpenFile, report: Progress | None = None
) -> NetworkBackend:
    """Return a backend of the exported networks, each at the first opset that exporter and runtime both master.

    Raises
    ------
    BackendError
        If a network cannot be exported, or the runtime makes something else of it.
    CacheError
        If there is no room for an export.
    """
    source = exportable(models)
    runners = {part: _open_part(name, models, source, part, cache, open_file, report) for part in parts_of(models)}
    return NetworkBackend(name, models, runners)


def _open_part(
    name: str,
    models: Models,
    source: Models,
    part: Part,
    cache: EngineCache,
    open_file: OpenFile,
    report: Progress | None,
) -> Runner:
    keys = {opset: onnx_key(source, part, opset) for opset in OPSETS}
    faults = []
    for key in keys.values():
        if entry := cache.find(key):
            try:
                return open_file(entry / FILE, part, key)
            except BackendError as error:  # of an older runtime that reads another opset
                faults.append(str(error))
    reference = reference_of(source, cache)  # now: an export puts its own attention into the network
    for opset, key in keys.items():

        def verify(file: Path, key: Key = key) -> None:
            check(open_file(file, part, key), part, reference, models.dtype)

        try:
            return open_file(exported(source, part, cache, opset, verify, report), part, key)
        except BackendError as error:
            faults.append(str(error))
    msg = f"backend {name}: {'; '.join(dict.fromkeys(faults))}"
    raise BackendError(msg)


def check(runner: Runner, part: Part, reference: Reference, dtype: torch.dtype) -> None:
    """Compare a runner's output with eager torch's, within the rounding of a type.

    Raises
    ------
    BackendError
        If they differ by more.
    """
    inputs, expected = reference.rows(part, 0, 1)
    output = runner.run(inputs, tuple(expected.shape)).float()
    _, fault = compare(output, expected, f"the exported {part}", dtype)
    if fault:
        raise BackendError(f"{fault}: {REPORT_IT}")
