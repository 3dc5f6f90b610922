"""A head and its nodes as real daemons with real Ray: join, list, drain, leave, die, come back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from clusters import Machine, all_gone, join, linked_namespaces, until

from orchestrator.membership.headstate import Secret
from orchestrator.membership.pki import Authority, certificate_request, key_pem, make_key
from results.collecting.secure import tls_channel
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc

pytestmark = pytest.mark.slow

WHERE_TASKS_RUN = """
import json, os, sys
from orchestrator.membership import nodes
cluster = nodes.current_cluster()
os.environ |= cluster.ray_environment()
import ray
ray.init(address=cluster.ray_address, log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
def where():
    return json.loads(open(os.environ["HEAPGATE_NODE"]).read())

try:
    print(json.dumps(ray.get(
        where.options(label_selector={"heapgate-node": sys.argv[1]}).remote(), timeout=60
    )))
finally:
    ray.shutdown()
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("head"))
    machine.bench("node", "head", "--port", "0")
    yield machine
    machine.end()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "state")
    yield made
    made.end()


@pytest.fixture(scope="module")
def one(head: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A node that no test ends."""
    made = Machine(tmp_path_factory.mktemp("one"))
    join(head, made, "one", "--label", "rack=a")
    yield made
    made.end()


def is_ready(head: Machine, name: str) -> bool:
    nodes = head.nodes()
    return name in nodes and nodes[name]["state"] == "ready"


def temporary_folders(family: list[psutil.Process]) -> set[Path]:
    """Where Ray's node has its sockets and logs."""
    lines = [argument for process in family for argument in process.cmdline()]
    found = {line.partition("=")[2] for line in lines if line.startswith("--temp-dir=")}
    assert found
    return {Path(path) for path in found}


# What a user sees


def test_the_head_prints_one_line_and_is_there_only_once(head: Machine) -> None:
    out = head.bench("node", "head")
    assert f"bench node join {head.head_address} --secret cluster.secret" in out.splitlines()
    assert "already runs" in out
    assert str(head.secret) in out
    before = head.daemon("head").pid
    assert "bench node leave" in head.bench("node", "head", "--listen", "127.0.0.2", code=2)
    assert head.daemon("head").pid == before


def test_nothing_listens_beyond_loopback(head: Machine, one: Machine) -> None:
    families = head.family("head") + one.family("node")
    listening = {
        (process.name(), connection.laddr.ip)
        for process in families
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 3
    assert {ip.removeprefix("::ffff:") for _, ip in listening} == {"127.0.0.1"}, listening


def test_ls_tells_what_a_node_is(head: Machine, one: Machine) -> None:
    until(lambda: is_ready(head, "one") and head.nodes()["one"]["clock_error_ns"] is not None)
    node = head.nodes()["one"]
    assert node["labels"] == {"rack": "a"}
    assert node["os"] == node["facts"]["os"] == sys.platform
    assert node["address"] == "127.0.0.1"
    assert node["versions"]["ray"].startswith("2.60.")
    assert node["node_class"].startswith("linux · ")
    # It is the same clock, so the truth is 0 and must lie within the bound.
    assert abs(node["clock_offset_ns"]) <= node["clock_error_ns"]
    table = head.bench("node", "ls")
    for word in ("one", "rack=a", "ready", "±", "cgroup", "heapgate"):
        assert word in table, word


def test_ray_runs_tasks_on_the_node_that_was_meant(head: Machine, one: Machine) -> None:
    until(lambda: is_ready(head, "one"))
    node_id = head.nodes()["one"]["node_id"]
    told = json.loads(head.python(WHERE_TASKS_RUN, node_id))
    assert told["node_id"] == node_id
    assert told["labels"] == {"rack": "a"}
    assert Path(told["tls_folder"]).is_relative_to(one.state)


def test_draining_is_told_and_undone(head: Machine, one: Machine) -> None:
    until(lambda: is_ready(head, "one"))
    assert "no new trials on one" in head.bench("node", "drain", "one")
    node = head.nodes()["one"]
    assert (node["draining"], node["state"]) == (True, "draining")
    head.bench("node", "drain", "one", "--undo")
    assert head.nodes()["one"]["state"] == "ready"
    assert "there are: one" in head.bench("node", "drain", "two", code=2)


MARK = """
import sys
from orchestrator.membership import nodes
cluster = nodes.current_cluster()
nodes.mark_measuring(cluster, sys.argv[1], "run-1")
(entry,) = [n for n in nodes.list_nodes(cluster) if n.node_id == sys.argv[1]]
print(entry.state, entry.measuring_run)
"""


def test_a_mark_ends_with_the_process_that_made_it(head: Machine, one: Machine) -> None:
    until(lambda: is_ready(head, "one"))
    assert head.python(MARK, head.nodes()["one"]["node_id"]).split() == ["measuring", "run-1"]
    assert head.nodes()["one"]["state"] == "ready"


def test_a_second_join_on_a_machine_says_what_it_is_already(head: Machine, one: Machine) -> None:
    said = join(head, one, "again", code=2)
    assert "'one'" in said
    assert "bench node leave" in said


def test_a_name_that_is_taken_is_refused(head: Machine, one: Machine, machine: Machine) -> None:
    until(lambda: is_ready(head, "one"))
    assert "--name" in join(head, machine, "one", code=2)
    assert not (machine.folder("node") / "node.json").exists()


@pytest.mark.parametrize("label", ["os=mine", "heapgate-node=x", "rack", "a b=c", "ray.io/x=y"])
def test_labels_that_can_not_be_are_told(head: Machine, machine: Machine, label: str) -> None:
    assert "label" in join(head, machine, "two", "--label", label, code=2)


def test_a_node_leaves_nothing_behind(head: Machine, machine: Machine) -> None:
    join(head, machine, "leaver")
    family = machine.family("node")
    assert len(family) > 3
    temporary = temporary_folders(family)
    assert "leaver left" in machine.bench("node", "leave")
    assert all_gone(family)
    assert "leaver" not in head.nodes()
    assert not list(machine.folder("node").rglob("*.pem"))
    assert not (machine.folder("node") / "ray.token").exists()
    assert not any(path.exists() for path in temporary)
    assert "neither" in machine.bench("node", "leave", code=4)


def test_commands_of_the_head_say_so_elsewhere(machine: Machine) -> None:
    assert "bench node head" in machine.bench("node", "ls", code=4)
    assert "bench node head" in machine.bench("node", "drain", "one", code=4)


def test_an_address_that_is_not_this_machines_is_told(machine: Machine) -> None:
    assert "every address" in machine.bench("node", "head", "--listen", "0.0.0.0", code=2)
    assert "not an address" in machine.bench("node", "head", "--listen", "203.0.113.9", code=2)
    assert not machine.folder("head").exists()


# Who must not get in


@dataclasses.dataclass
class Stranger:
    """Speaks to a head with whatever credentials it was given."""

    address: str
    authority: bytes
    certificate: bytes
    key: bytes

    def call(self, method: str, request: Any) -> grpc.StatusCode | Any:
        with tls_channel(self.address, self.authority, self.certificate, self.key) as channel:
            stub = wire_grpc.ClusterStub(channel)
            try:
                return getattr(stub, method)(request, timeout=5)
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                return error.code()


def with_role(head: Machine, authority: Authority, role: Any, days: float = 1.0) -> Stranger:
    key = make_key()
    certificate = authority.issue(key.public_key(), role, "intruder", days=days)
    trusted = (head.folder("head") / "ca.pem").read_bytes()
    return Stranger(head.head_address, trusted, certificate, key_pem(key))


def joining(head: Machine, **changes: Any) -> wire.JoinRequest:
    from orchestrator.membership.headstate import own_versions

    request = wire.JoinRequest(
        join_token=Secret.read(head.secret).token,
        certificate_request=certificate_request(make_key()),
        versions=wire.Versions(**own_versions()),
        installation="i",
        machine="node-00000000",
        name="stranger",
        facts_json=b"{}",
    )
    for name, value in changes.items():
        setattr(request, name, value)
    return request


CALLS: list[tuple[str, Any]] = [
    ("Beat", wire.BeatRequest()),
    ("Leave", wire.LeaveRequest()),
    ("Renew", wire.RenewRequest(certificate_request=certificate_request(make_key()))),
    ("List", wire.ListRequest()),
    ("Drain", wire.DrainRequest(node="one")),
    ("Mark", wire.MarkRequest(node_id="x", run_id="y")),
]


@pytest.mark.parametrize(("method", "request_"), CALLS, ids=[name for name, _ in CALLS])
def test_the_secret_is_good_for_joining_alone(head: Machine, method: str, request_: Any) -> None:
    authority = Authority.open(head.folder("head"))
    stranger = with_role(head, authority, "join")
    assert stranger.call(method, request_) == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(("method", "request_"), CALLS, ids=[name for name, _ in CALLS])
def test_a_node_that_was_removed_can_do_nothing(head: Machine, method: str, request_: Any) -> None:
    """Its certificate is still valid; but it is no member, and never was the head."""
    stranger = with_role(head, Authority.open(head.folder("head")), "node")
    wanted = {"Beat": "NOT_FOUND", "Leave": "NOT_FOUND", "Renew": "NOT_FOUND"}
    assert stranger.call(method, request_).name == wanted.get(method, "PERMISSION_DENIED")


@pytest.mark.parametrize("kind", ["foreign", "expired"])
def test_a_certificate_that_is_not_valid_gets_no_answer(head: Machine, kind: str) -> None:
    own = Authority.open(head.folder("head"))
    authority = Authority.make() if kind == "foreign" else own
    stranger = with_role(head, authority, "head", days=1.0 if kind == "foreign" else -1.0)
    before = head.log("head").count("refused a stranger")
    for _ in range(5):
        assert stranger.call("List", wire.ListRequest()) == grpc.StatusCode.UNAVAILABLE
    words = {"foreign": "issuer", "expired": "expired"}[kind]
    until(lambda: words in head.log("head"))
    assert head.log("head").count("refused a stranger") - before <= 1
    assert head.nodes() is not None


def test_bytes_that_are_no_tls_disturb_nothing(head: Machine, one: Machine) -> None:
    address, port = head.head_address.split(":")
    for data in (b"GET / HTTP/1.0\r\n\r\n", bytes(4096), b"\x16\x03\x01\x00\x05aaaaa"):
        with socket.create_connection((address, int(port)), timeout=5) as connection:
            connection.sendall(data)
    assert is_ready(head, "one")


def test_a_wrong_token_is_refused_and_logged_once(head: Machine) -> None:
    stranger = with_role(head, Authority.open(head.folder("head")), "join")
    told = head.log("head").count("secret is not this cluster's")
    for token in ("", "x", Secret.read(head.secret).token[:-1], "é" * 40):
        answer = stranger.call("Join", joining(head, join_token=token))
        assert answer == grpc.StatusCode.UNAUTHENTICATED
    assert head.log("head").count("secret is not this cluster's") - told <= 1
    assert "stranger" not in head.nodes()


@pytest.mark.parametrize(
    "changes",
    [
        {"certificate_request": b"nonsense"},
        {"facts_json": b"{"},
        {"name": "a,OU=head"},
        {"machine": "head"},
        {"machine": "node-1,OU=head"},
        {"installation": ""},
        {"facts_json": b'"' + b"x" * 2**21 + b'"'},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(head: Machine, changes: Any) -> None:
    stranger = with_role(head, Authority.open(head.folder("head")), "join")
    answer = stranger.call("Join", joining(head, **changes))
    assert answer in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "stranger" not in head.nodes()


def test_the_secret_of_another_cluster_is_told(
    head: Machine, machine: Machine, tmp_path: Path
) -> None:
    plain = json.loads(head.secret.read_text())
    authority = Authority.make()
    key = make_key()
    plain["authority"] = authority.pem.decode()
    plain["certificate"] = authority.issue(key.public_key(), "join", "join").decode()
    plain["key"] = key_pem(key).decode()
    other = tmp_path / "other.secret"
    other.write_text(json.dumps(plain))
    said = machine.bench(
        "node", "join", head.head_address, "--secret", str(other), "--name", "x", code=4
    )
    assert "do not trust each other" in said


def test_a_secret_with_another_token_is_told(
    head: Machine, machine: Machine, tmp_path: Path
) -> None:
    plain = json.loads(head.secret.read_text()) | {"token": "0" * 64}
    wrong = tmp_path / "wrong.secret"
    wrong.write_text(json.dumps(plain))
    said = machine.bench(
        "node", "join", head.head_address, "--secret", str(wrong), "--name", "x", code=2
    )
    assert "copy the new one" in said


@pytest.mark.parametrize(
    ("versions", "remedy"),
    [
        ({"heapgate": "0.0.1"}, "pip install heapgate=="),
        ({"python": "3.13"}, "python -m pip install heapgate=="),
        ({"ray": "2.1.0"}, "pip install ray==2.60"),
    ],
)
def test_another_version_is_refused_with_the_line_that_mends_it(
    head: Machine, machine: Machine, versions: dict[str, str], remedy: str
) -> None:
    code = f"""
import sys
import orchestrator.membership.join as join
true = join.own_versions()
join.own_versions = lambda: true | {versions!r}
from orchestrator.cli import main
sys.argv = ["bench", *sys.argv[1:]]
main()
"""
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "node", "join", head.head_address),
            *("--secret", str(head.secret), "--name", "old"),
        ],
        env=machine.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 4
    assert remedy in done.stderr
    assert next(iter(versions.values())) in done.stderr
    assert "old" not in head.nodes()


def test_ray_answers_nobody_without_certificate_and_token(head: Machine, one: Machine) -> None:
    """Who knows Ray's address alone can't reach it, nor with TLS and a wrong token."""
    code = """
import os, sys
from orchestrator.membership import nodes
cluster = nodes.current_cluster()
environment = cluster.ray_environment()
if sys.argv[1] == "plain":
    environment["RAY_USE_TLS"] = "0"
else:
    environment["RAY_AUTH_TOKEN"] = "0" * 64
    del environment["RAY_AUTH_TOKEN_PATH"]
os.environ |= environment | {"RAY_gcs_rpc_server_connect_timeout_s": "2"}
import ray
try:
    ray.init(address=cluster.ray_address, log_to_driver=False, logging_level="CRITICAL")
except BaseException as error:
    os._exit(7)
os._exit(0)
"""
    for how in ("plain", "token"):
        done = subprocess.run(
            [sys.executable, "-c", code, how],
            env=head.environment, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode != 0, how
    assert is_ready(head, "one")


# Death and return


def next_raylet(daemon: psutil.Process) -> psutil.Process:
    """The raylet of a node, when there is one."""
    found: list[psutil.Process] = []

    def look() -> bool:
        with contextlib.suppress(psutil.Error):
            family = daemon.children(recursive=True)
            found[:] = [p for p in family if p.name() == "raylet" and not all_gone([p])]
        return bool(found)

    until(look)
    return found[0]


def kill(process: psutil.Process) -> None:
    process.kill()


def test_nothing_outlives_a_node_that_is_killed(head: Machine, machine: Machine) -> None:
    join(head, machine, "victim")
    until(lambda: is_ready(head, "victim"))
    family = machine.family("node")
    folders = temporary_folders(family)
    kill(family[0])
    until(lambda: all_gone(family))
    until(lambda: not any(path.exists() for path in folders))
    until(lambda: head.nodes()["victim"]["state"] == "lost")
    assert "lost since" in " ".join(head.bench("node", "ls").split())
    # The same name comes back as the same node.
    node_id = head.nodes()["victim"]["node_id"]
    join(head, machine, "victim")
    until(lambda: is_ready(head, "victim"))
    assert head.nodes()["victim"]["node_id"] == node_id


def test_ray_is_started_again_when_it_dies(head: Machine, machine: Machine) -> None:
    join(head, machine, "phoenix")
    until(lambda: is_ready(head, "phoenix"))
    daemon, *rest = machine.family("node")
    keeper = next(p for p in rest if "orchestrator.membership.keeper" in p.cmdline())
    kill(keeper)
    until(lambda: all_gone(rest))
    raylet = next_raylet(daemon)
    until(lambda: is_ready(head, "phoenix"))
    kill(raylet)
    assert next_raylet(daemon).pid != raylet.pid
    until(lambda: is_ready(head, "phoenix"))


def test_nothing_outlives_a_head_that_is_killed_and_its_nodes_come_back(
    tmp_path: Path,
) -> None:
    head, node = Machine(tmp_path / "head"), Machine(tmp_path / "node")
    try:
        head.bench("node", "head", "--port", "0")
        join(head, node, "faithful")
        until(lambda: is_ready(head, "faithful"))
        family = head.family("head")
        kill(family[0])
        until(lambda: all_gone(family))
        assert "bench node head" in head.bench("node", "ls", code=4)
        head.bench("node", "head")
        until(lambda: is_ready(head, "faithful"))
        told = json.loads(head.python(WHERE_TASKS_RUN, head.nodes()["faithful"]["node_id"]))
        assert told["name"] == "faithful"
        family = head.family("head") + node.family("node")
        node.end()
        assert "the head ended" in head.bench("node", "leave")
        assert all_gone(family)
    finally:
        node.end()
        head.end()


def test_a_rotation_shuts_out_who_had_the_old_secret(tmp_path: Path) -> None:
    head, node = Machine(tmp_path / "head"), Machine(tmp_path / "node")
    try:
        head.bench("node", "head", "--port", "0")
        old = shutil.copy(head.secret, tmp_path / "old.secret")
        join(head, node, "one")
        until(lambda: is_ready(head, "one"))
        assert "join again" in head.bench("node", "rotate")
        assert head.nodes() == {}
        node.end()
        said = node.bench(
            "node", "join", head.head_address, "--secret", str(old), "--name", "one", code=4
        )
        assert "do not trust" in said
        join(head, node, "one")
        until(lambda: is_ready(head, "one"))
    finally:
        node.end()
        head.end()


def test_an_expired_certificate_is_told_with_its_remedy(tmp_path: Path) -> None:
    head = Machine(tmp_path / "head")
    try:
        head.bench("node", "head", "--port", "0")
        authority = Authority.open(head.folder("head"))
        key = make_key()
        tls = head.folder("head") / "tls"
        (tls / "key.pem").write_bytes(key_pem(key))
        (tls / "cert.pem").write_bytes(authority.issue(key.public_key(), "head", "head", days=-2))
        said = head.bench("node", "ls", code=4)
        assert "expired 2 days ago" in said
        assert "bench node leave; bench node head" in said
        (tls / "cert.pem").write_bytes(authority.issue(key.public_key(), "head", "head", days=3))
        assert "ends in 3 days" in " ".join(head.bench("node", "ls").split())
    finally:
        head.end()


# Other machines


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """A head and a node, each in a network namespace of its own, with a cable between them."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2 to make network namespaces")
    with linked_namespaces(f"hgj{os.getpid() % 10000}", "10.77.31") as (first, second):
        head, node = Machine(tmp_path / "head", first), Machine(tmp_path / "node", second)
        yield head, node
        node.end()
        head.end()


def test_a_node_joins_over_a_network_and_survives_a_cut(far: tuple[Machine, Machine]) -> None:
    head, node = far
    out = head.bench("node", "head", "--listen", "10.77.31.1")
    assert "bench node join 10.77.31.1:7420 --secret cluster.secret" in out
    join(head, node, "far", "--label", "rack=b")
    until(lambda: is_ready(head, "far"))
    entry = head.nodes()["far"]
    assert entry["address"] == "10.77.31.2"
    told = json.loads(head.python(WHERE_TASKS_RUN, entry["node_id"]))
    assert told["address"] == "10.77.31.2"
    link = ["ip", "-n", node.namespace, "link", "set", node.namespace.replace("-b", "b")]
    subprocess.run([*link, "down"], check=True)
    until(lambda: head.nodes()["far"]["state"] == "lost")
    subprocess.run([*link, "up"], check=True)
    until(lambda: is_ready(head, "far"), timeout_s=90.0)
    told = json.loads(head.python(WHERE_TASKS_RUN, entry["node_id"]))
    assert told["node_id"] == entry["node_id"]


def test_a_service_manager_starts_a_node_without_the_secret(
    head: Machine, machine: Machine
) -> None:
    """Which may have expired since: the node's own certificate is enough."""
    assert "not a node" in machine.bench("node", "join", code=4)
    join_line = [sys.executable, "-m", "orchestrator.cli", "node", "join", "--foreground"]
    join(head, machine, "service", "--label", "rack=s")
    machine.daemon("node").kill()
    until(lambda: head.nodes()["service"]["state"] == "lost")
    process = subprocess.Popen(
        join_line, env=machine.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until(lambda: is_ready(head, "service"))
        assert head.nodes()["service"]["labels"] == {"rack": "s"}
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        process.terminate()
        assert process.wait(60) == 0
        assert all_gone(family)
        until(lambda: head.nodes()["service"]["state"] == "lost")
    finally:
        process.kill()
        process.wait()
