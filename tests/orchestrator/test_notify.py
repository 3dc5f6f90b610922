"""Notifications: they arrive, they never change how a command ends, and an address stays secret."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_command import Finished, Workplace
from hypothesis import given
from hypothesis import strategies as st
from postbox import mail_server, silent, unused_port, webhook

from orchestrator.watching.notify import PRINTED_MAX, Word, announced, deliver
from orchestrator.watching.targets import Target, take_targets
from results.errors import EnvironmentLacks, Interrupted, RunIncomplete, UserError

SECRET = "hunter2secret"


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEAPGATE_NOTIFY", raising=False)


def target(url: str) -> Target:
    return Target("a target", url)


def json_url(port: int) -> str:
    return f"json://user:{SECRET}@127.0.0.1:{port}/{SECRET}"


def mail_url(port: int) -> str:
    return f"mailto://127.0.0.1:{port}?from=bench@example.org&to=release@example.org&mode=insecure"


def test_a_message_arrives_by_webhook_and_by_mail() -> None:
    with webhook() as hook, mail_server() as mail:
        urls = [json_url(hook.port), mail_url(mail.port)]
        assert deliver("bench run: done", "ten lines", "success", [target(u) for u in urls]) == []
    (posted,), (sent,) = hook.arrived, mail.arrived
    assert (posted["title"], posted["message"], posted["type"]) == (
        "bench run: done",
        "ten lines",
        "success",
    )
    assert sent["title"] == "bench run: done"
    assert sent["message"].strip() == "ten lines"


def test_who_is_not_reached_is_told_without_the_address_and_keeps_nobody_else_from_it() -> None:
    with webhook() as hook, webhook(status=500) as broken, silent() as hangs:
        targets = [
            Target("good", json_url(hook.port)),
            Target("broken", json_url(broken.port)),
            Target("refuses", json_url(unused_port())),
            Target("hangs", json_url(hangs.port) + "?rto=600"),
        ]
        problems = deliver("title", "text", "info", targets, within_s=8.0)
    assert len(hook.arrived) == 1
    assert problems == [
        "broken: it answered 500",
        "refuses: it was not reached, or refused it",
        "hangs: no answer within 8 s",
    ]


def test_nothing_of_a_delivery_is_left_when_a_target_hangs() -> None:
    with silent() as hangs:
        deliver("title", "text", "info", [target(json_url(hangs.port) + "?rto=600")], within_s=1.0)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    left = children.read_text().split() if children.exists() else []
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
    assert not [c for c in commands if b"courier" in c]


@pytest.mark.parametrize(
    ("error", "code", "end", "kind"),
    [
        (RunIncomplete("2 of 4 trials are missing"), 3, "incomplete", "failure"),
        (EnvironmentLacks("no room"), 4, "this machine lacks something", "failure"),
        (Interrupted("stopped; go on with: bench resume x"), 130, "stopped", "warning"),
    ],
)
def test_an_error_is_told_and_goes_on_as_it_was(
    error: Exception, code: int, end: str, kind: str
) -> None:
    with (
        webhook() as hook,
        pytest.raises(type(error), match=str(error)),
        announced("bench run m.yaml", [target(json_url(hook.port))]),
    ):
        raise error
    (posted,) = hook.arrived
    assert (posted["title"], posted["type"]) == (f"bench run m.yaml: {end}", kind)
    assert f"ended with exit code {code} after" in posted["message"]
    assert str(error) in posted["message"]


def test_a_fault_of_our_own_is_told_as_such_and_without_its_words() -> None:
    word = Word("bench run m.yaml")
    word.end(ValueError(SECRET))
    assert word.title == "bench run m.yaml: failed unexpectedly"
    assert SECRET not in word.text


def test_a_target_that_fails_is_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with announced("bench run m.yaml", [target(json_url(unused_port()))]):
        pass
    assert capsys.readouterr().err == (
        "warning: not notified: a target: it was not reached, or refused it\n"
    )


def test_a_long_answer_is_told_from_its_end() -> None:
    from rich.console import Console

    word = Word("bench capacity m.yaml")
    console = word.print_to(Console(file=io.StringIO(), width=100))
    for number in range(1000):
        console.print(f"line {number}")
    assert "line 999" in word.text
    assert len(word.text) < PRINTED_MAX + 300


@pytest.mark.parametrize(
    "url",
    [
        f"bogus{SECRET}://{SECRET}",
        SECRET,
        f"slack://{SECRET}",
        f"mailto://user:{SECRET}@",
        f"jsons://:{SECRET}",
        f"tgram://{SECRET}/{SECRET}",
        f"{SECRET}:{SECRET}@example.org",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UserError) as raised:
        take_targets([url], None)
    text = str(raised.value)
    assert text.startswith("--notify 1: a target of ")
    assert SECRET not in text
    assert SECRET not in repr(raised.value.__cause__)


@given(st.text(min_size=8, max_size=40).filter(lambda text: "\0" not in text))
def test_no_error_has_any_part_of_what_was_given(text: str) -> None:
    try:
        (taken,) = take_targets([text], None)
    except UserError as error:
        assert text not in str(error)
    else:
        assert text not in repr(taken)


def test_targets_come_from_the_command_line_the_environment_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "notify"
    file.write_text(f"# who must know\n\njson://127.0.0.1:3/{SECRET}\n")
    file.chmod(0o600)
    monkeypatch.setenv("HEAPGATE_NOTIFY", f"json://127.0.0.1:1 mailto://u:{SECRET}@example.org")
    argv = ["bench", "run", "--notify", f"json://{SECRET}", f"--notify=json://{SECRET}", "m.yaml"]
    monkeypatch.setattr(sys, "argv", argv)
    targets = take_targets(["json://127.0.0.1:2"], file)
    assert [t.name for t in targets] == [
        "--notify 1 (JSON)",
        "$HEAPGATE_NOTIFY 1 (JSON)",
        "$HEAPGATE_NOTIFY 2 (E-Mail)",
        f"{file}:3 (JSON)",
    ]
    assert "HEAPGATE_NOTIFY" not in os.environ, "no other process inherits it"
    assert sys.argv == ["bench", "run", "--notify", "****", "--notify=****", "m.yaml"]
    assert SECRET not in repr(targets)


@pytest.mark.skipif(sys.platform == "win32", reason="a mode says nothing there")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "notify"
    file.write_text(f"json://{SECRET}@127.0.0.1\n")
    file.chmod(mode)
    with pytest.raises(UserError, match="others may read or write it") as raised:
        take_targets([], file)
    assert f"chmod 600 {file}" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        take_targets([], tmp_path / "missing")
    with pytest.raises(UserError, match="Is a directory"):
        take_targets([], tmp_path)
    (tmp_path / "wrong").write_text(f"json://127.0.0.1\nnothing {SECRET}\n")
    (tmp_path / "wrong").chmod(0o600)
    with pytest.raises(UserError, match="wrong:2: a target of an unknown kind"):
        take_targets([], tmp_path / "wrong")


class Notified(Workplace):
    """A workplace whose commands have targets in their environment."""

    def bench_with(self, urls: str, *arguments: str) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            cwd=self.root,
            env=self.environment | {"HEAPGATE_NOTIFY": urls},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Notified]:
    yield Notified(tmp_path)


def test_a_bad_address_ends_a_command_before_it_begins(place: Notified) -> None:
    done = place.bench_with(f"slack://{SECRET}", "run", "missing.yaml")
    assert done.code == 2
    assert done.text.startswith("$HEAPGATE_NOTIFY 1: a target of kind slack can't be notified")
    assert SECRET not in done.text
    assert "missing.yaml" not in done.text


def test_a_command_that_fails_early_is_told_too_and_keeps_its_exit_code(place: Notified) -> None:
    with webhook() as hook:
        urls = f"{json_url(hook.port)} {json_url(unused_port())}"
        done = place.bench_with(urls, "run", "missing.yaml")
    assert done.code == 2
    assert done.out == (
        "2 targets will be told how it ends: $HEAPGATE_NOTIFY 1 (JSON), $HEAPGATE_NOTIFY 2 (JSON)\n"
    )
    assert "warning: not notified: $HEAPGATE_NOTIFY 2 (JSON): it was not reached" in done.err
    assert SECRET not in done.text
    (posted,) = hook.arrived
    assert posted["title"] == "bench run missing.yaml: refused"
    assert "missing.yaml" in posted["message"]
