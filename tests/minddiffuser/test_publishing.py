"""A session's way out, as its config describes it."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minddiffuser.archive.archive import read_about
from minddiffuser.archive.pictures import decode, encode
from minddiffuser.config.spec import Config, PublishSpec, parse_config
from minddiffuser.errors import AppError
from minddiffuser.live.publishing import archiving, publisher_of
from stream.mqtt.broker import EmbeddedBroker
from tests.brokers import until
from tests.conftest import ROOT


def config_with(broker: EmbeddedBroker, **parts: Any) -> Config:
    """Give the demo's config with some parts changed."""
    raw = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text("utf-8"))
    raw["broker"] = {"host": "127.0.0.1", "port": broker.port}
    return parse_config(raw | parts, "test")


def pixels(height: int = 40, width: int = 60) -> np.ndarray:
    """Make a smooth picture."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    return np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy()


async def test_the_archive_holds_what_went_through_the_broker(tmp_path: Path) -> None:
    """With `archive.folder`, every published picture is in the session's folder beside the config that made it."""
    async with EmbeddedBroker() as broker:
        config = config_with(broker, archive={"folder": str(tmp_path)})
        payload = encode(pixels(), config.publish)
        async with publisher_of(config, "simulated EEG") as publisher, archiving(config, "simulated EEG") as archive:
            assert archive is not None
            for number in range(5):
                publisher.picture(payload + bytes([number]), {"window_id": f"w{number}"})
            await until(lambda: len(list(archive.folder.glob("*.picture.json"))) == 5)
    assert (archive.folder / "w3.picture.jpg").read_bytes() == payload + b"\x03"
    about = read_about(archive.folder)
    assert about["data"] == "simulated EEG"
    assert parse_config(about["config"], "archive").publish == config.publish


async def test_a_disk_that_fails_costs_what_it_could_not_take(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be written is named and counted; the session goes on, and so does the archive once it can."""
    async with EmbeddedBroker() as broker:
        config = config_with(broker, archive={"folder": str(tmp_path)})
        payload = encode(pixels(), config.publish)
        async with publisher_of(config, "x") as publisher, archiving(config, "x") as archive:
            assert archive is not None
            shutil.rmtree(archive.folder)
            archive.folder.write_text("in the way")
            publisher.picture(payload, {"window_id": "w0"})
            await until(lambda: archive.failed)
            archive.folder.unlink()
            publisher.picture(payload + b"1", {"window_id": "w1"})
            await publisher.flush()
            assert publisher.counts["picture"].published == 2
    assert "picture of window 'w0' is not archived" in caplog.text
    assert "lacks 1 frames that could not be written" in caplog.text
    assert archive.account() == {"kept": 1, "failed": 1, "removed": 0, "lost": 0}
    assert read_about(archive.folder)["data"] == "x"
    assert (archive.folder / "w1.picture.jpg").read_bytes() == payload + b"1"


async def test_nothing_is_kept_unasked(tmp_path: Path) -> None:
    """Without a folder in the config there is no archive."""
    async with EmbeddedBroker() as broker, archiving(config_with(broker), "x") as archive:
        assert archive is None


@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("size", [None, 30, 120])
def test_pictures_have_the_format_and_size_of_the_config(file_format: str, size: int | None) -> None:
    """The file is of the format, its longer side of the size, and it still shows the picture."""
    spec = PublishSpec.model_validate({"format": file_format, "size": size})
    payload = encode(pixels(), spec)
    with Image.open(io.BytesIO(payload)) as image:
        assert image.format == file_format.upper()
        assert image.size == (60, 40) if size is None else (size, round(size * 2 / 3))
    shown = decode(payload).astype(float)
    assert shown[:, 0].mean() < 20
    assert shown[:, -1].mean() > 235


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP"]),
)
def test_broken_pictures_are_one_line(junk: bytes, start: bytes) -> None:
    """Bytes that are no picture are an error of ours in one line."""
    with pytest.raises(AppError) as caught:
        decode(start + junk)
    assert "\n" not in str(caught.value)
