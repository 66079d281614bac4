"""`aqnet runs`: list, show, compare and verify run folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqnet.errors import RunError, explain

if TYPE_CHECKING:
    from aqnet.jobs.runs import RunFolder
    from aqnet.jobs.runs.table import Row

__all__ = ["runs"]

_COLUMNS = ("name", "status", "notebook", "created", "duration", "metric")
_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of all runs (default: $AQNET_RUNS, or runs/ in the repository).",
)


@click.group()
def runs() -> None:
    """List, show, compare and verify run folders.

    RUN is the name of a run folder, the beginning of one name, a path, or `latest`.
    """


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


def _value(value: object) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


# ---- list


def _sorted(rows: list[Row], key: str) -> list[Row]:
    """By a column, descending with a minus; rows without a value last."""
    name = key.removeprefix("-")
    if name not in _COLUMNS:
        raise click.BadParameter(f"one of {', '.join(_COLUMNS)}, or -COLUMN", param_hint="--sort")
    values = [getattr(row, name) for row in rows]
    if len({isinstance(v, str) for v in values if v is not None}) > 1:
        values = [None if v is None else str(v) for v in values]
    pairs = list(zip(values, rows, strict=True))
    known = sorted((p for p in pairs if p[0] is not None), key=lambda p: p[0],
                   reverse=key.startswith("-"))  # fmt: skip
    return [row for _, row in known] + [row for value, row in pairs if value is None]


@runs.command("list")
@click.option("--status", help="Only these: created, running, complete, failed, interrupted.")
@click.option("--notebook", help="Only of this notebook, such as train/forecast or train-forecast.")
@click.option("--metric", metavar="A.B.0", help="Value of metrics.json by keys and positions.")
@click.option("--sort", default="created", show_default=True, help="A column; -COLUMN descends.")
@click.option("--json", "as_json", is_flag=True, help="As JSON; durations in seconds.")
@_ROOT
def list_command(
    status: str | None,
    notebook: str | None,
    metric: str | None,
    sort: str,
    as_json: bool,
    root: Path | None,
) -> None:
    """Table of all runs, oldest first.

    The duration adds up all starts of a run that have ended, and that which is running.
    """
    from aqnet.jobs.runs import list_runs, notebook_label
    from aqnet.jobs.runs.table import row_of

    rows = [row_of(run, metric) for run in list_runs(root)]
    label = notebook and notebook_label(notebook)
    rows = [r for r in rows if status in (None, r.status) and label in (None, r.notebook)]
    rows = _sorted(rows, sort)
    if as_json:
        click.echo(json.dumps([row.plain() for row in rows], indent=2))
        return
    texts = [[r.name, r.status, r.notebook, f"{r.created:%Y-%m-%d %H:%M:%S}",
              _duration(r.duration), _value(r.metric)] for r in rows]  # fmt: skip
    head = [*_COLUMNS[:-1], metric or ""]
    columns = slice(None) if metric else slice(-1)
    for line in _table([line[columns] for line in (head, *texts)]):
        click.echo(line)


# ---- show


def _block(title: str, values: dict[str, object]) -> None:
    if values:
        click.echo(title)
        for line in _table([[f"  {name}", _value(value)] for name, value in values.items()]):
            click.echo(line)


def _show_attempts(run: RunFolder) -> None:
    from aqnet.jobs.runs.table import seconds_of

    head = ["  start", "status", "job", "hosts", "processes", "began", "duration", "exit", "log"]
    rows = [
        [f"  {a.number}", a.status, f"{a.job}/{a.restart}" if a.job else "-", a.hosts,
         f"{a.processes}", f"{a.started:%Y-%m-%d %H:%M:%S}", _duration(seconds_of(a)),
         _value(a.exit_code), _value(a.log)]
        for a in run.attempts
    ]  # fmt: skip
    for line in _table([head, *rows]) if rows else ["  not started"]:
        click.echo(line)


def _code(run: RunFolder) -> dict[str, object]:
    provenance, record = run.provenance, run.record
    git = provenance.git
    return {
        "notebook": f"{record.notebook_path or record.notebook}, code {record.notebook_sha256}",
        "script": provenance.script_sha256,
        "aqnet": f"{provenance.aqnet}, sources {git.sources_sha256}",
        "commit": f"{git.commit}, {git.state}, {len(git.dirty)} changed files",
        "changes": git.diff_sha256,
    }


@runs.command()
@click.argument("run")
@_ROOT
def show(run: str, root: Path | None) -> None:
    """What RUN is made from, its starts, and what it measured."""
    from aqnet.jobs.runs import find_run
    from aqnet.jobs.runs.table import measured

    found = find_run(run, root)
    record, environment = found.record, found.environment
    click.echo(f"{found.path}\n{record.status}, started by {record.started_by}, "
               f"created {record.created:%Y-%m-%d %H:%M:%S} UTC")  # fmt: skip
    if record.error is not None:
        click.echo(f"{record.error.type}: {record.error.message}")
    click.echo("starts")
    _show_attempts(found)
    _block("parameters", dict(found.parameters))
    _block("code", _code(found))
    _block("data", dict(found.provenance.data))
    if environment is not None:
        count = {"packages": f"{len(environment.distributions)} installed",
                 "sha256": environment.sha256}  # fmt: skip
        _block("environment", {"python": environment.python} | environment.main | count)
    _block("metrics", measured(found))


# ---- compare


@runs.command()
@click.argument("a")
@click.argument("b")
@_ROOT
@click.pass_context
def compare(context: click.Context, a: str, b: str, root: Path | None) -> None:
    """Which of code, data, parameters and environment differ between runs A and B.

    Ends with code 0 if all are equal, 1 if something differs, 2 if that cannot be told.
    """
    from aqnet.errors import AqnetError
    from aqnet.jobs.runs import find_run
    from aqnet.jobs.runs.compare import compare_runs

    try:
        found = compare_runs(find_run(a, root), find_run(b, root))
    except AqnetError as error:
        error.exit_code = 2
        raise
    for group in ("code", "data", "parameters", "environment"):
        entries = getattr(found, group)
        click.echo(f"{group:<12} {'differs' if entries else 'equal'}")
        for line in _table([[f"  {n}", x, "->", y] for n, (x, y) in entries.items()] or [[""]]):
            if line:
                click.echo(line)
    context.exit(0 if found.equal else 1)


# ---- verify


@runs.command()
@click.argument("run")
@click.option("--deep", is_flag=True, help="Of yearly stores read every hour, not only some.")
@click.option(
    "--archived", is_flag=True, help="The work tree and the environment here may be others by now."
)
@_ROOT
def verify(run: str, deep: bool, archived: bool, root: Path | None) -> None:
    """Compute every digest that RUN recorded anew, and compare.

    Parameters, notebook, script and package, staged files, results, checkpoints, data. `changed`:
    the work tree or the environment here is no longer that of the run, which itself is whole;
    --archived allows it. `unchecked` says why. Ends with code 1 on a mismatch or a change.
    """
    from aqnet.jobs.runs import find_run
    from aqnet.jobs.runs.verify import verify_run

    found = find_run(run, root)
    checks = verify_run(found, deep)
    for check in checks:
        first, *more = check.detail.splitlines() or [""]
        click.echo(f"{check.status:<9}  {check.name}: {first}")
        for line in more:
            click.echo(f"           {line}")
    bad = {"mismatch"} if archived else {"mismatch", "changed"}
    wrong = [check.name for check in checks if check.status in bad]
    if wrong:
        raise RunError(
            explain(
                f"{found.path.name} is not what it recorded",
                expected="the recorded digests",
                found=f"{len(wrong)} others: {', '.join(wrong)}",
                remedy="the lines above say which; take the files from a copy, or run it again; "
                "--archived if only work tree or environment here have moved on",
            )
        )
