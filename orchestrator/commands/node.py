"""`bench node`: a cluster of several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, console

node_app = typer.Typer(
    help="Make a cluster of several machines, Linux and Windows, and look after it.",
    no_args_is_help=True,
)

Foreground = Annotated[
    bool, typer.Option("--foreground", help="Stay, for a service manager; else run detached.")
]
AuthorityDays = Annotated[
    float, typer.Option("--days", min=0.01, help="How long a new authority is valid.")
]


@node_app.command("head")
def node_head(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="This machine's address for the nodes; else 127.0.0.1."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Where nodes join; else 7420; 0: any free one."),
    ] = None,
    days: AuthorityDays = 365.0,
    foreground: Foreground = False,
) -> None:
    """Make this machine the head of a cluster, and print the line that joins another to it.

    Example: bench node head --listen 10.0.0.1
    """
    from orchestrator.membership.answers import start_head

    start_head(console(), listen, port, days=days, foreground=foreground)


@node_app.command("join")
def node_join(
    head: Annotated[
        str | None,
        typer.Argument(
            metavar="[ADDRESS:PORT]", help="The head's; none: as it joined before, after a restart."
        ),
    ] = None,
    secret: Annotated[Path, typer.Option(help="The secret file, copied from the head.")] = (
        Path("cluster.secret")
    ),
    name: Annotated[str | None, typer.Option(help="Its name; else the machine's own.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="To choose nodes by; repeat it.")
    ] = None,
    foreground: Foreground = False,
) -> None:
    """Make this machine a node of a cluster.

    Example: bench node join 10.0.0.1:7420 --secret cluster.secret --label rack=a
    """
    from orchestrator.membership.answers import join, labels_from

    labels = labels_from(label or [])
    join(console(), head, secret, name, labels, foreground=foreground)


@node_app.command("ls")
def node_ls(as_json: AsJson = False) -> None:
    """List the cluster's nodes: what they are, can limit, how their clocks stand, what they do.

    Example: bench node ls
    """
    from orchestrator.membership.answers import print_nodes

    print_nodes(console(), as_json=as_json)


@node_app.command("leave")
def node_leave() -> None:
    """End this machine's part in a cluster; on the head, the head too.

    Example: bench node leave
    """
    from orchestrator.membership.answers import leave

    leave(console())


@node_app.command("drain")
def node_drain(
    node: Annotated[str, typer.Argument(help="The node's name.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let it take trials again.")] = False,
) -> None:
    """Start no new trials on a node; the one that runs there ends as planned.

    Example: bench node drain rack-a-3
    """
    from orchestrator.membership.answers import drain

    drain(console(), node, undo=undo)


@node_app.command("rotate")
def node_rotate(days: AuthorityDays = 365.0) -> None:
    """Make a new authority, new tokens and certificates; every node must join again.

    Example: bench node rotate
    """
    from orchestrator.membership.answers import rotate

    rotate(console(), days=days)
