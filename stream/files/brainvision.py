"""What mne leaves out of BrainVision headers: units as written, duplicate names, how many samples there should be."""

import re
from dataclasses import dataclass
from pathlib import Path

from stream.types.units import distinct_names


@dataclass(frozen=True, slots=True)
class BrainVisionHeader:
    """Channels of a header (.vhdr).

    Attributes
    ----------
    text : str
    names : tuple of str
        As written; mne reads no file in which two are the same.
    units : tuple of str
        As written; microvolts where nothing is, as the format has it.
    samples : int or None
        How many there should be, where the header says.
    """

    text: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    samples: int | None


def read_header(path: Path) -> BrainVisionHeader:
    """Read a header."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    fields = [entry.split(",") for _, _, entry in sorted(_entries(text))]
    count = re.search(r"^DataPoints=(\d+)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return BrainVisionHeader(
        text=text,
        names=tuple(field[0] for field in fields),
        units=tuple(("".join(field[3:4])).strip() or "µV" for field in fields),
        samples=int(count[1]) if count else None,
    )


def with_distinct_names(path: Path, header: BrainVisionHeader, folder: Path) -> Path:
    """Write a header in which no two channels bear one name, for the same data and markers."""
    text = header.text
    names = dict(zip(sorted(_entries(text)), distinct_names(header.names), strict=True))
    for (_, start, entry), name in sorted(names.items(), key=lambda item: -item[0][1]):
        old = entry.partition(",")[0]
        text = text[:start] + name + entry.removeprefix(old) + text[start + len(entry) :]
    text = re.sub(
        r"^((?:Data|Marker)File=)(.+?)\s*$", lambda match: f"{match[1]}{path.parent.resolve() / match[2]}", text,
        flags=re.MULTILINE | re.IGNORECASE,
    )  # fmt: skip
    copy = folder / path.name
    copy.write_text(re.sub(r"(?im)^Codepage=.*$", "Codepage=UTF-8", text), encoding="utf-8")
    return copy


def _entries(text: str) -> list[tuple[int, int, str]]:
    """List the entries of [Channel Infos]: a channel's number, where what is written of it begins, and that."""
    section = re.search(r"^\[Channel Infos\]\s*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    if not section:
        return []
    matches = re.finditer(r"^Ch(\d+)=(.*?)[ \t\r]*$", section[1], re.MULTILINE | re.IGNORECASE)
    return [(int(match[1]), section.start(1) + match.start(2), match[2]) for match in matches]
