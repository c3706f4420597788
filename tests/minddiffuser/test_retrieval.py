"""What is retrieved: the pictures of a bank that a window makes likeliest, published apart from the reconstruction."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from decoder.data.picture_features import compute_picture_features
from decoder.data.stimuli import StimulusTable, write_stimuli
from decoder.data.training_set import TrainingSet
from decoder.encoding.evidence import fit_evidence
from decoder.encoding.retrieval import Maps, predict_answers, probabilities
from decoder.errors import TrainingError
from decoder.features import Evidence, Features
from decoder.preprocessing.preprocess import PreprocessSpec
from engine.models.loading import Models
from minddiffuser.archive.archive import Archive
from minddiffuser.archive.pictures import decode
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.errors import AppError, ConfigError
from minddiffuser.evaluation.perception import Judges
from minddiffuser.evaluation.retrieved import retrieved_quality
from minddiffuser.live.beside import Beside, Retriever, check_retrieval, encoding_models, retriever_of
from minddiffuser.training.training import image_bank_targets
from minddiffuser.viewing.subscribe import subscribe
from stream.types.events import Event
from stream.types.progress import no_progress
from stream.types.windows import Channels, Window
from tests.minddiffuser.faulty import bundle_for, config_for, finished, live

N, ANSWERS = 12, 6
NAMES = tuple(f"picture {row}" for row in range(N))


def bank(models: Models) -> NDArray[np.uint8]:
    """Give pictures of a colour each."""
    colours = np.random.default_rng(0).integers(0, 256, (N, 1, 1, 3), np.uint8)
    return np.tile(colours, (1, models.image_size, models.image_size, 1))


def world(models: Models) -> tuple[NDArray[np.uint8], Maps, NDArray[np.float32]]:
    """Give a bank, maps from two blocks, and what they predict, computed by hand."""
    images, rng = bank(models), np.random.default_rng(1)
    # Half precision is what an encoding model is fitted on.
    units = {b: own.astype(np.float16).astype(np.float32) for b, own in models.structure(images, (1, 2)).items()}
    maps = {f"s{b}": rng.normal(size=(own.shape[1], ANSWERS)).astype(np.float32) for b, own in units.items()}
    return images, maps, units[1] @ maps["s1"] + units[2] @ maps["s2"]


def test_probabilities_are_bayes_rule(tiny: Models) -> None:
    """Each picture's probability is its likelihood's share, for every model that was asked for."""
    images, maps, answers = world(tiny)
    halved = {block: own / 2 for block, own in maps.items()}
    found, half = predict_answers(images, [maps, halved], tiny)
    np.testing.assert_allclose(found, answers, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(half, answers / 2, rtol=1e-4, atol=1e-4)
    answer = (answers[3] + np.random.default_rng(2).normal(size=ANSWERS)).astype(np.float32)
    likelihood = np.exp(-0.5 * np.square(answers.astype(float) - answer).sum(axis=1))
    np.testing.assert_allclose(
        probabilities(found, Evidence(answer, maps)), likelihood / likelihood.sum(), rtol=1e-2, atol=1e-6
    )


def test_it_finds_what_was_seen(tiny: Models) -> None:
    """The picture that a noisy window is of comes first, with its name; a window that says nothing gives none."""
    images, maps, answers = world(tiny)
    other = {block: own.copy() for block, own in maps.items()}
    retrieve = Retriever(images, NAMES, [other, maps], tiny, 3)
    answer = answers[3] + 0.1 * np.random.default_rng(2).normal(size=ANSWERS)
    features = Features("w", np.zeros((1, 1), np.float32), evidence=Evidence(answer.astype(np.float32), maps))
    found = retrieve(features)
    assert found is not None
    pixels, about = found
    np.testing.assert_array_equal(pixels, images[3])
    assert about["pictures"] == N
    assert about["likeliest"][0]["name"] == "picture 3"
    odds = [each["probability"] for each in about["likeliest"]]
    assert len(odds) == 3
    assert odds == sorted(odds, reverse=True)
    assert retrieve(replace(features, evidence=None)) is None
    assert retrieve(replace(features, evidence=Evidence(np.full(ANSWERS, np.nan, np.float32), maps))) is None


def test_an_encoding_model_retrieves_the_picture(tiny: Models) -> None:
    """Fitted on other pictures, it finds the one of a new window among the bank."""
    rng = np.random.default_rng(3)
    side = tiny.image_size
    shown = rng.integers(0, 256, (80, 4, 4, 3), np.uint8).repeat(side // 4, 1).repeat(side // 4, 2)
    units = tiny.structure(shown, (1,))[1].astype(np.float32)
    brain = rng.normal(size=(units.shape[1], 8)) / units.std()
    data = ((units @ brain) + rng.normal(size=(80, 8))).astype(np.float32).reshape(80, 4, 2)
    rows = np.arange(60)
    names = np.char.mod("%03d", rows)
    samples = TrainingSet(data[:60], np.arange(2) / 100, rows, names, np.full(60, "only"), names, tuple("abcd"))
    reader = fit_evidence(samples, {"s1": units}, PreprocessSpec(), 20, 0)
    assert reader is not None
    retrieve = Retriever(shown[60:], [str(row) for row in range(60, 80)], [reader.maps], tiny, 1)
    right = 0
    for row, own in zip(range(60, 80), reader(data[60:]), strict=True):
        found = retrieve(Features("w", np.zeros((1, 1), np.float32), evidence=own))
        assert found is not None
        right += found[1]["likeliest"][0]["name"] == str(row)
    assert right >= 8  # one by chance


def test_what_the_brain_has_of_meaning_is_retrieved_by_the_pooled_embedding(tiny: Models) -> None:
    """Responses that follow the pooled embedding alone find the picture by it, and by a block hardly."""
    rng = np.random.default_rng(7)
    shown = rng.integers(0, 256, (200, 32, 32, 3), np.uint8)
    groups = compute_picture_features(shown, tiny, kinds=("blocks", "pooled", "thumbnail", "early"), blocks=(1,))
    pooled = groups["CLIP pooled"].astype(np.float32)
    told = (pooled - pooled.mean(axis=0)) / pooled.std(axis=0)
    brain = told @ rng.normal(size=(told.shape[1], 40)) + rng.normal(size=(200, 40))
    data, names = brain.astype(np.float32).reshape(200, 10, 4), np.char.mod("%03d", np.arange(160))
    only, known = np.full(160, "only"), tuple("abcdefghij")
    samples = TrainingSet(data[:160], np.arange(4) / 100, np.arange(160), names, only, names, known)

    def found(groups: dict[str, NDArray[np.float16]]) -> int:
        reader = fit_evidence(samples, groups, PreprocessSpec(), 20, 0)
        assert reader is not None
        retrieve = Retriever(shown[160:], [str(row) for row in range(160, 200)], [reader.maps], tiny, 1)
        about = [retrieve(Features("w", np.zeros((1, 1), np.float32), evidence=own)) for own in reader(data[160:])]
        return sum(one is not None and one[1]["likeliest"][0]["name"] == str(160 + k) for k, one in enumerate(about))

    assert found(groups) >= 20  # one by chance
    assert found({"s1": groups["s1"]}) < 10


def test_a_bank_too_small_for_the_model_is_one_line(tiny: Models) -> None:
    """Smaller pictures than those of the training give fewer numbers; that is said before anything is published."""
    large = compute_picture_features(np.zeros((1, 64, 64, 3), np.uint8), tiny, kinds=("thumbnail", "early"))
    maps = {name: np.ones((values.shape[1], 2), np.float32) for name, values in large.items()}
    with pytest.raises(
        TrainingError, match=r"pictures of 8 x 8 pixels give \d+ numbers of '\w+', .* at least as large"
    ):
        predict_answers(np.zeros((3, 8, 8, 3), np.uint8), [maps], tiny)


def test_pictures_that_were_shown_are_not_retrieved(
    tiny: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown ones are left out and counted; a bank of nothing else, and a bundle without the model, are refused."""
    images, maps, _ = world(tiny)
    table = StimulusTable(NAMES, images, tuple((name,) for name in NAMES))
    write_stimuli(table, tmp_path / "bank")
    config = config_for("s", data={"dataset": "recording", "image_bank": str(tmp_path / "bank")})
    config = config.model_copy(update={"publish": config.publish.model_copy(update={"retrieved": 2})})
    bundle = bundle_for(tiny, config)
    assert encoding_models(bundle) == []
    with pytest.raises(AppError, match=r"has none: set decoder\.encoding"):
        check_retrieval(config, bundle)
    monkeypatch.setattr("minddiffuser.live.beside.encoding_models", lambda _: [maps])
    absent = config.model_copy(update={"data": config.data.model_copy(update={"image_bank": tmp_path / "none"})})
    with pytest.raises(AppError, match=r"data\.image_bank .*none: no stimuli\.csv in it, or no such folder"):
        check_retrieval(absent, bundle)
    check_retrieval(config, bundle)
    retrieve = retriever_of(config, bundle, tiny, replace(table.select(NAMES[:4]), ids=("a", "b", "c", "d")))
    assert "4 pictures of data.image_bank are among those shown" in caplog.text
    evidence = Evidence(predict_answers(images, [maps], tiny)[0][0], maps)
    found = retrieve(Features("w", np.zeros((1, 1), np.float32), evidence=evidence))
    assert found is not None
    assert found[1]["pictures"] == N - 4
    assert not {each["name"] for each in found[1]["likeliest"]} & {*NAMES[:4]}
    with pytest.raises(AppError, match=r"every picture of data\.image_bank is among those shown"):
        retriever_of(config, bundle, tiny, table)


def test_nothing_is_learned_from_pictures_that_are_shown(
    tiny: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What priors and posteriors learn from leaves out training and test pictures, whatever the bank's folder holds."""
    table = StimulusTable(NAMES, bank(tiny), tuple((name,) for name in NAMES))
    write_stimuli(table, tmp_path / "bank")
    own = {"decoder": {"features": ["z", "s"], "encoding": {"posterior": ["z", "s"]}}}
    config = config_for("s", data={"dataset": "recording", "image_bank": str(tmp_path / "bank")}, **own)
    shown = replace(table.select(NAMES[2:5]), ids=("a", "b", "c"))
    found = image_bank_targets(config, shown, tiny, no_progress)
    assert found is not None
    assert found.z is not None
    np.testing.assert_array_equal(found.z, tiny.encode_latents(np.delete(table.images, [2, 3, 4], axis=0)))
    assert {len(each) for each in (*found.s.values(), *found.seen.values())} == {N - 3}
    assert "3 pictures of data.image_bank are among those shown" in caplog.text


def test_nothing_is_retrieved_from_no_bank() -> None:
    """The config is refused before anything starts."""
    with pytest.raises(ConfigError, match=r"set data\.image_bank to a folder"):
        config_for("s", data={"dataset": "recording", "image_bank": None}, publish={"retrieved": 3})


async def test_it_is_published_apart(tiny: Models, tmp_path: Path) -> None:
    """The retrieved picture has a topic, a meta and files of its own, before the preview; pictures stay as they are."""
    images, maps, answers = world(tiny)
    evidence = Evidence(answers[3].astype(np.float32), maps)
    archive = Archive(ArchiveSpec(folder=tmp_path / "archive"), "fateful", {})
    beside = Beside(retriever=Retriever(images, NAMES, [maps], tiny, 2))
    async with live(tiny, ["fine", "unsure"], tmp_path, options={"beside": beside}, evidence=evidence) as run:
        watching = asyncio.create_task(subscribe(run.publisher.broker, "fateful", keep=archive.add, count=1))
        await finished(run)
        summary = await watching
    assert run.session.account.published == 1
    assert (summary.retrieved, summary.pictures) == (1, 1)
    (meta,), (final,) = run.metas("retrieved"), run.metas("picture")
    assert [m["stage"] for kind, m in run.heard if kind == "meta" and m["window_id"] == meta["window_id"]] == [
        "original", "retrieved", "preview", "picture",
    ]  # fmt: skip
    assert meta["retrieved"] == final["retrieved"]
    assert meta["retrieved"]["likeliest"][0]["name"] == "picture 3"
    assert final["sha256"]["retrieved"] == meta["sha256"]["retrieved"] != final["sha256"]["picture"]
    (file,) = archive.folder.glob("*.retrieved.jpg")
    assert np.abs(decode(file.read_bytes()).astype(int) - images[3]).mean() < 3
    lines = (archive.folder / "windows.csv").read_text().splitlines()
    assert "picture 3; " in lines[1]
    assert file.name in lines[1]


def test_what_is_retrieved_is_scored_apart(tiny: Models) -> None:
    """Pictures found are held against those shown by the scores of reconstructions, beside chance and mean image."""
    rng, side = np.random.default_rng(5), tiny.image_size

    def pictures(n: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, (n, 4, 4, 3), np.uint8).repeat(side // 4, 1).repeat(side // 4, 2)

    seen = pictures(6)
    near = np.clip(seen.astype(int) + rng.integers(-9, 10, seen.shape), 0, 255).astype(np.uint8)
    units = tiny.structure(near, (1,))[1]
    maps = {"s1": (rng.normal(size=(units.shape[1], ANSWERS)) / units.std() / 10).astype(np.float32)}
    others = np.concatenate([pictures(30), near])
    retrieve = Retriever(others, [str(row) for row in range(36)], [maps], tiny, 1)
    table = StimulusTable(tuple("abcdef"), seen, tuple((name,) for name in "abcdef"))
    channels = Channels(("A1",), ("eeg",), ("V",))
    windows = [
        Window(f"w{row}", np.zeros((1, 1), np.float32), channels, 1.0, 0.0, 0.0, Event(0.0, name), 0.0, 0.0)
        for row, name in enumerate("abcdef")
    ]
    answers = (units @ maps["s1"]).astype(np.float32)
    features = [
        Features(f"w{row}", np.zeros((1, 1), np.float32), evidence=Evidence(answer, maps))
        for row, answer in enumerate(answers)
    ]
    mean = seen.mean(axis=0).astype(np.uint8)
    found = retrieved_quality(windows, features, retrieve, table, mean, Judges(tiny), np.random.default_rng(0))
    assert (found["bank"], found["n"], found["pictures"]) == (36, 6, 6)
    assert found["stage2"]["two_way"] > 0.9
    assert found["stage2"]["pixcorr"] > 0.9 > found["chance"]["pixcorr"]
    assert found["mean_image"]["two_way"] == 0.5
    alone = retrieved_quality(windows[:1], features[:1], retrieve, table, mean, Judges(tiny), np.random.default_rng(0))
    assert alone == {"figures": "of 1 windows fewer than two are of a picture known: nothing to score"}
