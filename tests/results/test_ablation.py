"""Which factor did it: pairs of configurations that differ in exactly one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import MIB, write_archive

from results.archive.archive import Archive
from results.comparing.ablation import one_factor_pairs
from results.sql.database import open_database

BASE: dict[str, Any] = {"go_version": "go1.22.10", "environment": ()}
GC: dict[str, Any] = {"environment": (("GOGC", "30"),)}
FACTORS = {
    "default": BASE,
    "go": BASE | {"go_version": "go1.23.9"},
    "gogc": BASE | GC | {"peak_rss_bytes": 150 * MIB},
    "flags": BASE | {"build_flags": ("-trimpath", "-ldflags=-s -w"), "binary_bytes": 5_000_000},
    "trimmed": BASE | {"build_flags": ("-trimpath",), "binary_bytes": 7_000_000},
    "limited": BASE | {"memory_max_bytes": 2**30},
    "bundle": BASE | GC | {"go_version": "go1.23.9", "peak_rss_bytes": 140 * MIB},
}
"""`bundle` differs from the default in two factors, from `go` and from `gogc` in one."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("factors"), configurations=FACTORS, blocks=8)


def rows(archive: Path, sql: str) -> list[dict[str, Any]]:
    with open_database(archive) as database:
        return database.query(sql).to_pylist()


def test_each_pair_differs_in_one_factor_and_begins_with_the_baseline_or_the_lesser(
    archive: Path,
) -> None:
    found = rows(
        archive,
        "select factor, from_configuration f, to_configuration t, from_setting, to_setting,"
        " baseline from ablation where metric = 'peak_rss' order by factor, f, t",
    )
    assert [tuple(row.values()) for row in found] == [
        ("build", "default", "flags", None, "ldflags='-s -w' trimpath=true", True),
        ("build.ldflags", "trimmed", "flags", None, "-s -w", False),
        ("build.trimpath", "default", "trimmed", None, "true", True),
        ("env.GOGC", "default", "gogc", None, "30", True),
        ("env.GOGC", "go", "bundle", None, "30", False),
        ("go", "default", "go", "1.22.10", "1.23.9", True),
        ("go", "gogc", "bundle", "1.22.10", "1.23.9", False),
        ("limits.memory_max_bytes", "default", "limited", None, "1073741824", True),
    ]


def test_a_pair_with_the_baseline_is_the_row_of_the_comparison(archive: Path) -> None:
    same = (
        "select metric, {f} as value, change, change_low, change_high, p_adjusted, pairs, verdict"
        " from {view} where {configuration} = 'gogc' and {where} order by metric"
    )
    ours = same.format(
        view="ablation",
        f="from_value",
        configuration="to_configuration",
        where="from_configuration = 'default'",
    )
    theirs = same.format(
        view="comparison", f="baseline_value", configuration="configuration", where="true"
    )
    assert rows(archive, ours) == rows(archive, theirs)


def test_other_pairs_are_compared_by_the_same_means(archive: Path) -> None:
    (found,) = rows(
        archive,
        "from ablation where factor = 'env.GOGC' and not baseline and metric = 'peak_rss'",
    )
    assert (found["from_value"], found["to_value"]) == (200 * MIB, 140 * MIB)
    assert found["change"] == pytest.approx(-0.3)
    # Eight blocks all one way: p is 2/2^8; of three such pairs only two differ at all (Holm: × 3).
    assert found["p"] == pytest.approx(2 / 2**8)
    assert found["p_adjusted"] == pytest.approx(3 * 2 / 2**8)
    assert (found["pairs"], found["verdict"]) == (8, "better")


def test_numbers_are_in_their_order_not_in_that_of_their_letters(tmp_path: Path) -> None:
    gogc = {
        name: BASE | {"environment": (("GOGC", name.removeprefix("g")),)}
        for name in ("g100", "g50", "g400")
    }
    root = write_archive(tmp_path, configurations={"default": BASE} | gogc, blocks=1)
    found = rows(
        root,
        "select from_setting, to_setting from ablation where not baseline and metric = 'peak_rss'"
        " order by from_setting::int, to_setting::int",
    )
    assert [tuple(row.values()) for row in found] == [("50", "100"), ("50", "400"), ("100", "400")]


def test_what_no_factor_names_is_put_down_to_none(archive: Path) -> None:
    (run,) = Archive(archive).runs()
    records = Archive(archive).records(run.run_id)
    before = one_factor_pairs(records)["linux"]
    for record in records:
        if record.configuration == "gogc":
            record.spec["gc_trace"] = False
    after = one_factor_pairs(records)["linux"]
    assert {p.contrast for p in before} - {p.contrast for p in after} == {
        ("default", "gogc"),
        ("gogc", "bundle"),
    }
    # Nor is a configuration that was not told the same in all its trials.
    records[0].spec["service"]["arguments"] = ["-other"]
    assert all(
        records[0].configuration not in p.contrast for p in one_factor_pairs(records)["linux"]
    )


def test_systems_are_kept_apart(tmp_path: Path) -> None:
    from archives import MIXED

    configurations = {"default": BASE, "gogc": BASE | GC}
    root = write_archive(tmp_path, configurations=configurations, blocks=6, groups=MIXED)
    found = rows(root, "select distinct os, factor from ablation order by os")
    assert found == [{"os": "linux", "factor": "env.GOGC"}, {"os": "windows", "factor": "env.GOGC"}]
