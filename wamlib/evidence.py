"""Evidence: the rows that one pool gives to one measure, with what they follow from and where they were made."""

import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd

from . import reach
from .config import home
from .errors import EvidenceError
from .predictions import digest
from .storage import write_atomically

__all__ = ["Evidence", "Published", "Record", "publish", "read_record"]

LARGEST = 450_000  # bytes of a published table: it is committed
TEXT = ":text"  # ends the name of a column of words in a published table
COLUMNS = ["record", "measure", "version", "runs", "weights", "images", "arguments", "made"]  # of the index
INDEX, MADE = "records.csv", "made.json"


@dataclass(frozen=True)
class Record:
    """The rows that one pool gave to one measure.

    Attributes
    ----------
    measure : str
        Chapter and function, as "architectures.combinations".
    version : str
        Of the code that the measure runs, see `wamlib.reach.version`.
    runs : list of str
        Ids of the runs, in the order of the pool; none where a measure needs no network.
    weights, images : str
        Digests of the checkpoints, and of the images that the runs were trained and judged on.
    arguments : dict
        Of the measure, as values that JSON can hold.
    made : dict
        On what machine, with what versions and at which commit; and the day.
    columns : dict
        Name of each column to the list of its values.
    """

    measure: str
    version: str
    runs: list
    weights: str
    images: str
    arguments: dict
    made: dict
    columns: dict

    @property
    def rows(self):
        """The rows as a DataFrame with a plain index."""
        return pd.DataFrame(self.columns)

    @property
    def name(self):
        """What finds the record where weights and code may be others, 12 hexadecimal digits."""
        return name_of(self.measure, self.runs, self.arguments)


def title_of(measure):
    """Return how records call a measure: its module's last name and its own."""
    return f"{measure.__module__.rpartition('.')[2]}.{measure.__name__}"


def name_of(measure, runs, arguments):
    """Return the name of a record; see `Record.name`."""
    return digest(json.dumps([measure, list(runs), arguments], sort_keys=True).encode())[:12]


class Evidence:
    """The records of this machine: what is there is read, what is missing is measured and kept.

    Parameters
    ----------
    root : str or Path or None
        Folder; None means ``records`` in `wamlib.config.home`. It may be deleted at any time.
    """

    def __init__(self, root=None):
        self.root = Path(root) if root is not None else home() / "records"
        self.used = set()  # files of the records that were asked for

    def get(self, measure, runs, arguments, compute):
        """Return the record of a measure of one pool.

        Parameters
        ----------
        measure : callable
            A function at the top of a module of this package.
        runs : sequence of Run
            The members of the pool; none where the measure needs no network.
        arguments : dict
            Of the measure, as values that JSON can hold.
        compute : callable
            Takes nothing and returns the rows: a DataFrame of numbers, bool and str.

        Returns
        -------
        Record
            The same to the last bit whether it was kept or is new.
        """
        key = {
            "measure": title_of(measure),
            "version": reach.version(measure),
            "runs": [run.config.run_id for run in runs],
            "weights": digest(*(run.record["checkpoint_sha256"].encode() for run in runs))[:12] if runs else "",
            "images": digest(*(run.record["split_hash"].encode() for run in runs))[:12] if runs else "",
            "arguments": arguments,
        }
        name = digest(json.dumps(key, sort_keys=True).encode())[:32]
        path = self.root / key["measure"] / f"{name}.json"
        text = _read(path)
        if text is None:
            columns = compute().to_dict("list")
            text = json.dumps({**key, "made": _made_here(), "columns": columns}).encode()  # to the last bit
            _keep(path, text)
        self.used.add(path)
        return Record(**json.loads(text))


def read_record(path):
    """Return a record from its file, or None where it is gone or damaged."""
    text = _read(Path(path))
    return None if text is None else Record(**json.loads(text))


class Published:
    """The records that are published with the book; nothing is measured.

    Parameters
    ----------
    root : str or Path
        Folder of the tables that `publish` wrote.
    """

    def __init__(self, root):
        self.root = Path(root)

    def get(self, measure, runs, arguments):
        """Return the record of a measure of one pool.

        Parameters
        ----------
        measure : callable
            As for `Evidence.get`.
        runs : sequence of str
            Ids of the runs.
        arguments : dict
            As for `Evidence.get`.

        Returns
        -------
        Record

        Raises
        ------
        EvidenceError
            If no such record is published, or it was measured by other code.
        """
        title, version = title_of(measure), reach.version(measure)
        found = self._index.get(name_of(title, runs, arguments))
        doing, what = "cannot draw from published records", f"{title} of {len(runs)} runs, {arguments}"
        if found is None:
            raise EvidenceError(
                doing,
                item=what,
                got=f"no record in {self.root}",
                wanted="one",
                fix="Run `make book`, which trains and measures what is missing, and `make findings` to publish it.",
            )
        if found["version"] != version:
            raise EvidenceError(
                doing,
                item=what,
                got=f"a record of version {found['version']} of the measure",
                wanted=f"version {version}, which the code is now",
                fix="Run `make book` to measure it again, and `make findings` to publish it.",
            )
        made, columns = self._made[int(found["made"])], self._tables(title)[found["record"]]
        return Record(title, version, list(runs), found["weights"], found["images"], arguments, made, columns)

    @cached_property
    def _index(self):
        path = self.root / INDEX
        if not path.is_file():
            return {}
        return {row["record"]: row for row in pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")}

    @cached_property
    def _made(self):
        return json.loads((self.root / MADE).read_text("utf-8"))

    def _tables(self, title):
        """Return the columns of every record of a measure, by the record's name."""
        if title not in self._read:
            parts = [read_rows(path) for path in sorted(self.root.glob(f"{title}*.csv")) if _is_part(path, title)]
            self._read[title] = {name: columns for part in parts for name, columns in part.items()}
        return self._read[title]

    @cached_property
    def _read(self):
        return {}


def publish(records, root, *, whole=False):
    """Write records as small sorted text tables, beside those that are there of other pools.

    A record of the same measure, runs and arguments takes the place of the one that was there, and what other code
    made of a measure that is published again goes.

    Parameters
    ----------
    records : sequence of Record
    root : str or Path
        Folder: a table for each measure, `INDEX` of all records, and `MADE` with the machines and versions.
    whole : bool
        Whether the records are of all measures that chapters ask for, so that those of others go.

    Raises
    ------
    EvidenceError
        If the rows of one record alone would make a file that is too large to commit.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    before = Published(root)
    made = list(before._made) if (root / MADE).is_file() else []
    versions = {record.measure: record.version for record in records}
    gone = {row["measure"] for row in before._index.values()} - set(versions) if whole else set()
    for path in root.glob("*.*.csv") if whole else ():
        if not any(_is_part(path, title) for title in versions):
            path.unlink()
    index = {
        name: row
        for name, row in before._index.items()
        if row["measure"] not in gone and versions.get(row["measure"]) in (None, row["version"])
    }
    by_measure = {}
    for record in records:
        if record.made not in made:
            made.append(record.made)
        index[record.name] = {
            "record": record.name,
            "measure": record.measure,
            "version": record.version,
            "runs": " ".join(record.runs),
            "weights": record.weights,
            "images": record.images,
            "arguments": json.dumps(record.arguments, sort_keys=True),
            "made": made.index(record.made),
        }
        by_measure.setdefault(record.measure, {})[record.name] = record.columns
    for title, new in by_measure.items():
        there = {name: columns for name, columns in before._tables(title).items() if name in index}
        _write_rows(root, title, there | new)
    rows = sorted(index.values(), key=lambda row: (row["measure"], row["record"]))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(root / INDEX, index=False)
    (root / MADE).write_text(json.dumps(made, indent=1) + "\n")


def _write_rows(root, title, columns_of):
    """Write the rows of a measure's records, sorted by record, into as many files as their size asks for."""
    for path in root.glob(f"{title}*.csv"):
        if _is_part(path, title):
            path.unlink()
    part, size, number = [], 0, 1

    def flush():
        nonlocal part, size, number
        if part:
            text = _as_text(pd.concat(part, ignore_index=True))
            (root / (f"{title}.csv" if number == 1 else f"{title}-{number}.csv")).write_text(text)
            part, size, number = [], 0, number + 1

    for name in sorted(columns_of):
        rows = pd.DataFrame(columns_of[name])
        words = [column for column in rows if not pd.api.types.is_numeric_dtype(rows[column])]
        rows[words] = rows[words].astype(object).map(_as_word)
        rows = rows.rename(columns={column: column + TEXT for column in words})
        rows.insert(0, "record", name)
        grown = len(_as_text(rows))
        if grown > LARGEST:
            raise EvidenceError(
                "cannot publish records",
                item=title,
                got=f"{grown:,} bytes in one record",
                wanted=f"at most {LARGEST:,}",
                fix="Measure fewer rows or columns.",
            )
        if size + grown > LARGEST or (part and list(part[0]) != list(rows)):
            flush()
        part.append(rows)
        size += grown
    flush()


def _as_text(rows):
    numbers = rows.select_dtypes("floating").columns
    # As Python writes them: to the last bit, and so that none can be taken for a whole number.
    exact = {column: [repr(value) for value in rows[column].tolist()] for column in numbers}
    return rows.assign(**exact).to_csv(index=False)


def _as_word(value):
    """Return what stands in a column of words; what is none, or could be taken for none, as JSON behind "="."""
    return value if isinstance(value, str) and not value.startswith("=") else "=" + json.dumps(value)


def read_rows(path):
    """Return the records of one published table: name to columns, each with the values that were written."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[], dtype=str)
    found = {}
    for name, part in table.groupby("record", sort=False):
        columns = {column.removesuffix(TEXT): _values(part[column], column) for column in part if column != "record"}
        found[name] = columns
    return found


def _values(texts, column):
    """Return the values of a column of one record."""
    if column.endswith(TEXT):
        return [json.loads(text[1:]) if text.startswith("=") else text for text in texts]
    if all(text in ("True", "False") for text in texts):
        return [text == "True" for text in texts]
    try:
        return [int(text) for text in texts]
    except ValueError:
        return [float(text) for text in texts]


def _is_part(path, title):
    rest = path.stem.removeprefix(title)
    return rest == "" or (rest.startswith("-") and rest[1:].isdigit())


def _made_here():
    import torch

    from .provenance import describe_code, describe_machine, describe_versions
    from .train import pick_device

    day = datetime.now(UTC).date().isoformat()
    machine = describe_machine(pick_device("auto"), torch.get_num_threads())
    return {"machine": machine, "versions": describe_versions(), "code": describe_code(), "day": day}


def _read(path):
    """Return the content of a record, or None where it is not there or damaged: it can be measured again."""
    try:
        first, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return text if first == digest(text).encode() else None


def _keep(path, text):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, digest(text).encode() + b"\n" + text)
    except OSError as error:  # nothing is lost but time
        warnings.warn(f"cannot keep evidence ({error}), so it is measured again next time", stacklevel=3)
