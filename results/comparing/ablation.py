"""Which factor did it? Configurations that differ in exactly one factor, compared.

A factor is one thing that a configuration sets: the Go release, a variable such as GOGC, the flags
of its build, a limit, its arguments. What two configurations differ in is read from what their
nodes were told (`spec` of trial.json), not from their names. When they differ in anything else too,
no change can be put down to one factor, and the pair is left out.

There is no statistic here: a pair with the baseline has the very row of the run's comparison, and
the other pairs are compared by the same means, corrected as a family of their own.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from results.comparing.compare import Contrast, Measurement, Row, Table, compare, plain_row
from results.comparing.comparison import working_set_limits

if TYPE_CHECKING:
    import pyarrow as pa

    from results.comparing.compare import Comparison
    from results.record import TrialRecord

Settings_ = Mapping[str, str]
"""What a configuration sets, as text, by factor; a factor that it does not set is not there."""

_OF_THE_TRIAL: Final = (
    *("run_id", "trial_id", "block", "position", "attempt", "configuration", "baseline"),
    *("workload", "os", "load", "phases", "limits", "service"),
)
"""Keys of a spec that tell trials apart, or that are looked at one by one."""

_OURS: Final = re.compile(r"HEAPGATE_\w*")
"""Variables that are set for every trial anew: a marker, and what pads the block."""


@dataclass(frozen=True, slots=True)
class OneFactor:
    """Two configurations and the one factor in which they differ; a setting of None is not set."""

    factor: str
    from_configuration: str
    to_configuration: str
    from_setting: str | None
    to_setting: str | None

    @property
    def contrast(self) -> Contrast:
        """What is compared: the second with the first."""
        return self.from_configuration, self.to_configuration


def settings_of(record: TrialRecord) -> Settings_:
    """What a trial's configuration set, by factor: `go`, `build.ldflags`, `env.GOGC` …"""
    spec = record.spec
    service, limits = spec["service"], spec["limits"]
    binary = service["binary"]
    told = {
        "go": (binary["go_version"] or "").removeprefix("go"),
        "binary": binary["sha256"],
        "arguments": shlex.join(service["arguments"]),
        **{f"build.{name}": value for name, value in map(_flag, binary.get("build_flags") or ())},
        **{f"env.{name}": value for name, value in service["environment"] if not _is_ours(name)},
        **{f"limits.{n}": f"{limit:.15g}" for n, limit in limits.items() if limit is not None},
        "other": json.dumps(_rest(spec), sort_keys=True),
    }
    return {factor: value for factor, value in told.items() if value or "." in factor}


def _is_ours(name: str) -> bool:
    return _OURS.fullmatch(name) is not None


def _flag(flag: str) -> tuple[str, str]:
    """`-ldflags=-s -w` → ldflags and `-s -w`; a flag without a value is `true`."""
    name, equals, value = flag.lstrip("-").partition("=")
    return name, value if equals else "true"


def _rest(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Of a spec, what belongs to no factor and to no single trial: it must be the same."""
    looked_at = ("binary", "arguments", "environment")
    return {
        "spec": {key: value for key, value in spec.items() if key not in _OF_THE_TRIAL},
        "service": {k: value for k, value in spec["service"].items() if k not in looked_at},
    }


def one_factor_pairs(records: Iterable[TrialRecord]) -> dict[str, list[OneFactor]]:
    """System → pairs of its configurations that differ in exactly one factor.

    A configuration whose trials were not all told the same is in none. A pair begins with the
    baseline; else with the lesser setting, numbers by their value.
    """
    told: dict[str, dict[str, list[Settings_]]] = defaultdict(lambda: defaultdict(list))
    baselines = set()
    for record in records:
        told[record.os][record.configuration].append(settings_of(record))
        if record.baseline:
            baselines.add(record.configuration)
    return {
        system: list(_pairs(configurations, baselines)) for system, configurations in told.items()
    }


def _pairs(
    configurations: Mapping[str, Sequence[Settings_]], baselines: set[str]
) -> Iterator[OneFactor]:
    steady = {
        name: settings[0]
        for name, settings in sorted(configurations.items())
        if all(other == settings[0] for other in settings)
    }
    for first, second in itertools.combinations(steady, 2):
        found = _one_factor(steady[first], steady[second])
        if found is None:
            continue
        factor, setting, other = found
        pair = OneFactor(factor, first, second, setting, other)
        turned = OneFactor(factor, second, first, other, setting)
        backwards = second in baselines or (
            first not in baselines and _in_order(other) < _in_order(setting)
        )
        yield turned if backwards else pair


def _one_factor(first: Settings_, second: Settings_) -> tuple[str, str | None, str | None] | None:
    """The one factor in which two configurations differ, with both settings; None for no such."""
    names = [n for n in sorted(first.keys() | second.keys()) if first.get(n) != second.get(n)]
    if any(name == "go" or name.startswith("build.") for name in names):
        # Another release or flag makes another binary.
        names = [name for name in names if name != "binary"]
    if len(names) == 1 and names != ["other"]:
        return names[0], first.get(names[0]), second.get(names[0])
    if names and all(name.startswith("build.") for name in names):
        return "build", _together(first, names), _together(second, names)
    return None


def _together(settings: Settings_, names: Sequence[str]) -> str | None:
    set_ones = [name for name in names if name in settings]
    text = " ".join(f"{n.removeprefix('build.')}={shlex.quote(settings[n])}" for n in set_ones)
    return text or None


def _in_order(setting: str | None) -> tuple[Any, ...]:
    """Sorts settings as a person would: what is not set first, 9 before 10, 1.9 before 1.21."""
    parts = re.split(r"(\d+)", setting or "")
    return setting is not None, [(int(p), "") if p.isdigit() else (-1, p) for p in parts if p]


def ablation_rows(
    comparison: Comparison, records: Sequence[TrialRecord], measurements: Sequence[Measurement]
) -> pa.Table:
    """The rows of the SQL view `ablation`, for one run; `comparison` is that run's own."""
    import pyarrow as pa

    schema = pa.schema(
        [
            ("node_class", pa.string()),
            ("os", pa.string()),
            ("workload", pa.string()),
            ("factor", pa.string()),
            ("from_setting", pa.string()),
            ("to_setting", pa.string()),
            ("from_configuration", pa.string()),
            ("to_configuration", pa.string()),
            ("baseline", pa.bool_()),
            ("metric", pa.string()),
            ("unit", pa.string()),
            ("from_value", pa.float64()),
            ("to_value", pa.float64()),
            ("relative", pa.bool_()),
            ("change", pa.float64()),
            ("change_low", pa.float64()),
            ("change_high", pa.float64()),
            ("p", pa.float64()),
            ("p_adjusted", pa.float64()),
            ("pairs", pa.int64()),
            ("is_primary", pa.bool_()),
            ("verdict", pa.string()),
        ]
    )
    pairs = one_factor_pairs(records)
    found = {
        (system, *pair.contrast): pair for system, of_system in pairs.items() for pair in of_system
    }
    tables = (*comparison.tables, *_others(comparison, pairs, records, measurements))
    rows = [
        _plain(pair, table, row, is_baseline=table.baseline == comparison.settings.baseline)
        for table in tables
        if (pair := found.get((table.os, table.baseline, table.candidate)))
        for row in table.rows
    ]
    return pa.Table.from_pylist(rows, schema)


def _others(
    comparison: Comparison,
    pairs: Mapping[str, Sequence[OneFactor]],
    records: Sequence[TrialRecord],
    measurements: Sequence[Measurement],
) -> tuple[Table, ...]:
    """The pairs without the baseline, which no comparison of the run has."""
    baseline = comparison.settings.baseline
    contrasts = {
        system: [p.contrast for p in of_system if p.from_configuration != baseline]
        for system, of_system in pairs.items()
    }
    if not any(contrasts.values()):
        return ()
    limited = working_set_limits(records)
    return compare(measurements, comparison.settings, limited, contrasts)


def _plain(pair: OneFactor, table: Table, row: Row, *, is_baseline: bool) -> dict[str, Any]:
    return plain_row(table, row) | {
        "factor": pair.factor,
        "from_setting": pair.from_setting,
        "to_setting": pair.to_setting,
        "from_configuration": pair.from_configuration,
        "to_configuration": pair.to_configuration,
        "from_value": row.baseline,
        "to_value": row.candidate,
        "baseline": is_baseline,
    }
