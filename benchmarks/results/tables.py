"""Pages and tables, made from the JSONs of the steps and nothing else."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import ceilings_page
from benchmarks.results.ablations_chart import chart
from benchmarks.results.reports import report_of
from benchmarks.results.setups import ABLATIONS, SETUPS
from decoder.evaluation.metric_registry import PICTURE_METRICS, POSE_METRICS
from stream.atomic import write_whole

BEGIN = "<!-- results: begin; this part is written by `make results` -->"
END = "<!-- results: end -->"
Answer = Mapping[str, Any]

HEADLINES = (
    ("muse-faces-folds", "auc"),
    ("muse-sides-folds", "auc"),
    ("haxby-fmri-folds", "accuracy"),
    ("miyawaki-fmri-folds", "picture.top1"),
    ("v4-photos", "two_way_clip"),
    ("demo", "two_way_clip"),
)
"""Setup and key of the figures that the README shows: of people first, simulated last."""
HEADS = {
    metric.key: f"{metric.short}, {metric.unit}" if metric.unit else metric.short
    for metric in (
        *(PICTURE_METRICS[key] for key in ("two_way", "two_way_clip", "pixcorr", "ssim", "concept_top5")),
        *POSE_METRICS.values(),
    )
}
GROUPS = {
    "stages": "Stages",
    "modes": "Gradients of stage 2",
    "blocks": "CLIP blocks of s",
    "text": "Where c comes from",
    "repeats": "Presentations averaged",
    "channels": "Channels",
    "windows": "Length of the window",
    "pictures": "Training pictures",
    "ceilings": "Ceilings: true features in the place of decoded ones",
}


def read_answers(folder: Path) -> dict[str, Answer]:
    """Read what steps have written, by name of the setup, in the setups' order."""
    files = {setup.name: folder / f"{setup.name}.json" for setup in SETUPS}
    return {name: json.loads(file.read_text("utf-8")) for name, file in files.items() if file.is_file()}


def short(value: float | None, signed: bool = False) -> str:
    """Write a figure with three decimals, and none before the point where it would be a nought."""
    if value is None:
        return ""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def span(interval: Sequence[float] | None, signed: bool = False) -> str:
    """Write an interval in brackets."""
    return "" if interval is None else "[" + ", ".join(short(bound, signed) for bound in interval) + "]"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main_table(answers: Mapping[str, Answer], pages: str) -> str:
    """Make the table of all setups.

    Parameters
    ----------
    answers : mapping
        By setup, as `read_answers` gives.
    pages : str
        Folder of the pages as a link from where the table stands; '' or ending in '/'.
    """
    heads = (
        "config",
        "data",
        "split",
        "figure",
        "stage 1",
        "**figure reached**",
        "chance",
        "p",
        "mean image",
        "reported",
    )
    shown = [answer for answer in answers.values() if answer.get("figures")]
    notes = list(dict.fromkeys(answer["note"] for answer in shown))
    rows = [row for answer in shown for row in _rows(answer, pages, notes.index(answer["note"]) + 1)]
    told = "  \n".join(f"({number}) {note}." for number, note in enumerate(notes, 1))
    return f"{table(heads, rows)}\n\n{told}"


def _rows(answer: Answer, pages: str, note: int) -> Iterator[list[str]]:
    for number, figure in enumerate(answer.get("figures", ())):
        head = ["", "", ""]
        if number == 0:
            head = [
                f"[`{answer['config']}`]({pages}{answer['setup']}.html)",
                _kind(answer),
                answer["split"],
            ]
        p, reported = figure.get("p"), figure.get("reported")
        yield [
            *head,
            figure["label"],
            short(figure.get("stage1")),
            f"**{short(figure['value'])}** {span(figure['interval'])}",
            _chance(figure["chance"]),
            short(p),
            short(figure.get("mean_image")),
            (short(reported) or "none" * (number == 0)) + f" ({note})" * (number == 0),
        ]


def headlines(answers: Mapping[str, Answer], pages: str) -> str:
    """Make the short table, one row for each of `HEADLINES` that there is; parameters as of `main_table`."""
    heads = ("data", "held out", "figure", "**reached** [95 %]", "chance", "without the brain")
    shown = [
        (setup, answers[setup], figure)
        for setup, key in HEADLINES
        for figure in answers.get(setup, {}).get("figures", ())
        if figure["key"] == key
    ]
    rows = [
        [
            f"[{_kind(answer)}]({pages}{setup}.html)",
            answer["split"],
            figure["label"],
            f"**{short(figure['value'])}** {span(figure['interval'])}",
            _chance(figure["chance"]),
            short(figure.get("mean_image")),
        ]
        for setup, answer, figure in shown
    ]
    return table(heads, rows)


def _kind(answer: Answer) -> str:
    """Name whose data an answer is of."""
    species = "human" if answer["species"] == "human" else f"*{answer['species']}*"
    return f"{species} {answer['modality']}, {answer['data']}"


def _chance(chance: float | Sequence[float]) -> str:
    """Write what chance reaches: a figure, or the ends of its interval."""
    return short(chance) if isinstance(chance, float | int) else "-".join(short(bound) for bound in chance)


def readme_part(answers: Mapping[str, Answer]) -> str:
    """Make what stands between the README's markers, markers included."""
    pages = "[All results](docs/results/README.md), with pictures from the best to the worst"
    if any("rows" in answer for answer in answers.values()):
        pages += "; [what each part is worth](docs/results/ablations.md)"
    return f"{BEGIN}\n{headlines(answers, 'docs/results/')}\n\n{pages}.\n{END}"


def with_part(readme: str, part: str) -> str:
    """Write the generated part into the README.

    Raises
    ------
    ValueError
        If the README lacks the markers.
    """
    before, found, rest = readme.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"README.md lacks {BEGIN!r} or {END!r}: they say where the table goes")
    return before + part + after


def index(answers: Mapping[str, Answer], folder: Path) -> str:
    """Make the page of all results, beside the files it links."""
    parts = [
        "# Results",
        "Everything here is written by `make results` (`python -m benchmarks.results NAME` for one of them); "
        "`make results ARGS=--check` runs it all again and says which figures left their intervals. GPU parts "
        "(Stable Diffusion, TensorRT) are no part of it. Brackets: 95 % bootstrap over pictures or windows; p: "
        "pictures (or categories) permuted. Chance of cross-validated figures is a 95 % interval. *Reported*: the "
        "figure that came with the same recordings, no published one.",
        main_table(answers, ""),
        *(_section(answer, folder) for answer in answers.values() if "figures" in answer),
    ]
    groups = [name for name in answers if name.startswith(ABLATIONS)]
    if groups:
        parts += ["## Ablations", "What each part is worth, on simulated EEG: [ablations](ablations.md)."]
    return "\n\n".join(parts) + "\n"


def _section(answer: Answer, folder: Path) -> str:
    name = answer["setup"]
    lines = [
        f"## {name}",
        f"{answer['species'].capitalize()} {answer['modality']}, {answer['data']}; {answer['split']}.",
    ]
    if (folder / f"{name}.webp").is_file():
        lines += [
            "From above: the best, those around the median, the worst, by PixCorr; each shown, preview, final.",
            f"![Pictures of {name}: shown, preview, final; best, median, worst]({name}.webp)",
        ]
    if agreed := answer["answer"].get("live_equals_offline"):
        lines.append(
            f"Live equals offline: {'yes' if agreed['equal'] else 'no'} ({agreed['identical']} of {agreed['windows']} "
            "windows with the same pixels at every stage)."
        )
    links = [f"[figures]({name}.json)"]
    if (folder / f"{name}.html").is_file():
        links.append(f"[page with every figure]({name}.html)")
    versions = ", ".join(f"{package} {number}" for package, number in answer["versions"].items())
    lines.append(
        f"`{answer['command']}`, {answer['seconds']:.0f} s on {answer['machine']}; {versions}. "
        + ", ".join(links)
        + "."
    )
    return "\n\n".join(line for line in lines if line)


def ablation_page(answers: Mapping[str, Answer]) -> str:
    """Make the page of what each part is worth."""
    found = [answer for answer in answers.values() if "rows" in answer]
    parts = [
        "# Ablations",
        "One thing changed at a time; all on the *simulated* participant of the demo (EEG, 63 channels), "
        f"{found[0]['split']}. In brackets: the difference from the first row of the table on the same pictures, "
        "paired 95 % bootstrap. Concepts: the true one among the five nearest names by CLIP, of those shown. "
        "Position, size and orientation errors (`decoder/evaluation/pose.py`): lower is better. Few pictures say "
        "little.",
        "![Difference in PixCorr from the full setup, with intervals](ablations.svg)",
    ]
    for answer in found:
        used = [key for key in HEADS if any(row["values"].get(key) is not None for row in answer["rows"])]
        rows = [[row["name"], str(row["n"]), *(_cell(row, key) for key in used)] for row in answer["rows"]]
        parts += [
            f"## {GROUPS[answer['group']]}",
            *(ceilings_page.parts(answer, HEADS, short, table) if answer["group"] == "ceilings" else ()),
            table(("variant", "pictures", *(HEADS[key] for key in used)), rows),
            f"`{answer['command']}`, {answer['seconds']:.0f} s on {answer['machine']}. "
            f"[Figures]({answer['setup']}.json).",
        ]
    return "\n\n".join(parts) + "\n"


def _cell(row: Mapping[str, Any], key: str) -> str:
    difference = row["differences"].get(key)
    told = span(difference["interval"], signed=True) if difference else ""
    return f"{short(row['values'].get(key))} {told}".strip()


def write_pages(folder: Path, readme: Path | None) -> list[Path]:
    """Make all pages and the README's table from the JSONs in a folder; give the files written."""
    answers = read_answers(folder)
    written = []

    def write(file: Path, text: str) -> None:
        write_whole(file, text)
        written.append(file)

    for name, answer in answers.items():
        if "figures" in answer:
            page = folder / f"{name}.html"
            write(page, report_of(answer, page.read_text("utf-8") if page.is_file() else ""))
    if answers:
        write(folder / "README.md", index(answers, folder))
    if any("rows" in answer for answer in answers.values()):
        write(folder / "ablations.md", ablation_page(answers))
        write(folder / "ablations.svg", chart([answer for answer in answers.values() if "rows" in answer], GROUPS))
    if readme is not None and any(answer.get("figures") for answer in answers.values()):
        write(readme, with_part(readme.read_text("utf-8"), readme_part(answers)))
    return written


def differences(committed: Answer, new: Answer) -> Iterator[str]:
    """Name the figures of a setup that lie outside the committed interval, and those that are gone."""
    for where, value, interval in _checked(committed):
        found = {name: now for name, now, _ in _checked(new)}.get(where)
        if found is None:
            yield f"{committed['setup']}: {where} is gone"
        elif not interval[0] - 5e-5 <= found <= interval[1] + 5e-5:
            yield f"{committed['setup']}: {where} is {short(found)}; committed: {short(value)} {span(interval)}"


def _checked(answer: Answer) -> Iterator[tuple[str, float, Sequence[float]]]:
    for figure in answer.get("figures", ()):
        yield figure["label"], figure["value"], figure["interval"]
    for row in answer.get("rows", ()):
        for key, value in row["values"].items():
            if value is not None:
                yield f"{row['name']}, {key}", value, row["intervals"][key]
