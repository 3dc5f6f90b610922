"""The `bench` command: which commands there are, and how an error ends the process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import typer

from orchestrator.absent import hide_packages
from orchestrator.commands import asking, keeping, machine, node, pipeline, release, running, tuning
from results.errors import EnvironmentLacks, HeapgateError, ReaderGone

app = typer.Typer(
    name="bench",
    help="Measure what a memory configuration of a Go service saves, costs and carries.",
    epilog="First time? Try: bench demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Measure": (running.run, running.demo, running.plan, running.resume, running.bisect),
    "Ask": (
        asking.compare,
        asking.report,
        asking.runs,
        asking.show,
        asking.history,
        asking.sql,
        asking.serve,
    ),
    "Release": (release.signoff, release.capacity, release.forecast, tuning.tune),
    "Keep": (keeping.export, keeping.verify, keeping.gc),
    "Prepare": (
        machine.doctor,
        machine.calibrate,
        machine.init,
        machine.schema,
        machine.clean,
    ),
}
"""By what a user wants; `bench --help` shows them so."""

for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("import", rich_help_panel="Keep")(keeping.import_runs)  # a word of Python's own
app.add_typer(release.keys_app, name="keys", rich_help_panel="Release")
app.add_typer(pipeline.ci_app, name="ci", rich_help_panel="Release")
app.add_typer(keeping.baseline_app, name="baseline", rich_help_panel="Keep")
app.add_typer(node.node_app, name="node", rich_help_panel="Prepare")
app.add_typer(machine.metrics_app, name="metrics", rich_help_panel="Prepare")


@app.callback()
def _before_every_command() -> None:
    """Clean up after a run that was killed, whatever command comes next."""
    from orchestrator.leftovers import announce_sweep

    announce_sweep()


def main() -> None:
    """Entry point: expected errors become one clear message and a documented exit code."""
    hide_packages()
    _allow_any_character()
    sys.exit(_exit_code())


def _allow_any_character() -> None:
    """Into a pipe or file, Windows writes in a code page that lacks some of what is printed."""
    if sys.platform == "win32":
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")


def _exit_code() -> str | int | None:
    try:
        app()
    except SystemExit as end:
        # Typer makes 1 of a pipe whose reader has gone; here 1 means a regression.
        code = 0 if isinstance(end.__context__, BrokenPipeError) else end.code
        return _flushed() or code
    except ReaderGone:
        return 0
    except HeapgateError as error:
        sys.stderr.write(f"{error}\n")
        return _flushed() or error.exit_code
    except OSError as error:
        return _lacking(error)
    return 0


def _flushed() -> int:
    """Write what is still held back; not 0 when that fails, though not for lack of a reader."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        return _lacking(error)
    return 0


def _lacking(error: OSError) -> int:
    """Something of this machine failed where nobody expected it: a full disk, as a rule."""
    _discard_output()
    sys.stderr.write(f"{error.filename or 'writing'}: {error.strerror or error}\n")
    return EnvironmentLacks.exit_code


def _discard_output() -> None:
    from orchestrator.output import discard_output

    discard_output()


if __name__ == "__main__":
    main()
