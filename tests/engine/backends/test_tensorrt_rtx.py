"""The plug-in provider for RTX cards: what is asked of ONNX Runtime, and what is said where it cannot run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.backends import tensorrt_rtx as rtx
from engine.backends.export import INPUTS, example
from engine.errors import BackendError
from engine.models.loading import Models
from engine.registry import BACKENDS

CUDA = torch.device("cuda")


def test_what_it_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Driver, package, ONNX Runtime's version and the card are each one line with the way out."""

    def reason(device: torch.device = CUDA) -> str:
        return BACKENDS["onnx-tensorrt-rtx"].unavailable_because(device) or ""

    monkeypatch.setattr(rtx, "find_library", lambda _: None)
    assert "libcuda is not on this machine" in reason(torch.device("cpu"))
    monkeypatch.setattr(rtx, "find_library", lambda _: "libcuda.so.1")
    assert "libcuda" not in reason(torch.device("cpu"))
    monkeypatch.setattr(rtx, "find_spec", lambda _: None)
    assert "minddiffuser[tensorrt-rtx]" in reason()
    monkeypatch.setattr(rtx, "find_spec", lambda _: object())
    monkeypatch.setattr(rtx, "onnx_runtime", lambda: SimpleNamespace(__version__="1.23.2"))
    assert "1.23.2 takes no plug-ins" in reason()
    monkeypatch.setattr(rtx, "onnx_runtime", lambda: SimpleNamespace(__version__="1.32.0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert "this one has 9.0" in reason()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    assert reason() == ""


def test_cards_are_those_of_the_provider_s_list() -> None:
    """Ampere and Ada cards for people, and everything from Blackwell on; not A100 and H100."""
    capabilities = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (12, 1), (13, 0)]
    assert [rtx.supported(one) for one in capabilities] == [0, 0, 1, 1, 0, 0, 1, 1, 1]


def test_a_plug_in_that_cannot_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the library that is missing is passed on."""

    def missing(_: str) -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(rtx, "import_module", missing)
    with pytest.raises(BackendError, match=r"plug-in cannot be started \(libcuda\.so\.1") as caught:
        rtx.register()
    assert "\n" not in str(caught.value)


def test_the_provider_gets_profile_graph_and_cache(tiny: Models, tmp_path: Path) -> None:
    """One profile holds all batches, kernels are kept in a folder, and graphs are on."""
    inputs = dict(zip(INPUTS["unet"], example(tiny, "unet", 3), strict=True))
    options = rtx.settings(tmp_path, inputs)
    assert options["nv_profile_max_shapes"] == "x:16x4x8x8,timesteps:16,c:16x8x32,mask:16x8"
    assert options["nv_runtime_cache_path"] == str(tmp_path)
    assert options["enable_cuda_graph"] == "1"
    assert all(isinstance(value, str) for value in options.values())


class Session:
    """Records by batch what is bound, and doubles the input through the addresses it was first given."""

    def __init__(self, *_: object, **__: object) -> None:
        self.bindings: list[SimpleNamespace] = []
        self.graphs: list[str] = []

    def get_providers(self) -> list[str]:
        """Name the provider."""
        return ["rtx"]

    def get_inputs(self) -> list[SimpleNamespace]:
        """Name the input."""
        return [SimpleNamespace(name="latents")]

    def get_outputs(self) -> list[SimpleNamespace]:
        """Name the output."""
        return [SimpleNamespace(name="out", type="tensor(float)")]

    def io_binding(self) -> SimpleNamespace:
        """Return a binding that keeps what it is given."""
        bound: dict[str, tuple[Any, ...]] = {}
        binding = SimpleNamespace(
            bound=bound,
            bind_input=lambda name, *place: bound.__setitem__(name, place),
            bind_output=lambda name, *place: bound.__setitem__(name, place),
        )
        self.bindings.append(binding)
        return binding

    def run_with_iobinding(self, binding: SimpleNamespace, options: SimpleNamespace) -> None:
        """Copy from one address to the other, as a graph that was captured there does."""
        import ctypes

        source, target = binding.bound["latents"], binding.bound["out"]
        ctypes.memmove(target[4], source[4], 4 * torch.Size(source[3]).numel())
        self.graphs.append(options.entries["cuda_graph_annotation_id"])


def test_each_batch_size_has_addresses_and_a_graph_that_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Batches in turn give their own numbers; nothing is bound twice, and what is given out is memory of its own."""

    class Options:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}
            self.devices: list[Any] = []

        def add_run_config_entry(self, name: str, value: str) -> None:
            self.entries[name] = value

        def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
            self.devices.append((devices, options))

    card = SimpleNamespace(ep_name="rtx")
    runtime = SimpleNamespace(
        get_ep_devices=lambda: [SimpleNamespace(ep_name="CPUExecutionProvider"), card],
        SessionOptions=Options,
        RunOptions=Options,
        InferenceSession=Session,
        __version__="1.32.0",
    )
    for module in ("tensorrt_rtx", "onnx"):
        monkeypatch.setattr(f"engine.backends.{module}.onnx_runtime", lambda: runtime)
    monkeypatch.setattr(rtx, "register", lambda: "rtx")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))
    runner = rtx.RtxRunner(tmp_path / "model.onnx", torch.device("cpu"), {})
    kept = []
    for number, batch in enumerate((1, 2, 1, 8, 3, 2, 8)):
        x = torch.full((batch, 4), float(number))
        kept.append((runner.run((x,), (batch, 4)), number))
    assert all(bool((out == number).all()) for out, number in kept)
    session = runner._session
    assert (runner.compiled, len(session.bindings)) == (4, 4)
    assert session.graphs == ["1", "2", "1", "8", "3", "2", "8"]
    with pytest.raises(BackendError, match=r"an input of shape \(2, 5\)"):
        runner.run((torch.zeros(2, 5),), (2, 4))
    with pytest.raises(BackendError, match="the provider sees 1 cards"):
        rtx.RtxRunner(tmp_path / "model.onnx", torch.device("cuda:1"), {})
