"""Damages an archive case by case and says what came of each, one line a case.

A process of its own, because the worst that a damaged file may do is to end the process that reads
it: `python corruption.py FOLDER FIRST LAST`. A case is the same for ever: its number is the seed.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from archives import RUN_ID, reseal, write_archive

from results.archive.archive import Archive
from results.archive.fragments import Trials, read_trials
from results.archive.journal import frames
from results.archive.trialfiles import TableFile
from results.archive.verify import unreadable_runs, verify_run
from results.comparing.tables import plain_comparison
from results.errors import HeapgateError
from results.schema import TABLES
from results.sql.database import Database

KEPT = Path(__file__).resolve().parents[1] / "archives" / "v3"
MEMORY_BYTES = 6 * 2**30
"""An absurd length must end in an error below this."""

CLASSES = (
    "magic", "schema", "dictionary head", "dictionary", "batch head", "buffers", "footer",
    "end magic", "document", "digests", "log",
)  # fmt: skip
SQL = (
    "select count(*) as n, sum(start_ns) as start, sum(lag_ns) as lag, sum(service_ns) as service, "
    "sum(status) as status, sum(hash(method, name, error, phase)) as words from requests"
)


@dataclass(frozen=True)
class Part:
    """Some bytes of a file, and what they are."""

    kind: str
    begin: int
    end: int


def parts_of(path: Path) -> list[Part]:
    """What lies where in a file of a trial."""
    size = path.stat().st_size
    if path.suffix != ".arrow":
        kind = {"SHA256SUMS": "digests", "service.log": "log"}.get(path.name, "document")
        return [Part(kind, 0, size)]
    found = [Part("magic", 0, 8)]
    data = path.read_bytes()
    footer = size - 10 - int.from_bytes(data[-10:-6], "little")
    with pa.BufferReader(data) as source:
        source.seek(8)
        while (begin := source.tell()) < footer:
            try:
                message = pa.ipc.read_message(source)
            except EOFError:
                break
            body = message.body.size if message.body is not None else 0
            name = {"schema": "schema", "dictionary": "dictionary"}.get(message.type, "batch")
            head = "schema" if name == "schema" else f"{name} head"
            found.append(Part(head, begin, source.tell() - body))
            if body:
                inside = "dictionary" if name == "dictionary" else "buffers"
                found.append(Part(inside, source.tell() - body, source.tell()))
    return [*found, Part("footer", footer, size - 6), Part("end magic", size - 6, size)]


def damage(data: bytes, part: Part, draw: random.Random) -> tuple[str, bytes]:
    """One kind of damage within a part."""
    at = draw.randrange(part.begin, max(part.end, part.begin + 1)) if data else 0
    how = draw.choice(("flip", "flip", "flip", "cut", "zeros", "length", "twice", "gone"))
    if how == "flip" and data:
        return how, data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if how == "cut":
        return how, data[:at]
    if how == "zeros":
        return how, data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]
    if how == "twice":
        return how, data[:at] + data[max(0, at - 64) :]
    if how == "gone":
        return how, data[:at] + data[at + draw.randrange(1, 4096) :]
    absurd = draw.choice((b"\xff" * 7 + b"\x7f", b"\0" * 4 + b"\xff\x0f\0\0", b"\xff" * 8))
    at -= at % 8
    return "length", data[:at] + absurd + data[at + 8 :]


class Subject:
    """An archive with what it tells when nothing is damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (self.run,) = Archive(root).runs()
        self.files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "matrix.yaml")
        self.before = self.told()
        assert self.before["doubts"] == 0, self.before

    def told(self, *, compare: bool = True) -> dict[str, Any]:
        """Every row that a reader of the archive sees, and how many doubts stand beside them.

        With `compare` the comparison's figures and those of a query too, through the database.
        """
        (run,) = Archive(self.root).chosen([self.run.run_id])
        trials = read_trials(Archive(self.root), [run])
        doubts = len(trials.notes) + sum(not record.valid for record in trials.records)
        told = {"doubts": doubts, "rows": digest_of(trials), "comparison": None}
        if compare:
            with Database(trials) as database:
                figures = plain_comparison(database.comparison())["rows"]
                told["comparison"] = figures, database.query(SQL).to_pylist()
        return told

    def case(self, number: int) -> str:
        """Damage one file, ask, put it back: the class, what was done, and what came of it."""
        draw = random.Random(number)
        wanted = CLASSES[number % len(CLASSES)]
        choices = [(f, p) for f in self.files for p in parts_of(f) if p.kind == wanted]
        if not choices:
            return f"{wanted}\tnone\tno such part"
        path, part = draw.choice(choices)
        original = path.read_bytes()
        how, data = damage(original, part, draw)
        resealed = path.suffix == ".arrow" and draw.random() < 0.4
        sums = path.with_name("SHA256SUMS").read_bytes()
        try:
            path.write_bytes(data)
            if resealed:
                reseal(path.parent)
                return f"{wanted}\t{how}, digests made anew\t{self._judged(self._imported)}"
            compare = number % 10 == 0
            asked = partial(self._asked, compare=compare)
            verdict = self._judged(asked) if data != original else "nothing changed"
            found = data == original or self._is_found()
            return f"{wanted}\t{how}\t{verdict}{'' if found else ', VERIFY PASSED IT'}"
        finally:
            path.with_name("SHA256SUMS").write_bytes(sums)
            path.write_bytes(original)

    def _judged(self, ask: Callable[[], str]) -> str:
        try:
            return ask()
        except HeapgateError:
            return "error"
        except MemoryError as error:
            return f"WRONG: {error!r}"
        except Exception as error:
            return f"WRONG: {type(error).__name__}: {error}"[:200].replace("\n", " ")

    def _asked(self, *, compare: bool) -> str:
        after = self.told(compare=compare)
        if after["doubts"]:
            return "warning"
        same = after == (self.before if compare else self.before | {"comparison": None})
        return "unharmed" if same else "WRONG: other numbers without a warning"

    def _imported(self) -> str:
        """Digests that anybody may write prove nothing: then every value is checked."""
        if any(verify_run(self.run, decode=True)):
            return "refused"
        self.told(compare=False)
        return "another archive, whole in itself"

    def _is_found(self) -> bool:
        archive = Archive(self.root)
        runs = archive.runs()
        return bool(list(unreadable_runs(archive)) or any(list(verify_run(r)) for r in runs))


def digest_of(trials: Trials) -> str:
    """All values of all tables."""
    chain = hashlib.sha256()
    for name, table in sorted(trials.tables.items()):
        whole = table if isinstance(table, pa.Table) else table.to_table(use_threads=False)
        chain.update(f"{name} {whole.num_rows}".encode())
        with pa.ipc.new_stream(sink := pa.BufferOutputStream(), whole.schema) as writer:
            writer.write_table(whole.unify_dictionaries().combine_chunks())
        chain.update(sink.getvalue())
    return chain.hexdigest()


class GrowingStream:
    """The journal of a trial that is open."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "requests.arrow"
        self.file = self.path.with_suffix(".journal")
        with pa.ipc.open_file(next(KEPT.glob("*/trials/*/requests.arrow"))) as opened:
            batch = opened.read_all().to_batches()[0]
        growing = TableFile(self.path, TABLES["requests"])
        for number in range(6):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch.slice(number * 10, 10 + number))
            growing.add(number + 1, sink.getvalue().to_pybytes())
        growing.abandon()
        self.whole = self.file.read_bytes()
        self.frames = list(frames(self.file))

    def case(self, number: int) -> str:
        """What is taken over must be what came, from the first batch on."""
        draw = random.Random(number)
        how, data = damage(self.whole, Part("journal", 0, len(self.whole)), draw)
        self.file.write_bytes(data)
        self.path.unlink(missing_ok=True)
        try:
            recovered = TableFile(self.path, TABLES["requests"])
            rows = recovered.rows
            recovered.close()
            kept = self.frames[: recovered.batches]
            with pa.ipc.open_file(self.path) as sealed:
                right = sealed.read_all().num_rows == rows == sum(f.rows for f in kept)
        except Exception as error:
            return f"journal\t{how}\tWRONG: {type(error).__name__}: {error}"[:200]
        if not right:
            return f"journal\t{how}\tWRONG: {rows} rows of {recovered.batches} batches"
        lost = len(self.frames) - len(kept)
        return f"journal\t{how}\t{'cut off before the damage' if lost else 'unharmed'}"


def cases(folder: Path, first: int, last: int) -> Iterator[str]:
    """The outcome of each case."""
    configurations = {"default": {"factors": (1.0, 1.1)}, "optimised": {"peak_rss_bytes": 10**8}}
    made = write_archive(folder / "made", configurations=configurations, blocks=2)
    assert (made / RUN_ID).is_dir()
    shutil.copytree(KEPT, folder / "kept")
    subjects = [Subject(made), Subject(folder / "kept"), GrowingStream(folder / "open")]
    for number in range(first, last):
        subject = subjects[2] if number % 8 == 7 else subjects[number // 8 % 2]
        yield f"{number}\t{subject.case(number)}"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in cases(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
        sys.stdout.write(json.dumps(line.split("\t")) + "\n")
        sys.stdout.flush()
