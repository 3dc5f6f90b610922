"""The shipped alerts, each by promtool: it fires when it must and is silent otherwise.

Series are sampled every five seconds, as the shipped configuration scrapes; `a+bxn` is promtool's
own way to write a series that begins at `a` and grows by `b` for `n` samples.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from bench_command import Workplace

from orchestrator.watching.dashboard import dashboard
from orchestrator.watching.metrics import METRICS, TRIAL_LABELS
from orchestrator.watching.setup import write_setup
from results.errors import UserError

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="no promtool: apt install prometheus"
)
OF_TRIAL = '{configuration="optimised",workload="steady",node="node-1"}'
LABELS = {"configuration": "optimised", "workload": "steady", "node": "node-1"}
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """Series by name, from minute 0, and whether the alert is there after ten minutes."""

    alert: str
    series: dict[str, str]
    labels: dict[str, str] | None = None
    """Those that it fires with, besides its severity; None: it must be silent."""

    severity: str = "warning"

    @property
    def name(self) -> str:
        return f"{self.alert} {'fires' if self.labels is not None else 'is silent'}"


def trial(name: str) -> str:
    return f"heapgate_trial_{name}{OF_TRIAL}"


CHANGE = "heapgate_run_last_change_timestamp_seconds"
INVALID = 'heapgate_run_findings_total{level="invalid",code="samples_missing"}'
WARNED = 'heapgate_run_findings_total{level="warning",code="node_noisy"}'
CASES = (
    Case("HeapgateRunStalled", {CHANGE: "200x200"}, {}, "critical"),
    Case("HeapgateRunStalled", {CHANGE: "0+5x200"}),
    Case(
        "HeapgateTrialInvalid",
        {INVALID: "0x100 1x100"},
        {"level": "invalid", "code": "samples_missing"},
    ),
    Case("HeapgateTrialInvalid", {INVALID: "0x200", WARNED: "3x200"}),
    Case("HeapgateGeneratorSaturated", {trial("generator_cpu_ratio"): "0.95x200"}, LABELS),
    Case("HeapgateGeneratorSaturated", {trial("generator_lag_seconds"): "0.06x200"}, LABELS),
    Case(
        "HeapgateGeneratorSaturated",
        # Once above, not for long.
        {trial("generator_cpu_ratio"): "0.85x200", trial("generator_lag_seconds"): "0.01x119 0.2"},
    ),
    Case(
        "HeapgateMemoryNearLimit",
        {trial("cgroup_anon_bytes"): "950x200", trial("memory_limit_bytes"): "1000x200"},
        LABELS,
    ),
    Case(
        "HeapgateMemoryNearLimit",
        {trial("commit_bytes"): "950x200", trial("memory_limit_bytes"): "1000x200"},
        LABELS,
    ),
    Case(
        "HeapgateMemoryNearLimit",
        {trial("cgroup_anon_bytes"): "850x200", trial("memory_limit_bytes"): "1000x200"},
    ),
    Case("HeapgateMemoryNearLimit", {trial("cgroup_anon_bytes"): "850x200"}),
    Case(
        "HeapgateRequestsFail",
        {trial("requests_total"): "0+1000x200", trial("requests_failed_total"): "0+20x200"},
        LABELS,
    ),
    Case(
        "HeapgateRequestsFail",
        {trial("requests_total"): "0+1000x200", trial("requests_failed_total"): "0+5x200"},
    ),
    Case(
        "HeapgateSamplesMissing",
        {trial("samples_total"): "0+40x200", trial("missed_samples_total"): "0+10x200"},
        LABELS,
    ),
    Case(
        "HeapgateSamplesMissing",
        {trial("samples_total"): "0+49x200", trial("missed_samples_total"): "0+1x200"},
    ),
    Case("HeapgateSpoolGrows", {trial("spool_batches"): "150x200"}, LABELS),
    Case("HeapgateSpoolGrows", {trial("spool_batches"): "150x110 2x90"}),
    Case("HeapgateArchiveNearlyFull", {"heapgate_archive_free_bytes": f"{GIB - 1}x200"}, {}),
    Case("HeapgateArchiveNearlyFull", {"heapgate_archive_free_bytes": f"{GIB}x200"}),
)


@pytest.fixture
def setup(tmp_path: Path) -> Path:
    write_setup(tmp_path, "127.0.0.1:9464")
    return tmp_path


def rules(folder: Path) -> list[dict[str, str]]:
    plain = yaml.safe_load((folder / "heapgate-alerts.yml").read_text())
    return [rule for group in plain["groups"] for rule in group["rules"]]


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_alert(case: Case, setup: Path) -> None:
    (rule,) = [rule for rule in rules(setup) if rule["alert"] == case.alert]
    # One alert alone, without its words: those have figures that promtool would compare too.
    alone = {key: rule[key] for key in ("alert", "expr", "for", "labels") if key in rule}
    (setup / "one.yml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [alone]}]}))
    labels = None if case.labels is None else case.labels | {"severity": case.severity}
    expected = [] if labels is None else [{"exp_labels": labels, "exp_annotations": {}}]
    test = {
        "interval": "5s",
        "input_series": [{"series": s, "values": v} for s, v in case.series.items()],
        "alert_rule_test": [{"eval_time": "10m", "alertname": case.alert, "exp_alerts": expected}],
    }
    document = {"rule_files": ["one.yml"], "evaluation_interval": "5s", "tests": [test]}
    (setup / "test.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=setup,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_of_each_kind(setup: Path) -> None:
    for fires in (True, False):
        tested = {case.alert for case in CASES if (case.labels is not None) is fires}
        assert tested == {rule["alert"] for rule in rules(setup)}


@needs_promtool
def test_promtool_accepts_what_is_written(setup: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=setup,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules(setup))} rules found" in done.stdout


def test_alerts_and_dashboard_ask_only_for_metrics_that_there_are(setup: Path) -> None:
    document = json.loads((setup / "heapgate-dashboard.json").read_text())
    assert document == dashboard()
    asked = [rule["expr"] for rule in rules(setup)]
    asked += [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    names = {name for query in asked for name in re.findall(r"heapgate_\w+", query)}
    known = {metric.name for metric in METRICS}
    known |= {
        f"{m.name}{end}" for m in METRICS if m.kind == "summary" for end in ("_sum", "_count")
    }
    assert names <= known
    labels = {name for query in asked for name in re.findall(r"(\w+)=~?\"", query)}
    assert labels <= {*TRIAL_LABELS, "instance", *(name for m in METRICS for name in m.labels)}


def test_a_dashboard_is_of_the_form_that_grafana_reads() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_the_command_writes_them_and_overwrites_nothing(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    done = place.bench("metrics", "init", "-o", "watch", "--address", "127.0.0.1:9999")
    assert done.code == 0, done.text
    scrape = yaml.safe_load((tmp_path / "watch" / "prometheus.yml").read_text())
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": ["127.0.0.1:9999"]}]
    write_setup(tmp_path / "watch", "127.0.0.1:9999")
    (tmp_path / "watch" / "heapgate-alerts.yml").write_text("mine")
    with pytest.raises(UserError, match=r"heapgate-alerts\.yml is there already"):
        write_setup(tmp_path / "watch", "127.0.0.1:9999")
    assert (tmp_path / "watch" / "heapgate-alerts.yml").read_text() == "mine"
    names = {row["name"] for row in place.bench("metrics", "ls", "--json").json()}
    assert names == {metric.name for metric in METRICS}
