"""A backend that returns wrong numbers is found before its first picture, and a right one is never refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.backends.cache import EngineCache
from engine.backends.choice import make_backend
from engine.backends.proof import proof_key, prove, proven
from engine.backends.reference import reference_of
from engine.errors import BackendError
from engine.models.loading import Models, load_models
from engine.models.parts import PARTS
from engine.registry import BACKENDS, ORDER, BackendEntry
from tests.engine.backends import wrong_backends as wrong
from tests.engine.backends.wrong_backends import Changed

WRONG: dict[str, tuple[Callable[[], wrong.Change], str]] = {
    "bit flip": (lambda: wrong.bit_flip, "batch 1 "),
    "swapped rows": (lambda: wrong.swapped_rows, "batch 2 differs"),
    "one row for all": (lambda: wrong.first_row_for_all, "batch 2 differs"),
    "stale graph": (wrong.StaleGraph, "batch 1 differs"),
    **{f"stale batch {n}": (lambda n=n: wrong.StaleGraph(n), f"batch {n} differs") for n in (1, 2, 3, 8)},
    "stale size": (wrong.StaleSize, "batch 1 differs"),
    "NaN at batch 3": (lambda: wrong.nan_at_batch_3, "batch 3 gives numbers that are not finite"),
    "wrong shape": (lambda: wrong.wrong_shape, "batch 2 has shape"),
    "slightly off": (lambda: wrong.slightly_off, "batch 1 differs"),
    "failure at batch 8": (lambda: wrong.fails_at_batch_8, "batch 8 fails (RuntimeError: out of memory)"),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("fault", WRONG)
def test_each_kind_of_wrong_number_is_found(tiny: Models, part: str, fault: str) -> None:
    """Whatever inputs the proof draws, the first fault is named with network and batch."""
    change, words = WRONG[fault]
    for seed in range(2):
        proof = prove(Changed(tiny, part, change()), tiny, reference_of(tiny, None, seed), seed=seed)
        assert f"the {part} at {words}" in proof.fault
        assert "\n" not in proof.fault


def test_a_right_backend_is_never_refused_in_100_starts(tiny: Models, cache: EngineCache) -> None:
    """Proofs of ONNX Runtime, on several inputs and each in another order, find no fault."""
    backend = make_backend("onnx", tiny, cache).backend
    references = [reference_of(tiny, None, seed) for seed in range(5)]
    proofs = [prove(backend, tiny, references[seed % 5], seed=seed) for seed in range(100)]
    assert {proof.fault for proof in proofs} == {""}
    assert {proof.runs for proof in proofs} == {20}
    assert max(difference for proof in proofs for difference in proof.differences.values()) < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_of_half_types_is_not_a_fault(tiny: Models, dtype: str) -> None:
    """Eager torch in half precision agrees with itself; a backend in float32 agrees with it within its rounding."""
    half = load_models(tiny.spec.model_copy(update={"dtype": dtype}), "cpu")
    reference = reference_of(half, None)
    for models in (half, tiny):
        assert prove(Changed(models, "unet", wrong.right), half, reference).fault == ""
    assert "differs from torch" in prove(Changed(tiny, "unet", wrong.swapped_rows), half, reference).fault


@pytest.fixture
def wrong_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a wrong backend and a right one; 'auto' would take the wrong one first."""
    wrong.OPENED.clear()
    for name in ("wrong", "right"):
        monkeypatch.setitem(BACKENDS, name, BackendEntry(name, wrong.__name__, "CPU", "nothing"))
    monkeypatch.setitem(ORDER, "cpu", ("wrong", "right", "torch"))


@pytest.mark.usefixtures("wrong_entry")
def test_a_wrong_backend_is_refused_by_name_and_left_by_auto(tiny: Models, tmp_path: Path) -> None:
    """One line says what is wrong and what to do; 'auto' goes on to the next, and the reason is kept with the cache."""
    cache = EngineCache(tmp_path)
    with pytest.raises(BackendError) as refused:
        make_backend("wrong", tiny, cache)
    assert str(refused.value).startswith("backend wrong: the unet at batch 2 differs from torch by ")
    assert "engine verify" in str(refused.value)
    assert "\n" not in str(refused.value)
    opened = len(wrong.OPENED)
    choice = make_backend("auto", tiny, cache)
    assert choice.backend.name == "wrong"  # the class's own name: it is the right one of the two
    assert "differs from torch" in choice.left["wrong"]
    assert "is faster here" in choice.left["torch"]
    assert len(wrong.OPENED) == opened + 2  # the right one for its proof and to run; the wrong one not again
    assert wrong.OPENED[-1].calls == 0


@pytest.mark.usefixtures("wrong_entry")
def test_without_a_cache_every_start_proves(tiny: Models) -> None:
    """Where nothing can be kept, the proof runs again and its result is the same."""
    for _ in range(2):
        proof = proven("right", lambda: Changed(tiny, "unet", wrong.right), tiny, None)
        assert (proof.fault, proof.runs) == ("", 20)


def test_a_proof_holds_for_its_weights_device_and_versions_alone(tiny: Models, desk: Models) -> None:
    """Other weights, another type or another backend are proven anew."""
    key = proof_key("onnx", tiny)
    assert {"unet", "decoder", "dtype", "device", "backend", "torch", "onnxruntime", "openvino"} <= set(key)
    half = load_models(tiny.spec.model_copy(update={"dtype": "float16"}), "cpu")
    differs = [
        {name for name in key if key[name] != other[name]}
        for other in (proof_key("onnx", desk), proof_key("openvino", tiny), proof_key("onnx", half))
    ]
    assert differs == [{"unet", "decoder"}, {"backend"}, {"dtype"}]
