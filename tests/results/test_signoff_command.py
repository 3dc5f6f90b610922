"""`bench signoff`, `bench keys` and the check of a record, as a release manager uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from archives import MIB, RUN_ID, write_archive

ROOT = Path(__file__).resolve().parents[2]
FACTORS = (1.0, 1.02, 0.99, 1.01, 0.98, 1.005, 0.995, 1.015)
HOSTILE = "<script>alert(1)</script> | `x` ::error::\u0007"
POLICY = f"""objectives:
  - peak_rss <= 130MiB
  - p99 not worse by > 5%
  - {{require: no_leak, severity: warn}}
  - throughput >= 800/s
waivers:
  - objective: throughput >= 800/s
    owner: Jane
    reason: "{HOSTILE.replace(chr(7), "")}"
    expires: 2999-01-31
"""


@dataclass
class Desk:
    """A release manager's machine: an archive, a state folder, a policy."""

    folder: Path

    def bench(
        self, *arguments: str, code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            cwd=self.folder, capture_output=True, text=True, check=False,
            env=os.environ | {
                "PYTHONPATH": str(ROOT), "HEAPGATE_STATE": str(self.folder / "state"),
                "HEAPGATE_ARCHIVE": str(self.folder / "archive"), "COLUMNS": "120",
            } | environment,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    @property
    def record(self) -> Path:
        return self.folder / "archive" / RUN_ID / "signoff-optimised.json"

    def policy(self, text: str) -> str:
        (self.folder / "policy.yaml").write_text(text)
        return "--policy=policy.yaml"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    configurations = {
        "default": {"factors": FACTORS},
        "optimised": {"peak_rss_bytes": 120 * MIB, "factors": FACTORS, "binary_bytes": 6_000_000},
    }
    write_archive(folder / "archive", configurations=configurations, blocks=8)
    return Desk(folder)


def test_from_a_first_key_to_a_checked_record(desk: Desk, tmp_path: Path) -> None:
    policy = desk.policy(POLICY)
    unsigned = desk.bench("signoff", policy)
    assert "GO  sessioncache as 'optimised'" in unsigned.stdout
    assert "is not signed: there is no key" in unsigned.stdout
    said = desk.bench("verify", str(desk.record), code=2).stderr
    assert "is not signed" in said
    desk.bench("keys", "new", "release")
    assert "signs here" in desk.bench("keys", "ls").stdout
    desk.bench("signoff", policy)
    checked = desk.bench("verify", str(desk.record), "--require-go").stdout
    assert f"{desk.record}: GO, build {6_000_000:064x}" in checked
    assert "no build was compared" in checked
    # On somebody else's machine nobody is trusted, until the public key has come.
    public = desk.folder / "state" / "keys" / "release.pub"
    elsewhere = {"HEAPGATE_STATE": str(tmp_path)}
    refused = desk.bench("verify", str(desk.record), code=1, **elsewhere)
    assert "not trusted here" in refused.stdout
    desk.bench("verify", str(desk.record), f"--public-key={public}", **elsewhere)
    desk.bench("keys", "trust", str(public), **elsewhere)
    assert "is trusted" in desk.bench("keys", "ls", **elsewhere).stdout
    desk.bench("verify", str(desk.record), **elsewhere)
    (tmp_path / "service").write_bytes(b"another program")
    other = desk.bench("verify", str(desk.record), f"--binary={tmp_path / 'service'}", code=1)
    assert "about another build" in other.stdout
    text = desk.record.read_text()
    desk.record.write_text(text.replace('"GO"', '"NO-GO"'))
    told = json.loads(desk.bench("verify", str(desk.record), "--json", code=1).stdout)
    assert "it was changed" in told[0]["wrong"][0]
    assert "it was changed" in desk.bench("verify", RUN_ID, code=3).stdout


def test_a_no_is_exit_code_1_and_its_reason(desk: Desk) -> None:
    done = desk.bench("signoff", desk.policy("objectives: [peak_rss <= 10MiB]"), code=1)
    assert done.stdout.startswith("NO-GO")
    assert "NO-GO: peak_rss <= 10MiB" in done.stderr
    assert json.loads(desk.record.read_text())["decision"] == "NO-GO"


def test_a_true_no_go_is_told_and_stops_a_pipeline(desk: Desk, tmp_path: Path) -> None:
    state = {"HEAPGATE_STATE": str(tmp_path)}
    desk.bench("keys", "new", "mine", **state)
    policy, record = desk.policy("objectives: [peak_rss <= 10MiB]"), tmp_path / "record.json"
    desk.bench("signoff", policy, f"-o{record}", code=1, **state)
    assert "record.json: NO-GO, build " in desk.bench("verify", str(record), **state).stdout
    (told,) = json.loads(desk.bench("verify", str(record), "--json", **state).stdout)
    assert (told["decision"], told["builds"]) == ("NO-GO", [f"{6_000_000:064x}"])
    assert (told["wrong"], told["build_compared"]) == ([], False)
    refused = desk.bench("verify", str(record), "--require-go", code=1, **state)
    assert refused.stderr.strip() == f"NO-GO: {record}"


def test_a_policy_about_another_configuration_is_no_go_for_this_one(desk: Desk) -> None:
    policy = desk.policy("objectives: [{require: peak_rss <= 1GiB, configurations: [default]}]")
    refused = desk.bench("signoff", policy, "-c", "optimised", code=2)
    assert "no blocking objective is about 'optimised'" in refused.stderr


def test_forms_for_pipelines(desk: Desk, tmp_path: Path) -> None:
    policy = desk.policy(POLICY)
    junit = ET.fromstring(desk.bench("signoff", policy, "--format=junit").stdout)
    assert (junit.get("tests"), junit.get("failures"), junit.get("skipped")) == ("4", "0", "1")
    told = json.loads(desk.bench("signoff", policy, "--format=json").stdout)
    assert told["decision"] == "GO"
    markdown = desk.bench("signoff", policy, "--format=md").stdout
    assert "| peak_rss &lt;= 130MiB | PASS |" in markdown
    assert "<script>" not in markdown
    summary = tmp_path / "summary.md"
    failing = desk.policy("objectives: [peak_rss <= 10MiB]")
    github = desk.bench(
        "signoff", failing, "--format=github", code=1, GITHUB_STEP_SUMMARY=str(summary)
    )
    assert github.stdout.startswith("::error title=peak_rss <= 10MiB::FAIL: 120")
    assert summary.read_text().startswith("### ❌ NO-GO")


def test_files_of_one_decision(desk: Desk, tmp_path: Path) -> None:
    """What goes into a file is not printed too; the record lies in the run's folder as ever."""
    page, junit, markdown = (tmp_path / f"signoff.{end}" for end in ("html", "xml", "md"))
    outputs = (f"-o{page}", f"-o{junit}", f"-o{markdown}")
    done = desk.bench("signoff", desk.policy(POLICY), "--format=html", *outputs)
    assert done.stdout == ""
    record = json.loads(desk.record.read_text())
    assert record["decided_at"] in page.read_text()
    assert ET.parse(junit).getroot().get("timestamp") == record["decided_at"]
    assert markdown.read_text().startswith("### ✅ GO")
    own = tmp_path / "record.json"
    assert desk.bench("signoff", desk.policy(POLICY), f"-o{own}").stdout.startswith("GO")
    assert json.loads(own.read_text())["decision"] == "GO"
    failed = desk.bench("signoff", desk.policy(POLICY), "-osignoff.txt", code=2)
    assert "says what it is: .json the record" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("signoff",), 2, "there are no objectives"),
        (("signoff", "--configuration=tuned"), 2, "no objectives"),
        (("signoff", "--policy=nowhere.yaml"), 2, "nowhere.yaml"),
        (("signoff", "20990101"), 2, "20990101"),
        (("verify", "nowhere.json"), 2, "No such file"),
        (("verify", "--binary=x"), 2, "name runs, or records"),
        (("verify", "--require-go"), 2, "name runs, or records"),
        (("keys", "new", "../escape"), 2, "can't be a key's name"),
        (("keys", "trust", "nowhere.pub"), 2, "No such file"),
    ],
)
def test_mistakes_are_told(desk: Desk, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = desk.bench(*arguments, code=code)
    assert said in done.stdout + done.stderr


def test_a_key_that_others_can_read_signs_nothing(desk: Desk, tmp_path: Path) -> None:
    state = {"HEAPGATE_STATE": str(tmp_path)}
    desk.bench("keys", "new", "mine", **state)
    (tmp_path / "keys" / "mine").chmod(0o644)
    policy = desk.policy(POLICY)
    said = desk.bench("signoff", policy, code=2, **state).stderr
    assert "chmod 600" in said
    desk.bench("keys", "new", "second", **state)
    assert "several keys" in desk.bench("signoff", policy, code=2, **state).stderr
    second = str(tmp_path / "keys" / "second")
    desk.bench("signoff", policy, HEAPGATE_SIGNING_KEY=second, **state)
