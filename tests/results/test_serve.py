"""bench serve, asked by a real client: who gets an answer, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pyarrow.parquet as pq
import pytest
from archives import MIB, RUN_ID, write_archive
from served import Served, change_run, rest, serving, start

OTHER = "20260922-101112-beef"
NEWER = "20261001-000000-0009"
PAIR = {"default": {"peak_rss_bytes": 400 * MIB}, "optimised": {"peak_rss_bytes": 200 * MIB}}
QUERY = "select configuration, count(*) as n from requests group by 1 order by 1"
ENDLESS = "select sum(a.range + b.range) from range(10000000) a, range(10000000) b"
SECRET = "the-content-of-a-file-outside"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    (root / "secret.txt").write_text(SECRET)
    folder = root / "archive"
    write_archive(folder, configurations=PAIR, repeated={"b02-1-default-steady"})
    write_archive(folder, configurations=PAIR, run_id=OTHER)
    change_run(folder, OTHER, status="interrupted", service="shop")
    write_archive(folder, configurations=PAIR, run_id=NEWER, blocks=1)
    change_run(folder, NEWER, schema_version=999)
    return folder


@pytest.fixture(scope="module")
def server(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(archive, tmp_path_factory.mktemp("tmp")) as served:
        yield served


# Who gets an answer


PATHS = ("/", f"/runs/{RUN_ID}", f"/runs/{RUN_ID}/report", "/sql", "/static/serve.js", "/nothing")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", [None, "", "heapgate=x", "heapgate-1=x"])
def test_without_the_cookie_nothing_is_shown(server: Served, path: str, cookie: str | None) -> None:
    answer = server.ask(path, headers={"Cookie": cookie})
    assert answer.status == 401
    assert "token" in answer.text
    assert RUN_ID not in answer.text


@pytest.mark.parametrize("token", ["", "x", "wrong" * 9, "é", "%00", "a&token=b"])
def test_a_wrong_token_gives_no_cookie(server: Served, token: str) -> None:
    answer = server.ask(f"/?token={token.encode('latin-1').decode('latin-1')}".replace("é", "%E9"),
                        headers={"Cookie": None})  # fmt: skip
    assert answer.status == 401
    assert "set-cookie" not in answer.headers


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_has(server: Served) -> None:
    answer = server.ask(server.url.removeprefix(server.base), headers={"Cookie": None})
    assert (answer.status, answer.headers["location"]) == (303, "/")
    flags = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    token = server.url.partition("token=")[2]
    assert token not in answer.headers["set-cookie"]


def test_a_cookie_that_only_looks_right_is_none(server: Served) -> None:
    name, _, value = server.cookie.partition("=")
    for wrong in (
        f"{name}={value[:-1]}",
        f"{name}={value}x",
        f"x{server.cookie}",
        name,
        f"{name}=",
    ):
        assert server.ask("/", headers={"Cookie": wrong}).status == 401
    beside = f"other=1; {name}=wrong; {server.cookie}; more=2"
    assert server.ask("/", headers={"Cookie": beside}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:{port}",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
        ),
        *("10.1.2.3:{port}", "[2001:db8::1]", "", "a:b:c", "127.0.0.1@evil.example", "2130706433"),
    ],
)
def test_another_name_is_refused(server: Served, host: str) -> None:
    port = server.host.rpartition(":")[2]
    assert server.ask("/", headers={"Host": host.format(port=port)}).status in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:{port}", "LOCALHOST", "[::1]:9"])
def test_our_own_names_are_known(server: Served, host: str) -> None:
    """A tunnel has another port, and is this machine still."""
    port = server.host.rpartition(":")[2]
    assert server.ask("/", headers={"Host": host.format(port=port)}).status == 200


def test_no_host_is_refused(server: Served) -> None:
    assert server.ask("/", headers={"Host": None}).status in (400, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_origin_can_ask_nothing(server: Served, headers: dict[str, str | None]) -> None:
    answer = server.post("/sql", headers, sql=QUERY)
    assert answer.status == 403
    assert "optimised" not in answer.text


def test_a_form_of_a_page_without_referrer_is_ours(server: Served) -> None:
    headers = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    assert server.post("/sql", headers, sql=QUERY).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_origins_can_not_even_read(server: Served, site: str) -> None:
    assert server.ask("/", headers={"Sec-Fetch-Site": site}).status == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_there_is_nothing_to_change(server: Served, method: str) -> None:
    assert server.ask("/", method=method).status in (400, 405)


@pytest.mark.parametrize("path", [*PATHS, "/?token=wrong", f"/runs/{RUN_ID}/live/part"])
def test_every_answer_has_its_headers(server: Served, path: str) -> None:
    headers = server.ask(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy
    assert not any(name.startswith("access-control") for name in headers)
    assert "server" not in headers
    if path.endswith("/report"):
        assert "sandbox allow-scripts " in policy and "allow-same-origin" not in policy
        assert "script-src 'sha256-" in policy
    else:
        assert "unsafe-inline" not in policy


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/static/../../secret.txt", "/static/..%2f..%2fsecret.txt"),
        *("/runs/..", "/runs/%2e%2e", "/runs/..%2f/report", "/runs/../../secret.txt"),
        *(f"/runs/{RUN_ID}/trials/..", f"/runs/{RUN_ID}/trials/%2e%2e%2f%2e%2e"),
        *(f"/runs/{RUN_ID}/trials/..%2f..%2f..%2fsecret.txt", f"/runs/{RUN_ID[:8]}/report"),
        *("/runs/latest/report", "/runs/%00", "/static/serve.css%00", "/runs/" + "a" * 5000),
        *("/compare?run=../..", "/compare?run=latest", "//secret.txt", "/runs/*", "/static/app.py"),
    ],
)
def test_paths_lead_only_to_known_runs(server: Served, path: str) -> None:
    answer = server.ask(path)
    assert answer.status in (400, 403, 404)
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text


def test_a_request_that_is_too_long_is_refused(server: Served) -> None:
    assert server.post("/sql", sql="select 1 --" + "x" * 70_000).status == 413
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (70_000, b"x" * 70_000)
    answer = server.ask(
        "/sql",
        method="POST",
        body=chunked,
        headers={
            "Origin": server.base,
            "Transfer-Encoding": "chunked",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    assert answer.status == 413
    with contextlib.suppress(OSError):  # it may hang up before all is sent
        assert server.ask("/", headers={"X-Long": "x" * 2_000_000}).status in (400, 431)
    assert server.ask("/").status == 200


# What it says


def test_the_list_can_be_searched(server: Served) -> None:
    everything = server.ask("/").text
    assert RUN_ID in everything and OTHER in everything
    assert "12 of 12" in everything
    assert OTHER not in server.ask("/?service=sessioncache").text
    assert RUN_ID not in server.ask("/?status=interrupted").text
    assert OTHER in server.ask("/?q=SHOP").text
    assert "No run fits" in server.ask("/?until=2020-01-01").text
    assert server.ask("/?since=tomorrow").status == 422
    assert server.ask("/?page=99999999").status == 200


def test_a_run_in_a_newer_format_is_shown_as_such(server: Served) -> None:
    assert "format 999: newer than this Heapgate" in server.ask("/").text
    for path in (f"/runs/{NEWER}", f"/runs/{NEWER}/trials"):
        assert "written by a newer Heapgate" in server.ask(path).text
    report = server.ask(f"/runs/{NEWER}/report")
    assert report.status == 422
    assert "format 999" in report.text
    assert "/static/" not in report.text, "the report's frame has no session to load it with"
    assert "frame-ancestors 'self'; sandbox" in report.headers["content-security-policy"]


def test_the_report_is_that_of_bench_report(server: Served, archive: Path) -> None:
    from results.report.page import render_report

    answer = server.ask(f"/runs/{RUN_ID}/report?download")
    assert answer.text == render_report(archive, RUN_ID)
    assert answer.headers["content-disposition"] == f'attachment; filename="{RUN_ID}.html"'


def test_a_trial_tells_all_that_is_known_of_it(server: Served) -> None:
    trials = server.ask(f"/runs/{RUN_ID}/trials").text
    assert "b02-1-default-steady~2" in trials and "too late" in trials
    page = server.ask(f"/runs/{RUN_ID}/trials/b02-1-default-steady").text
    for known in ("too late", "send less", "go1.23.9", "400.0 MiB", "ready\n"):
        assert known in page
    assert server.ask(f"/runs/{RUN_ID}/trials/b02-1-default-steady~9").status == 404


def test_runs_are_compared_as_one(server: Served, archive: Path) -> None:
    alone = server.ask(f"/compare?run={RUN_ID}").text
    assert "optimised needs 50" in alone and "6 of 6 blocks" in alone
    answer = server.ask(f"/compare?run={RUN_ID}&run={OTHER}")
    assert answer.status == 422
    assert "they have services sessioncache and shop" in answer.text


def test_sql_is_answered(server: Served) -> None:
    page = server.post("/sql", sql=QUERY).text
    assert "2 rows" in page
    assert "<td>optimised</td>" in page
    assert "latency_ns" in page, "the views are told beside it"


def test_more_rows_than_are_shown_are_told(server: Served) -> None:
    page = server.post("/sql", sql="select range as n from range(2000)").text
    assert "The first 500 rows" in page
    assert '<td class="number">499</td>' in page and '<td class="number">500</td>' not in page


def test_whole_answers_are_files(server: Served, tmp_path: Path) -> None:
    sql = "select range as n, '<b>' || range as t from range(2000) order by n"
    csv = server.post("/sql/download?form=csv", sql=sql)
    assert csv.headers["content-disposition"] == 'attachment; filename="answer.csv"'
    assert csv.text.splitlines()[-1] == "1999,<b>1999"
    rows = json.loads(server.post("/sql/download?form=json", sql=sql).body)
    assert (len(rows), rows[-1]) == (2000, {"n": 1999, "t": "<b>1999"})
    (tmp_path / "a.parquet").write_bytes(server.post("/sql/download?form=parquet", sql=sql).body)
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 2000
    assert server.post("/sql/download?form=exe", sql=sql).status == 404


def test_a_mistake_is_shown_where_it_is(server: Served) -> None:
    answer = server.post("/sql", sql="select configuration,\n  count(*) frm requests")
    assert answer.status == 422
    assert "LINE 2" in answer.text and "^" in answer.text
    assert server.post("/sql/download?form=csv", sql="selec 1").status == 422


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_text('{secret}')",
        "copy (select 1) to '{folder}/stolen.csv'",
        "attach '{folder}/other.db'",
        "install httpfs",
        "select getenv('HOME')",
        "set threads = 64",
        "create table t as select 1",
        "select 1; select 2",
        "from '{secret}'",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/sql", "/sql/download?form=csv"])
def test_sql_sees_the_archive_and_nothing_else(
    server: Served, archive: Path, tmp_path: Path, query: str, path: str
) -> None:
    sql = query.format(secret=archive.parent / "secret.txt", folder=tmp_path)
    answer = server.post(path, sql=sql)
    assert answer.status == 422
    assert SECRET not in answer.text
    assert list(tmp_path.iterdir()) == []


def test_one_huge_value_ends_its_own_query_alone(server: Served) -> None:
    answer = server.post("/sql", sql="select repeat('x', 9000000000) as big")
    assert answer.status in (422, 503)
    assert server.post("/sql", sql=QUERY).status == 200


def test_nothing_was_written_into_the_archive(server: Served, archive: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in archive.rglob("*")}
    for path in ("/", f"/runs/{RUN_ID}/report", f"/runs/{RUN_ID}/trials", f"/compare?run={RUN_ID}"):
        assert server.ask(path).status == 200
    server.post("/sql", sql=QUERY)
    assert {path: path.stat().st_mtime_ns for path in archive.rglob("*")} == before


# How it lives and ends


def test_pages_are_quick_while_a_query_is_not_and_end_it_when_nobody_waits(
    archive: Path, tmp_path: Path
) -> None:
    with serving(archive, tmp_path / "tmp") as served:
        client = socket.create_connection(("127.0.0.1", int(served.host.rpartition(":")[2])))
        body = urlencode({"sql": ENDLESS}).encode()
        client.sendall(
            f"POST /sql HTTP/1.1\r\nHost: {served.host}\r\nOrigin: {served.base}\r\n"
            f"Cookie: {served.cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        working = until(lambda: busy(served))
        assert served.ask("/").status == 200
        assert working.is_running(), "the query goes on"
        client.close()
        working.wait(timeout=20)


def test_a_signal_ends_it_in_the_midst_of_a_query(archive: Path, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(archive, tmp_path / f"tmp-{number}") as served:
            asking = threading.Thread(target=ignore_end, args=(served,), daemon=True)
            asking.start()
            until(lambda: busy(served))
            children = psutil.Process(served.process.pid).children(recursive=True)
            served.process.send_signal(number)
            served.process.wait(timeout=20)
            assert psutil.wait_procs(children, timeout=10)[1] == []
            asking.join(20)


def test_when_it_is_killed_its_processes_end_and_remove_what_is_left(
    archive: Path, tmp_path: Path
) -> None:
    temp = tmp_path / "tmp"
    temp.mkdir()
    process = start(archive, temp)
    assert process.stdout is not None and process.stdout.readline()
    children = until(lambda: psutil.Process(process.pid).children(recursive=True))
    process.kill()
    process.communicate(timeout=20)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert not list(temp.glob("heapgate-serve-*"))


def test_a_port_that_is_taken_is_a_clear_error(
    server: Served, archive: Path, tmp_path: Path
) -> None:
    port = server.host.rpartition(":")[2]
    process = start(archive, tmp_path, "--port", port)
    err = rest(process)
    assert process.returncode == 4
    assert err == f"port {port} is in use; name another with --port, or none to get a free one\n"


@pytest.mark.parametrize(
    ("arguments", "want_error"),
    [(["--listen", "here"], "'here' is no address"), (["--port", "70000"], "--port")],
)
def test_what_can_not_be_is_the_user_s_error(
    archive: Path, tmp_path: Path, arguments: list[str], want_error: str
) -> None:
    process = start(archive, tmp_path, *arguments)
    err = rest(process)
    assert process.returncode == 2
    assert want_error in err and "Traceback" not in err


def test_no_archive_is_the_user_s_error(tmp_path: Path) -> None:
    process = start(tmp_path / "nowhere", tmp_path)
    assert "there is no archive" in rest(process)
    assert process.returncode == 2


def test_it_answers_loopback_alone(server: Served) -> None:
    port = int(server.host.rpartition(":")[2])
    listening = [
        c.laddr.ip
        for c in psutil.Process(server.process.pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    assert port


def test_another_address_is_asked_for_and_warned_of(archive: Path, tmp_path: Path) -> None:
    process = start(archive, tmp_path, "--listen", "0.0.0.0")
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    served = Served(process, url, tmp_path)
    try:
        served.log_in()
        assert served.ask("/", headers={"Host": "192.0.2.7"}).status == 200, "its own number"
        assert served.ask("/", headers={"Host": "evil.example"}).status == 403
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert err.startswith("warning: listening on 0.0.0.0: ") and "not" in err
    assert process.returncode == 0


def test_an_archive_without_runs_says_what_to_do_and_sees_the_first_one(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    with serving(archive, tmp_path / "tmp") as served:
        page = served.ask("/").text
        assert "No runs yet" in page and "bench demo" in page
        assert served.post("/sql", sql="select 1").status == 422
        write_archive(archive, blocks=1)
        assert RUN_ID in served.ask("/").text
        assert "0 of" not in served.ask("/").text
        shutil.rmtree(archive / RUN_ID)
        assert "No runs yet" in served.ask("/").text
        assert served.ask(f"/runs/{RUN_ID}").status == 404
        archive.rmdir()
        assert "there is no archive" in served.ask("/").text


def test_what_was_damaged_is_shown_as_such(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", blocks=1)
    write_archive(archive, run_id=OTHER, blocks=1)
    with serving(archive, tmp_path / "tmp") as served:
        (archive / OTHER / "run.json").write_text("{")
        assert f"{OTHER} holds trials, but its run.json" in served.ask("/").text
        trial = archive / RUN_ID / "trials" / "b01-1-default-steady" / "trial.json"
        trial.write_text(trial.read_text().replace('"block": 1', '"block": 2'))
        page = served.ask(f"/runs/{RUN_ID}/trials").text
        assert "its trial.json has changed since it was sealed" in page


def test_a_log_is_no_way_out_of_the_archive(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", blocks=1)
    (tmp_path / "secret.txt").write_text(SECRET)
    log = archive / RUN_ID / "trials" / "b01-1-default-steady" / "service.log"
    log.unlink()
    log.symlink_to(tmp_path / "secret.txt")
    with serving(archive, tmp_path / "tmp") as served:
        page = served.ask(f"/runs/{RUN_ID}/trials/b01-1-default-steady").text
    assert SECRET not in page
    assert "There is no log" in page


def busy(served: Served) -> psutil.Process | None:
    """The process that works on an endless query, once it does."""
    for child in psutil.Process(served.process.pid).children():
        times = child.cpu_times()
        if times.user > 2.5 and "results.serve.worker" in child.cmdline():
            return child
    return None


def ignore_end(served: Served) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        served.post("/sql", sql=ENDLESS)


def until(condition):  # type: ignore[no-untyped-def]
    """What a condition returned when it came true."""
    pause = threading.Event()
    for _ in range(1200):
        if value := condition():
            return value
        pause.wait(0.05)
    raise AssertionError("it did not come true")
