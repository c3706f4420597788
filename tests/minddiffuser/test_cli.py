"""Bad input of every command: one line that says what is wrong, another exit code than 0, and no traceback."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minddiffuser.cli.commands import app
from minddiffuser.cli.entry import main
from minddiffuser.stopping import Stopping
from stream.mqtt.broker import EmbeddedBroker
from tests.conftest import ROOT, Cli
from tests.disks import read_only, small_disk

DEMO = str(ROOT / "configs" / "demo.yaml")
READY_S = 60
Run = Callable[..., str]


@contextmanager
def signals_restored() -> Iterator[None]:
    """Leave the handlers of this process as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process and return the one line with which it is refused."""
    monkeypatch.setattr("minddiffuser.cli.entry.stopping", Stopping())
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINDDIFFUSER_DATA", raising=False)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["minddiffuser", *map(str, arguments)])
        with signals_restored(), pytest.raises(SystemExit) as ended:
            main()
        out, errors = capfd.readouterr()
        assert ended.value.code == 1, errors
        lines = [line for line in errors.splitlines() if line.strip()]
        assert len(lines) == 1, errors
        assert lines[0].startswith("minddiffuser: ")
        assert out == ""
        return lines[0].removeprefix("minddiffuser: ")

    return run


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what is given to commands by mistake: folders, empty files, bytes that mean nothing, broken bundles."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "folder.yaml").mkdir()
    (folder / "folder").mkdir()
    for name in ("empty.yaml", "empty", "empty.npz", "empty.xdf", "empty_raw.fif"):
        (folder / name).write_bytes(b"")
    for name in ("bytes.yaml", "bytes", "bytes.npz", "bytes.xdf", "bytes_raw.fif"):
        (folder / name).write_bytes(bytes(range(255, 0, -1)) * 9)
    for name, content in {"not-json": b"\xff{", "not-ours": b"{}", "list": b"[1]"}.items():
        (folder / f"bundle-{name}").mkdir()
        (folder / f"bundle-{name}" / "bundle.json").write_bytes(content)
        (folder / f"bundle-{name}" / "weights.safetensors").write_bytes(b"")
        (folder / f"session-{name}").mkdir()
        (folder / f"session-{name}" / "session.json").write_bytes(content)
    return folder


OF_CONFIG = ["live", "train", "evaluate", "demo --config", "engine export", "engine build", "engine bench"]
OF_BUNDLE = ["evaluate {}", "maps {}", f"live {DEMO} --bundle {{}}", f"train {DEMO} --out new --from {{}}"]


@pytest.mark.parametrize("command", OF_CONFIG)
@pytest.mark.parametrize("name", ["folder.yaml", "empty.yaml", "bytes.yaml", "none.yaml"])
def test_a_path_that_is_no_config(refused: Run, odd: Path, command: str, name: str) -> None:
    """The line names the file."""
    assert str(odd / name) in refused(*command.split(), odd / name)


@pytest.mark.parametrize("command", OF_BUNDLE)
@pytest.mark.parametrize(
    "name", ["folder", "empty", "bytes", "none", "bundle-not-json", "bundle-not-ours", "bundle-list"]
)
def test_a_path_that_is_no_bundle(refused: Run, odd: Path, command: str, name: str) -> None:
    """The line names the folder."""
    assert str(odd / name) in refused(*command.format(odd / name).split())


@pytest.mark.parametrize("name", ["session-not-json", "session-not-ours", "session-list"])
def test_a_path_that_is_no_session(refused: Run, odd: Path, name: str) -> None:
    """The line names the file that is wrong."""
    assert f"{odd / name / 'session.json'}" in refused("evaluate", odd / name)


@pytest.mark.parametrize("name", ["none.xdf", "folder", "empty", "empty.npz", "empty.xdf", "empty_raw.fif", "bytes.npz",
                                  "bytes.xdf", "bytes_raw.fif"])  # fmt: skip
def test_a_path_that_is_no_recording(refused: Run, odd: Path, name: str) -> None:
    """The line names the file."""
    assert str(odd / name) in refused("replay", odd / name)


@pytest.mark.parametrize("command", ["subscribe --seconds 1", "display --port 0"])
@pytest.mark.parametrize(
    ("broker", "words"),
    [
        ("", "no host is named"),
        (":1883", "no host is named"),
        ("localhost:x", "port: expected a whole number, got 'x'"),
        ("localhost:99999", "port: must be at most 65535"),
        ("mqtt://localhost", "wanted HOST:PORT"),
        ("{", "a broker section as JSON"),
        ('{"host": 5}', "host: expected text, got 5"),
        ('{"host": "x", "prot": 1}', "prot: unknown key; did you mean 'port'?"),
        ('{"a":' * 3000, "--broker"),
        ("127.0.0.1:1", "cannot be reached"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_broker_that_is_none(refused: Run, command: str, broker: str, words: str) -> None:
    """The line says what of it is wrong, in words that are no schema's."""
    line = refused(*command.split(), "--broker", broker)
    assert words in line
    assert "Input should" not in line


OUTPUTS = [
    f"train {DEMO} --out {{}}",
    "demo --headless --report {}",
    "record {} --timeout 0",
    "subscribe --broker 127.0.0.1:1 --save {}",
    "maps {bundle} --out {}",
    "evaluate {bundle} --report {}",
    "evaluate {bundle} --pictures {}",
    "evaluate {session} --report {}",
]


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_output_that_cannot_be_written_is_refused_first(
    refused: Run, odd: Path, tmp_path: Path, command: str
) -> None:
    """On a read-only disk, below a file and on a full disk, before there is anything that could be lost."""
    given = {"bundle": odd / "bundle-not-ours", "session": odd / "session-not-ours"}

    def line(path: Path) -> str:
        return refused(*command.format(path, **given).split())

    with read_only(tmp_path / "ro") as folder:
        assert f"{folder / 'out'}: cannot be written" in line(folder / "out")
    assert f"{odd / 'empty'}: is a file; no folder can be made in it" in line(odd / "empty" / "deep" / "out")
    with small_disk(tmp_path / "full", 4) as folder:
        (folder / "fill").write_bytes(bytes(4096))
        assert "No space left on device" in line(folder / "out")
        assert [path.name for path in folder.iterdir()] == ["fill"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("evaluate {bundle} --offline --pictures {new}", "--offline leaves out the live half"),
        ("evaluate {bundle} --offline --live-limit 3", "--offline leaves out the live half"),
        ("evaluate {session} --pictures {new}", "is a kept session"),
        ("evaluate {session} --limit 3", "is a kept session"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    refused: Run, odd: Path, tmp_path: Path, command: str, words: str
) -> None:
    """What goes with another half of `evaluate` is not passed over in silence."""
    given = {"bundle": odd / "bundle-not-ours", "session": odd / "session-not-ours", "new": tmp_path / "new"}
    assert words in refused(*command.format(**given).split())


def test_a_demo_whose_page_has_no_port_prepares_nothing(refused: Run, tmp_path: Path) -> None:
    """That the page's port is taken is told before the participant is simulated."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}, where the page is to be, is taken" in refused("demo", "--port", port)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_recording_is_named_as_it_is_read(refused: Run, tmp_path: Path) -> None:
    """What `record` writes must be found again by its name, so another ending than XDF's is refused first."""
    assert f"name it {tmp_path / 'a.xdf'}" in refused("record", tmp_path / "a.csv", "--timeout", "0")
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("command", ["demo --headless --report {}", "record {}", "evaluate {bundle} --report {}"])
def test_a_folder_is_no_file(refused: Run, odd: Path, tmp_path: Path, command: str) -> None:
    """An output that should be a file and is a folder is refused."""
    assert "is a folder" in refused(*command.format(tmp_path, bundle=odd / "bundle-list").split())


def test_a_bundle_takes_nobody_elses_place(refused: Run, tmp_path: Path) -> None:
    """A folder with other things in it is refused before training, and stays as it is."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    assert "holds something else than a bundle" in refused("train", DEMO, "--out", tmp_path / "thesis")
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    "command", [f"train {DEMO} --out {{new}}", "demo --headless", "maps {bundle} --out {new}", "evaluate {bundle}",
                f"live {DEMO} --bundle {{bundle}}", "engine export", "engine bench"],
)  # fmt: skip
def test_a_cache_that_cannot_be_written_is_refused_first(
    refused: Run, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The line names the folder and how to choose another; so it is without a home."""
    words = command.format(bundle=odd / "bundle-list", new=tmp_path / "new").split()
    with read_only(tmp_path / "ro") as folder:
        monkeypatch.setenv("MINDDIFFUSER_CACHE", str(folder / "cache"))
        line = refused(*words)
    assert f"{folder / 'cache'}: cannot be written" in line
    assert "set MINDDIFFUSER_CACHE" in line
    monkeypatch.setenv("MINDDIFFUSER_CACHE", "~nobody-of-this-name/cache")
    assert "set MINDDIFFUSER_CACHE" in refused(*words)


def test_options_that_name_nothing(refused: Run, odd: Path) -> None:
    """Data folders, streams, sessions and backends that are not there."""
    assert "no such folder" in refused("train", DEMO, "--data", odd / "none")
    assert "--data or MINDDIFFUSER_DATA" in refused("train", ROOT / "configs" / "haxby-fmri.yaml", "--out", odd / "new")
    assert "backend 'warp' is unknown" in refused("engine", "bench", "--backend", "warp")
    assert "there is no folder" in refused("record", odd / "none" / "new.xdf", "--timeout", "0")
    assert "wanted a name" in refused("record", odd / "new.xdf", "--stream", "=")
    assert "no stream" in refused("record", odd / "new.xdf", "--timeout", "0.1", "--stream", "source_id=nobody")
    assert not (odd / "new.xdf").exists()


def test_a_wrong_config_is_told_before_anything_heavy_is_loaded() -> None:
    """Neither torch nor numpy, nor our own schema, is imported to say that there is no such file."""
    code = (
        "import sys; sys.argv = ['minddiffuser', 'live', 'none.yaml']\n"
        "from minddiffuser.cli.entry import main\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted({'torch', 'numpy', 'scipy', 'mne', 'minddiffuser.config.spec'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("minddiffuser: none.yaml: no such config")
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [("doctor", "--json"), ("doctor",), ("--help",)])
def test_an_answer_that_cannot_be_printed_is_no_success(cli: Cli, arguments: tuple[str, ...]) -> None:
    """On a full disk the exit code is 1 and one line says so, whatever was computed."""
    command = [sys.executable, "-m", "minddiffuser", *arguments]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=cli.environment, cwd=ROOT, check=False
        )
    assert ran.returncode == 1
    assert "No space left on device" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(cli: Cli, closed: str) -> None:
    """Who closes stdin, stdout or stderr gets the same exit code."""
    command = f"{sys.executable} -m minddiffuser live none.yaml {closed}"
    ran = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=cli.environment, cwd=ROOT, check=False
    )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


def test_a_name_with_a_line_break_stays_one_line(cli: Cli) -> None:
    """Whatever a file is called, its error is one line."""
    ran = cli("live", "no\nsuch.yaml")
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "minddiffuser: no such.yaml: no such config; the ones that come with the project are in configs/, and "
        "`minddiffuser new` writes one"
    ]


@pytest.mark.parametrize("columns", [20, 60])
async def test_an_address_with_its_token_is_never_broken(cli: Cli, columns: int) -> None:
    """However narrow the terminal, the page's address can be copied whole."""
    async with EmbeddedBroker(0) as broker:
        narrow = Cli(cli.environment | {"COLUMNS": str(columns)})
        to = f"127.0.0.1:{broker.spec.port}"
        process = narrow.start("display", "--host", "0.0.0.0", "--port", "0", "--broker", to)  # noqa: S104  the case
        assert process.stderr
        line = await asyncio.to_thread(process.stderr.readline)
        process.terminate()
        await asyncio.to_thread(process.communicate, timeout=READY_S)
    assert re.search(r"The page is at http://[^ ]+:\d+/#token=[\w-]{24} \(Ctrl-C ends it\)\n", line), line


@pytest.mark.parametrize("arguments", [("-h",), ("live", "-h"), ("engine", "-h"), ("engine", "bench", "-h")])
def test_help_has_a_short_name_everywhere(arguments: tuple[str, ...]) -> None:
    """-h is --help for the program, each command and each command of a group."""
    short, long = (CliRunner().invoke(app, [*arguments[:-1], name]) for name in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.stdout == long.stdout
    assert "Usage" in short.stdout


def test_the_program_says_its_version() -> None:
    """--version prints the version that is installed and nothing else."""
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.stdout) == (0, f"minddiffuser {version('minddiffuser')}\n")


@pytest.mark.parametrize("wait", ["soon", "0", "-3", "nan", ""])
def test_a_wait_that_is_none_is_named(wait: str) -> None:
    """Only seconds above 0, or forever, are what `live --wait` takes."""
    said = CliRunner().invoke(app, ["live", str(DEMO), f"--wait={wait}"])
    assert str(said.exception) == f"--wait {wait}: wanted seconds, such as 60, or forever"
