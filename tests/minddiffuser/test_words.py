"""One word for one thing: what the tables print is in the glossary, and no event goes by another name."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decoder.evaluation.metric_registry import METRICS
from minddiffuser.cli import accounts
from minddiffuser.evaluation.measures import name_of
from minddiffuser.evaluation.verdict import NEXT, TRAINING, verdict_of_training
from minddiffuser.report import answers
from minddiffuser.report.notes import CHECKS
from minddiffuser.report.tables import FEATURE_HEADS, PICTURE_HEADS, text_of
from minddiffuser.viewing.subscribe import Summary
from minddiffuser.workflows.evaluate import judged
from tests.conftest import ROOT
from tests.minddiffuser.test_verdict import RESULTS

GLOSSARY = (ROOT / "docs" / "reference" / "glossary.md").read_text("utf-8")
SAID = re.sub(r"[*_`]", "", GLOSSARY).casefold()
LABELS = [
    *(metric.label for metric in METRICS),
    *(name_of(feature) for feature in ("c", "z", "e", "s1", "picture")),
    *(label for label, _ in CHECKS.values()),
    *PICTURE_HEADS,
    *FEATURE_HEADS,
    *accounts.FATES,
    *(word for _, word in NEXT),
    TRAINING,
]


def words(label: str) -> Iterator[str]:
    """Split a label into what the glossary must have: what stands in brackets is said there with it."""
    for part in re.split(r"[(),\[\]]|\bblock \d", label):
        if cleaned := part.strip().casefold():
            yield cleaned


@pytest.mark.parametrize("label", dict.fromkeys(LABELS))
def test_every_label_of_the_tables_is_in_the_glossary(label: str) -> None:
    """Each word of each label that `train` and `evaluate` print has its line."""
    aliases = {"value": "figure", "two-way": "two-way identification", "stage 2's own target": "stage 2 pulls toward"}
    missing = [one for one in words(label) if aliases.get(one, one) not in SAID]
    assert not missing


def test_the_rule_of_the_verdict_is_written_down() -> None:
    """The glossary names the four words, and README of the documentation leads to it."""
    for word in ("Works", "Weak", "Does not work", "Measured on training data: not a test"):
        assert f"**{word}**" in GLOSSARY
    assert "(reference/glossary.md)" in (ROOT / "docs" / "README.md").read_text("utf-8")


def sources() -> Iterable[Path]:
    """Give what people read: code with its messages, pages, documentation."""
    for folder, suffix in (("minddiffuser", "py"), ("stream", "py"), ("decoder", "py")):
        yield from (ROOT / folder).rglob(f"*.{suffix}")
    yield from (ROOT / "minddiffuser" / "display" / "static").glob("*.*")
    yield from (ROOT / "docs").rglob("*.md")
    yield ROOT / "README.md"


def test_no_event_goes_by_a_fifth_name() -> None:
    """No window is 'left out', 'skipped', 'discarded', 'refused' or 'ignored': it is rejected, abstained or dropped."""
    other = "left out|skipped|discarded|refused|ignored"
    wrong = re.compile(rf"\bwindows?\b(?: %s)? (?:is |are |was |were )?(?:{other})", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources()
        for match in wrong.finditer(path.read_text("utf-8"))
    ]
    assert not found


def result(name: str) -> dict[str, Any]:
    """Read a committed answer of `evaluate --json`, with its verdict."""
    import json

    answer: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())["answer"]
    return answer | {"verdict": judged(answer, answer.get("bundle", "configs/x.yaml"))}


def test_evaluate_prints_figures_with_interval_chance_and_verdict() -> None:
    """A simulated participant's answer as a person gets it: each figure beside its rivals, then word and command."""
    text = text_of(answers.evaluation(result("demo")))
    lines = text.splitlines()
    assert lines[0] == "bundles/demo: tested on simulated EEG"
    (clip, *_) = [line for line in lines if line.startswith("two-way, CLIP *")]
    assert clip.split() == ["two-way,", "CLIP", "*", "0.943", "[0.928,", "0.956]", "0.905", "0.500", "0.500", "yes"]
    (ssim, *_) = [line for line in lines if line.startswith("SSIM")]
    assert ssim.split()[-1] == "no"  # the mean image is better
    assert "Final over preview: stage 2 raises two-way, CLIP (+0.038 [+0.022, +0.053])." in lines
    assert lines[-2] == "Works: 3 of 3 measures above chance"
    assert lines[-1] == "Next: minddiffuser live configs/demo.yaml"
    assert max(map(len, lines)) <= 120
    assert "{" not in text


def test_figures_of_training_data_are_marked_in_every_title() -> None:
    """Offline and live tables of such figures say so above them, and so does the verdict."""
    answer = result("v4-photos") | {"on_training_data": True}
    text = text_of(answers.evaluation(answer | {"verdict": judged(answer, "b")}))
    assert text.count("MEASURED ON TRAINING DATA, NOT A TEST: ") == 2
    assert "Measured on training data: not a test; 3 of 3 measures above chance" in text


def test_train_prints_windows_scores_curve_and_verdict() -> None:
    """What train found: what became of windows, held-out scores beside chance, whether to record more, what next."""
    c = {"r": 0.4, "two_way": 0.88, "two_way_interval": [0.86, 0.9], "two_way_chance": [0.46, 0.54], "baseline": 0.5}
    found: dict[str, Any] = {
        "bundle": "bundles/own",
        "data": "EEG",
        "scores": {"c": c, "confidence": {"told": 0.8, "claimed": 0.79}},
        "left_out": {"rejected": 3, "not a stimulus": 1, "not finite": 2},
        "channels_left_out": {"Oz": "flat"},
        "learning_curve": [
            {"pictures": 150, "features_two_way": 0.7, "interval": [0.65, 0.75]},
            {"pictures": 600, "features_two_way": 0.88, "interval": [0.86, 0.9]},
        ],
        "recording_more": {"worth": True, "sentence": "Recording more is worth it: so much."},
    }
    judgement = verdict_of_training(found, "own.yaml")
    assert judgement is not None
    lines = text_of(answers.training(found | {"verdict": judgement.to_dict()})).splitlines()
    assert "Windows not used: 5 rejected, 1 unmatched" in lines
    assert "Channels not used: Oz (flat)" in lines
    (row,) = [line for line in lines if line.startswith("c (text): two-way")]
    assert row.split()[3:] == ["*", "0.880", "[0.860,", "0.900]", "0.460", "to", "0.540", "0.500", "yes"]
    assert ["150", "0.700", "[0.650,", "0.750]", "0.500"] in [line.split() for line in lines]
    assert "Recording more is worth it: so much." in lines
    assert lines[-2] == "Works: 1 of 1 measures above chance"
    assert lines[-1].endswith("minddiffuser evaluate bundles/own --report report.html")
    prominent = text_of(answers.training(found | {"verdict": None, "rejection": {"text": "120 markers, 94 used"}}))
    assert "120 markers, 94 used" in prominent
    assert "Windows not used" not in prominent


LIVE = {
    "windows": 10, "published": 6, "dropped": 1, "rejected": 2, "abstained": 1, "failed": 0, "stream": "amp",
    "problems": ["no marker for 5 s"], "ingest": {"samples": 1000, "lost": 3, "events": 12, "unmatched": 2},
    "latency_ms": {"picture": {"p50": 250.4, "p99": None, "max": 1.0}}, "archive": {"folder": "archive/own-1"},
    "messages": {kind: {"put": 6, "published": 3, "dropped": 2 * (kind == "picture"), "denied": kind == "picture"}
                 for kind in ("picture", "preview", "status")},
}  # fmt: skip


def test_live_accounts_for_every_window() -> None:
    """Each fate with its share and what it means; then how many gave a picture, and how to score them."""
    lines = text_of(accounts.live(LIVE)).splitlines()
    rows = [line.split()[:3] for line in lines]
    for word, count, share in (("published", 6, "60%"), ("rejected", 2, "20%"), ("dropped", 1, "10%")):
        assert [word, str(count), share] in rows
    assert ["unmatched", "(no", "picture"] in rows
    assert "window to final 250 -" in [" ".join(line.split()) for line in lines]
    assert "Problem at the end: no marker for 5 s" in lines
    unmeasured = {**LIVE, "latency_ms": {"picture": {"p50": None, "p99": None}, "decoded": None}}
    assert "Latency" not in text_of(accounts.live(unmeasured))
    (unsent,) = (line for line in lines if line.startswith("The broker did not get"))
    assert "3 of 6 times a picture:" in unsent
    assert lines[-2] == "6 of 10 windows gave a picture; most others were rejected (2)"
    assert lines[-1] == "Next: how good they are: minddiffuser evaluate archive/own-1"
    assert text_of(accounts.live({**LIVE, "windows": 0})).splitlines()[-1].endswith("minddiffuser inspect --live")


def test_record_says_whether_the_recording_is_whole() -> None:
    """Each stream with declared and measured rate; what is lost, what is silent, and whether markers are among them."""
    eeg = {"name": "amp", "type": "EEG", "samples": 750, "lost": 2, "gap_count": 1, "declared_hz": 250.0,
           "measured_hz": 249.98, "warning": None}  # fmt: skip
    marks = {**eeg, "name": "marks", "type": "", "samples": 0, "lost": 0, "declared_hz": 0.0, "measured_hz": None}
    found: dict[str, Any] = {"file": "a.xdf", "seconds": 3.0, "bytes": 2e6, "lost": 2, "streams": [eeg, marks]}
    lines = text_of(accounts.record(found)).splitlines()
    rows = [line.split() for line in lines]
    assert ["amp", "EEG", "750", "2", "1", "250", "Hz", "249.98", "Hz"] in rows
    assert lines[-2] == "Recorded: 2 samples are missing; nothing came from marks"
    assert lines[-1].endswith("minddiffuser inspect a.xdf")
    notes = {**marks, "name": "minddiffuser-notes"}  # that nobody took a note is no loss
    assert "nothing came" not in text_of(accounts.record({**found, "streams": [eeg, notes]}))
    alone = text_of(accounts.record({**found, "lost": 0, "streams": [eeg]}))
    assert "Recorded: no sample is missing; no marker stream among them" in alone


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        ({}, "All came: 3 final pictures, none lost"),
        ({"lost": 1, "failed": 1}, "Not all came: 2 of what was published is missing"),
        ({"pictures": 0, "previews": 0}, "No picture came"),
    ],
)
def test_subscribe_says_whether_all_came(changes: dict[str, int], short: str) -> None:
    """Counts in words, latency in milliseconds, and one line whether something is missing."""
    summary = Summary("lab", 2.0, pictures=3, previews=3, data="simulated EEG").to_dict()
    summary["latency_ms"] = {"picture": {"p50": 1.6, "p99": 4.2, "max": 5.0, "n": 3}}
    lines = text_of(accounts.subscribe({**summary, **changes}, "received")).splitlines()
    assert lines[0] == "Session lab, 2.0 s: simulated EEG"
    assert "window to final 2 4" in [" ".join(line.split()) for line in lines]
    assert short in lines
    assert "received" in lines[-1] or "display" in lines[-1]


def test_doctor_says_what_is_missing_and_what_to_do() -> None:
    """One line of verdict, and the way out of the first thing that is missing."""
    from minddiffuser.setup.doctor import Finding

    well = Finding(True, "torch 2")
    assert text_of(accounts.doctor([well])).splitlines()[-2:] == [
        "Ready: all that is needed is here",
        "Next: minddiffuser demo",
    ]
    bad = replace(well, ok=False, text="mne is not installed: pip install mne")
    lines = text_of(accounts.doctor([well, bad])).splitlines()
    assert lines[-2:] == [
        "Not ready: 1 of 2 things that are needed are missing",
        "Next: mne is not installed: pip install mne",
    ]
