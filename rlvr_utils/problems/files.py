"""Local files of problems, read row by row, so that a fault can be named by its line."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..system.paths import local_path

SUFFIXES = (".jsonl", ".parquet")
#: What other encodings put first. UTF-32 before UTF-16, which begins alike.
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

Rows = Iterator[tuple[str, dict | ValueError]]


def is_file(dataset: str) -> bool:
    """Whether ``dataset`` means a local file, there or not, and not a folder or a name on the hub."""
    path = local_path(dataset)
    return not path.is_dir() and (path.suffix.lower() in SUFFIXES or path.exists())


def file_of_split(folder: Path, split: str) -> Path:
    """The file of one split in a folder of problems.

    Raises:
        ValueError: there is none, or there are two.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    found = [file for file in files if file.stem == split]
    if len(found) != 1:
        names = ", ".join(file.name for file in files) or "no such file"
        raise ValueError(f"{folder} should hold one file for split {split!r}, {split}.jsonl or {split}.parquet; it holds "
                         f"{names}. Rename a file, or name other splits in eval_splits.")
    return found[0]


def read_file(path: Path, repaired: Counter) -> Rows:
    """(where, row) of every row in a file; what is no row comes as the ValueError that says why.

    ``repaired`` counts what was repaired.

    Raises:
        ValueError: the file as a whole cannot be read.
    """
    if not path.exists():
        raise ValueError(f"There is no file {path}; give the path of a .jsonl or .parquet file, of a folder with such "
                         "files, or the name of a data set on the hub.")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is neither .jsonl nor .parquet: write one JSON object per line into a .jsonl file.")
    try:
        return read_parquet(path) if path.suffix.lower() == ".parquet" else read_jsonl(path, repaired)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from error


def read_parquet(path: Path) -> Rows:
    import numpy  # the lower floors stay quick to import
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()  # not by pandas, which makes null NaN and 4 to 4.0
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} cannot be read as parquet ({why}). Copy the file again, or write it anew with one column "
                         "per name, and dates as text.") from error
    short = [field.name for field in table.schema if pyarrow.types.is_float32(field.type)]
    for row in rows:  # 0.1 in 32 bits is 0.10000000149 in Python's 64; its shortest decimal is what somebody wrote
        row.update({name: float(str(numpy.float32(row[name]))) for name in short if row[name] is not None})
    return ((f"Row {index}", row) for index, row in enumerate(rows))


def read_jsonl(path: Path, repaired: Counter) -> Rows:
    """One JSON object per line. A byte order mark and blank lines are passed over."""
    data = path.read_bytes()
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            data = recoded(path, data, encoding)
            repaired[f"read as {encoding.removesuffix('-sig').upper()} with a byte order mark"] = 1
            break
    lines = data.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    repaired["blank lines were skipped"] += sum(not line.strip() for line in lines)
    if data.lstrip()[:1] == b"[":
        raise ValueError(f"{path.name} holds one JSON list. A .jsonl file has one JSON object per line and no brackets or "
                         "commas around them: write json.dumps(row) for each row on a line of its own.")
    return ((f"Line {number}", parsed(line, last=number == len(lines)))
            for number, line in enumerate(lines, 1) if line.strip())


def recoded(path: Path, data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode()
    except UnicodeError as error:
        raise ValueError(f"{path.name} begins as {encoding.upper()} and goes on as something else ({error}). Save it as "
                         "UTF-8.") from error


def parsed(line: bytes, last: bool) -> dict | ValueError:
    """The row on one line, or what is wrong with the line."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        wrong = f"it is not UTF-8 (byte {line[error.start]:#04x} at position {error.start + 1}). Save the file as UTF-8."
    except json.JSONDecodeError as error:
        wrong = f"it is not JSON ({error.msg} at position {error.pos + 1}): {ascii(line[:40].decode(errors='replace'))}."
        if b"\0" in line:
            wrong = "it holds bytes 0, as UTF-16 does. Save the file as UTF-8."
        elif last and not re.search(rb"\}\s*$", line):
            wrong = "it ends in the middle of a row: the file was cut off. Copy it again, or delete this line."
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        wrong = f"it cannot be read as JSON ({error})."
    return ValueError(wrong)
