"""`minddiffuser maps`: which channels and latencies carry each feature, as figures and one page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from decoder.models.bundle import Bundle
from minddiffuser.config.spec import config_of
from minddiffuser.console import progress
from minddiffuser.maps.maps import compute_maps
from stream.atomic import write_with_fallback

logger = logging.getLogger(__name__)


def run_maps(bundle_folder: Path, data_dir: Path | None, out: Path | None) -> dict[str, Any]:
    """Compute maps of a bundle on its training recordings, and write figures and a page.

    Parameters
    ----------
    bundle_folder : Path
    data_dir : Path or None
        Folder of recorded data sets.
    out : Path or None
        Folder for the files; None: beside the bundle, its name with '-maps'.

    Returns
    -------
    answer : dict
        'page', 'files', 'data', 'features', 'chance'.
    """
    from engine.models.loading import load_models
    from minddiffuser.maps.page import write_page
    from minddiffuser.training.data import load_dataset

    bundle = Bundle.load(bundle_folder)
    config = config_of(bundle.meta, bundle_folder)
    with progress() as report:
        models = load_models(config.engine.models, config.engine.device)
        bundle.check_feature_space(models.feature_space)
        dataset = load_dataset(config, data_dir, models, report)
        maps = compute_maps(bundle, config, dataset, models, report)
    folder = out or bundle_folder.parent / f"{bundle_folder.name}-maps"
    command = f"minddiffuser maps {bundle_folder}" + (f" --data {data_dir}" if data_dir else "")
    for line in maps.too_early():
        logger.warning("%s", line)
    page, files = write_with_fallback(folder, lambda place: write_page(maps, bundle, place, command))
    return {
        "page": str(page),
        "files": [str(file) for file in files],
        "data": bundle.meta["data"],
        "n_windows": maps.n_windows,
        "n_pictures": maps.n_pictures,
        "split": maps.split,
        "features": maps.summary(),
        "encoding": None if maps.explained is None else {"explained": round(maps.explained, 4)},
        "warnings": maps.too_early(),
        "chance": {
            "score": 0.0,
            "family_wise_threshold": round(maps.decodability.threshold, 4),
            "n_permutations": maps.decodability.n_permutations,
        },
    }
