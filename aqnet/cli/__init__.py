"""Command line of aqnet: one group, one module for each kind of command."""

from __future__ import annotations

import click

import aqnet
from aqnet.cli.bench import bench
from aqnet.cli.checkpoint import checkpoint
from aqnet.cli.compile import compile_command
from aqnet.cli.console import Group
from aqnet.cli.data import data
from aqnet.cli.forecast import forecast, forecast_store
from aqnet.cli.physics import physics
from aqnet.cli.preflight import preflight
from aqnet.cli.probe import probe
from aqnet.cli.report import report
from aqnet.cli.run import params, run
from aqnet.cli.runs import runs
from aqnet.cli.score import score, scoreboard
from aqnet.cli.stations import stations
from aqnet.cli.submit import submit
from aqnet.cli.sweep import sweep
from aqnet.cli.terrain import terrain
from aqnet.cli.watch import watch
from aqnet.cli.wind_scan import wind_scan

__all__ = ["main"]


@click.group(cls=Group)
@click.version_option(aqnet.__version__, prog_name="aqnet")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Air-quality forecasting: data, runs of notebooks, reports."""


for command in (
    run,
    params,
    runs,
    compile_command,
    preflight,
    submit,
    sweep,
    watch,
    data,
    wind_scan,
    terrain,
    checkpoint,
    bench,
    forecast,
    forecast_store,
    stations,
    score,
    scoreboard,
    physics,
    probe,
    report,
):
    main.add_command(command)
