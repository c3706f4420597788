"""What is wrong at present, said in the log once when it appears and once when it is gone."""

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)


class Problems:
    """Lines about what is wrong, each under a key that stays while its figures change."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    def update(self, lines: Mapping[str, str]) -> list[str]:
        """Update the present problems, by key; log those that have come and gone.

        Returns
        -------
        list of str
            The lines.
        """
        for key, line in lines.items():
            if key not in self._lines:
                logger.warning("%s", line)
        for key, line in self._lines.items():
            if key not in lines:
                logger.info("no longer so: %s", line)
        self._lines = dict(lines)
        return list(lines.values())
