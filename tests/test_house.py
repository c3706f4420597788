"""The house is in order: who may import whom, and what the project's files may say."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stream", "decoder", "engine", "minddiffuser")
WINGS = {
    "stream": (
        "errors",
        "system",
        "atomic",
        "tasks",
        "types",
        "signal",
        "markers",
        "tables",
        "quality",
        "files",
        "epochs",
        "lsl",
        "recording",
        "mqtt",
    ),
    "decoder": (
        "errors",
        "versions",
        "parallel",
        "features",
        "smoothing",
        "visual_features",
        "solvers",
        "preprocessing",
        "estimators",
        "spec",
        "data",
        "encoding",
        "evaluation",
        "encoders",
        "models",
        "alignment",
        "training",
        "adaptation",
        "datasets",
        "simulation",
    ),
    "engine": (
        "errors",
        "registry",
        "shipped",
        "stage2_loss",
        "spec",
        "picture",
        "models",
        "sampling",
        "setup",
        "batching",
        "stage1",
        "final",
        "stage2",
        "backends",
        "reconstructor",
        "timing",
        "verify",
        "composing",
    ),
    "minddiffuser": (
        "errors",
        "shipped",
        "stopping",
        "versions",
        "subprocesses",
        "loading",
        "console",
        "cache",
        "config",
        "archive",
        "viewing",
        "display",
        "training",
        "remote",
        "pool",
        "live",
        "evaluation",
        "report",
        "maps",
        "workflows",
        "setup",
        "experiment",
        "cli",
        "__main__",
    ),
}
"""Wings and single modules of each package from the lowest up: none imports what stands after it."""
ALLOWED = {
    "stream": {"stream"},
    "decoder": {
        "decoder",
        "stream.types",
        "stream.markers",
        "stream.tables",
        "stream.files.registry",
        "stream.atomic",
        "stream.system",
        "stream.errors",
    },
    "engine": {"engine", "decoder.features", "stream.atomic", "stream.system", "stream.types.progress"},
    "minddiffuser": set(PACKAGES),
}
"""What each package may import: of the one before it the types it takes in, one rule for tables and labels, and one way
to write a file."""
OLD_NAMES = (
    # stream
    r"\b(BadStretch|Intake|intakes?|Scout|Joint|Followed|MAX_PAYLOAD|as_sent|own_markers|twins_of|chosen_among)\b",
    r"\b(as_stated|stated_names|file_signatures|on_taken|RunningMoments|RunningZScore|TwinWatch)\b|\bspurious\.overlap\b",
    r"\b(signal\.settling|epochs\.joint|epochs\.intake|epochs\.follow|recording\.scout|lsl\.twins|mqtt\.packets)\b",
    r"\.unmade\b|\"unmade\"|\.doubled\b",
    # decoder
    r"\b(decoder[./]codes|data[./]samples\.py|decoder\.data\.samples|fit_reference|mean_reference|lesson_of|_School)\b",
    r"\b(make_fold|predict_part|fit_convolution|input_bands|BandSpec|TopRegression|BandedRegression|BELIEVED)\b",
    r"\b(s_prior|c_from|unacquainted|fit_layout|bank_features|bank_targets|picture_bank|OF_POSE)\b",
    r"\bFeatures\.layout\b|\bdata\.bank\b|\b(import|class) (Lesson|Samples|Convolution|Layout|Fold)\b",
    r"^(LOG|LOGGER|_log|_logger) = logging",
    # engine
    r"structure\.(draws|finish|rounds|anchor|update|noise_index)\b|\bengine\.(reuse|groups|desk|stage2\.structure)\b",
    r"\b(pull_through|ReuseSpec|noise_index|_made_up|class Bend)\b",
    r"\.rehearse\(|backends\.\w+ import .*\bmissing\b",
    # minddiffuser
    r"\b(code_hash|minddiffuser\.children|live\.rehearsal)\b|\bawait rehearse\(|async def child\b",
)
"""Names that were given up, as regular expressions: no file has them but those below, and the history."""
COMPATIBILITY = (
    "minddiffuser/config/renamed.py",
    "minddiffuser/display/static/signal.js",
    "stream/mqtt/wire_models.py",
    "docs/reference/schemas/metrics.json",
)
"""What reads, and writes for a release, what older programs and configs write and read."""
TEXTS = {".py", ".pyi", ".md", ".yaml", ".yml", ".toml", ".js", ".html", ".json"}
HISTORY = ("CHANGELOG.md", "docs/notebook/", "docs/results/", "tests/test_house.py")
"""Files that tell what was, or list old names."""
PLAIN = ("stream", "decoder", "engine", "minddiffuser")
"""Packages whose docstrings have been gone through for vague verbs."""
LONGEST = 450
MOST_MODULES = 12


def modules() -> dict[str, Path]:
    """Return the files of our packages by module name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name in MODULES)


GRAPH = {name: set(imports(path)) - {name} for name, path in MODULES.items()}


def place(module: str) -> int:
    """Return how high in its package a module stands."""
    package, _, rest = module.partition(".")
    return WINGS[package].index(rest.split(".")[0]) if rest else -1


@pytest.mark.parametrize("package", PACKAGES)
def test_data_goes_one_way(package: str) -> None:
    """No package imports what comes after it, and of what comes before only what it takes in."""
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        if module.split(".")[0] == package
        for other in sorted(others)
        if not any(other == part or other.startswith(part + ".") for part in ALLOWED[package])
    ]
    assert not wrong, wrong


def test_every_module_stands_in_a_wing() -> None:
    """The declared order names every wing and every single module, and no other."""
    there = {
        package: {name.split(".")[1] for name in MODULES if name.startswith(package + ".")} for package in PACKAGES
    }
    assert {package: set(wings) for package, wings in WINGS.items()} == there


def test_no_wing_imports_a_wing_above_it() -> None:
    """Imports inside a package go down only."""
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in sorted(others)
        if other.split(".")[0] == module.split(".")[0] and place(other) > place(module) >= 0
    ]
    assert not wrong, wrong


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There are no circles, not even by imports inside functions."""
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_files_and_folders_are_short() -> None:
    """A file is one idea, and so is a folder; the readers of data sets are many."""
    long = {
        name: lines for name, path in MODULES.items() if (lines := len(path.read_text("utf-8").splitlines())) > LONGEST
    }
    assert not long
    folders = {path.parent for path in MODULES.values()} - {ROOT / "decoder" / "datasets"}
    full = {str(folder): count for folder in folders if (count := len(list(folder.glob("[!_]*.py")))) > MOST_MODULES}
    assert not full


def test_old_names_are_gone() -> None:
    """What was renamed is called by its new name everywhere, but where old files and programs are still understood."""
    folders = (*PACKAGES, "benchmarks", "configs", "docs", "tests", "tools")
    files = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    names = [path.relative_to(ROOT).as_posix() for path in files if path.suffix in TEXTS]
    pattern = re.compile("|".join(OLD_NAMES), re.MULTILINE)
    left = [
        f"{name}: {match[0]}"
        for name in names
        if name not in COMPATIBILITY and not name.startswith(HISTORY)
        for match in pattern.finditer((ROOT / name).read_text("utf-8"))
    ]
    assert not left, left


@pytest.mark.parametrize("package", PLAIN)
def test_docstrings_begin_with_what_is_done(package: str) -> None:
    """A docstring says what a function does in a verb of the field: Return, Compute, Check, Load, Write ..."""
    vague = ("Give ", "Gives ", "Say ", "Says ", "Tell ", "Tells ", "Put ", "Whether ", "How ")
    wrong = [
        f"{name}: {node.name}"
        for name, path in MODULES.items()
        if name.split(".")[0] == package
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and (ast.get_docstring(node) or "").startswith(vague)
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


def test_every_page_is_in_the_site() -> None:
    """The site's navigation (`nav` in mkdocs.yml) names every page below `docs`, and no other."""
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:")[1]))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {name for name in named if not name.startswith("project/")} == pages


def test_every_config_that_the_documentation_names_exists() -> None:
    """Each config that the README or a page names is there."""
    text = "\n".join(page.read_text("utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    named = {word.strip("`,.;:()") for word in text.split() if word.strip("`,.;:()").startswith("configs/")}
    missing = [name for name in named if name.endswith(".yaml") and not (ROOT / name).exists()]
    assert named
    assert not missing
