"""One YAML file a setup, validated before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from decoder.alignment.realign import RealignSpec
from decoder.datasets import ONE_MONTAGE, SELECTED, Form, PerSession
from decoder.errors import NO_IMAGE_BANK
from decoder.models.family import families, fit_of
from decoder.spec import FAMILIES, DecoderSpec
from minddiffuser.config.defaults import overlaid, with_defaults
from minddiffuser.config.engine import PoolSpec, RoomEngineSpec
from minddiffuser.config.experiment import Colour, ExperimentSpec
from minddiffuser.config.explain import explain, explained, not_finite, taken_for_a_number
from minddiffuser.config.mistakes import as_meant, mistake
from minddiffuser.config.renamed import removed, with_new_names
from minddiffuser.config.yamlfile import Place, YamlFile, read_yaml
from minddiffuser.errors import ConfigError
from stream.epochs.follower import FollowerSpec
from stream.epochs.ingest import WindowSpec
from stream.errors import PublishError
from stream.files.bids import BidsRun
from stream.lsl.live import SourceSpec
from stream.mqtt.broker import BrokerSpec
from stream.mqtt.topics import checked_session
from stream.signal.filters import FilterSpec
from stream.tables.label_table import LabelSpec

NAME = r"^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?$"
"""Of configs, which name files and folders too: '..' is none."""


class Strict(BaseModel):
    """A part of a config: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _digits(value: Any) -> Any:
    """Take a name of digits alone, which YAML reads as a number."""
    return str(value) if isinstance(value, int) else value


def _several(value: object) -> object:
    """Return a single value as a tuple of one."""
    return () if value is None else value if isinstance(value, list | tuple) else (value,)


def _tag(value: object) -> str:
    return "bids" if isinstance(value, dict | BidsRun) else "file"


Recorded = Annotated[Annotated[Path, Tag("file")] | Annotated[BidsRun, Tag("bids")], Discriminator(_tag)]
"""A recording's file, or a run of a BIDS data set."""


SESSION = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"
"""Of a folder's name, a date or a number; '..' is none."""
Pixels = Annotated[int, Field(ge=8, le=4096)]


class DataSpec(Strict):
    """Where training pictures and recordings come from."""

    dataset: Literal[
        "simulated-eeg",
        "simulated-meg",
        "simulated-fmri",
        "muse-faces",
        "muse-sides",
        "muse-gratings",
        "muse-targets",
        "muse-flicker",
        "ssvep-exo",
        "haxby",
        "v4-photos",
        "miyawaki",
        "things-eeg2",
        "things-meg",
        "nsd",
        "recording",
    ]
    """A simulated participant, one of the data sets with a reader, or your own recording."""
    preset: Literal["demo", "thingslike"] = "demo"
    """How easy the simulated participant is to read."""
    pictures: int = Field(1600, ge=50, le=100_000)
    """How many calibration pictures the simulated participant sees."""
    soa: float = Field(0.75, gt=0.1, le=60)
    """Seconds from one picture to the next (simulated participant)."""
    train: Annotated[tuple[Recorded, ...], BeforeValidator(_several)] = ()
    """Calibration recordings, one or a list (dataset: recording): files, or runs of a BIDS data set, each as
    {bids: FOLDER, subject: '01', session: ..., task: ..., run: ...}."""
    live: Recorded | None = None
    """Recording to replay and to evaluate on (dataset: recording)."""
    stimuli: Path | None = None
    """Folder with stimuli.csv (columns file, caption) and the pictures (dataset: recording)."""
    background: Colour = "#808080"
    """What showed through where pictures of `stimuli` and `image_bank` are transparent: a colour's name, or
    '#rrggbb'."""
    picture_size: tuple[Pixels, Pixels] | None = None
    """Width and height to which pictures of `stimuli` and `image_bank` are fitted that have another size, [500, 500];
    they keep their proportions, and `background` shows beside them. Null: they must all have one size."""
    image_bank: Annotated[int, Field(ge=1)] | Path | None = None
    """Pictures that nobody is shown: how many to compose, or a folder like `stimuli`. From them learn the prior of
    structure (decoder.structure_prior), which needs them, and from their captions too the one from e to c
    (decoder.text_embedding_from), which else learns from the pictures that were shown; decoder.nearest_caption chooses
    among their captions."""
    subject: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_several), Field(min_length=1)] = (1,)
    """Participant of a data set with several (Muse, ssvep-exo, THINGS, NSD, simulated), counted from 1; a list, where
    all have the same channels: they are trained on together, `decoder.split: subject` holds each out, and the bundle
    is a start for anybody (`train --from`). The first one's test recording is replayed and evaluated."""
    sessions: int | None = Field(None, ge=1)
    """Only the participant's first so many sessions; null: all (THINGS, NSD: none may be missing)."""
    session: Annotated[str, BeforeValidator(_digits), Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")] | None = (
        None
    )
    """The one session that is read, by its name: a folder's (Muse: session2), a date (ssvep-exo: 2012.07.11-15.25.23),
    or the six digits in the names of its files (v4-photos: 210224). Null: all; of v4-photos 201025."""
    per_session: PerSession = "none"
    """Normalise each session by its own training trials: zscore (each channel) or whiten (noise between channels)."""
    repeats: int | None = Field(None, ge=1)
    """Average so many presentations of each test picture; null: all. Training pictures are never averaged."""
    form: Form = "preprocessed"
    """Which of the published forms (things-eeg2): as the authors preprocessed it, as others did at 250 Hz, or as it
    was recorded (raw: NPY, source: BrainVision; 1000 Hz: set `filters`)."""
    region: str = Field("nsdgeneral", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """Region whose voxels are read (nsd): name of a file in the participant's folder `roi`."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the simulated participant and of random splits."""

    @model_validator(mode="after")
    def _chosen_of_this(self) -> DataSpec:
        chosen = {name for known in SELECTED.values() for name in known} & self.model_fields_set
        if unused := chosen - SELECTED.get(self.dataset, frozenset()):
            raise ValueError(f"data set {self.dataset!r} leaves no choice of {', '.join(sorted(unused))}; take it out")
        if len(set(self.subject)) < len(self.subject):
            raise ValueError(f"subject names a participant twice: {list(self.subject)}")
        if len(self.subject) > 1 and self.dataset not in ONE_MONTAGE:
            raise ValueError(f"participants of {self.dataset!r} have channels of their own: name one subject")
        return self


class QueueSpec(Strict):
    """What happens when windows come faster than pictures."""

    policy: Literal["latest", "every"] = "latest"
    """`latest` drops older windows that still wait; `every` keeps up to `length` of them. Drops are counted."""
    length: int = Field(64, ge=1, le=10_000)
    """Windows that may wait with policy `every`."""


def _session_name(name: str) -> str:
    try:
        return checked_session(name)
    except PublishError as error:
        raise ValueError(str(error)) from None


class PublishSpec(Strict):
    """Encoding and names of published pictures."""

    session: Annotated[str, AfterValidator(_session_name)] = "demo"
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
    retrieved: int = Field(0, ge=0, le=10)
    """Publish beside each reconstruction, and apart from it, the likeliest picture of `data.image_bank` by the
    decoder's encoding model (decoder.encoding), and the names of so many, the likeliest first; 0: none."""
    home_assistant: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}$")
    """Home Assistant's discovery prefix ('homeassistant'), where the session is to show up there by itself."""
    abstain_below: float | None = Field(None, ge=0, le=1)
    """Abstain from windows whose confidence is lower: no picture, only a note with the reason; null: the confidence
    below which the bundle's held-out windows were told no better than by chance, and of sliding windows what nineteen
    of twenty windows without a response stay below; 0: every picture is published."""


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


class CandidateSpec(Strict):
    """Other settings of what decides how well is decoded; what is left out stays as the config has it."""

    window: dict[str, Any] = {}
    filters: dict[str, Any] = {}
    decoder: dict[str, Any] = {}


class Config(Strict):
    """One setup: where the data comes from, how it is decoded and reconstructed, where pictures go."""

    name: str = Field(pattern=NAME)
    participant: str | None = Field(None, pattern=r"^[A-Za-z0-9]+(-[A-Za-z0-9]+)?$", max_length=64)
    """Label of who is recorded, as BIDS has them ('01', 'sub-01'); it is published and archived with the pictures, so
    no name of a person."""
    data: DataSpec
    source: SourceSpec
    window: WindowSpec
    labels: LabelSpec | None = None
    """Which picture each trigger code stands for: the path of a table ('labels.csv', columns code and picture), the
    same with columns of other names ({file: log.csv, code: trigger, picture: image}), or the codes themselves
    ({7: cat-01, 8: car-07})."""
    filters: FilterSpec = FilterSpec()
    extra: tuple[FollowerSpec, ...] = ()
    """Further streams whose channels join the source's in every window (MEG beside EEG, gaze)."""
    experiment: ExperimentSpec = ExperimentSpec()
    """What `present` and `calibrate` show to a participant."""
    decoder: DecoderSpec = DecoderSpec()
    smooth: Annotated[float, Field(gt=0, le=60)] | None = None
    """Sliding windows: seconds over which decoded features are averaged live, exponentially; windows of which nothing
    is shown have no say. Null: each window by itself."""
    realign: RealignSpec | None = None
    """Set ('realign: {}' will do): follow drifts of the channels in a live session, without labels."""
    engine: RoomEngineSpec = RoomEngineSpec()
    pool: PoolSpec = PoolSpec()
    """What `minddiffuser pool` shares among rooms; nothing else looks at it."""
    queue: QueueSpec = QueueSpec()
    broker: BrokerSpec = BrokerSpec()
    publish: PublishSpec = PublishSpec()
    display: DisplaySpec = DisplaySpec()
    archive: ArchiveSpec = ArchiveSpec()
    candidates: tuple[CandidateSpec, ...] = ()
    """Other settings that were tried: `evaluate CONFIG` chooses among these and the config's own anew inside each
    training part, so that its figure does not profit from the choice. Nothing else looks at them."""

    def variants(self) -> tuple[Config, ...]:
        """Return the config as it is and as each candidate has it, without candidates."""
        if not self.candidates:
            return (self,)
        own = self.model_dump(exclude_unset=True, exclude={"candidates"})
        changes = [each.model_dump(exclude_unset=True) for each in self.candidates]
        return tuple(Config.model_validate(overlaid(own, change)) for change in ({}, *changes))

    def own(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, as a config file has them."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def of_events(self) -> Config:
        """Return the config as a decoder is trained and tested: windows that slide live begin at the pictures."""
        if self.window.mode != "sliding":
            return self
        window = self.window.model_copy(update={"mode": "event"})
        return self.model_copy(update={"window": window, "smooth": None})

    @model_validator(mode="after")
    def _smooths_what_slides(self) -> Config:
        if self.smooth is not None and self.window.mode != "sliding":
            raise ValueError(
                "smooth averages windows that follow one another: set window.mode to sliding, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _image_bank_to_learn_from(self) -> Config:
        encoding = self.decoder.encoding
        learning = {
            "structure_prior": self.decoder.structure_prior is not None,
            "encoding.posterior": encoding is not None and bool(encoding.posterior),
            "nearest_caption": self.decoder.nearest_caption,
        }
        if self.data.image_bank is None and (name := next((name for name, learns in learning.items() if learns), None)):
            raise ValueError(NO_IMAGE_BANK.format(name))
        return self

    @model_validator(mode="after")
    def _image_bank_to_retrieve_from(self) -> Config:
        if self.publish.retrieved and self.data.image_bank is None:
            raise ValueError(
                "publish.retrieved is of pictures that nobody was shown: set data.image_bank to a folder of such"
            )
        return self

    @model_validator(mode="after")
    def _family_is_known(self) -> Config:
        family = self.decoder.family
        if family not in FAMILIES and fit_of(family) is None:
            known = ", ".join((*FAMILIES, *families(trained_by_name=True)))
            raise ValueError(f"decoder.family {family!r} is unknown; known are {known}")
        return self

    @model_validator(mode="after")
    def _candidates_are_configs(self) -> Config:
        own = self.model_dump(exclude_unset=True, exclude={"candidates"})
        for number, each in enumerate(self.candidates):
            raw = overlaid(own, each.model_dump(exclude_unset=True))
            try:
                Config.model_validate(raw)
            except ValidationError as error:
                raise ValueError(f"candidates.{number}.{explain(error, Config, raw)}") from None
        return self


def load_config(path: Path) -> Config:
    """Read and validate a config file.

    Raises
    ------
    ConfigError
        In one line: the file, the line, the key and the way out.
    """
    found = read_yaml(path)
    return parse_config(found.values, str(path), found)


def parse_config(raw: dict[str, Any], origin: str, file: YamlFile | None = None, *, whole: bool = False) -> Config:
    """Validate a config that is already a dict, with the settings that go with its kind of data laid under it.

    Parameters
    ----------
    raw : dict
    origin : str
        Names it in errors.
    file : YamlFile, optional
        Tells in which line they are.
    whole : bool
        It says all that differs from the parts' own defaults, as `Config.own` does: nothing is laid under it.

    Raises
    ------
    ConfigError
        In one line.
    """
    if (place := not_finite(raw)) is not None:
        raise _refused(origin, file, place, "must be a finite number")
    raw = as_meant(with_new_names(raw, quiet=whole))
    if (gone := removed(raw)) is not None:
        raise _refused(origin, file, *gone)
    if (wrong := mistake(raw)) is not None:
        raise _refused(origin, file, *wrong)
    try:
        config = Config.model_validate(raw if whole else with_defaults(raw))
    except ValidationError as error:
        words, place = explained(error, Config, raw)
        raise _refused(origin, file, place, words, named=True) from None
    except (ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{origin}: values that no config can have ({error})") from None
    read = config.model_dump()
    if (place := not_finite(read)) is not None:
        raise _refused(origin, file, place, "must be a finite number")
    if (place := taken_for_a_number(raw, read)) is not None:
        raise _refused(origin, file, place, "expected a number, got yes or no (true, on and the like)")
    return config


def config_of(meta: Mapping[str, Any], bundle: Path) -> Config:
    """Validate the config that a bundle was trained with, from its `meta`.

    Raises
    ------
    ConfigError
        There is none, or it is not one of this version.
    """
    raw = meta.get("config")
    if not isinstance(raw, dict):
        raise ConfigError(f"{bundle}: the bundle does not hold the config it was trained with; train it from one")
    return parse_config(raw, str(bundle), whole=True)


def _refused(origin: str, file: YamlFile | None, place: Place, words: str, *, named: bool = False) -> ConfigError:
    line = file.line_of(place) if file else None
    name = "" if named else " ".join(".".join(str(part) for part in place).split())[:200] + ": "
    return ConfigError(f"{origin}{f', line {line}' if line else ''}: {name}{words}")
