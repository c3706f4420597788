"""Which picture a marker names, by one rule live and in files: spelled alike first, then alike but for its clothes."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

from stream.errors import StreamError
from stream.types.events import Event

ENDINGS = frozenset({
    "apng", "avi", "avif", "bmp", "dib", "eps", "gif", "heic", "heif", "ico", "jfif", "jp2", "jpe", "jpeg", "jpg",
    "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "pbm", "pcx", "pgm", "png", "pnm", "ppm", "psd", "svg", "svgz", "tga",
    "tif", "tiff", "webm", "webp", "wmv",
})  # fmt: skip
"""Of pictures and films, without the dot; another ending is part of a name."""
LONGEST = 4096
"""Characters; what is longer names a picture only letter by letter."""
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*")
_QUERY = re.compile(rf"(?<=\.)({'|'.join(sorted(ENDINGS))})[?#].*")
_DRIVE = re.compile(r"[a-z]:")
_TYPE = re.compile(
    r"(stimulus|stimuli|stim|trigger|trig|event|marker|condition|code|picture|image|stim_file)( ?[:=#] ?| )(?=.)"
)
_COUNTED = re.compile(r"mk\d+=(?=.)")
"""What the LSL app BrainVision RDA puts before a marker: its running number."""
_TYPE_OF_NUMBER = re.compile(
    r"(stimulus|stimuli|stim|trigger|trig|event|marker|condition|code|din|di|s)[ :=#_-]*(?=[0-9.,]+$)"
)
"""BrainVision's 'S  7', EGI's 'DIN7', EEGLAB's 'condition 7'; 'R  7' is a key that was pressed."""
_NUMBER = re.compile(r"\+?([0-9]+)([.,]0*)?")


def clean(text: str) -> str:
    """Return a label in composed Unicode, without quotes and what does not print, single blanks between words."""
    letters = (
        " " if (kind := unicodedata.category(c)) in {"Cc", "Zl", "Zp"} else c if kind != "Cf" else "" for c in text
    )
    words = " ".join(unicodedata.normalize("NFC", "".join(letters)).split())
    return words.strip("\"' ")


def path_of(text: str) -> tuple[str, ...]:
    """Return the parts of a path, URL or Windows path, in lower case and without drive and host."""
    plain = _folded(text)
    plain = _QUERY.sub(r"\1", _HOST.sub("", plain))
    plain = _folded(unquote(plain)) if "%" in plain else plain
    parts = [part.strip() for part in plain.replace("\\", "/").split("/")]
    return tuple(part for part in parts if part not in {"", ".", ".."} and not _DRIVE.fullmatch(part))


def without_ending(name: str) -> str:
    """Return a file's name without the endings of pictures; others are part of the name."""
    while (parts := name.rpartition("."))[0].strip() and parts[2].strip().casefold() in ENDINGS:
        name = parts[0].strip()
    return name


def name_of(text: str) -> str:
    r"""Return the name of a picture in its own spelling, without folder and ending: of 'a\B.PNG' 'B'."""
    return without_ending(text.replace("\\", "/").rstrip("/").rpartition("/")[2].strip())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", clean(text).casefold())


def _whole_path(text: str) -> str:
    return without_ending("/".join(path_of(text)))


def _last_part(text: str) -> str:
    parts = path_of(text)
    # 'Response/7' tells of a key, whatever the pictures are called.
    return "" if not parts or (len(parts) > 1 and parts[0] == "response") else without_ending(parts[-1])


def _bare(text: str) -> str:
    """Return the last part of a path without a type, and a number by its value."""
    name = _COUNTED.sub("", _last_part(text), count=1)
    name = _TYPE_OF_NUMBER.sub("", name, count=1) if _TYPE_OF_NUMBER.match(name) else _TYPE.sub("", name, count=1)
    number = _NUMBER.fullmatch(name)
    return number[1].lstrip("0") or "0" if number else name


def _file_path(text: str) -> str:
    return "/".join(path_of(text))


def _file_name(text: str) -> str:
    parts = path_of(text)
    return parts[-1] if parts else ""


Keys = Sequence[Callable[[str], str]]
ALIKE: Keys = (str, clean, _folded, _whole_path, _last_part, _bare)
"""What two spellings are compared by, the strictest first."""
ALIKE_FILES: Keys = (_file_path, _file_name)


class Spellings:
    """Texts that are found by other spellings of them, where it is clear which is meant.

    Parameters
    ----------
    texts : sequence of str
    keys : sequence of callable
        What spellings are compared by, the strictest first; an empty key is like no other.
    """

    def __init__(self, texts: Sequence[str], keys: Keys = ALIKE) -> None:
        self._texts, self._keys = tuple(texts), keys
        self._places: list[dict[str, list[int]]] = [{} for _ in keys]
        for places, key in zip(self._places, keys, strict=True):
            for place, text in enumerate(self._texts):
                if len(text) <= LONGEST or key is str:
                    places.setdefault(key(text), []).append(place)

    def find(self, text: str) -> tuple[int, ...]:
        """Return the places of the texts that are meant by the strictest rule that finds any; of several, none is."""
        for places, key in zip(self._places, self._keys, strict=True):
            if len(text) > LONGEST and key is not str:
                break
            name = key(text)
            if candidates := places.get(name) if name or key is str else None:
                return self._nearest(text, candidates)
        return ()

    def _nearest(self, text: str, candidates: list[int]) -> tuple[int, ...]:
        """Choose among texts of one name the one whose folders agree the furthest."""
        if len(candidates) > 1:
            own = path_of(text)[-2::-1]
            shared = [_shared(own, path_of(self._texts[place])[-2::-1]) for place in candidates]
            if shared.count(max(shared)) == 1:
                return (candidates[shared.index(max(shared))],)
        return tuple(candidates)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many parts two paths have in common from the first one given on."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class LabelMatcher:
    """Find the picture that a marker names.

    A label is a picture's id, letter by letter or else in another spelling: blanks and quotes around it, another case
    or Unicode form, a folder, drive or URL before it, a picture's ending behind it, a marker's type before it
    ('Stimulus/S  7', 'S  7'), a number in another form ('7.0', '007'). A file's name with its ending names the picture
    of that file. A spelling that fits two pictures names none.

    Parameters
    ----------
    ids : sequence of str
        Of the pictures; none where they are not known.
    files : sequence of str, optional
        Each picture's file, where there are files.
    table : mapping of str to str, optional
        Codes, and the picture that each stands for.
    origin : str
        Where the table is from; named in errors.

    Attributes
    ----------
    ids : tuple of str

    Raises
    ------
    StreamError
        The table names pictures that do not exist.
    """

    def __init__(
        self,
        ids: Sequence[str],
        files: Sequence[str] = (),
        table: Mapping[str, str] | None = None,
        origin: str = "labels",
    ) -> None:
        self.ids = tuple(ids)
        self._known = frozenset(ids)
        self._ids, self._files = Spellings(self.ids), Spellings(files, ALIKE_FILES)
        self._table: dict[str, str] = {}
        unknown: dict[str, str] = {}
        for code, text in (table or {}).items():
            picture = self._picture(text) if self.ids else name_of(text)
            if picture is None:
                unknown[code] = text
            else:
                self._table[code] = picture
        self._pictures = tuple(self._table.values())
        self._codes = Spellings(tuple(self._table))
        if unknown:
            raise StreamError(
                f"{origin}: {len(unknown)} of {len(table or ())} codes stand for no picture, or for several "
                f"({_examples(f'{quote(code)}: {quote(text)}' for code, text in unknown.items())}); "
                f"pictures are called {_examples(map(quote, self.ids))}"
            )

    def knows(self, label: str) -> bool:
        """Return whether a label is a picture's id, letter by letter."""
        return label in self._known

    def match(self, label: str) -> str | None:
        """Return the id of the picture that a label names; None where it names none, or may mean several."""
        if label in self._table:
            return self._table[label]
        if label in self._known:
            return label
        if codes := self._codes.find(label):
            pictures = {self._pictures[place] for place in codes}
            return pictures.pop() if len(pictures) == 1 else None
        return self._picture(label)

    def name_event(self, event: Event) -> Event:
        """Return the event labelled by its picture's id, its own text in `original_label`; unchanged if none fits."""
        if event.original_label:
            return event
        texts = [text for _, text in event.columns]
        if not texts or event.label in texts or event.label in self._known:
            picture = self.match(event.label)
        else:  # a label that is several columns in a row: one of them names the picture
            pictures = {match for text in texts if (match := self.match(text)) is not None}
            picture = pictures.pop() if len(pictures) == 1 else None
        if picture is None or picture == event.label:
            return event
        return replace(event, label=picture, original_label=event.label)

    def _picture(self, text: str) -> str | None:
        places = self._ids.find(text)
        if not places and without_ending(text.strip()) != text.strip():
            places = self._files.find(text)
        return self.ids[places[0]] if len(places) == 1 else None


def mismatch(labels: Iterable[str], pictures: Collection[str], what: str = "markers") -> str | None:
    """Return which markers name no picture, beside pictures that no marker names.

    Parameters
    ----------
    labels : iterable of str
        Of all markers, named already, one an entry.
    pictures : collection of str
        Ids.
    what : str
        What the labels are of.

    Returns
    -------
    str or None
        One line with counts and two examples of each side; None where every label is a picture.
    """
    labels, ids = list(labels), set(pictures)
    unknown = [label for label in labels if label not in ids]
    if not unknown:
        return None
    shown_ones = set(labels)
    unseen = [picture for picture in pictures if picture not in shown_ones]
    rest = f"; pictures without a marker: {_examples(map(quote, unseen))}" if unseen else ""
    examples = _examples(map(quote, dict.fromkeys(unknown)))
    return (
        f"{len(unknown)} of {len(labels)} {what} name no picture: {examples}{rest}; "
        "name them alike, say in `labels` which picture a code stands for, or leave other markers out by window.events"
    )


def quote(text: str) -> str:
    """Return a label as a message shows it: quoted, in one line, no longer than a line holds."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _examples(texts: Iterable[str]) -> str:
    examples = list(texts)
    return ", ".join(examples[:2]) + (", ..." if len(examples) > 2 else "") if examples else "nothing"
