"""`bench run` and what belongs to it: plan, resume, bisect, the demonstration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.options import (
    ArchivePath,
    AsJson,
    BelowNoise,
    MatrixPath,
    MetricsAt,
    Notify,
    NotifyFile,
    RunName,
    Seed,
    Trials,
    Yes,
    announcing,
    archive_path,
    console,
)

if TYPE_CHECKING:
    from orchestrator.run import RunResult
    from orchestrator.watching.notify import Word


def run(
    matrix: MatrixPath,
    archive: ArchivePath = None,
    trials: Trials = None,
    seed: Seed = None,
    yes: Yes = False,
    below_noise: BelowNoise = False,
    stop_early: Annotated[
        bool,
        typer.Option("--stop-early", help="End when the other trials can't change the sign-off."),
    ] = False,
    metrics: MetricsAt = None,
    notify: Notify = None,
    notify_file: NotifyFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a matrix: plan, build, measure every trial, compare.

    Example: bench run matrix.yaml --trials 10
    """
    with announcing(f"bench run {matrix}", notify, notify_file, as_json=as_json) as word:
        from orchestrator.run import RunOptions, start_run

        options = RunOptions(
            archive_path(archive), trials, seed, yes, below_noise, metrics, stop_early
        )
        _finish(start_run(matrix, options, console(error=as_json)), word, as_json=as_json)


def demo(archive: ArchivePath = None, as_json: AsJson = False) -> None:
    """Run the shipped demonstration: Go 1.22 as it comes against a tuned Go 1.23.

    Example: bench demo
    """
    from workloads.shipped import matrix_path

    run(matrix_path("demo"), archive, below_noise=True, as_json=as_json)


def plan(
    matrix: MatrixPath,
    trials: Trials = None,
    seed: Seed = None,
    below_noise: BelowNoise = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do, in which order and for how long, and do nothing.

    Example: bench plan matrix.yaml
    """
    from orchestrator.answers.plan import print_plan
    from orchestrator.matrix.matrix import load_matrix

    planned = load_matrix(matrix).with_overrides(trials=trials, seed=seed)
    print_plan(planned, console(), as_json=as_json, below_noise=below_noise)


def resume(
    run_name: RunName = "latest",
    archive: ArchivePath = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the rest of a run that was decided early.")
    ] = False,
    metrics: MetricsAt = None,
    notify: Notify = None,
    notify_file: NotifyFile = None,
    as_json: AsJson = False,
) -> None:
    """Finish a run: run only the trials that are missing or invalid.

    Example: bench resume latest
    """
    with announcing(f"bench resume {run_name}", notify, notify_file, as_json=as_json) as word:
        from orchestrator.run import resume_run

        shown = console(error=as_json)
        result = resume_run(
            archive_path(archive), run_name, shown, metrics=metrics, everything=everything
        )
        _finish(result, word, as_json=as_json)


def bisect(
    matrix: MatrixPath,
    good: Annotated[str, typer.Option(metavar="REV", help="A revision before the change.")],
    bad: Annotated[str, typer.Option(metavar="REV", help="One after it.")] = "HEAD",
    metric: Annotated[str, typer.Option(help="What changed.")] = "peak_rss",
    configuration: Annotated[
        str | None, typer.Option(help="How it is built and run; else the baseline.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Under which traffic; else the only one.")
    ] = None,
    worse_by: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Bad is so much worse, as 5%; else half the change."),
    ] = None,
    trials: Trials = None,
    archive: ArchivePath = None,
    notify: Notify = None,
    notify_file: NotifyFile = None,
    as_json: AsJson = False,
) -> None:
    """Find the commit that made a metric worse: each is measured against the good one, in blocks.

    Called again, it measures only what is missing. Your work tree is not touched.

    Example: bench bisect matrix.yaml --good v1.2 --bad HEAD --metric peak_rss --worse-by 5%
    """
    from orchestrator.bisect.answers import print_bisection
    from orchestrator.bisect.bisect import Asked, share_of

    share = None if worse_by is None else share_of(worse_by)
    asked = Asked(good, bad, metric, configuration, workload, share, trials)
    with announcing(f"bench bisect {matrix}", notify, notify_file, as_json=as_json) as word:
        shown = word.print_to(console(error=as_json))
        print_bisection(matrix, asked, archive_path(archive), shown, as_json=as_json)


def _finish(result: RunResult, word: Word, *, as_json: bool) -> None:
    """Print the comparison of a run that ended, and leave with its exit code."""
    from orchestrator.answers.common import print_run

    word.run(result)
    print_run(result, console(), as_json=as_json)
    raise typer.Exit(result.exit_code)
