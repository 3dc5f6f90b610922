"""An archive as Arrow: its documents as small tables, its trials' files as one dataset per table.

A dataset opens no file until it is asked. Each file carries what is known of its trial as a
partition expression: a constant column for the reader, and a reason to skip the file for a filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from results.archive import PARTIAL, Archive, RunEntry
from results.counted import counted_trials
from results.errors import UserError
from results.files import SUMS
from results.intact import damaged_trials
from results.nodes import NODES, node_rows
from results.record import Finding, PhasePeak, PhaseSpan, TrialRecord, planned_id
from results.schema import SCHEMA_VERSION, TABLES, TableSchema
from results.streams import Stream, stream_of, table_of
from results.trendrows import trend_tables

_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_TEXT: Final = pa.string()
_NUMBER: Final = pa.int64()

_EVERYWHERE: Final = ds.scalar(True)
"""Made once: Arrow looks for pandas each time, and in vain where that is not installed."""

KEY_COLUMNS: Final = (
    ("run_id", _WORD, "run of the trial"),
    ("trial_id", _WORD, "trial"),
    ("configuration", _WORD, "configuration of the trial"),
    ("baseline", pa.bool_(), "whether that is the one which the others are compared with"),
    ("workload", _WORD, "workload of the trial"),
    ("block", _NUMBER, "block of the trial"),
    ("node_class", _WORD, "machines that may be compared with each other"),
    ("valid", pa.bool_(), "whether the trial's numbers may be used at all"),
    ("counted", pa.bool_(), "whether the trial is in trial_metrics and cells"),
    (
        "measure_start_ns",
        _NUMBER,
        "when phase measure of the trial began, by the clock of the row's node",
    ),
    ("measure_end_ns", _NUMBER, "when phase measure of the trial ended, by the same clock"),
)
"""The columns that each row has from its trial: name, type, meaning."""

PART_COLUMNS: Final = {
    "requests": (
        (
            "generator",
            pa.int16(),
            "who sent it: 0 the service's node, from 1 a load node (`generators` of trial.json)",
        ),
        ("process", pa.int16(), "which of that generator's processes, from 0"),
    )
}
"""The columns that tell a row's file, for the tables that come in parts."""

_RUNS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "archive": _TEXT,
        "status": _TEXT,
        "service": _TEXT,
        "started_ns": _NUMBER,
        "finished_ns": _NUMBER,
        "heapgate_version": _TEXT,
        "matrix_path": _TEXT,
        "seed": _NUMBER,
        "blocks": _NUMBER,
        "planned": _NUMBER,
    }
)
_TRIALS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "planned_id": _TEXT,
        "block": _NUMBER,
        "position": _NUMBER,
        "attempt": _NUMBER,
        "configuration": _TEXT,
        "baseline": pa.bool_(),
        "workload": _TEXT,
        "node_id": _TEXT,
        "node_class": _TEXT,
        "os": _TEXT,
        "wine": _TEXT,
        "valid": pa.bool_(),
        "counted": pa.bool_(),
        "started_ns": _NUMBER,
        "finished_ns": _NUMBER,
        "measure_start_ns": _NUMBER,
        "measure_end_ns": _NUMBER,
        "gc_traced": pa.bool_(),
        "peak_rss_bytes": _NUMBER,
        "peak_cgroup_bytes": _NUMBER,
        "peak_working_set_bytes": _NUMBER,
        "peak_working_set_from": _TEXT,
        "peak_commit_bytes": _NUMBER,
        "peak_commit_from": _TEXT,
        "peak_job_bytes": _NUMBER,
        "binary_sha256": _TEXT,
        "binary_size_bytes": _NUMBER,
        "go_version": _TEXT,
        "exit_cause": _TEXT,
        "exit_text": _TEXT,
        "sent": _NUMBER,
        "measured": _NUMBER,
        "failed": _NUMBER,
        "lag_p99_ns": _NUMBER,
        "generator_cpu_share": pa.float64(),
        "generators": _NUMBER,
        "clock_offset_ns": _NUMBER,
        "clock_error_ns": _NUMBER,
        "clock_drift_ns": _NUMBER,
        "load_clock_error_ns": _NUMBER,
    }
)
_PHASES: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "phase": _TEXT,
        "start_ns": _NUMBER,
        "end_ns": _NUMBER,
        "cpu_ns": _NUMBER,
    }
)
_VALIDITY: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "configuration": _TEXT,
        "workload": _TEXT,
        "block": _NUMBER,
        "node_class": _TEXT,
        "valid": pa.bool_(),
        "counted": pa.bool_(),
        "level": _TEXT,
        "code": _TEXT,
        "text": _TEXT,
        "remedy": _TEXT,
    }
)
_LIMITS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "configuration": _TEXT,
        "name": _TEXT,
        "asked": pa.float64(),
        "read_back": pa.float64(),
        "enforced": pa.bool_(),
        "mechanism": _TEXT,
        "reason": _TEXT,
    }
)
_BUILDS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "configuration": _TEXT,
        "os": _TEXT,
        "sha256": _TEXT,
        "size_bytes": _NUMBER,
        "go_version": _TEXT,
        "build_info": _TEXT,
        "build_flags": _TEXT,
        "commit": _TEXT,
    }
)


@dataclass(frozen=True, slots=True)
class Trials:
    """Tables and datasets by the name under which SQL finds them; notes on what is not there.

    `damage` are those of the notes that no table may be without: what was measured once and can't
    be believed any more.
    """

    runs: tuple[RunEntry, ...]
    records: tuple[TrialRecord, ...]
    tables: dict[str, pa.Table | ds.Dataset]
    notes: list[str]
    damage: tuple[str, ...] = ()


def read_trials(archive: Archive, runs: Sequence[RunEntry], checked: Path | None = None) -> Trials:
    """Read all documents of these runs, and the digests of all files of their trials.

    A trial that is not what was sealed is invalid, and no file of it that changed is opened. Every
    byte is read, but for what `checked` says was right lately (`results/intact.py`). Raises
    UserError when all runs are of a newer format than this one.
    """
    runs, damage = _of_known_format(runs)
    records: list[TrialRecord] = []
    notes: list[str] = []
    for run in runs:
        found, lost = archive.read_records(run.run_id)
        records += found
        notes += _cut_off(archive, run)
        damage += _unbelievable(run, lost)
    folders = [_folder(archive.path, record) for record in records]
    damaged = damaged_trials(folders, checked)
    for record in records:
        told = list(_settle(record, damaged.get(_folder(archive.path, record), {})))
        # The reasons of an invalid trial stand beside every table already.
        (damage if record.valid else notes).extend(told)
    notes += damage
    counted = counted_trials(records)
    tables: dict[str, pa.Table | ds.Dataset] = {
        "raw_runs": _table(_RUNS, map(_run_row, runs)),
        "raw_builds": _table(_BUILDS, (row for run in runs for row in _build_rows(run))),
        "raw_trials": _table(_TRIALS, (_trial_row(r, counted) for r in records)),
        "raw_phases": _table(_PHASES, (row for r in records for row in _phase_rows(r))),
        "raw_nodes": _table(NODES, node_rows(records)),
        "raw_validity": _table(
            _VALIDITY, (row for r in records for row in _validity_rows(r, counted))
        ),
        "raw_limits": _table(_LIMITS, (row for r in records for row in _limit_rows(r))),
        **trend_tables(records),
    }
    files = _Files(archive.path, damaged, counted)
    for table in TABLES.values():
        for name, version, of_form in _forms(table, records):
            tables[name] = _dataset(files, table, version, of_form)
    return Trials(tuple(runs), tuple(records), tables, notes, tuple(damage))


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the trials' files are, which of them are damaged, which trials count."""

    root: Path
    damaged: dict[Path, dict[str, str]]
    counted: set[tuple[str, str]]
    known: dict[tuple[str, str, int], ds.Expression] = field(default_factory=dict)

    def known_of(self, record: TrialRecord, part: int) -> ds.Expression:
        """What the files of a trial's part all carry; made once, for it takes a while."""
        key = record.run_id, record.trial_id, part
        if key not in self.known:
            self.known[key] = _partition(record, self.counted, part)
        return self.known[key]


def _folder(root: Path, record: TrialRecord) -> Path:
    return root / record.run_id / "trials" / record.trial_id


def _of_known_format(runs: Sequence[RunEntry]) -> tuple[list[RunEntry], list[str]]:
    """The runs that this version can read, and a note for each other."""
    newer = [run for run in runs if run.format > SCHEMA_VERSION]
    told = [
        f"{run.run_id} was written in format {run.format}, by Heapgate "
        f"{run.document.get('heapgate_version')}; this one reads formats up to {SCHEMA_VERSION}"
        for run in newer
    ]
    if newer and len(newer) == len(runs):
        raise UserError(f"{told[-1]}: update Heapgate")
    return [run for run in runs if run not in newer], [f"{text}: it is left out" for text in told]


def _settle(record: TrialRecord, wrong: dict[str, str]) -> Iterator[str]:
    """A damaged trial's numbers don't count, unless only its log is damaged; what is damaged."""
    told = [f"{name} {why}" for name, why in wrong.items()]
    if any(name != "service.log" for name in wrong):
        record.findings.append(Finding("rows_lost", "invalid", " and ".join(told)))
    return (f"{record.run_id}: {record.trial_id}: {text}" for text in told)


def _forms(
    table: TableSchema, records: Sequence[TrialRecord]
) -> Iterator[tuple[str, int, list[TrialRecord]]]:
    """A table's files by the form in which they are stored: name, version, whose they are.

    Most tables have one form, under their own name. Where what a row shows is computed from other
    columns than it once was, a view of the table's name is made of both forms.
    """
    last = table.other_form_until
    newer = [record for record in records if record.schema_version > last]
    if not last:
        yield table.name, SCHEMA_VERSION, newer
        return
    yield f"raw_{table.name}", SCHEMA_VERSION, newer
    older = [record for record in records if record.schema_version <= last]
    yield f"raw_{table.name}_v{last}", last, older


def row_schema(table: TableSchema, version: int = SCHEMA_VERSION) -> pa.Schema:
    """The columns of a table of rows as it is stored: those of the trial, then its own."""
    keys = [pa.field(name, kind) for name, kind, _ in key_columns(table)]
    return pa.schema([*keys, *table.arrow_of(version)])


def key_columns(table: TableSchema) -> tuple[tuple[str, pa.DataType, str], ...]:
    """What a row of a table has from its trial and from its file: name, type, meaning."""
    return (*KEY_COLUMNS, *PART_COLUMNS.get(table.name, ()))


def _dataset(
    files: _Files, table: TableSchema, version: int, records: Iterable[TrialRecord]
) -> pa.Table | ds.Dataset:
    paths, partitions = [], []
    for record in records:
        folder = _folder(files.root, record)
        wrong = files.damaged.get(folder, {})
        for stream, path in _streams(folder, record, table):
            if path.name not in wrong and SUMS not in wrong:
                paths.append(str(path))
                known = files.known_of(record, stream.part)
                partitions.append(
                    known & _of_stream(stream) if stream.table in PART_COLUMNS else known
                )
    schema = row_schema(table, version)
    if not paths:
        return schema.empty_table()
    return ds.FileSystemDataset.from_paths(
        paths,
        schema=schema,
        format=ds.IpcFileFormat(),
        filesystem=pyarrow.fs.LocalFileSystem(),
        partitions=partitions,
    )


def _streams(
    folder: Path, record: TrialRecord, table: TableSchema
) -> Iterator[tuple[Stream, Path]]:
    """The streams of a table with their files, in their order."""
    named = (table_of(name) for name in record.rows if name.startswith(table.name))
    for stream in sorted({Stream(table.name), *(s for s in named if s.table == table.name)}):
        path = folder / f"{stream_of(*stream)}.arrow"
        if path.exists():
            yield stream, path


def _of_stream(stream: Stream) -> ds.Expression:
    whole = _EVERYWHERE
    columns = PART_COLUMNS.get(stream.table, ())
    for (name, kind, _), number in zip(columns, (stream.part, stream.process), strict=False):
        whole &= ds.field(name) == pa.scalar(number, kind)
    return whole


def _partition(record: TrialRecord, counted: set[tuple[str, str]], part: int = 0) -> ds.Expression:
    measure, behind_ns = _measure_of(record), record.clock_behind_ns(part)
    known = {
        "valid": record.valid,
        "counted": (record.run_id, record.trial_id) in counted,
        "measure_start_ns": measure and measure.start_ns - behind_ns,
        "measure_end_ns": measure and measure.end_ns - behind_ns,
    }
    whole = _EVERYWHERE
    for name, kind, _ in KEY_COLUMNS:
        value = known[name] if name in known else getattr(record, name)
        field = ds.field(name)
        whole &= field.is_null() if value is None else field == pa.scalar(value, kind)
    return whole


def _measure_of(record: TrialRecord) -> PhaseSpan | None:
    return next((span for span in record.phases if span.name == "measure"), None)


def _cut_off(archive: Archive, run: RunEntry) -> Iterator[str]:
    for path in archive.partial_trials(run.run_id):
        name = path.name.removesuffix(PARTIAL)
        yield f"{run.run_id}: {name} was cut off; its rows are left out"


def _unbelievable(run: RunEntry, lost: dict[str, str]) -> Iterator[str]:
    """What was in a run and can't be told any more."""
    if run.doubt:
        yield f"{run.run_id}: {run.doubt}"
    for trial_id, why in lost.items():
        yield f"{run.run_id}: {trial_id} is left out: {why}"


def _table(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)


def _run_row(run: RunEntry) -> dict[str, Any]:
    return {
        **run.document,
        "archive": str(run.path.parent),
        "planned": len(run.document["planned"]),
    }


def _build_rows(run: RunEntry) -> list[dict[str, Any]]:
    return [
        {
            "configuration": name,
            **build,
            "run_id": run.run_id,
            "build_flags": " ".join(build.get("build_flags") or ()),
        }
        for name, build in run.document["builds"].items()
    ]


def _trial_row(record: TrialRecord, counted: set[tuple[str, str]]) -> dict[str, Any]:
    service = record.spec["service"]
    binary = service["binary"]
    measure = _measure_of(record)
    peak = next((peak for peak in record.peaks if peak.phase == "measure"), None)
    load, end, clock = record.load, record.exit, record.clock_offset or {}
    own = {name: getattr(record, name, None) for name in _TRIALS.names}
    return own | {
        "planned_id": planned_id(record.trial_id),
        "counted": (record.run_id, record.trial_id) in counted,
        "measure_start_ns": measure and measure.start_ns,
        "measure_end_ns": measure and measure.end_ns,
        "gc_traced": bool(service["go_runtime"] and record.spec["gc_trace"]),
        "peak_rss_bytes": peak and peak.rss_bytes,
        "peak_cgroup_bytes": peak and peak.cgroup_bytes,
        **_windows_peaks(peak),
        "binary_sha256": binary["sha256"],
        "binary_size_bytes": binary["size_bytes"],
        "go_version": binary["go_version"],
        "exit_cause": end and end.cause,
        "exit_text": end and end.text,
        "sent": load and load.sent,
        "measured": load and load.measured,
        "failed": load and load.failed,
        "lag_p99_ns": load and load.lag_p99_ns,
        "generator_cpu_share": load and load.cpu_share,
        "wine": record.wine,
        "generators": len(record.generators) or 1,
        **{f"clock_{name}": clock.get(name) for name in ("offset_ns", "error_ns", "drift_ns")},
    }


def _windows_peaks(peak: PhasePeak | None) -> dict[str, Any]:
    if peak is None:
        return {}
    (working_set, working_set_from), (commit, commit_from) = peak.working_set, peak.commit
    return {
        "peak_working_set_bytes": working_set,
        "peak_working_set_from": working_set_from,
        "peak_commit_bytes": commit,
        "peak_commit_from": commit_from,
        "peak_job_bytes": peak.job_bytes,
    }


def _phase_rows(record: TrialRecord) -> list[dict[str, Any]]:
    return [
        {
            "run_id": record.run_id,
            "trial_id": record.trial_id,
            "phase": span.name,
            "start_ns": span.start_ns,
            "end_ns": span.end_ns,
            "cpu_ns": span.cpu_ns,
        }
        for span in record.phases
    ]


def _validity_rows(record: TrialRecord, counted: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """Each finding of a trial; one row without a finding where there is none."""
    of_trial = _keys(record) | {
        "workload": record.workload,
        "block": record.block,
        "node_class": record.node_class,
        "valid": record.valid,
        "counted": (record.run_id, record.trial_id) in counted,
    }
    own = ("level", "code", "text", "remedy")
    found = [{name: getattr(finding, name) for name in own} for finding in record.findings]
    return [of_trial | row for row in found or [{}]]


def _limit_rows(record: TrialRecord) -> list[dict[str, Any]]:
    own = ("name", "asked", "read_back", "enforced", "mechanism", "reason")
    return [_keys(record) | {name: getattr(limit, name) for name in own} for limit in record.limits]


def _keys(record: TrialRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "trial_id": record.trial_id,
        "configuration": record.configuration,
    }
