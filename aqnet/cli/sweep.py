"""`aqnet sweep`: many runs of a notebook from one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.cli.console import echo, need_lab, sigterm_like_ctrl_c
from aqnet.cli.options import account_option, settings_option, with_options
from aqnet.errors import ParameterError, RunError, explain

if TYPE_CHECKING:
    from aqnet.jobs.sweeps.cluster import Cluster
    from aqnet.jobs.sweeps.folder import Sweep
    from aqnet.jobs.sweeps.points import Plan
    from aqnet.jobs.sweeps.records import PointState

__all__ = ["sweep"]

_SHOWN = 20  # points of a dry run, and failed ones in a message


@click.group()
def sweep() -> None:
    """Run a notebook at many points: grid, lists, seeds; here or on a cluster.

    The file is described in aqnet/jobs/sweeps/definition.py. All points are checked before
    anything starts. The same command again does only what is missing.
    """


# where and how points run
_where = with_options(
    click.option(
        "--parallel", type=click.IntRange(1), metavar="N",
        help="Points at a time: here 1 by default, on a cluster as many as there is room for.",
    ),
    click.option("--by", type=click.Choice(["papermill", "script"]),
                 help="Here: in a kernel (the default), or as the compiled script."),
    click.option("--profile", metavar="NAME|FILE",
                 help="As arrays of SLURM jobs; a profile in slurm/, or a file."),
    click.option("--gpus", type=click.IntRange(1), default=1, show_default=True,
                 help="With --profile: processes of each point."),
    account_option,
    settings_option,
    click.option("--no-wait", is_flag=True,
                 help="With --profile: submit what there is room for, and do not wait."),
)  # fmt: skip


@sweep.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check and list all points; write nothing.")
@_where
def run(file: Path, dry_run: bool, **where: object) -> None:
    """Run the sweep that FILE defines, or do what is missing of it."""
    from aqnet.jobs.sweeps.begin import define_sweep, find_sweep
    from aqnet.jobs.sweeps.definition import load_definition
    from aqnet.jobs.sweeps.points import plan_sweep

    plan, cluster = plan_sweep(load_definition(file)), _checked(**where)
    _announce(plan)
    if dry_run:
        find_sweep(plan)  # refuses another definition of this name
        for point in plan.points[:_SHOWN]:
            click.echo(f"  {point.index}: {point.title}")
        if len(plan.points) > _SHOWN:
            click.echo(f"  ... and {len(plan.points) - _SHOWN} more")
        if cluster is not None:
            from aqnet.jobs.sweeps.cost import describe_cost  # brings torch

            click.echo(f"on {cluster.profile.name}: {cluster.size.gpus} processes for each point, "
                       f"at most {cluster.limit} jobs queued")  # fmt: skip
            for line in describe_cost(plan, cluster):
                click.echo(line)
        click.echo("dry run: nothing was written or started")
        return
    found = define_sweep(plan, file.read_text(encoding="utf-8"))
    _go(found, cluster, failed_too=False, **where)


@sweep.command()
@click.argument("name")
@click.option("--restage", is_flag=True,
              help="With --profile: with the code as it is now, not as it was at the first start."
              )  # fmt: skip
@_where
def retry(name: str, restage: bool, **where: object) -> None:
    """Run failed points of NAME again, from their checkpoints where there are some.

    What is missing is done, too.
    """
    from aqnet.jobs.sweeps.folder import Sweep

    cluster = _checked(restage, **where)
    _go(Sweep.open(name), cluster, failed_too=True, restage=restage, **where)


@sweep.command()
@click.argument("name")
def status(name: str) -> None:
    """Show what has become of the points of NAME, and write its results.csv."""
    from aqnet.jobs.sweeps.folder import Sweep
    from aqnet.jobs.sweeps.queue import read_queue

    found = Sweep.open(name)
    queue = read_queue(found)
    states = found.states(queue)
    summary = found.summary_state(states, queue)
    for state in [*states, *filter(None, [summary])]:
        number = "-" if state is summary else state.point.index
        click.echo(f"{number:>4}  {state.status:<11}  {state.point.title}"
                   f"  {state.run.name if state.run else ''}")  # fmt: skip
        if state.reason:
            click.echo(f"      {state.reason}")
    _conclude(found, states)
    if summary is not None:
        _tell_summary(summary)


@sweep.command()
@click.argument("name")
def cancel(name: str) -> None:
    """Stop the points of NAME that run, and those that wait; what is complete stays."""
    from aqnet.jobs.sweeps.cancel import cancel_sweep
    from aqnet.jobs.sweeps.folder import Sweep

    for line in cancel_sweep(Sweep.open(name)):
        click.echo(line)


# ---- parts


def _announce(plan: Plan) -> None:
    points = plan.points
    labels, seeds = len({p.label for p in points}), len({p.seed for p in points})
    click.echo(f"sweep {plan.definition.name}: {len(points)} points of {plan.definition.notebook} "
               f"({labels} settings x {seeds} seeds), all of them valid"
               + (f"; each is evaluated by {plan.definition.evaluate.notebook}"
                  if plan.definition.evaluate else "")
               + (f"; then {plan.definition.summary.notebook}"
                  if plan.definition.summary else ""))  # fmt: skip


def _checked(restage: bool = False, **where: object) -> Cluster | None:
    """The cluster that the options mean, None for this machine; refuses what does not fit."""
    if where["profile"] is not None:
        if where["by"] == "papermill":
            _refuse(["--by papermill"], "no --profile; a job runs the compiled script")
        return _cluster(**where)
    given = {"--gpus": where["gpus"] > 1, "--account": where["account"],
             "--set": where["settings"], "--no-wait": where["no_wait"],
             "--restage": restage}  # fmt: skip
    _refuse([name for name, value in given.items() if value], "--profile")
    return None


def _go(
    found: Sweep, cluster: Cluster | None, failed_too: bool, parallel: int | None,
    by: str | None, no_wait: bool, restage: bool = False, **_in_cluster: object,
) -> None:  # fmt: skip
    if cluster is None:
        _here(found, failed_too, parallel or 1, by or "papermill")
    else:
        _on_cluster(found, cluster, failed_too, not no_wait, restage)


def _refuse(options: Sequence[str], needed: str) -> None:
    if options:
        raise ParameterError(explain(
            "options that do not go together", expected=needed, found=", ".join(options),
            remedy="leave them out",
        ))  # fmt: skip


def _here(found: Sweep, failed_too: bool, parallel: int, by: str) -> None:
    from aqnet.jobs.sweeps.local import run_local
    from aqnet.jobs.sweeps.queue import read_queue

    queue = read_queue(found)
    if queue is None:
        raise RunError(explain(
            f"points of {found.name} were submitted to SLURM", expected="squeue, to ask for them",
            found="none here", remedy="go on with the sweep on that cluster",
        ))  # fmt: skip
    try:
        with need_lab("notebooks cannot be run"):
            run_local(found, parallel, by, failed_too, queue, echo)
    finally:
        states = found.states(queue)
        _conclude(found, states)
    _require_complete(found, states)
    summary = found.summary_state(states, queue)
    if summary is not None:
        _require_summary(found, summary)
        _tell_summary(summary)


def _cluster(
    parallel: int | None, profile: str, gpus: int, account: str | None,
    settings: tuple[str, ...], **_here_only: object,
) -> Cluster:  # fmt: skip
    from aqnet.jobs.profiles import parse_settings
    from aqnet.jobs.sweeps.cluster import cluster_of

    return cluster_of(profile, parse_settings(settings, account), gpus, parallel)


def _on_cluster(
    found: Sweep, cluster: Cluster, failed_too: bool, wait: bool, restage: bool
) -> None:
    from aqnet.jobs.sweeps.slurm import submit_arrays

    with need_lab("notebooks cannot be compiled"), sigterm_like_ctrl_c():
        left = submit_arrays(found, cluster, failed_too, echo, restage, wait)
    if left:
        click.echo(f"{left} points are left: run the same command when there is room")
    click.echo(f"aqnet sweep status {found.name}")


def _conclude(found: Sweep, states: Sequence[PointState]) -> None:
    from aqnet.jobs.sweeps.results import collect

    results = collect(found, states)
    counts = Counter(state.status for state in states)
    click.echo(f"{len(states)} points: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    for note in results.notes:
        click.echo(f"note: {note}")
    click.echo(f"results: {results.write(found)}")


def _require_complete(found: Sweep, states: Sequence[PointState]) -> None:
    bad = [state for state in states if state.status == "failed"]
    if bad:
        shown = [f"{s.point.title}: {s.reason}" for s in bad[:_SHOWN]]
        raise RunError(explain(
            f"{len(bad)} of {len(states)} points failed", expected="all complete",
            found="; ".join(shown) + ("; ..." if len(bad) > _SHOWN else ""),
            remedy=f"see {found.path / 'logs'}; aqnet sweep retry {found.name} runs them again",
        ))  # fmt: skip


def _require_summary(found: Sweep, summary: PointState) -> None:
    if summary.status == "failed":
        raise RunError(explain(
            "the summary failed", expected="complete", found=summary.reason,
            remedy=f"see {found.path / 'logs'}; aqnet sweep retry {found.name} runs it again",
        ))  # fmt: skip


def _tell_summary(summary: PointState) -> None:
    """Where a complete summary is, and its `verdict`, if it measured one."""
    if summary.status != "complete":
        return
    from aqnet.jobs.runs import RunFolder

    click.echo(f"summary: {summary.run}")
    run = RunFolder.open(summary.run)
    if run.metrics_path.exists() and (verdict := run.read_metrics().get("verdict")):
        click.echo(f"verdict: {verdict}")
