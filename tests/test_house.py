"""The house is in order: who may import whom, and what the project's files may say."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "stream": {"decoder", "engine", "minddiffuser"},
    "decoder": {"engine", "minddiffuser"},
    "engine": {"stream", "minddiffuser"},
}
ALLOWED_PARTS = {
    "decoder": {
        *("stream.windows", "stream.events", "stream.recordings"),
        *("stream.delimited", "stream.labels", "stream.errors"),  # one rule for tables and labels on both sides
        "stream.atomic",  # one way to write a file
    },
    "engine": {"decoder.features"},
}


def imports(path: Path) -> set[str]:
    """Give the modules that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_data_goes_one_way(package: str) -> None:
    """No part imports what comes after it, and of what comes before only the types it takes in."""
    allowed = ALLOWED_PARTS.get(package, set())
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in (ROOT / package).rglob("*.py")
        for module in imports(path)
        if (top := module.split(".")[0]) in FORBIDDEN[package]
        or (top != package and top in FORBIDDEN and module not in allowed)
    ]
    assert not wrong, wrong


def test_nothing_is_unpickled() -> None:
    """Weights and arrays are read as safetensors or plain arrays: a file from elsewhere must not run code."""
    unsafe = {"torch.load", "pickle.load", "pickle.loads"}
    calls = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("stream", "decoder", "engine", "minddiffuser")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in unsafe
    }
    assert not calls, calls


def test_every_config_that_the_readme_names_exists() -> None:
    """Each config that the README names is there."""
    text = (ROOT / "README.md").read_text("utf-8")
    named = {word.strip("`,.;:()") for word in text.split() if word.strip("`,.;:()").startswith("configs/")}
    missing = [name for name in named if name.endswith(".yaml") and not (ROOT / name).exists()]
    assert named
    assert not missing
