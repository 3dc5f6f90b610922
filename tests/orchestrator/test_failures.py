"""What goes wrong in the field: each time a clear message, the right exit code, nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import matrices
import pytest
from bench_command import Workplace, wait_until


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def records(workplace: Workplace) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text())
        for path in sorted(workplace.archive.glob("*/trials/*/trial.json"))
    ]


def has_record_in_phase(workplace: Workplace, name: str) -> bool:
    return any(workplace.archive.glob(f"*/trials/{name}*"))


def test_a_service_that_exits_at_once_shows_its_last_words(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.misbehaving("-exit-at-once, '3'"))
    finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 3, finished.text
    assert "exit code 3" in finished.text
    assert "last words" in finished.text
    assert "Traceback" not in finished.text
    assert workplace.strays() == []


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
    assert workplace.strays() == []


def test_a_port_in_use_is_named(workplace: Workplace) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = matrices.SMALL.replace("  ready:", f"  port: {port}\n  ready:")
        matrices.write(workplace.root, text)
        finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 2, finished.text
    assert str(port) in finished.text
    assert "already used" in finished.text
    assert workplace.strays() == []


def start_measuring(workplace: Workplace) -> subprocess.Popen[str]:
    """Start a run and wait until its second trial is under way."""
    matrices.write(workplace.root, matrices.SMALL.replace("measure: 1s", "measure: 3s"))
    process = workplace.start("run", "matrix.yaml")
    wait_until(
        lambda: len(list(workplace.archive.glob("*/trials/*"))) >= 2 or process.poll() is not None,
        timeout_s=120,
    )
    assert process.poll() is None, process.communicate()
    return process


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
    listed = workplace.bench("runs")
    assert listed.code == 0, listed.text
    wait_until(lambda: not workplace.strays(), timeout_s=15)
    resumed = workplace.bench("resume")
    assert resumed.code == 0, resumed.text
    assert "peak RSS" in resumed.out
    assert len([r for r in records(workplace) if r["valid"]]) == 4
    assert workplace.strays() == []


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
