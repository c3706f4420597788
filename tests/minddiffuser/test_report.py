"""What a report says: its verdict, on whom, of how many windows, beside what, with which pictures."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from minddiffuser.cli.commands import app
from minddiffuser.evaluation.examples import trios, trios_in
from minddiffuser.report.notes import NOTES, note_of, numbered
from minddiffuser.report.report import curve_of, maps_seen_from, report_page
from tests.conftest import ROOT
from tests.minddiffuser.test_results_kept import config, temporary
from tests.reportable import examples_of

__all__ = ["config", "temporary"]

RESULTS = ROOT / "docs" / "results"


class Reader(HTMLParser):
    """Text of a page by the tag around it, and whether every tag is closed where it should be."""

    VOID = frozenset({"meta", "link", "img", "source", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  as the parser calls it
        """Open a tag, with an empty text."""
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        """Close the tag that was opened last."""
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Leave out what holds nothing."""

    def handle_data(self, data: str) -> None:
        """Add a text to each tag that is open."""
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def facts(self) -> dict[str, str]:
        """Return terms and what is said of them."""
        return dict(zip(self.texts["dt"], self.texts["dd"], strict=True))


def committed(name: str) -> dict[str, Any]:
    """Read what a committed evaluation answered, but for its verdict and what training said."""
    answer: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["answer"]
    apart = {"verdict", "learning_curve", "recording_more", "stage2_check"}
    return {key: value for key, value in answer.items() if key not in apart}


def read(answer: dict[str, Any], **more: Any) -> Reader:
    """Make a report and read it."""
    return Reader(report_page(answer, command="minddiffuser evaluate x", path="x", **more))


def test_the_verdict_stands_on_top_with_its_reason_and_the_next_command() -> None:
    """Word, reason, next step; high figures of training windows are called no test, in every heading of figures."""
    answer = committed("demo")
    text = "".join(read(answer, config="configs/demo.yaml").texts["section"])
    lines = ["Works", "3 of 3 measures above chance.", "Next: minddiffuser live configs/demo.yaml"]
    assert text.split("\n")[1:4] == lines
    trained = read(answer | {"on_training_data": True})
    assert trained.texts["strong"][0] == "Measured on training data: not a test"
    headings = [one for one in trained.texts["h2"] if "figures" in one]
    assert headings == [
        "Test recording: figures on training data, not a test",
        "The same, decoded live: figures on training data, not a test",
    ]
    assert "on training data" not in "".join(read(answer).texts["h2"])


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("simulated EEG", "Simulated data: nobody's brain was measured"),
        ("macaque V4 spikes", "Macaque data: a monkey's brain was measured"),
        ("human EEG", None),
    ],
)
def test_simulated_is_called_simulated_and_macaque_macaque(data: str, line: str | None) -> None:
    """The line below the title says whose brain it was where it was no person's."""
    page = report_page(committed("demo") | {"data": data}, command="c", path="x")
    assert re.findall(r'<p class="species">([^<]*)</p>', page.replace("&#39;", "'")) == ([line] if line else [])


def test_who_when_and_how_many_windows() -> None:
    """Participant, date, windows used and rejected with their reasons, what became of the live ones."""
    line = "300 markers, 275 used; 25 over 180 uV (Oz 9)"
    answer = committed("v4-photos") | {"participant": "P07", "date": "2026-11-28", "rejection": {"text": line}}
    answer |= {"abstention": {"abstain_below": 0.6, "windows": 4}}
    facts = read(answer).facts()
    assert facts["Participant"] == "P07"
    assert facts["Recorded"] == "2026-11-28"
    assert facts["Windows"] == line
    assert facts["Live would abstain from"] == "4 windows, below a confidence of 0.60"
    assert facts["Test recording"] == "120 windows of 120 pictures"
    assert facts["Live windows"] == "120 published, 0 abstained, 0 rejected, 0 dropped"
    assert facts["Test pictures seen in training"] == "0 % of pictures, 100 % of categories"
    folds = read(committed("muse-faces-folds")).facts()
    assert folds["Held out"] == "each run once, in 6 folds"
    assert folds["Not used"] == "42 rejected"
    assert folds["Participant"] == "not named"


def test_every_figure_stands_beside_chance_the_mean_image_and_stage_1() -> None:
    """A row a figure: final with its interval, preview, mean image, chance, gain and p; those that count come first."""
    answer = committed("demo")
    page = report_page(answer, command="c", path="x")
    own, *_ = (part for part in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if ">two-way, CLIP<" in part)
    cells = re.findall(r'<td data-head="([^"]*)" class="[^"]*">([^<]*)</td>', own)
    assert cells == [
        ("Final (stage 2)", "0.943 [0.928, 0.956]"),
        ("Preview (stage 1)", "0.905"),
        ("Mean image", "0.500"),
        ("Chance", "0.500"),
        ("Gain of stage 2", "+0.038 [+0.022, +0.053]"),
        ("p", "0.001"),
    ]
    assert '<line class="chance" x1="50.0%"' in own
    assert 'class="final" cx="94.3%"' in own
    assert 'class="stage1" cx="90.5%"' in own
    placed = re.search(r'">position error \(share of the side\)</th>(.*?)</tr>', page.replace('scope="row', ""))
    assert placed
    assert re.findall(r">([^<]+)</td>", placed[1]) == ["0.071 [0.066, 0.077]", "0.128", "0.184", "0.256",
                                                       "-0.056 [-0.066, -0.047]"]  # fmt: skip
    labels = re.findall(r'<tr( class="counted")?><th scope="row">([^<]*)', page)
    assert [name for counted, name in labels if counted][:3] == [name for _, name in labels][:3]


def test_pictures_are_named_and_have_their_own_figures() -> None:
    """Best, around the median and worst of 20: label, PixCorr of final and preview; pictures can be taken back."""
    examples, received, stimuli = examples_of(20)
    assert [one["label"] for one in examples if one["group"] == "best"] == [f"stim_{k:02d}" for k in range(6)]
    assert [one["label"] for one in examples if one["group"] == "worst"] == [f"stim_{k:02d}" for k in range(14, 20)]
    pictures = list(trios(examples, received, stimuli))
    answer = committed("demo")
    answer["offline"]["examples"] = [one | {"clip_rank": 3, "of": 20} for one in examples]
    page = report_page(answer, pictures, command="c", path="x")
    assert trios_in(page) == pictures
    captions = Reader(page).texts["figcaption"]
    assert len(captions) == 18
    first = examples[0]
    assert captions[0].startswith(f"stim_00: PixCorr {first['pixcorr']:.3f} (preview {first['pixcorr_stage1']:.3f})")
    assert re.search(r"CLIP rank\d+ 3 of 20$", captions[0])


def test_examples_know_their_rank_by_clip() -> None:
    """A reconstruction more like its own picture than like all others has rank 1, one less like than all the last."""
    from minddiffuser.evaluation.examples import choose

    _, received, stimuli = examples_of(8)
    examples = choose(received, stimuli, lambda own, _: {"two_way_clip": 1 - (own / 7.0)})
    shown = [0, 1, 3, 4, 6, 7]  # best, around the median and worst: none is in two groups
    assert [one["label"] for one in examples] == [f"stim_{k:02d}" for k in shown]
    assert [one["clip_rank"] for one in examples] == [1 + k for k in shown]


def test_a_learning_curve_is_drawn_where_the_answer_has_one() -> None:
    """Points rise with what was told, chance is at .5, and the sentence says whether recording more is worth it."""
    curve = [
        {"pictures": n, "features_two_way": score, "interval": [score - 0.05, score + 0.05]}
        for n, score in ((30, 0.6), (60, 0.7), (90, 0.78), (120, 0.8))
    ]
    found = curve_of(curve)
    assert found is not None
    heights, places = [one["y"] for one in found["points"]], [one["x"] for one in found["points"]]
    assert heights == sorted(heights, reverse=True)
    assert places == sorted(places)
    assert max(heights) < found["chance"]
    more = {"worth": True, "sentence": "Recording more is worth it: from 60 to 120 pictures +0.100."}
    off = {"sentence": "Stage 2 is off for this bundle: it does not help on 60 held-out calibration windows."}
    reader = read(committed("demo") | {"learning_curve": curve, "recording_more": more, "stage2_check": off})
    assert off["sentence"] in reader.texts["p"]
    assert "Would more calibration help?" in reader.texts["h2"]
    assert more["sentence"] in reader.texts["p"]
    assert "0.800 [0.750, 0.850]" in reader.texts["td"]
    assert "Would more calibration help?" not in read(committed("demo")).texts["h2"]


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    """Names of data, configs, participants and paths may hold whatever they like: the page stays whole."""
    answer = committed("muse-faces") | {"config": text, "data": text, "participant": text or "?"}
    reader = Reader(report_page(answer, command=text, path=text, config=text))
    assert reader.texts["h1"] == [f"Evaluation of {text}"]
    assert reader.facts()["Participant"] == (text or "?")
    assert text in reader.texts["code"]


def test_the_maps_are_linked_where_they_are(tmp_path: Path) -> None:
    """Beside the bundle, seen from the report; the command that makes them, where there are none."""
    bundle, page = tmp_path / "bundles" / "own", tmp_path / "out" / "report.html"
    assert maps_seen_from(page, bundle) == ""
    maps = tmp_path / "bundles" / "own-maps" / "index.html"
    maps.parent.mkdir(parents=True)
    maps.write_text("")
    link = maps_seen_from(page, bundle)
    assert os.path.normpath(page.parent / link) == str(maps)
    assert f'<a href="{link}">maps</a>' in report_page(committed("demo"), command="c", path="x", maps=link)
    assert "<code>minddiffuser maps bundles/demo</code>" in report_page(committed("demo"), command="c", path="x")


def test_notes_are_numbered_as_the_page_refers_to_them() -> None:
    """Every figure finds its note, and a number stands beside one text alone."""
    keys = ("c.two_way", "two_way_clip1", "retrieval_top5", "two_way_features", "nothing")
    assert [note_of(key) for key in keys] == ["two_way", "clip", "retrieval", "two_way_features", ""]
    assert {key: note.number for key, note in numbered(["p", "", "auc", "p"]).items()} == {"p": 1, "auc": 2}
    page = report_page(committed("demo"), command="c", path="x")
    used = set(re.findall(r'href="#note-([^"]+)"', page))
    assert used == set(re.findall(r'id="note-([^"]+)"', page))
    assert used <= set(NOTES)


def test_a_config_can_be_reported_too(config: Path, tmp_path: Path) -> None:
    """`evaluate CONFIG --report` writes the cross-validation of noise: it does not work, and the page says so."""
    page = tmp_path / "folds.html"
    result = CliRunner().invoke(app, ["evaluate", str(config), "--report", str(page), "--json"])
    assert result.exit_code == 0, result.exception
    reader = Reader(page.read_text("utf-8"))
    assert reader.texts["h1"] == ["Cross-validation of kept"]
    assert reader.texts["strong"] == ["Does not work"]
    scores = json.loads(result.stdout)["scores"]
    assert any(f"{scores['c']['two_way']:.3f}" in cell for cell in reader.texts["td"])
