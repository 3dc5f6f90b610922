"""Several machines on this one: network namespaces on one bridge, with a head outside of them."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from orchestrator.membership import nodes
from results.errors import EnvironmentLacks
from tests.orchestrator.clusters import Machine, join, until

PREFIX = f"10.231.{os.getpid() % 250}"
"""Several may be there at a time, each made by a process of its own."""


@dataclass
class Host(Machine):
    """A machine in a network namespace of its own, with a cable that can be cut."""

    name: str = ""
    cable: str = ""
    labels: tuple[str, ...] = ()

    def processes(self, *words: str) -> list[psutil.Process]:
        """What runs in the namespace, and has all of these words in its command line."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        )
        found = []
        for pid in listed.stdout.split():
            try:
                process = psutil.Process(int(pid))
                line = " ".join(process.cmdline())
                alive = process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if alive and all(word in line for word in words):
                found.append(process)
        return found

    def link(self, state: str) -> None:
        """Plug the cable in (`up`) or out (`down`)."""
        subprocess.run(["ip", "link", "set", self.cable, state], check=True)

    def join_again(self, head: Machine) -> None:
        labels = [word for label in self.labels for word in ("--label", label)]
        join(head, self, self.name, *labels)


@dataclass
class Lan:
    """A head and its nodes."""

    head: Machine
    hosts: list[Host] = field(default_factory=list)
    bare: dict[str, str] = field(default_factory=dict)
    """Namespaces of machines that a test makes and joins itself, by name."""

    def state_of_name(self, name: str) -> str:
        return str(self.head.nodes()[name]["state"])

    def states(self) -> dict[str, str]:
        """The state of each node by name, asked without starting a command."""
        settings = self.head.head_settings()
        folder = self.head.folder("head")
        cluster = nodes.Cluster(
            address=settings["address"],
            port=settings["port"],
            ray_address="",
            tls_folder=folder / "tls",
            ray_token_path=folder / "ray.token",
        )
        return {node.name: node.state for node in nodes.list_nodes(cluster)}

    def all_ready(self) -> bool:
        try:
            states = self.states()
        except EnvironmentLacks:
            return False
        return all(states.get(host.name) == "ready" for host in self.hosts)


def needs_namespaces() -> None:
    """Skip, with the reason, where namespaces can't be made; never in CI."""
    why = ""
    if os.geteuid() != 0:
        why = "network namespaces need root"
    elif subprocess.run(["which", "ip"], capture_output=True, check=False).returncode:
        why = "there is no `ip` command (package iproute2)"
    if why and os.environ.get("CI"):
        pytest.fail(f"in CI this must run: {why}")
    if why:
        pytest.skip(why)


@contextmanager
def lan(
    folder: Path, labels: dict[str, tuple[str, ...]], bare: tuple[str, ...] = ()
) -> Iterator[Lan]:
    """A head that listens on the bridge, and a joined node for each name; all gone afterwards."""
    number = os.getpid() % 10_000
    bridge = f"hgb{number}"
    with ExitStack() as stack:
        _run(f"ip link add {bridge} type bridge")
        stack.callback(_run, f"ip link del {bridge}")
        _run(f"ip addr add {PREFIX}.1/24 dev {bridge}")
        _run(f"ip link set {bridge} up")
        head = Machine(folder / "head")
        whole = Lan(head)
        for index, name in enumerate([*labels, *bare]):
            namespace, cable = f"hg{number}-{name}", f"hgv{number}x{index}"
            _run(f"ip netns add {namespace}")
            stack.callback(_run, f"ip netns del {namespace}")
            _run(f"ip link add {cable} type veth peer name eth0 netns {namespace}")
            # A namespace that is deleted gives its devices up some time later, and a name is taken
            # until then: the next module of this very process would find it so.
            stack.callback(_run, f"ip link del {cable}")
            _run(f"ip link set {cable} master {bridge} up")
            _run(f"ip -n {namespace} addr add {PREFIX}.{index + 10}/24 dev eth0")
            for device in ("eth0", "lo"):
                _run(f"ip -n {namespace} link set {device} up")
            if name in bare:
                whole.bare[name] = namespace
                continue
            host = Host(folder / name, namespace, name=name, cable=cable, labels=labels[name])
            whole.hosts.append(host)
        stack.callback(head.end)
        head.bench("node", "head", "--listen", f"{PREFIX}.1", "--port", "0")
        joining = [
            threading.Thread(target=host.join_again, args=(head,), name=host.name)
            for host in whole.hosts
        ]
        for host in whole.hosts:
            stack.callback(host.end)
        for thread in joining:
            thread.start()
        for thread in joining:
            thread.join()
        until(whole.all_ready, 90)
        yield whole


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)
