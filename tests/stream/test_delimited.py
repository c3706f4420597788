"""Tables are read the same whatever program wrote them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import RecordingError
from stream.tables.delimited import is_missing, number, read_table
from stream.tables.label_table import LabelSpec, read_labels
from stream.tables.rows import read_events, read_rows

LETTERS = st.characters(codec="latin-1", exclude_categories=["Cc", "Cs", "Nd", "Zs"], exclude_characters='"\\;,')
TEXTS = st.text(LETTERS, min_size=1, max_size=6).filter(lambda text: not is_missing(text))
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")


def events_of(
    tmp_path: Path, content: str | bytes, label: str | None = None
) -> tuple[list[tuple[float, str]], list[str]]:
    """Read an events.tsv; give times and labels, and the warnings."""
    path = tmp_path / "events.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    warnings: list[str] = []
    events = read_events(path, label, warnings)
    return [(event.time, event.label) for event in events], warnings


@given(
    st.lists(st.tuples(st.integers(0, 4000), TEXTS), min_size=1, max_size=5, unique_by=lambda row: row[0]),
    st.sampled_from(ENCODINGS), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["\t", ";", ","]),
    st.sampled_from(["onset", "Onset", " ONSET "]), st.sampled_from(["trial_type", "Trial Type", "trial.type"]),
    st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
@settings(deadline=None)
def test_a_table_in_any_dialect_is_the_same_table(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str]],
    encoding: str,
    end: str,
    delimiter: str,
    onset: str,
    kind: str,
    quoted: bool,
    comma: bool,
    trailing: bool,
) -> None:
    """Encoding, line ends, delimiter, quotes, spelling of the header, decimal commas and empty ends do not matter."""
    encoding = encoding if _tells("".join(text for _, text in rows), encoding) else "utf-8"
    quote = '"{}"'.format if quoted else str
    lines = [[quote(onset), quote("duration"), quote(kind)]]
    for time, text in rows:
        seconds = f"{time / 8}".replace(".", "," if comma and delimiter != "," else ".")
        lines.append([seconds, "0", quote(text)])
    text = end.join(delimiter.join(line) + delimiter * trailing for line in lines) + end
    path = tmp_path_factory.getbasetemp() / "dialect.tsv"
    path.write_bytes((text + end * trailing).encode(encoding))
    expected = sorted((time / 8, label) for time, label in rows)
    assert [(event.time, event.label) for event in read_events(path, "trial_type")] == expected


def _tells(text: str, encoding: str) -> bool:
    """Return whether an encoding has all letters of a text, and its bytes are not UTF-8 of another text too."""
    try:
        return encoding != "cp1252" or text.encode(encoding).decode("utf-8") == text
    except UnicodeDecodeError:
        return True
    except UnicodeEncodeError:
        return False


def test_an_open_quote_swallows_no_rows(tmp_path: Path) -> None:
    """A quote that is not closed is a letter of its cell; those of R are taken off, with what they hold."""
    text = 'onset\ttrial_type\n1\t"cat\n2\tdog"\n3\ta 5" plate\n4\t"a ""b"""\n5\t"say \\"hi\\""\n6\t"a\tb"\n'
    labels = ['"cat', 'dog"', 'a 5" plate', 'a "b"', 'say "hi"', "a\tb"]
    assert events_of(tmp_path, text)[0] == [(float(i), label) for i, label in enumerate(labels, 1)]


@pytest.mark.parametrize("missing", ["NA", "N/A", "n/a", "NULL", "null", "None", "NaN", "nan", "", "<NA>", "#N/A"])
def test_nothing_is_nothing_in_any_program(tmp_path: Path, missing: str) -> None:
    """What is missing is no label and no onset, and is counted."""
    text = f"onset\ttrial_type\tstim_file\n1\t{missing}\timages/a.png\n{missing}\tx\ty.png\n3\t{missing}\t{missing}\n"
    events, warnings = events_of(tmp_path, text)
    assert events == [(1.0, "a"), (3.0, "event")]
    assert warnings == ["events.tsv: 1 of 3 rows have no onset or name and are left out"]
    events, warnings = events_of(tmp_path, text, "stim_file")
    assert events == [(1.0, "a")]
    assert warnings == ["events.tsv: 2 of 3 rows have no onset or name and are left out"]


@pytest.mark.parametrize(
    ("header", "rows", "labels", "said"),
    [
        ("trial_type\tstim_file", ["stimulus\ta.png", "stimulus\tb.png"], ["a", "b"], "named by stim_file"),
        ("trial_type\tstim_file", ["stimulus\ta.png", "fixation\tn/a", "stimulus\tb.png"], ["a", "fixation", "b"],
         "'stimulus' wherever stim_file differs"),
        ("trial_type\tvalue", ["go\t5.0", "go\t6.0", "go\t"], ["5", "6", "go"], "named by value"),
        ("trial_type\tstim_file\tvalue", ["pic\tx\\a.PNG\t1", "pic\tx\\b.PNG\t2"], ["a", "b"], "named by stim_file"),
        ("trial_type\tstim_file", ["cat\ta.png", "dog\tb.png"], ["cat", "dog"], ""),
        ("trial_type\tstim_file", ["cat\ta.png", "cat\ta.png"], ["cat", "cat"], ""),
        ("trial_type\tvalue", ["n/a\t1.0", "n/a\t70000"], ["1", "70000"], ""),
        ("response\tduration", ["1\t0", "2\t0"], ["event", "event"], "no column names the events"),
    ],
)  # fmt: skip
def test_the_column_that_differs_names_the_events(
    tmp_path: Path, header: str, rows: list[str], labels: list[str], said: str
) -> None:
    """A column that says one thing gives way to one that differs from row to row, aloud; codes are whole numbers."""
    text = f"onset\t{header}\n" + "".join(f"{place}\t{row}\n" for place, row in enumerate(rows))
    events, warnings = events_of(tmp_path, text)
    assert [label for _, label in events] == labels
    assert said in " ".join(warnings)
    assert bool(warnings) == bool(said)


def test_tables_of_r_have_row_names(tmp_path: Path) -> None:
    """What write.table makes by default is read: blanks or tabs, and a column of row names without a header."""
    for delimiter in " \t":
        lines = ['"onset" "trial_type"', '"4" 1.5 "cat"', '"7" 2.5 NA']
        events, warnings = events_of(tmp_path, "\n".join(line.replace(" ", delimiter) for line in lines))
        assert events == [(1.5, "cat"), (2.5, "event")]
        assert "row names" in warnings[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"onset,duration,trial_type\n1,5,0,cat\n", "line 2 has 4 cells parted by ',' for 3 columns"),
        (b"onset\ttrial_type\n1\tcat\tmore\n", "line 2 has 3 cells"),
        (b"onset\ttrial_type\n1,5\tcat\n2.5\tdog\n", "decimal commas and points"),
        (b"onset\ttrial_type\nsoon\tcat\n", "onset 'soon' is no number"),
        (b"PK\x03\x04 and so on", "a workbook, not a table of text"),
        (b"\xff\xfea", "cannot be read as utf-16"),
        (b"", "no column 'onset'; it has none"),
        (bytes(range(256)) * 9, "no column 'onset'"),
        (bytes(range(4)) * 99, "no column 'onset'"),
        (b"onset" * 90_000, "no column 'onset'"),
    ],
)  # fmt: skip
def test_a_broken_table_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    """What cannot be a table is refused in one short line."""
    with pytest.raises(RecordingError, match=said.replace(".", r"\.")) as error:
        events_of(tmp_path, content)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 4500


def test_numbers_with_commas() -> None:
    """A comma parts decimals, thousands where a point stands behind it."""
    assert [number(text) for text in ("1,5", "1.5", "1.234,5", "1,234.5", "-2,25e1")] == [
        1.5,
        1.5,
        1234.5,
        1234.5,
        -22.5,
    ]


def test_cells_with_line_breaks(tmp_path: Path) -> None:
    """A quoted cell may hold line breaks where that is asked for; where quotes do not close, each line is a row."""
    path = tmp_path / "table.csv"
    path.write_text('file,caption\r\na.png,"two\r\nlines, one cell"\r\nb.png,plain\r\n', "utf-8")
    table = read_table(path, ("file",), multiline=True)
    assert [row["caption"] for row in table.rows] == ["two\nlines, one cell", "plain"]
    assert table.lines == [2, 4]
    path.write_text('file,caption\na.png,"open\nb.png,plain\nc.png,"also"\n', "utf-8")
    assert [row["caption"] for row in read_table(path, multiline=True).rows] == ['"open', "plain", "also"]


def test_rows_say_nothing_in_one_way(tmp_path: Path) -> None:
    """Readers of sidecar tables see 'n/a' for all that is missing, and columns in lower case."""
    (tmp_path / "channels.tsv").write_text("\ufeffName;UNITS\nFz;NA\nCz;\u00b5V\n", "utf-8")
    assert read_rows(tmp_path / "channels.tsv", ("name",)) == [
        {"name": "Fz", "units": "n/a"}, {"name": "Cz", "units": "\u00b5V"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "spec", "codes"),
    [
        ("code,picture\n7,cat-01\n8,car\n", {}, {"7": "cat-01", "8": "car"}),
        ("Trigger;Image File\r\n7;images\\cat-01.png\r\n;practice.png\r\n7;images\\cat-01.png\r\n", {},
         {"7": "images\\cat-01.png"}),
        ("trials.thisN,port_code,shown\n0,7,cat-01\n1,,\n", {"code": "port_code", "picture": "shown"}, {"7": "cat-01"}),
        ("onset\tvalue\tstim_file\n1\t7\tcat.png\n2\tn/a\tn/a\n", {}, {"7": "cat.png"}),
        ("C:\\data\\all.edat2\nSubject\tPicFile\tTrig\n1\tcat.bmp\t7\n", {"code": "Trig", "picture": "PicFile"},
         {"7": "cat.bmp"}),
        ("*** Header Start ***\n*** LogFrame Start ***\n\tPicture: cat.bmp\n\tTrig: 7\n*** LogFrame End ***\n"
         "*** LogFrame Start ***\n\tPicture: car.bmp\n\tTrig: 8\n*** LogFrame End ***\n", {"code": "Trig"},
         {"7": "cat.bmp", "8": "car.bmp"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_of_codes(
    tmp_path: Path, content: str, spec: dict[str, str], codes: dict[str, str], encoding: str
) -> None:
    """Codes and pictures come out of a table of any program: by usual columns, or by those that are named."""
    path = tmp_path / "labels.csv"
    path.write_bytes(content.encode(encoding))
    assert read_labels(LabelSpec.model_validate({"file": path, **spec} if spec else str(path))) == codes


def test_codes_in_the_config() -> None:
    """Codes may stand in the config itself, and survive being written with a bundle."""
    spec = LabelSpec.model_validate({7: "cat-01", "S  8": 12})
    assert read_labels(spec) == {"7": "cat-01", "S  8": "12"}
    again = LabelSpec.model_validate(json.loads(spec.model_dump_json(exclude_defaults=True)))
    assert again == spec


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("code,picture\n7,cat\n7.0,car\n", "code '7.0' stands for two pictures, 'cat' and 'car'"),
        ("code,picture\n7,\n", "no row has a code in column 'code' and a picture in 'picture'"),
        ("number,what\n7,cat\n", r"no column of codes \(code, marker, .*; it has 'number', 'what'"),
        ("code,what\n7,cat\n", r"no column of pictures .*; it has 'code', 'what'"),
    ],
)
def test_a_table_that_says_nothing_clear_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """A code of two pictures, or no such columns: one line that names them."""
    path = tmp_path / "labels.csv"
    path.write_text(content, "utf-8")
    with pytest.raises(RecordingError, match=said) as error:
        read_labels(LabelSpec(file=path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [{}, {True: "cat"}, {7: None}, {7: ["a"]}, {7: "a", "7.0": "b"}, 7])
def test_codes_that_are_none(value: object) -> None:
    """What YAML makes of an unquoted word, an empty or a doubled code is refused."""
    with pytest.raises(ValueError, match=r"labels|in quotes|valid"):
        LabelSpec.model_validate(value)
