"""`aqnet bench`: what things cost on this machine, printed beside its own speed."""

from __future__ import annotations

import click

from aqnet.cli.bench_attention import attention
from aqnet.cli.bench_loader import loader
from aqnet.cli.bench_redraw import redraw
from aqnet.cli.bench_scale import scale
from aqnet.cli.bench_step import step

__all__ = ["bench"]


@click.group()
def bench() -> None:
    """Measure speed and memory of the parts that run on every rank."""


for command in (attention, loader, redraw, scale, step):
    bench.add_command(command)
