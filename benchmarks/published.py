"""A public data set from its published files to one table beside the field's figures, by the field's protocol.

    python -m benchmarks.published things-eeg2 --data DATA --out things-eeg2

trains the config's decoder on each participant (`--subjects 1 2 5`; the config's own by default), and writes
`table.md`. THINGS: which of the 200 test pictures was seen, by the embedding decoded of the mean of all presentations
of a picture (80 of EEG, 12 of MEG; `--repeats` averages fewer), top-1 and top-5 by cosine about the mean training
picture. Every data set: reconstructions by PixCorr, SSIM, two-way identification by AlexNet, Inception and CLIP, and
distances by EfficientNet and SwAV, of which those are left out whose weights are not at hand (`MINDDIFFUSER_JUDGES`).

What is done is kept in the folder, participant by participant and step by step, and is not done again: a run that ended
early goes on where it was. One participant is in memory at a time. A folder made with another config is refused.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published_figures import METRICS, PROTOCOL, PUBLISHED, RETRIEVAL, table_of
from decoder.data.targets import compute_targets
from decoder.datasets import Dataset
from decoder.errors import DecoderError
from decoder.evaluation.identify import identification
from decoder.evaluation.metrics import correlation_matrix
from decoder.models.bundle import Bundle
from engine.errors import EngineError
from engine.models.loading import Models, load_models
from minddiffuser.cache import cache_dir, key_of
from minddiffuser.config.spec import Config, load_config
from minddiffuser.errors import AppError
from minddiffuser.shipped import config_file
from minddiffuser.training.data import load_dataset
from minddiffuser.training.training import train
from minddiffuser.workflows.evaluate import run_evaluate, usable_windows
from stream.atomic import write_whole
from stream.errors import StreamError
from stream.quality.signal_profile import profile_of

SEED = 20261129
"""Of permutations and bootstrap."""


def _quiet(what: str, done: int, total: int) -> None:
    """Report to nobody: each step says when it begins."""


def once(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file holds, or make it and write the file whole."""
    if not file.is_file():
        print(f"{file.stem} of {file.parent.name}", file=sys.stderr, flush=True)
        write_whole(file, json.dumps(make(), indent=1))
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def retrieval(bundle: Bundle, config: Config, dataset: Dataset, models: Models) -> dict[str, Any]:
    """Tell which of all test pictures was seen, by the decoded embedding about the mean training picture."""
    windows = usable_windows(dataset.live, config, profile_of(bundle.meta))
    labels = [window.event.label for window in windows if window.event is not None]
    shown = dataset.stimuli.select(sorted(set(labels)))
    trained = {event.label for run in dataset.train for event in run.events} & set(dataset.stimuli.ids)
    parts = (shown, dataset.stimuli.select(sorted(trained)))
    gallery, known = (compute_targets(part, models, features=("e",), cache=cache_dir() / "targets").e for part in parts)
    assert gallery is not None
    assert known is not None
    decoded = [features.e for window in windows for features in bundle.decode([window])]
    if any(one is None for one in decoded):
        raise AppError(f"{config.name} decodes no embedding to tell pictures by: add e to decoder.features")
    mean = known.mean(axis=0)
    deviations = [_centred(np.asarray(each) - mean) for each in (gallery, decoded)]
    rows = shown.rows(labels)
    return identification(correlation_matrix(*deviations), rows, np.random.default_rng(SEED), first=(1, 5))


def _centred(deviations: Any) -> Any:
    """Mirror deviations, after which their correlation is their cosine."""
    return np.concatenate([deviations, -deviations], axis=1)


def participant(config: Config, data: Path, folder: Path, *, limit: int | None) -> dict[str, Any]:
    """Train and evaluate on one participant; what the folder holds is taken as it is.

    Parameters
    ----------
    config : Config
        Of one subject.
    data, folder : Path
    limit : int or None
        Reconstructions of the first so many test pictures only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = once(folder / "config.json", lambda: {"key": key_of(config.own()), "config": config.own()})
    if named["key"] != key_of(config.own()):
        raise AppError(f"{folder} was made with another config: choose another --out, or remove it")
    models, bundle = load_models(config.engine.models, config.engine.device), folder / "bundle"
    things, wanted = config.data.dataset in RETRIEVAL, not (folder / "retrieval.json").is_file()
    if not bundle.exists() or (things and wanted):
        dataset = load_dataset(config, data, models, _quiet)
        if not bundle.exists():
            print(f"training on {folder.name}", file=sys.stderr, flush=True)
            train(config, dataset, models).save(bundle)
        if things:
            once(folder / "retrieval.json", lambda: retrieval(Bundle.load(bundle), config, dataset, models))
        del dataset

    def pictures() -> dict[str, Any]:
        return asyncio.run(run_evaluate(bundle, data, asyncio.Event(), live=False, limit=limit)).answer

    answer = once(folder / "pictures.json", pictures)
    offline, found = answer["offline"], {"data": answer["data"], "pictures": answer["offline"].get("pictures")}
    stage = "stage2" if "stage2" in offline else "stage1"
    for key in METRICS:
        if key in offline.get(stage, {}):
            found[key] = [offline[stage][key], *offline[f"{stage}_interval"][key]]
    if things:
        told = once(folder / "retrieval.json", dict)
        found |= {f"retrieved_{key}": [told[key], *told[f"{key}_interval"]] for key in ("top1", "top5", "two_way")}
        found |= {"gallery": told["pictures"]}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table of a data set; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument("config", help=f"a config's file, or {', '.join(PUBLISHED)}")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data set's own folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for bundles, figures and the table")
    parser.add_argument("--subjects", type=int, nargs="+", help="participants; the config's own by default")
    parser.add_argument("--repeats", type=int, help="presentations of a test picture that are averaged; all by default")
    parser.add_argument("--limit", type=int, help="reconstruct the first so many test pictures only")
    options = parser.parse_args(arguments)
    try:
        named = Path(options.config)
        file = named if named.suffix else Path("configs") / f"{'nsd-fmri' if options.config == 'nsd' else named}.yaml"
        config = load_config(config_file(file))
        if config.data.dataset not in PUBLISHED:
            raise AppError(f"{file}: {config.data.dataset} has no published figures here: {', '.join(PUBLISHED)}")
        changes = {"repeats": options.repeats} if options.repeats else {}
        found = {}
        for subject in options.subjects or config.data.subject:
            own = config.data.model_copy(update={**changes, "subject": (subject,)})
            one = Config.model_validate(config.model_copy(update={"data": own}).model_dump(exclude_unset=True))
            folder = options.out / f"sub-{subject:02d}"
            found[f"participant {subject}"] = participant(one, options.data, folder, limit=options.limit)
        table = table_of(config.data.dataset, found, PROTOCOL)
        write_whole(options.out / "table.md", table)
        print(table)
    except (AppError, DecoderError, EngineError, StreamError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
