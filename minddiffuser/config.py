"""One YAML file a setup, validated before anything starts."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from decoder.spec import DecoderSpec
from engine.spec import EngineSpec
from minddiffuser.errors import ConfigError
from stream.broker import BrokerSpec
from stream.filters import FilterSpec
from stream.follow import FollowerSpec
from stream.ingest import WindowSpec
from stream.lsl import SourceSpec

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

CONFIG_SIZE_LIMIT = 1_000_000
"""Bytes; a config is a page or two, anything larger is the wrong file."""


class Strict(BaseModel):
    """A part of a config: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(Strict):
    """Where training pictures and recordings come from."""

    dataset: Literal[
        "simulated-eeg",
        "simulated-meg",
        "simulated-fmri",
        "muse-faces",
        "muse-sides",
        "ssvep-exo",
        "haxby",
        "v4-photos",
        "miyawaki",
        "recording",
    ]
    """A simulated participant, one of the data sets with a reader, or your own recording."""
    preset: Literal["demo", "thingslike"] = "demo"
    """Signal strength of the simulated participant."""
    pictures: int = Field(1600, ge=50, le=100_000)
    """How many calibration pictures the simulated participant sees."""
    soa: float = Field(0.75, gt=0.1, le=60)
    """Seconds from one picture to the next (simulated participant)."""
    train: Path | None = None
    """Calibration recording (dataset: recording)."""
    live: Path | None = None
    """Recording to replay and to evaluate on (dataset: recording)."""
    stimuli: Path | None = None
    """Folder with stimuli.csv (columns file, caption) and the pictures (dataset: recording)."""
    seed: int = 0
    """Seed of the simulated participant and of random splits."""


class QueueSpec(Strict):
    """What happens when windows come faster than pictures."""

    policy: Literal["latest", "every"] = "latest"
    """`latest` drops older windows that still wait; `every` keeps up to `length` of them. Drops are counted."""
    length: int = Field(64, ge=1, le=10_000)
    """Windows that may wait with policy `every`."""


class PublishSpec(Strict):
    """How pictures are encoded and named."""

    session: str = Field("demo", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """Second level of every topic: minddiffuser/<session>/picture."""
    format: Literal["jpeg", "png", "webp"] = "jpeg"
    quality: int = Field(90, ge=1, le=100)
    """JPEG and WebP quality."""
    size: int | None = Field(None, ge=16, le=4096)
    """Pixels of the longer side; null sends pictures as the models make them."""
    qos: Literal[0, 1] = 1
    """1: the broker acknowledges every picture; 0: it does not, and losses on the way go unseen."""
    retain: bool = True
    """Whether the broker keeps the last picture for those who come later."""
    home_assistant: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}$")
    """Home Assistant's discovery prefix ('homeassistant'), where the session is to show up there by itself."""
    abstain_below: float = Field(0.0, ge=0, le=1)
    """Publish no picture for a window whose confidence is lower, only a note that it was left out."""


class DisplaySpec(Strict):
    """The web page."""

    host: str = "127.0.0.1"
    port: int = Field(8765, ge=0, le=65535)
    """0: any free port."""


class ArchiveSpec(Strict):
    """What is kept of every session; the limits hold for all sessions in the folder together, the oldest go first."""

    folder: Path | None = None
    """Gets one folder a session with its pictures, metadata and config; null: nothing is kept."""
    max_windows: int = Field(20_000, ge=1)
    max_megabytes: float = Field(4096, gt=0)
    max_days: float = Field(30, gt=0)


class Config(Strict):
    """One setup: where the data comes from, how it is decoded and reconstructed, where pictures go."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    data: DataSpec
    source: SourceSpec
    window: WindowSpec
    filters: FilterSpec = FilterSpec()
    extra: tuple[FollowerSpec, ...] = ()
    """Further streams whose channels join the source's in every window (MEG beside EEG, gaze)."""
    decoder: DecoderSpec = DecoderSpec()
    engine: EngineSpec = EngineSpec()
    queue: QueueSpec = QueueSpec()
    broker: BrokerSpec = BrokerSpec()
    publish: PublishSpec = PublishSpec()
    display: DisplaySpec = DisplaySpec()
    archive: ArchiveSpec = ArchiveSpec()


def load_config(path: Path) -> Config:
    """Read and validate a config file.

    Raises
    ------
    ConfigError
        In one line: the file, the key and the way out.
    """
    try:
        if path.stat().st_size > CONFIG_SIZE_LIMIT:
            raise ConfigError(f"{path}: larger than {CONFIG_SIZE_LIMIT} bytes; this is not a config file")
        raw = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config; the ones that come with the project are in configs/") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a YAML file ({_first_line(error)})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected keys and values (name: ..., data: ..., source: ...)")
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], origin: str) -> Config:
    """Validate a config that is already a dict; `origin` names it in errors."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{origin}: {_explain(first)}{more}") from None


def _explain(error: ErrorDetails) -> str:
    place = " ".join(".".join(str(part) for part in error["loc"]).split())[:200]
    if error["type"] != "extra_forbidden":
        return f"{place}: {' '.join(error['msg'].split())}"
    known = _known_keys(error["loc"][:-1])
    close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys here: {', '.join(known)}"
    return f"{place}: unknown key; {hint}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        if (field := model.model_fields.get(str(part))) is None:
            break
        nested = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((one for one in nested if isinstance(one, type) and issubclass(one, BaseModel)), model)
    return list(model.model_fields)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
