"""The pages of single setups, made of their JSONs; pictures are taken over from the page that is there."""

from collections.abc import Mapping
from typing import Any

from minddiffuser.evaluation.examples import trios_in
from minddiffuser.report.report import report_page


def report_of(answer: Mapping[str, Any], page: str = "") -> str:
    """Make the page of a setup anew.

    Parameters
    ----------
    answer : mapping
        What `benchmarks.results.steps.run_step` gave of an evaluation.
    page : str
        The page that is there, with the pictures of the answer's examples.
    """
    found, config = answer["answer"], f"configs/{answer['config']}.yaml"
    about = [
        ("Recorded from", f"{answer['species']} {answer['modality']}, {answer['data']}"),
        ("Split", answer["split"]),
        ("Published figures", answer["note"]),
    ]
    return report_page(
        {**found, "verdict": None},  # it is judged anew, by the rule there is now
        trios_in(page),
        command=answer["command"],
        path=found.get("bundle", config),
        config=config,
        about=about,
    )
