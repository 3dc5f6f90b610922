"""What goes wrong in the field: each time a clear message, the right exit code, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import matrices
import psutil
import pytest
from bench_command import Finished, Workplace, wait_until

from results.metrics import usual_on


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def records(workplace: Workplace) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text())
        for path in sorted(workplace.archive.glob("*/trials/*/trial.json"))
    ]


WRONG_IN_EVERY_WAY = """\
service:
  name: misbehave
  go: {{source: {source}}}
  arguments: [-addr, "{{host}}:{{port}}"]
  ready: {{http: /healthz, timeout: 1s}}
  stop_timeout: 1s
configurations:
  default: {{baseline: true, go: "1.23"}}
  exits: {{go: "1.23", arguments: [-exit-at-once, 3]}}
  never: {{go: "1.23", arguments: [-never-ready]}}
  dies: {{go: "1.23", arguments: [-die-after, 700ms]}}
  leaks: {{go: "1.23", arguments: [-leak-children, 2]}}
  stays: {{go: "1.23", arguments: [-ignore-term]}}
  fails: {{go: "1.23", arguments: [-errors, "1.0"]}}
  eats: {{go: "1.23", arguments: [-eat, 300MiB], limits: {{memory_max: 64MiB}}}}
workloads:
  steady:
    scenario: {scenario}
    arrivals: {{constant: 50/s}}
    idle: 100ms
    warmup: 100ms
    measure: 1s
    cooldown: 0s
trials: 1
"""


def test_each_way_in_which_a_service_fails_is_told_in_its_own_words(workplace: Workplace) -> None:
    scenario = matrices.ROOT / "tests" / "scenarios" / "plain.py"
    text = WRONG_IN_EVERY_WAY.format(source=matrices.MISBEHAVE, scenario=scenario)
    matrices.write(workplace.root, text)
    finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 3, finished.text
    assert "Traceback" not in finished.text
    assert workplace.strays() == []
    found = {r["configuration"]: r for r in records(workplace)}
    codes = {name: {f["code"]: f["text"] for f in r["findings"]} for name, r in found.items()}
    assert found["default"]["valid"]
    for name, code, want in [
        ("exits", "service_died", "exit code 3; its last words: last words: no configuration file"),
        ("never", "never_ready", "HTTP status 503"),
        ("dies", "service_died", "exit code 7; its last words: last words: the database went away"),
        ("leaks", "leaked_processes", "2 processes outlived the service"),
        ("stays", "ignored_sigterm", "did not end after SIGTERM within stop_timeout"),
        ("fails", "no_success", "no request succeeded"),
    ]:
        assert want in codes[name].get(code, ""), (name, codes[name])
        assert want in finished.out
    assert {n for n, r in found.items() if r["valid"]} >= {"default", "leaks", "stays"}
    if "limit_not_enforced" not in codes["eats"]:
        assert "hard memory limit was reached" in codes["eats"]["oom_killed"]
        assert "raise limits.memory_max" in finished.out


def test_no_service_that_becomes_ready_ends_the_run_early(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.misbehaving("-exit-at-once, '3'", trials=50))
    finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 3, finished.text
    assert "no configuration of the service became ready" in finished.err
    assert len(records(workplace)) <= 4
    assert workplace.bench("compare").code == 3, "nothing valid is no success"


def test_the_compilers_own_words_are_shown(workplace: Workplace) -> None:
    source = workplace.root / "service"
    source.mkdir()
    (source / "go.mod").write_text("module broken\n\ngo 1.22\n")
    (source / "main.go").write_text("package main\n\nfunc main() {\n\tundefinedThing()\n}\n")
    text = matrices.SMALL.replace(str(matrices.SESSIONCACHE), "service")
    matrices.write(workplace.root, text)
    finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 2, finished.text
    assert "main.go:4:2: undefined: undefinedThing" in finished.text
    assert "Traceback" not in finished.text
    assert workplace.strays() == []


def test_a_scenario_that_raises_at_import_names_its_line(workplace: Workplace) -> None:
    broken = matrices.ROOT / "tests" / "scenarios" / "broken.py"
    text = matrices.SMALL.replace("scenario: cache_mix", f"scenario: {broken}")
    matrices.write(workplace.root, text)
    finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 2, finished.text
    assert "broken.py:5" in finished.text
    assert "the fixture file is missing" in finished.text
    assert "Traceback" not in finished.text
    assert "starting Ray" not in finished.text
    assert workplace.run_ids() == [], "a run that never began is none"


def test_a_port_in_use_is_named_and_a_changed_source_is_another_run(workplace: Workplace) -> None:
    shutil.copytree(matrices.SESSIONCACHE, workplace.root / "service")
    shutil.copytree(matrices.SESSIONCACHE.with_name("heapgate"), workplace.root / "heapgate")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = matrices.SMALL.replace("  ready:", f"  port: {port}\n  ready:")
        matrices.write(workplace.root, text.replace(str(matrices.SESSIONCACHE), "service"))
        finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 2, finished.text
    assert str(port) in finished.text
    assert "already used" in finished.text
    assert workplace.strays() == []
    with (workplace.root / "service" / "main.go").open("a") as source:
        source.write("\nvar addedLater = len(os.Args)\n")
    resumed = workplace.bench("resume")
    assert resumed.code == 2, resumed.text
    assert "now builds to another binary" in resumed.err
    assert "start a new run" in resumed.err


def interrupted_while_importing(workplace: Workplace, number: int) -> Finished:
    """A run that is stopped while it waits for a scenario whose import never ends."""
    scenario = workplace.root / "endless.py"
    scenario.write_text("import time\nprint('here', flush=True)\ntime.sleep(3600)\n")
    text = matrices.SMALL.replace("scenario: cache_mix", "scenario: endless.py")
    matrices.write(workplace.root, text)
    process = workplace.start("run", "matrix.yaml")
    wait_until(lambda: any(Path("/tmp").glob(f"heapgate-{run_mark(workplace)}-*/scenario-*")))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return Finished(process.returncode, out, err)


def run_mark(workplace: Workplace) -> str:
    """The part of the newest run's id that its temporary folder is named after."""
    return (workplace.run_ids() or ["none"])[-1].rpartition("-")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_waited_for_before_measuring_is_broken_off(
    workplace: Workplace, number: int
) -> None:
    stopped = interrupted_while_importing(workplace, number)
    assert stopped.code == 130, stopped.text
    assert "bench resume" in stopped.err
    assert "Traceback" not in stopped.text
    assert workplace.strays() == []
    assert workplace.bench("runs", "--json").json()[0]["status"] == "interrupted"


def test_a_resumed_run_needs_its_own_scenario_and_source(workplace: Workplace) -> None:
    interrupted_while_importing(workplace, signal.SIGINT)
    (workplace.root / "endless.py").write_text("from locust import HttpUser\n")
    resumed = workplace.bench("resume")
    assert resumed.code == 2, resumed.text
    assert "endless.py has changed since run" in resumed.err
    (workplace.root / "endless.py").unlink()
    resumed = workplace.bench("resume")
    assert resumed.code == 2, resumed.text
    assert "matrix.yaml:14:15: there is no scenario 'endless.py'" in resumed.err


def test_sigterm_while_ray_starts_stops_cleanly(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    process = workplace.start("run", "matrix.yaml")
    wait_until(lambda: any(Path("/tmp").glob(f"heapgate-{run_mark(workplace)}-*/ray/session_*")))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "bench resume" in err
    assert "Traceback" not in out + err
    assert workplace.strays() == []


def test_a_reader_that_goes_away_stops_the_run(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    process = workplace.start("run", "matrix.yaml")
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 130, err
    assert "nobody reads what is printed any more" in err
    assert "Traceback" not in err
    assert workplace.strays() == []
    assert workplace.bench("runs", "--json").json()[0]["status"] == "interrupted"


def start_measuring(workplace: Workplace) -> subprocess.Popen[str]:
    """Start a run and wait until its second trial is under way."""
    matrices.write(workplace.root, matrices.CLOSED.replace("measure: 1s", "measure: 3s"))
    process = workplace.start("run", "matrix.yaml")
    wait_until(
        lambda: len(list(workplace.archive.glob("*/trials/*"))) >= 2 or process.poll() is not None,
        timeout_s=120,
    )
    assert process.poll() is None, process.communicate()
    return process


def helpers(workplace: Workplace, words: str) -> list[psutil.Process]:
    """The processes of our runs with these words in their command line.

    They have the run's marker in their environment, or, like Ray's, a file of the run open.
    """
    ids = workplace.run_ids()
    folders = tuple(f"/tmp/heapgate-{run_id[-4:]}-" for run_id in ids)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if words not in " ".join(process.cmdline()):
                continue
            held = [str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
            marked = process.environ().get("HEAPGATE_RUN") in ids
            if marked or any(path.startswith(folders) for path in held):
                found.append(process)
    return found


def test_one_interrupt_stops_cleanly_and_resume_finishes(workplace: Workplace) -> None:
    process = start_measuring(workplace)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "bench resume" in out + err
    assert workplace.strays() == []
    resumed = workplace.bench("resume")
    assert resumed.code == 0, resumed.text
    assert "peak RSS" in resumed.out
    valid = [r for r in records(workplace) if r["valid"]]
    assert len(valid) == 4


def test_two_interrupts_stop_at_once(workplace: Workplace) -> None:
    process = start_measuring(workplace)
    process.send_signal(signal.SIGINT)
    assert process.stderr
    while "stopping" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in (130, 130 + 256)
    wait_until(lambda: not workplace.strays(), timeout_s=15)
    assert records(workplace), "the trial that was sealed is still there"


def test_after_a_killed_driver_the_next_command_cleans_and_resume_finishes(
    workplace: Workplace,
) -> None:
    process = start_measuring(workplace)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    listed = workplace.bench("runs", "--json")
    assert listed.code == 0, listed.text
    assert "whose driver was killed" in listed.err
    assert listed.json()[0]["status"] == "interrupted"
    verified = workplace.bench("verify")
    assert verified.code == 0, verified.text
    wait_until(lambda: not workplace.strays(), timeout_s=15)

    resuming = workplace.start("resume")
    sealed = len(records(workplace))
    wait_until(lambda: len(list(workplace.archive.glob("*/trials/*~2"))) or resuming.poll())
    (worker,) = helpers(workplace, "ray::NodeActor")
    worker.kill()
    out, err = resuming.communicate(timeout=60)
    assert resuming.returncode == 3, out + err
    assert "the node's worker died in trial" in err
    assert "bench resume" in err
    assert "raylet" not in out + err
    assert workplace.strays() == []
    assert len(records(workplace)) >= sealed, "what was sealed stays"

    resumed = workplace.bench("resume")
    assert resumed.code == 0, resumed.text
    assert "peak RSS" in resumed.out
    assert len([r for r in records(workplace) if r["valid"]]) == 4
    assert workplace.strays() == []
    # The table of an uninterrupted run: every metric, each block once.
    rows = workplace.bench("compare", "--json").json()["rows"]
    assert [row["metric"] for row in rows] == [metric.name for metric in usual_on("linux")]
    assert {row["pairs"] for row in rows if not row["verdict"].startswith("n/a")} == {2}


def test_nothing_is_lost_when_a_helper_is_killed(workplace: Workplace) -> None:
    """The collector, the agent and the load generator, one after the other in one run."""
    process = start_measuring(workplace)
    for helper in ("results.collecting.collector", "workers.agent", "workers.load.generator"):
        (victim,) = wait_until(lambda words=helper: helpers(workplace, words))
        victim.kill()
    out, err = process.communicate(timeout=180)
    # A busy machine may spoil trials besides; those are told, and none of them for lost rows.
    assert process.returncode in (0, 3), out + err
    assert "the collector had died and was started again" in out
    assert "Traceback" not in out + err
    assert workplace.strays() == []
    found = records(workplace)
    assert {r["trial_id"].partition("~")[0] for r in found} == set(planned(workplace))
    codes = {f["code"]: f["text"] for r in found for f in r["findings"]}
    assert "killed by signal 9" in codes["no_load"] or "ended in phase" in codes["no_load"]
    assert not {"rows_lost", "requests_unrecorded", "samples_missing"} & set(codes)


def planned(workplace: Workplace) -> list[str]:
    document = json.loads(next(workplace.archive.glob("*/run.json")).read_text())
    return [trial["trial_id"] for trial in document["planned"]]


def test_an_archive_that_cannot_be_written(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    (workplace.root / "file").write_text("not a folder")
    finished = workplace.bench("run", "matrix.yaml", "--archive", "file/archive")
    assert finished.code == 4, finished.text
    assert "file/archive" in finished.text
    assert "Traceback" not in finished.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_is_said_before_a_trial(workplace: Workplace) -> None:
    small = workplace.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], check=True)
    try:
        matrices.write(workplace.root, matrices.SMALL)
        finished = workplace.bench("run", "matrix.yaml", "--archive", "small/archive")
        assert finished.code == 4, finished.text
        assert "MiB are free" in finished.text
        assert "bench resume" in finished.text
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert workplace.strays() == []
