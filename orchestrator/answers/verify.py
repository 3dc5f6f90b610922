"""What `bench verify` prints: what in an archive is not what it was when it was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.common import near, print_json
from results.errors import RunIncomplete, UserError

if TYPE_CHECKING:
    from results.archive.archive import RunEntry
    from results.archive.verify import Damage


def print_verification(
    archive_path: Path, run_names: list[str], console: Console, *, as_json: bool
) -> None:
    """What is damaged in these runs, or in the whole archive, names and sign-offs included.

    Raises RunIncomplete when anything is, UserError when there is nothing that could be.
    """
    from results.archive.archive import Archive
    from results.archive.pins import FILE
    from results.archive.verify import damaged_pins, unreadable_runs, verify_run

    archive = Archive(archive_path)
    runs = archive.chosen(run_names)
    damaged = {run.run_id: [*verify_run(run), *damaged_records(run)] for run in runs}
    for damage in [] if run_names else unreadable_runs(archive):
        damaged[damage.path.parent.name] = [damage]
    if names := [] if run_names else list(damaged_pins(archive)):
        damaged[FILE] = names
    if not damaged:
        raise archive.no_runs()
    if as_json:
        print_json(
            [
                {
                    "run_id": None if run_id == FILE else run_id,
                    "path": str(damage.path),
                    "damage": damage.text,
                }
                for run_id, found in damaged.items()
                for damage in found
            ]
        )
    else:
        _print_damage(damaged, console)
        _print_unsigned(runs, console)
    if any(damaged.values()):
        raise RunIncomplete(
            "what is damaged must not be believed; if the run's source is still there, bench "
            "resume repeats trials that lost their rows"
        )


def damaged_records(run: RunEntry) -> Iterator[Damage]:
    """Records of sign-offs in a run's folder that are not what was signed, by their signatures.

    Who signed, and whether the figures follow from the archive, `bench verify RECORD` tells.
    """
    from results.archive.retention import SIGNED
    from results.archive.verify import Damage
    from results.signoff.check import SIGNATURE_SUFFIX, read_record
    from results.signoff.signing import signer_of

    for beside in sorted(run.path.glob(f"{SIGNED}{SIGNATURE_SUFFIX}")):
        path = beside.with_name(beside.name.removesuffix(SIGNATURE_SUFFIX))
        try:
            signed = read_record(path)
            signer_of(signed.data, signed.signature)
        except UserError as error:
            yield Damage(path, str(error).removeprefix(str(path)).lstrip(": "))
        else:
            if not signed.signature.replace("\n", "").isprintable():
                yield Damage(beside, "has changed since the record was signed")


def _print_damage(damaged: dict[str, list[Damage]], console: Console) -> None:
    for run_id, found in damaged.items():
        mark = "[red]damaged[/]" if found else "[green]as measured[/]"
        console.print(f"{escape(run_id)} {mark}", highlight=False)
        for damage in found:
            console.print(
                f"  {escape(near(damage.path))} {escape(damage.text)}",
                highlight=False,
                soft_wrap=True,
            )


def _print_unsigned(runs: list[RunEntry], console: Console) -> None:
    """Records without a signature: nothing says what they were."""
    from results.archive.retention import SIGNED
    from results.signoff.check import SIGNATURE_SUFFIX

    for path in (path for run in runs for path in sorted(run.path.glob(SIGNED))):
        if not path.with_name(path.name + SIGNATURE_SUFFIX).exists():
            text = f"{escape(near(path))} is not signed: whether it changed can't be told"
            console.print(f"[yellow]![/] {text}", highlight=False, soft_wrap=True)
