"""What `train`, `evaluate` and `maps` found, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from decoder.data.usable import in_words
from minddiffuser.evaluation.measures import Measure, name_of, of_categories, of_features, of_pictures, of_pose
from minddiffuser.report.notes import check_rows
from minddiffuser.report.page import begins, milliseconds
from minddiffuser.report.tables import bold, figure, measure_table, table, verdict_lines

if TYPE_CHECKING:
    from rich.console import RenderableType

ON_TRAINING_DATA = "MEASURED ON TRAINING DATA, NOT A TEST"
"""Stands in the title of every table of such figures."""
RIEMANN = "Baseline: 1-30 Hz, Xdawn covariances, tangent space, logistic regression"
"""What tables call `decoder.models.riemann_baseline`."""
NO_VERDICT = "No verdict: too few known pictures, or windows of them, to measure."


def training(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what `train` answers: windows used, held-out scores, whether more recording pays, and the verdict."""
    yield f"{found['bundle']}: trained on {found['data']}"
    yield from _windows(found)
    yield measure_table("Held-out windows of the calibration, by decoded feature", of_features(found["scores"]))
    yield from _selection(found["scores"])
    if confidence := found["scores"].get("confidence"):
        yield (
            f"Confidence claims that {confidence.get('claimed', 0):.3f} of two pictures are told apart; "
            f"held-out windows: {confidence.get('told', 0):.3f}, chance 0.500."
        )
    if curve := found.get("learning_curve"):
        yield from _learning_curve(curve, found.get("recording_more", {}))
    if checked := found.get("stage2"):
        yield str(checked["sentence"])
    if moved := found.get("recalibrated"):
        yield from _moved(moved)
    yield from verdict_lines(found.get("verdict"), "No verdict: too few held-out windows to measure.")


def _windows(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Return how many windows were used and what became of the others."""
    if rejection := found.get("rejection"):
        yield bold(str(rejection["text"]))
    elif left_out := found.get("left_out"):
        yield f"Windows not used: {in_words(left_out)}"
    if bad := found.get("channels_left_out"):
        yield "Channels not used: " + ", ".join(f"{name} ({reason})" for name, reason in bad.items())


def _selection(scores: Mapping[str, Any]) -> Iterator[str]:
    """Name figures that have chosen something, and so say nothing of quality."""
    names = [
        name_of(feature)
        for feature, own in scores.items()
        if isinstance(own, Mapping) and any(key.startswith("selection_") for key in own)
    ]
    if names:
        yield f"Not scored, as there are too few pictures to choose settings by others: {', '.join(names)}."


def _learning_curve(curve: Sequence[Mapping[str, Any]], more: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield how good decoding is with a part of the calibration's pictures, and whether more are worth recording."""
    rows = [(str(each["pictures"]), figure(each["features_two_way"], each["interval"]), "0.500") for each in curve]
    heads = ("pictures", "two-way, features [95 %]", "chance")
    yield table("Learning curve, by ridge: is it worth recording more?", heads, rows, numbers=3)
    if sentence := more.get("sentence"):
        yield str(sentence)


def _moved(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what moving a bundle to another recording was worth."""
    rows = [
        (name_of(name), figure(head["error_before"]), figure(head["error_after"]))
        for name, head in facts.get("heads", {}).items()
    ]
    if worth := facts.get("worth"):
        told = f"held-out windows are told apart {worth['moved']:.3f} with them, {worth['alone']:.3f} without"
        kept = "are kept" if worth["others_help"] else "do not help and are left out; trained on this recording alone"
        yield f"The data of others {kept}: {told} (two-way, chance 0.500)."
    elif why := facts.get("not_compared"):
        yield f"The data of others are kept: {why}."
    title = f"Moved by {facts['windows']} windows; squared error of held-out windows (1: as good as the mean)"
    yield table(title, ("feature", "before", "after"), rows, numbers=2)


def evaluation(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what `evaluate` answers of a bundle, a config or a session."""
    if "scores" in found:
        yield from _folds(found)
    elif "bundle" in found:
        yield from _tested(found)
    else:
        yield from _session(found)
    yield from verdict_lines(found.get("verdict"), NO_VERDICT)


def _tested(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield f"{found['bundle']}: tested on {found['data']}"
    yield from _windows(found)
    for name in ("offline", "live", "retrieved"):
        if name in found:
            mark = f"{ON_TRAINING_DATA}: " if found.get("on_training_data") else ""
            yield from _figures(found[name], f"{mark}{name}")
    if overlap := found.get("overlap"):
        yield (
            f"Of the test pictures, {overlap.get('pictures', 0):.0%} were shown in training; "
            f"of their categories, {overlap.get('categories', 0):.0%}."
        )
    if equal := found.get("live_equals_offline"):
        yield f"Live equals offline: {'yes' if equal['equal'] else 'no'}, over {equal['windows']} windows."
    if account := found.get("live", {}).get("account"):
        yield windows_line(account)
    if abstention := found.get("abstention"):
        least, n = abstention["abstain_below"], abstention["windows"]
        yield f"Live, {n} of these windows would be abstained: their confidence is below {least:.3f}."
    if checks := found.get("checks"):
        rows = [(label, figure(value), meaning) for label, value, meaning in check_rows(checks)]
        yield table("Are they good for the right reason?", ("check", "value", "what it is"), rows)


def _figures(found: Mapping[str, Any], title: str) -> Iterator[RenderableType]:
    """Yield one half's table; of what cannot be scored, why."""
    if isinstance(line := found.get("figures"), str):
        yield f"{title}: {line}"
        return
    measures: Sequence[Measure]
    if "auc" in found:
        measures, count = of_categories(found), f"{found['n']} windows" if "n" in found else "windows"
    else:
        measures = [*of_pictures(found), *of_pose(found.get("pose", {}))]
        what = f"pictures of {found['bank']} that nobody was shown, for" if "bank" in found else "reconstructions of"
        count = f"{found['n']} {what} {found['pictures']} pictures"
    yield measure_table(f"{title}, {count}", measures)
    yield from _stage2(measures)


def _stage2(measures: Sequence[Measure]) -> Iterator[str]:
    """Return a sentence on what stage 2 adds by CLIP, or by pixels where nothing else is known."""
    by_key = {one.key: one for one in measures if one.gain is not None}
    one = by_key.get("two_way_clip") or by_key.get("two_way")
    if one is None or one.gain is None:
        return
    mean, low, high = one.gain
    verb = "raises" if low > 0 else "lowers" if high < 0 else "does not change"
    yield f"Final over preview: stage 2 {verb} {one.label} ({mean:+.3f} [{low:+.3f}, {high:+.3f}])."


def _folds(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    held_out = found["held_out"]
    yield f"{found['config']}: {found['data']}, held out by {held_out['split']} in {held_out['folds']} folds"
    yield from _windows(found)
    yield measure_table("All recordings, each window by what never saw it", of_features(found["scores"]))
    if riemann := found.get("riemann"):
        yield from _riemann(riemann)
    yield from _repeats(found["scores"].get("likelihood", {}))
    for choice in found.get("chosen", ()):
        yield f"Chosen in {choice['folds']} folds: {choice['changes'] or 'the config as it stands'}"
    if reported := found.get("reported"):
        yield "Published of the same data: " + ", ".join(f"{name} {value}" for name, value in reported.items())


def _riemann(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the field's plain decoder on the same windows, or why it could not be fitted."""
    if "why" in found:
        yield f"{RIEMANN} was not fitted: {found['why']}"
        return
    yield measure_table(f"{RIEMANN}, same windows and folds", of_categories(found))


def _repeats(likelihood: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield how well pictures are told by the likelihood of several presentations together."""
    if by_repeats := likelihood.get("by_repeats"):
        names = ("two_way", "top1", "top5")
        rows = [
            (count, *(figure(own[name], own[f"{name}_interval"]) for name in names))
            for count, own in by_repeats.items()
        ]
        heads = ("presentations", "two-way [95 %]", "top-1 [95 %]", "top-5 [95 %]")
        yield table("Likelihood, presentations of a picture together", heads, rows, numbers=4)


def _session(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield f"Session {found['session']}: {found['data']}"
    removed = f", {found['removed']} removed by a limit" if found.get("removed") else ""
    fates = found["fates"]
    yield f"{sum(fates.values())} windows: {', '.join(f'{n} {word}' for word, n in fates.items())}{removed}"
    yield from _figures(found, "as published")
    if reason := found.get("without_clip"):
        yield f"No figures by CLIP: {reason}."


def windows_line(account: Mapping[str, Any]) -> str:
    """Return what became of every window of a session, in the words of the glossary."""
    parts = [f"{account[word]} {word}" for word in ("published", "rejected", "abstained", "dropped", "failed")]
    return f"{account['windows']} windows: {', '.join(parts)}"


def maps(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what `maps` answers: when, or where, each feature can be decoded."""
    chance = found["chance"]
    threshold = chance["family_wise_threshold"]
    yield f"{found['data']}: {found['n_windows']} windows of {found['n_pictures']} pictures, {found['split']}"
    timed = any("best_s" in one for one in found["features"].values())
    heads = ["feature", "best score", "chance", "threshold", "best at", "above chance"]
    rows = []
    for name, one in found["features"].items():
        row = [name_of(name), figure(one["best"]), figure(chance["score"]), figure(threshold), one["best_at"]]
        row.append("yes" if one["best"] > threshold else "no")
        if timed:
            row += [begins(one["not_before_s"], one["rise_s"]), milliseconds(one.get("pattern_peak_s"))]
        rows.append(row)
    if timed:
        heads += ["begins", "pattern peak"]
    place = "latency" if timed else "region"
    yield table(f"Held-out score by {place}", heads, rows)
    n = sum(one["best"] > threshold for one in found["features"].values())
    yield bold(f"{n} of {len(rows)} features can be decoded above chance at some {place}")
    yield from found.get("warnings", ())
    yield f"Next: open {found['page']}"
