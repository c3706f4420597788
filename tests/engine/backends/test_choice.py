import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.backends.base import Backend
from engine.backends.cache import EngineCache
from engine.backends.choice import exports_first, make_backend
from engine.backends.export import FILE, INPUTS, OPSETS, example, exportable, exported, onnx_key, write_onnx
from engine.backends.exported import check
from engine.backends.onnx import OnnxRunner, tensorrt_settings
from engine.backends.reference import reference_of
from engine.backends.torch import TorchBackend, compiled_key
from engine.errors import BackendError
from engine.models.loading import Models, load_models
from engine.registry import BACKENDS
from engine.spec import ModelSpec

CPU = torch.device("cpu")
PRESENT = [
    name
    for name, entry in BACKENDS.items()
    if name not in {"torch", "torch-compile"} and entry.unavailable_because(CPU) is None
]


def outputs(backend: Backend, models: Models, batch: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give what a backend makes of the same random inputs, with captions of `tokens` tokens."""
    x, timesteps, c, mask = example(models, "unet", batch, torch.Generator().manual_seed(batch))
    mask[:, tokens:] = False
    return backend.unet(x, timesteps, c, mask), backend.decode(x)


@pytest.mark.parametrize("name", PRESENT)
def test_backends_agree_with_eager(name: str, desk: Models, cache: EngineCache) -> None:
    """UNet and decoder differ by 1e-4 at most, at any batch size, also where captions are filled up."""
    backend = make_backend(name, desk, cache).backend
    eager = TorchBackend(desk)
    assert backend.name == name
    for batch, tokens in ((1, desk.tokens), (3, 5)):
        found, expected = (outputs(one, desk, batch, tokens) for one in (backend, eager))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_weights_are_read_before_anything_is_compiled(tiny: Models) -> None:
    """The first call is compiled, and torch's compiler cannot follow how weights are read: by then they are there."""
    models = load_models(tiny.spec, "cpu")
    TorchBackend(models, "torch-compile")
    assert {"unet", "vae"} <= set(vars(models))


@pytest.mark.big
@pytest.mark.timeout(1200)
def test_a_compiled_engine_agrees_with_eager(desk: Models, cache: EngineCache) -> None:
    """Compiled, the desk models' UNet and decoder differ by 1e-4 at most from eager torch, at two batch sizes."""
    if reason := BACKENDS["torch-compile"].unavailable_because(CPU):
        pytest.skip(reason)
    backend, eager = make_backend("torch-compile", desk, cache).backend, TorchBackend(desk)
    for batch, tokens in ((1, desk.tokens), (3, 5)):
        found, expected = (outputs(one, desk, batch, tokens) for one in (backend, eager))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_what_is_compiled_is_for_this_cpu_and_its_threads(
    tiny: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another CPU, number of threads or network is compiled anew; without a folder to keep it nothing is."""
    key = compiled_key(tiny, "unet")
    assert {"weights", "architecture", "shapes", "torch", "instructions", "threads"} <= set(key)
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor : 0\nflags : sse avx\n")
    monkeypatch.setattr("engine.backends.torch._CPU", cpu)
    another = compiled_key(tiny, "unet")
    cpu.write_text("processor : 0\nflags : sse avx avx2\n")
    monkeypatch.setattr(torch, "get_num_threads", lambda: int(key["threads"]) + 1)
    assert {name for name in key if key[name] != another[name]} == {"instructions"}
    assert {name for name in key if another[name] != compiled_key(tiny, "unet")[name]} == {"instructions", "threads"}
    cpu.unlink()
    assert compiled_key(tiny, "unet")["instructions"] == torch.backends.cpu.get_cpu_capability()
    if BACKENDS["torch-compile"].unavailable_because(CPU) is None:
        with pytest.raises(BackendError, match="torch-compile: it needs a cache folder for compiled networks"):
            make_backend("torch-compile", tiny)


def test_what_torch_cannot_compile_without_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is not there and Python headers that are not are told apart, each with the way out."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in (BACKENDS["torch-compile"].unavailable_because(CPU) or "")
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr("engine.backends.torch.sysconfig.get_path", lambda _: "/nowhere")
    assert "python3-dev" in (BACKENDS["torch-compile"].unavailable_because(CPU) or "")


def test_the_cpu_has_backends_to_compare() -> None:
    """ONNX Runtime and OpenVINO come with the development install, so the comparison above is not empty."""
    assert {"onnx", "openvino"} <= set(PRESENT)


def test_outputs_are_the_caller_s_own(desk: Models, cache: EngineCache) -> None:
    """A later call does not write into what an earlier one gave out."""
    for name in ("torch", "onnx", "openvino"):
        backend = make_backend(name, desk, cache).backend
        first = outputs(backend, desk, 1, 16)
        kept = [tensor.clone() for tensor in first]
        x, timesteps, c, mask = example(desk, "unet", 1, torch.Generator().manual_seed(9))
        backend.unet(x, timesteps, c, mask)
        backend.decode(x)
        assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_auto_takes_the_fastest_and_says_why_not_the_others(desk: Models, cache: EngineCache, tmp_path: Path) -> None:
    """On a CPU that is OpenVINO, which needs exports; every other backend is named with its reason."""
    assert exports_first(desk, EngineCache(tmp_path))
    choice = make_backend("auto", desk, cache)
    assert choice.backend.name == "openvino"
    assert set(choice.left) == set(BACKENDS) - {"openvino"}
    assert all(choice.left.values())
    assert "NVIDIA" in choice.left["tensorrt"]
    assert not exports_first(desk, cache)


def test_the_table_of_backends_in_the_docs_is_the_registry_s() -> None:
    """Each backend has its row: where it runs and what it needs."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "gpu.md").read_text("utf-8")
    for entry in BACKENDS.values():
        assert f"| `{entry.name}` | {entry.runs_on} | {entry.needs} |" in text


def test_auto_falls_back_to_torch_without_a_cache(desk: Models) -> None:
    """With nowhere to keep an export, torch runs, and the reason is given."""
    choice = make_backend("auto", desk)
    assert choice.backend.name == "torch"
    assert "cache" in choice.left["openvino"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tensorrt", "needs an NVIDIA GPU"),
        ("onnx-tensorrt", "needs an NVIDIA GPU"),
        ("torch-graphs", "need an NVIDIA GPU"),
    ],
)
def test_a_backend_asked_for_by_name_is_not_replaced(name: str, words: str, desk: Models, cache: EngineCache) -> None:
    """Where it cannot run, one line says what is missing and what to use."""
    with pytest.raises(BackendError, match=words) as caught:
        make_backend(name, desk, cache)
    assert str(caught.value).startswith(f"backend {name}: ")
    assert "\n" not in str(caught.value)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says how to install it."""
    monkeypatch.setattr("engine.backends.openvino.find_spec", lambda _: None)
    monkeypatch.setattr("engine.backends.onnx.find_spec", lambda _: None)
    monkeypatch.setattr("engine.backends.tensorrt.find_spec", lambda _: None)
    assert "minddiffuser[openvino]" in (BACKENDS["openvino"].unavailable_because(CPU) or "")
    assert "minddiffuser[onnx]" in (BACKENDS["onnx"].unavailable_because(CPU) or "")
    assert "minddiffuser[onnx-gpu]" in (BACKENDS["onnx"].unavailable_because(torch.device("cuda")) or "")
    assert "minddiffuser[tensorrt]" in (BACKENDS["tensorrt"].unavailable_because(torch.device("cuda")) or "")


def test_a_wrong_export_is_refused_and_not_kept(desk: Models, cache: EngineCache) -> None:
    """A network whose output is not torch's is an error before it comes into the cache."""
    other = EngineCache(cache.folder / "other")

    def twice_wrong(_: object) -> None:
        class Wrong:
            def run(self, inputs: tuple[torch.Tensor, ...], shape: tuple[int, ...]) -> torch.Tensor:
                return torch.zeros(shape, dtype=inputs[0].dtype)

        check(Wrong(), "decoder", reference_of(desk, cache), desk.dtype)

    with pytest.raises(BackendError, match=re.escape("differs from torch by")):
        exported(desk, "decoder", other, 23, twice_wrong)
    assert not list(other.folder.glob(f"onnx-*/{FILE}"))


def test_nothing_is_compiled_anew_after_warm_up(desk: Models, cache: EngineCache) -> None:
    """OpenVINO compiles a batch size once, and keeps the last few."""
    backend = make_backend("openvino", desk, cache).backend
    runner = backend._runners["decoder"]  # type: ignore[attr-defined]
    compiled: list[object] = []
    compile_ = runner._compile
    runner._compile = lambda shapes: (compiled.append(shapes), compile_(shapes))[1]
    for _ in range(3):
        for batch in (1, 2):
            backend.decode(torch.zeros(batch, *desk.latent_shape))
    assert len(compiled) == 2


def test_onnx_runtime_reports_to_nobody(tiny: Models, cache: EngineCache, tmp_path: Path) -> None:
    """Its telemetry leaves a device id and a store of events in the user's cache folder; with us there are none."""
    file = exported(exportable(tiny), "decoder", cache, OPSETS[0])
    script = (
        "import sys, torch; from pathlib import Path; from engine.backends.onnx import OnnxRunner; "
        "OnnxRunner(Path(sys.argv[1]), 'onnx', torch.device('cpu')).run((torch.zeros(1, 4, 8, 8),), (1, 3, 32, 32))"
    )
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and name != "CI"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", script, str(file)], check=True, env=environment, timeout=120)
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name.lower()] == []


def test_a_file_that_is_not_a_network_is_named(tmp_path: Path) -> None:
    """One line says which runtime could not read which file, and nothing else runs in its place."""
    (tmp_path / FILE).write_bytes(b"not a network")
    with pytest.raises(BackendError, match=r"cannot load model\.onnx") as caught:
        OnnxRunner(tmp_path / FILE, "onnx", CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_inputs_are_bound_and_not_copied(dtype: torch.dtype, tmp_path: Path) -> None:
    """Every type that models are exported in is bound by address; what is given out is memory of its own."""

    class Turned(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return latents.reshape(-1, 4, 4).transpose(1, 2).contiguous()

    x = torch.arange(32, dtype=dtype).reshape(2, 4, 4)
    torch.onnx.export(Turned().eval(), (x,), dynamo=True, opset_version=20, verbose=False).save(tmp_path / FILE)  # type: ignore[union-attr]
    runner = OnnxRunner(tmp_path / FILE, "onnx", CPU)
    first, second = (runner.run((given,), (2, 4, 4)) for given in (x, x.transpose(1, 2)))
    assert torch.equal(first, x.transpose(1, 2))
    assert torch.equal(second, x)
    assert first.data_ptr() != second.data_ptr()


def test_the_tensorrt_provider_gets_a_profile_and_a_folder_of_its_own(tiny: Models, tmp_path: Path) -> None:
    """One profile holds all batches, so that nothing is built while a session runs; half precision is switched on."""
    inputs = dict(
        zip(INPUTS["unet"], (t.half() if t.is_floating_point() else t for t in example(tiny, "unet", 3)), strict=True)
    )
    settings = tensorrt_settings(tmp_path, inputs)
    assert settings["trt_profile_min_shapes"] == "x:1x4x8x8,timesteps:1,c:1x8x32,mask:1x8"
    assert settings["trt_profile_max_shapes"] == "x:16x4x8x8,timesteps:16,c:16x8x32,mask:16x8"
    assert settings["trt_engine_cache_path"] == str(tmp_path)
    assert (settings["trt_fp16_enable"], settings["trt_bf16_enable"]) == (True, False)


def test_attention_as_one_operator_agrees_with_eager(tiny: Models, tmp_path: Path) -> None:
    """The newest opset, which TensorRT reads, gives the same network, also where captions are filled up."""
    inputs = example(tiny, "unet", 2, torch.Generator().manual_seed(0))
    inputs[3][:, 3:] = False
    expected = TorchBackend(tiny).unet(*inputs)
    write_onnx(exportable(tiny), "unet", tmp_path, 23, lambda _: None)
    found = OnnxRunner(tmp_path / FILE, "onnx", CPU).run(inputs, tuple(expected.shape))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_key_of_an_export_is_complete(tiny: Models, stable_diffusion: Path) -> None:
    """Weights, architecture, shapes, type, opset, device and library versions each make another entry."""
    key = onnx_key(tiny, "unet", 20)
    versions = {"torch", "diffusers", "onnx", "onnxscript"}
    parts = {"weights", "architecture", "shapes", "dtype", "scaling", "opset", "device"}
    assert set(key) == {"kind", "part"} | parts | versions
    assert all(key[name] != "none" for name in versions)
    half = onnx_key(load_models(tiny.spec.model_copy(update={"dtype": "float16"}), "cpu"), "unet", 20)
    assert {name for name in key if key[name] != half[name]} == {"dtype"}
    other = onnx_key(load_models(ModelSpec(folder=str(stable_diffusion)), "cpu"), "decoder", 23)
    changed = {"part", "weights", "architecture", "shapes", "scaling", "opset"}
    assert {name for name in key if key[name] != other[name]} == changed
