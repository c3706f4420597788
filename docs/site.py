"""What MkDocs is told of these pages beyond their text: links out of the folder, and what the code says of itself.

Pages are written for a forge first, so they link files of the repository by their relative path. Those that belong to
the documentation become pages of the site under `project/`; any other link out of the folder stays a warning.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/desk/RECIPE.md")
"""Pages of the repository that the site has too."""
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
FENCE = re.compile(r"^```(\w+) [\w -]+$", re.MULTILINE)
"""Opens a block of code whose second word tells the tests how to run it; MkDocs knows the language alone."""
DIRECTIVE = re.compile(r"^<!-- (::: [\w.]+) -->$", re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from outside the folder."""
    for name in OUTSIDE:
        if (path := ROOT / name).is_file():
            files.append(File.generated(config, f"project/{Path(name).name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Point links at the pages of the site, and let docstrings in where a page asks for them."""
    own = page.file.src_uri
    outside = next((name for name in OUTSIDE if own == f"project/{Path(name).name}"), None)
    folder = posixpath.dirname(outside or f"docs/{own}")

    def pointed(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        in_site = target.removeprefix("docs/") if target.startswith("docs/") else target
        if target in OUTSIDE:
            in_site = f"project/{Path(target).name}"
        elif in_site == target:
            return match[0]
        return f"]({posixpath.relpath(in_site, posixpath.dirname(own) or '.')}"

    return DIRECTIVE.sub(r"\1", FENCE.sub(r"```\1", LINK.sub(pointed, markdown)))
