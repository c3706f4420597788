"""The page of an evaluation, made of what `evaluate --json` answers: the verdict, what it rests on, and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.evaluation.measures import Measure, of_categories, of_features, of_pictures, of_pose
from minddiffuser.evaluation.verdict import TRAINING, verdict_of_evaluation
from minddiffuser.report.notes import check_rows, note_of, numbered
from minddiffuser.report.page import figure, render, span

if TYPE_CHECKING:
    from minddiffuser.evaluation.examples import Trio

Answer = Mapping[str, Any]

TONES = {"Works": "good", "Weak": "weak", "Does not work": "bad", TRAINING: "no-test"}
SPECIES = {
    "simulated": "Simulated data: nobody's brain was measured",
    "macaque": "Macaque data: a monkey's brain was measured",
}
"""What a page says on top, by a word in the data's description."""
HALVES = {
    "offline": "Test recording",
    "live": "The same, decoded live",
    "retrieved": "Retrieved from pictures that nobody was shown: found, not made",
}
GROUPS = {"best": "Best", "median": "Around the median", "worst": "Worst"}
LEAST = 0.4
"""Lower edge of the learning curve, whose chance is .5."""
STAGES = (("final", "Final (stage 2)"), ("stage1", "Preview (stage 1)"), ("mean", "Mean image"), ("chance", "Chance"))


def report_page(
    answer: Answer,
    pictures: Sequence[Trio] = (),
    *,
    command: str,
    path: str,
    config: str = "CONFIG",
    maps: str = "",
    about: Iterable[tuple[str, str]] = (),
) -> str:
    """Return a page of HTML that needs nothing beside it.

    Parameters
    ----------
    answer : mapping
        What `minddiffuser evaluate --json` says of a bundle, of a config or of an archived session.
    pictures : sequence of Trio
        Those of the answer's examples, in their order (`minddiffuser.evaluation.examples.trios`).
    command : str
        That made the answer.
    path : str
        What was evaluated, as it is typed in a command.
    config : str
        The config's file, as it is typed in a command.
    maps : str
        Where the page of maps lies, seen from this one; '' where there is none.
    about : iterable of (str, str)
        What else is to be known of the data.
    """
    data = str(answer.get("data"))
    judged = verdict_of_evaluation(answer, path, config)
    verdict = answer.get("verdict") or (judged and judged.to_dict())
    on_training = bool(answer.get("on_training_data"))
    sections = list(_sections(answer))
    examples: list[Answer] = next((section["examples"] for section in sections if section["examples"]), [])
    checks = [(label, figure(value), meaning) for label, value, meaning in check_rows(answer.get("checks") or {})]
    keys = chain(
        ("pixcorr", "clip_rank") if examples and pictures else (),
        *(section["keys"] for section in sections),
        ("two_way",) if answer.get("learning_curve") else (),
    )
    return render(
        "report.html",
        title=_title(answer),
        species=species_of(data),
        verdict=verdict,
        tone=verdict and TONES[verdict["word"]],
        on_training=on_training,
        facts=[*_facts(answer, sections), *about],
        sections=sections,
        curve=curve_of(answer.get("learning_curve") or ()),
        recording_more=answer.get("recording_more"),
        groups=list(_groups(examples, pictures)),
        stage2_check=answer.get("stage2_check"),
        agreement=answer.get("live_equals_offline"),
        checks=checks,
        maps=maps,
        bundle=answer.get("bundle"),
        notes=numbered(keys),
        made=made(data, command, answer.get("versions")),
    )


def maps_seen_from(page: Path, bundle_folder: Path) -> str:
    """Return the link from a report to the page of its bundle's maps; '' where `minddiffuser maps` has not run."""
    maps = bundle_folder.parent / f"{bundle_folder.name}-maps" / "index.html"
    return Path(os.path.relpath(maps, page.parent)).as_posix() if maps.is_file() else ""


def curve_of(points: Sequence[Answer]) -> dict[str, Any] | None:
    """Compute the drawing of a learning curve (`decoder.training.learning_curve`), 320 x 170, from LEAST up to 1."""
    if not points:
        return None
    most = max(point["pictures"] for point in points)

    def up(value: float) -> float:
        return round(140 - 125 * (min(max(value, LEAST), 1.0) - LEAST) / (1 - LEAST), 1)

    placed = [
        {
            "pictures": point["pictures"],
            "value": point["features_two_way"],
            "interval": point["interval"],
            "x": round(35 + 265 * point["pictures"] / most, 1),
            "y": up(point["features_two_way"]),
            "ends": [up(end) for end in point["interval"]],
        }
        for point in points
    ]
    return {"points": placed, "ticks": [(f"{tick:g}", up(tick)) for tick in (0.5, 0.75, 1.0)], "chance": up(0.5)}


def made(data: str, command: str, versions: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """Return from which data, by which command and with which versions a page was made."""
    numbers = ", ".join(f"{name} {number}" for name, number in (versions or {}).items())
    return [("Data", data), ("Command", command), *([("Versions", numbers)] if numbers else [])]


def species_of(data: str) -> str:
    """Return what a page of these data must say on top; '' for people's."""
    return next((line for word, line in SPECIES.items() if word in data.lower()), "")


def _title(answer: Answer) -> str:
    if "session" in answer:
        return f"Session {answer['session']}"
    kind = "Cross-validation" if "scores" in answer else "Evaluation"
    return f"{kind} of {answer.get('config')}"


def _facts(answer: Answer, sections: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Return what was measured on whom, when, and how much of it was used."""
    yield "Data", str(answer.get("data"))
    yield "Participant", str(answer.get("participant") or "not named")
    if "simulated" not in str(answer.get("data")):
        yield "Recorded", str(answer.get("date") or "date not known")
    for section in sections:
        yield section["title"], section["size"]
    if fates := answer.get("fates"):
        yield "Windows", ", ".join(f"{n} {fate}" for fate, n in fates.items())
    if held_out := answer.get("held_out"):
        yield "Held out", f"each {held_out['split']} once, in {held_out['folds']} folds"
    if rejection := answer.get("rejection"):
        yield "Windows", rejection["text"]
    if "left_out" in answer:
        yield "Not used", _counted(answer["left_out"])
    if account := (answer.get("live") or {}).get("account"):
        kinds = ("published", "abstained", "rejected", "dropped")
        yield "Live windows", ", ".join(f"{account[kind]} {kind}" for kind in kinds if kind in account)
    if reason := answer.get("without_clip"):
        yield "No figures by CLIP", str(reason)
    if abstention := answer.get("abstention"):
        below = f"below a confidence of {abstention['abstain_below']:.2f}"
        yield "Live would abstain from", f"{abstention['windows']} windows, {below}"
    if overlap := answer.get("overlap"):
        shares = ", ".join(f"{100 * share:.0f} % of {what}" for what, share in _shares(overlap))
        yield "Test pictures seen in training", shares


def _shares(overlap: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for what, value in overlap.items():
        if isinstance(value, int | float):
            yield what, value


def _counted(by_reason: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in by_reason.items() if n) or "none"


def _sections(answer: Answer) -> Iterator[dict[str, Any]]:
    """Return a table for each half that was measured."""
    if "scores" in answer:
        scores = answer["scores"]
        n = scores.get("n") or max(own.get("windows", 0) for own in scores.values() if isinstance(own, Mapping))
        yield _section("Held-out windows", f"{n} windows", of_features(scores))
        if "auc" in (riemann := answer.get("riemann", {})):
            yield _section("Plain Riemannian baseline", f"{riemann['n']} windows", of_categories(riemann))
        return
    halves = {name: answer[half] for half, name in HALVES.items() if half in answer} or {"Published": answer}
    for name, found in halves.items():
        if "stage2" in found:
            bank = f", one of {found['bank']} pictures for each" if "bank" in found else ""
            size = f"{found['n']} windows of {found['pictures']} pictures{bank}"
            first = {one.key: one.interval for one in of_pictures(found, "stage1")}
            measures = [one for one in of_pictures(found) if one.key in found["stage2"]]
            section = _section(name, size, measures, first)
            yield section | {"pose": list(_pose(found.get("pose", {}))), "examples": found.get("examples", [])}
        elif "auc" in found:
            yield _section(name, f"{found.get('n', answer.get('pictures'))} windows", of_categories(found))
        elif "figures" in found:
            yield {"title": name, "size": found["figures"], "rows": [], "pose": [], "examples": [], "keys": []}


def _section(
    title: str, size: str, measures: Sequence[Measure], first: Mapping[str, tuple[float, float] | None] | None = None
) -> dict[str, Any]:
    """Return a table of measures: those that the verdict counts first, and columns that hold anything alone."""
    of_stages = first is not None
    ordered = sorted(measures, key=lambda one: not one.counts)
    cells = [_cells(one) for one in ordered]
    heads = (
        ("Final (stage 2)" if of_stages else "Reached", "interval"),
        ("Preview (stage 1)", ""),
        ("Mean image", "mean_image") if of_stages else ("Without the brain", "baseline"),
        ("Chance", "chance"),
        ("Gain of stage 2", "gain"),
        ("p", "p"),
    )
    used = [column for column in range(len(heads)) if any(row[column] != "-" for row in cells)]
    shown = [("Figure", "counts"), ("0 to 1", ""), *(heads[column] for column in used)]
    rows = [
        {
            "label": one.label,
            "note": note_of(one.key),
            "counts": one.counts,
            "bar": _bar(one, (first or {}).get(one.key)) if one.higher_is_better else None,
            "cells": [row[column] for column in used],
        }
        for one, row in zip(ordered, cells, strict=True)
    ]
    kinds = [
        (kind, label if of_stages or kind != "final" else "Reached")
        for kind, label in STAGES
        if of_stages or kind in {"final", "chance"} or (kind == "mean" and 2 in used)
    ]
    return {
        "title": title,
        "size": size,
        "heads": [{"text": text, "note": note} for text, note in shown],
        "rows": rows,
        "kinds": [(kind, "Without the brain" if kind == "mean" and not of_stages else label) for kind, label in kinds],
        "pose": [],
        "examples": [],
        "keys": [*(note for _, note in shown), *(row["note"] for row in rows), *(["pose"] if of_stages else [])],
    }


def _cells(measure: Measure) -> tuple[str, ...]:
    """Return a measure with its interval, of stage 1, of the mean image, by chance, its gain and its p."""
    return (
        f"{figure(measure.value)} {span(measure.interval)}".strip(),
        figure(measure.stage1),
        figure(measure.mean_image),
        "-" if measure.chance is None else "-".join(dict.fromkeys(figure(end) for end in measure.chance)),
        "-" if measure.gain is None else f"{figure(measure.gain[0], True)} {span(measure.gain[1:], True)}",
        figure(measure.p),
    )


def _bar(measure: Measure, first: tuple[float, float] | None) -> dict[str, Any]:
    """Return where the marks of a measure lie, in percent of a line from 0 to 1."""
    dots = [("final", 50 if measure.stage1 is None else 66, _x(measure.value), _ends(measure.interval))]
    if measure.stage1 is not None:
        dots.insert(0, ("stage1", 34, _x(measure.stage1), _ends(first)))
    mean = None if measure.mean_image is None else _x(measure.mean_image)
    return {"chance": _ends(measure.chance), "mean": mean, "dots": dots}


def _x(value: float) -> float:
    return round(100 * min(max(value, 0.0), 1.0), 1)


def _ends(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval and (_x(interval[0]), _x(interval[1]))


def _pose(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for one in of_pose(found):
        yield [one.label, *_cells(one)[:-1]]


def _groups(examples: Iterable[Mapping[str, Any]], pictures: Sequence[Trio]) -> Iterator[dict[str, Any]]:
    if not pictures:
        return
    paired = list(zip(examples, pictures, strict=True))
    for group, name in GROUPS.items():
        yield {"name": name, "examples": [(one, trio) for one, trio in paired if one["group"] == group]}
