"""`minddiffuser evaluate` of a kept session: its archive's folder, or the zip that the page gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from decoder.data.stimuli import StimulusTable
from decoder.versions import FIGURES, versions
from engine.errors import ModelError
from engine.models.loading import load_models
from engine.spec import ModelSpec
from minddiffuser.archive.archive import fates_of, read_about, read_received
from minddiffuser.archive.sessions_kept import session_folder
from minddiffuser.evaluation.examples import trios
from minddiffuser.evaluation.perception import Judges
from minddiffuser.report.report import report_page
from minddiffuser.workflows.evaluate import (
    Evaluation,
    category_figures,
    judged,
    of_categories,
    picture_quality,
)


def evaluate_session(where: Path, *, page: bool = False) -> Evaluation:
    """Score what a kept session published, from its own files; `page` asks for an HTML report too.

    `where` is a session's folder, an archive with one session in it, or the zip that the page gives. The mean image is
    that of the pictures the session showed, which are all that a session knows. Figures by CLIP need the models that
    its config names on this machine; nothing is fetched for them.

    Raises
    ------
    AppError
        It is no session, several, or a file of it is broken.
    """
    with session_folder(where) as folder:
        return _evaluate(folder, where, page)


def _evaluate(folder: Path, where: Path, page: bool) -> Evaluation:
    about = read_about(folder)
    received = read_received(folder, ("original", "preview", "picture"))
    fates = fates_of(folder)
    answer: dict[str, Any] = {
        "session": about.get("session"),
        "config": (about.get("config") or {}).get("name"),
        "data": about.get("data"),
        "pictures": len(received),
        "abstained": fates["abstained"],
        "fates": fates,
        "removed": about.get("removed", 0),
        "participant": about.get("participant"),
        "date": str(about.get("started") or "")[:10],
    }
    if of_categories(received):
        answer |= category_figures(received)
        return Evaluation(answer | {"verdict": judged(answer, str(where))})
    shown = {one.label: one.stages["original"] for one in received if one.label and "original" in one.stages}
    if len(shown) < 2:
        return Evaluation(
            answer | {"figures": f"{len(shown)} original pictures are in the archive; two are the least to score"}
        )
    stimuli = StimulusTable(tuple(shown), np.stack(list(shown.values())))
    mean: NDArray[np.uint8] = np.round(stimuli.images.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    judges, reason = _judges(about)
    if reason:
        answer["without_clip"] = reason
    answer |= picture_quality(received, stimuli, mean, judges, examples=page) | {"versions": versions(FIGURES)}
    answer["verdict"] = judged(answer, str(where))
    if not page:
        return Evaluation(answer)
    pictures = list(trios(answer.get("examples", ()), received, stimuli))
    text = report_page(answer, pictures, command=f"minddiffuser evaluate {where}", path=str(where))
    return Evaluation(answer, text)


def _judges(about: Mapping[str, Any]) -> tuple[Judges | None, str]:
    """Return what judges the pictures of a session, by the models it was made with; else why there is nothing."""
    try:
        # Only this part: a config of another version may hold what this one does not know.
        models = load_models(ModelSpec.model_validate(about["config"].get("engine", {}).get("models", {})), fetch=False)
    except ModelError as error:
        return None, " ".join(str(error).split())
    except (KeyError, AttributeError, ValidationError):
        return None, "the session does not say which models it was made with"
    if "clip" not in models.parts:
        return None, f"{models.spec.folder} holds no CLIP"
    made_with = (about.get("versions") or {}).get("models")
    if made_with and made_with != models.feature_space:
        return None, f"the models in {models.spec.folder} are not those that the session was made with"
    return Judges(models), ""
