"""Buffers, shapes and profiles of the TensorRT backend, against a stand-in for TensorRT that checks what it is told."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.backends import tensorrt as backend
from engine.backends.cache import EngineCache
from engine.backends.export import INPUTS, OUTPUT
from engine.errors import BackendError
from engine.models.batches import PROFILE
from engine.models.loading import Models

CPU = torch.device("cpu")
SHAPES = {"x": (16, 2, 4, 4), "timesteps": (16,), "c": (16, 3, 5), "mask": (16, 3), OUTPUT: (16, 2, 4, 4)}
TYPES = {"x": "half", "timesteps": "int64", "c": "half", "mask": "bool", OUTPUT: "half"}


class Context:
    """Records addresses and shapes, runs only when all is set, and is what it is from its first run on.

    A CUDA graph captured on a context holds what the context was: to change it later is an error in TensorRT.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.runs = 0

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Take an address, before the first run."""
        assert not self.runs, f"a context that has run was given another address of {name}"
        self.addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Take a shape within the profile, before the first run."""
        assert not self.runs, f"a context that has run was given another shape of {name}"
        self.shapes[name] = shape
        return 1 <= shape[0] <= SHAPES[name][0] and shape[1:] == SHAPES[name][1:]

    def execute_async_v3(self, stream: int) -> bool:
        """Run."""
        self.runs += 1
        complete = set(self.addresses) == set(SHAPES) and set(self.shapes) == set(SHAPES) - {OUTPUT}
        return stream == 0 and complete


class Engine:
    """An engine with one profile."""

    def __init__(self, names: tuple[str, ...] = tuple(SHAPES)) -> None:
        self.contexts: list[Context] = []
        self._names = names
        self.num_io_tensors = len(names)

    def get_tensor_name(self, index: int) -> str:
        """Name."""
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> str:
        """Type."""
        return TYPES[name]

    def get_tensor_profile_shape(self, name: str, _: int) -> list[tuple[int, ...]]:
        """Smallest, best and largest shape."""
        return [(1, *SHAPES[name][1:]), (1, *SHAPES[name][1:]), SHAPES[name]]

    def create_execution_context(self) -> Context:
        """Context."""
        self.contexts.append(Context())
        return self.contexts[-1]


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the tensorrt module, and record what is built."""
    log: list[Any] = []
    profile = SimpleNamespace(set_shape=lambda *shapes: log.append(("profile", *shapes)))
    config = SimpleNamespace(
        set_flag=lambda flag: log.append(("flag", flag)),
        add_optimization_profile=lambda added: log.append(("added", added is profile)),
    )
    builder = SimpleNamespace(
        create_network=lambda flags: (
            log.append(("network", flags)),
            SimpleNamespace(get_input=lambda i: SimpleNamespace(name=INPUTS["unet"][i])),
        )[1],
        create_builder_config=lambda: config,
        create_optimization_profile=lambda: profile,
        build_serialized_network=lambda *_: b"plan",
    )
    parser = SimpleNamespace(
        parse_from_file=lambda file: not file.endswith("bad.onnx"),
        num_errors=1,
        get_error=lambda _: SimpleNamespace(desc=lambda: "unknown operator"),
    )
    fake = SimpleNamespace(
        log=log,
        Dims=tuple,
        DataType=SimpleNamespace(FLOAT="float", HALF="half", BF16="bf16", INT64="int64", BOOL="bool"),
        Logger=type("Logger", (), {"WARNING": 1, "__init__": lambda *_: None}),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        IProgressMonitor=type("IProgressMonitor", (), {}),
        BuilderFlag=SimpleNamespace(REFIT="refit"),
        Builder=lambda _: builder,
        OnnxParser=lambda *_: parser,
        Refitter=lambda *_: SimpleNamespace(refit_cuda_engine=lambda: True),
        OnnxParserRefitter=lambda *_: SimpleNamespace(refit_from_file=lambda file: not file.endswith("bad.onnx")),
    )
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    """Give inputs of a batch, in types that the engine does not have."""
    return tuple(torch.ones(batch, *SHAPES[name][1:]) for name in INPUTS["unet"])


def test_each_batch_size_has_a_context_that_is_never_changed() -> None:
    """Buffers are the same for all; shapes are set once; inputs get the engine's types."""
    engine = Engine()
    runner = backend.TensorRtRunner(engine, INPUTS["unet"], CPU)  # type: ignore[arg-type]
    for batch in (1, 8, 16, 1, 8, 1):
        out = runner.run(inputs(batch), (batch, 2, 4, 4))
        assert out.shape == (batch, 2, 4, 4)
        assert out.data_ptr() not in {address for each in engine.contexts for address in each.addresses.values()}
    assert [each.runs for each in engine.contexts] == [3, 2, 1]
    for batch, each in zip((1, 8, 16), engine.contexts, strict=True):
        assert each.shapes == {name: (batch, *SHAPES[name][1:]) for name in INPUTS["unet"]}
        assert each.addresses == engine.contexts[0].addresses
    assert runner._buffers["c"].dtype == torch.float16
    assert runner._buffers["c"][:1].eq(1).all()


def test_what_the_engine_cannot_take_is_refused() -> None:
    """A batch beyond the profile, inputs of another batch or shape, and an engine with other inputs are named."""
    engine = Engine()
    runner = backend.TensorRtRunner(engine, INPUTS["unet"], CPU)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"batch of 17.*16 at most"):
        runner.run(inputs(17), (17, 2, 4, 4))
    with pytest.raises(BackendError, match=r"does not take x of shape \(1, 2, 4, 4\)"):
        runner.run(inputs(1), (2, 2, 4, 4))
    x, timesteps, _, mask = inputs(2)
    with pytest.raises(BackendError, match=r"does not take c of shape \(2, 4, 5\)"):
        runner.run((x, timesteps, torch.ones(2, 4, 5), mask), (2, 2, 4, 4))
    assert not engine.contexts
    with pytest.raises(BackendError, match="the engine has"):
        backend.TensorRtRunner(Engine(("x", OUTPUT)), INPUTS["unet"], CPU)  # type: ignore[arg-type]


def test_a_plan_is_strongly_typed_refittable_and_has_one_profile(runtime: SimpleNamespace) -> None:
    """Each input gets the smallest, best and largest batch; without the old flag (TensorRT 11) none is set."""
    assert backend.build_plan(Path("unet.onnx"), inputs(1)) == b"plan"
    profiles = {entry[1]: entry[2:] for entry in runtime.log if entry[0] == "profile"}
    assert profiles == {name: tuple((batch, *SHAPES[name][1:]) for batch in PROFILE) for name in INPUTS["unet"]}
    assert ("network", 2) in runtime.log
    assert ("flag", "refit") in runtime.log
    assert ("added", True) in runtime.log
    runtime.NetworkDefinitionCreationFlag = SimpleNamespace()
    backend.build_plan(Path("unet.onnx"), inputs(1))
    assert ("network", 0) in runtime.log


def test_what_cannot_be_read_or_refitted_is_named() -> None:
    """TensorRT's own first error is passed on."""
    with pytest.raises(BackendError, match="unknown operator"):
        backend.build_plan(Path("bad.onnx"), inputs(1))
    with pytest.raises(BackendError, match="does not take the weights"):
        backend.refit(Engine(), Path("bad.onnx"))  # type: ignore[arg-type]
    backend.refit(Engine(), Path("good.onnx"))  # type: ignore[arg-type]


def test_the_phases_of_a_build_are_reported(runtime: SimpleNamespace) -> None:
    """TensorRT's outermost phases are passed on step by step, those within them are not, and nothing is cancelled."""
    told: list[tuple[str, int, int]] = []

    def build(_: object, config: Any) -> bytes:
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 4)
        monitor.phase_start("Timing", "Building", 9)
        assert monitor.step_complete("Timing", 3)
        monitor.phase_finish("Timing")
        assert monitor.step_complete("Building", 0)
        monitor.phase_finish("Building")
        return b"plan"

    runtime.Builder(None).build_serialized_network = build
    backend.build_plan(Path("unet.onnx"), inputs(1), lambda *said: told.append(said))
    assert told == [("TensorRT: Building", done, 4) for done in (0, 1, 4)]


def opened(tiny: Models, cache: EngineCache) -> tuple[backend.TensorRtRunner, list[str]]:
    """Open a runner as a session does; give it and what was checked before it was kept."""
    checked: list[str] = []
    runner = backend.open_runner(tiny, "unet", cache, lambda _: checked.append("checked"))
    return runner, checked


def test_an_engine_is_built_once_refitted_for_other_weights_and_else_built_anew(
    tiny: Models, runtime: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh engine is checked before it is kept; its key leaves the weights out; a failed refit is no dead end."""
    network = tmp_path / "model.onnx"
    network.write_bytes(b"network")
    built: list[bytes] = []
    weights = ["first"]
    monkeypatch.setattr(backend, "exported", lambda *_, **__: network)
    monkeypatch.setattr(backend, "weights_hash", lambda *_: weights[0])
    monkeypatch.setattr(backend, "example", lambda *_: inputs(1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    runtime.__version__ = "10.14.1"
    runtime.Builder(None).build_serialized_network = lambda *_: built.append(b"plan") or b"plan"
    runtime.Runtime = lambda _: SimpleNamespace(deserialize_cuda_engine=lambda plan: Engine() if plan else None)
    cache = EngineCache(tmp_path / "engines")
    assert opened(tiny, cache)[1] == ["checked"]
    assert opened(tiny, cache)[1] == []
    weights[0] = "second"
    assert opened(tiny, cache)[1] == []
    assert len(built) == 1
    runtime.Refitter = lambda *_: SimpleNamespace(refit_cuda_engine=lambda: False)
    assert opened(tiny, cache)[1] == ["checked"]
    assert opened(tiny, cache)[1] == []
    assert len(built) == 2
    (entry, *_) = cache.given
    key = cache.key_of(entry)
    assert {"device", "capability", "tensorrt", "opset", "batches", "dtype", "shapes", "architecture"} <= set(key)
    assert {"torch", "onnx"} <= set(key)


@pytest.mark.parametrize(("version", "opset"), [("10.8.0.43", 20), ("10.9.0.34", 21), ("10.14.1", 23), ("11.0", 23)])
def test_the_opset_follows_the_version(version: str, opset: int) -> None:
    """Group normalisation and attention are single operators where TensorRT reads them so."""
    assert backend.opset(version) == opset
