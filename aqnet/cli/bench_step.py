"""`aqnet bench step`: what a training step costs beside a network of the published form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from aqnet.training.bench_step import StepCost

__all__ = ["step"]

_CASES = ("published", "published-memory", "full", "full-bf16", "full-one-lead",
          "full-one-lead-bf16", "active", "active-bf16")  # fmt: skip
_GRIDS = ("china", "china_64x128", "china_32x64")
_LEADS = 4  # lead times of a forecast
_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(_CASES))
@click.option("--grid", type=click.Choice(_GRIDS), default="china", show_default=True,
              help="Full size takes 13 GB and 10 minutes.")  # fmt: skip
@click.option("--width", default=768, show_default=True, type=_COUNT, help="Features of a token.")
@click.option("--depth", default=6, show_default=True, type=_COUNT, help="Blocks.")
@click.option("--heads", default=8, show_default=True, type=_COUNT, help="Attention heads.")
@click.option("--repeats", default=2, show_default=True, type=_COUNT,
              help="Steps after a warm-up; the shortest counts.")  # fmt: skip
@click.option("--rounds", default=1, show_default=True, type=_COUNT,
              help="Times through all cases, each in a new process.")  # fmt: skip
@click.option("--checkpointing", is_flag=True, help="Recompute our blocks instead of keeping them.")
@click.option("--threads", type=_COUNT, help="CPU threads (default: torch's).")
def step(
    cases: tuple[str, ...], repeats: int, rounds: int, threads: int | None, **size: object
) -> None:
    """Time, memory and operations of one training step (one sample, CPU) of CASES; default: all.

    published: the published form from torch's own modules, one lead time a pass, in a process as
    torch alone sets it up; published-memory: with our settings of memory. The others are the
    preset "china", four lead times a pass, on all patches (full) or those of China (active), in
    float32 or with products in bfloat16; full-one-lead forecasts one lead time a pass.
    """
    import torch

    from aqnet.model.bench_machine import describe_machine
    from aqnet.training.bench_step import Size, step_costs

    if threads:
        torch.set_num_threads(threads)
    shape = Size(**size)
    click.echo(describe_machine())
    click.echo(f"grid {shape.grid}, width {shape.width}, depth {shape.depth}, {shape.heads} heads, "
               f"batch 1{', activation checkpointing' if shape.checkpointing else ''}")  # fmt: skip
    costs = step_costs(shape, cases or _CASES, repeats, rounds)
    _table(costs)
    _notes()


def _table(costs: list[StepCost]) -> None:
    reference = next((cost for cost in costs if cost.case == "published"), None)
    heads = ("tokens", "parameters", "TFLOP", "GFLOP/s", "of peak", "done", "s a pass", "ratio",
             f"s {_LEADS} leads", "ratio", "GB", "ratio")  # fmt: skip
    widths = (8, 12, 9, 9, 9, 7, 10, 7, 11, 7, 8, 7)
    click.echo(f"{'':19}" + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True)))
    for cost in costs:
        columns = zip(_columns(cost, reference), widths, strict=True)
        click.echo(f"{cost.case:19}" + "".join(f"{text:>{width}}" for text, width in columns))


def _columns(cost: StepCost, reference: StepCost | None) -> tuple[str, ...]:
    def ratio(value: float | None, other: float | None) -> str:
        return f"{value / other:.2f}" if value and other else "-"

    other = reference or cost
    four, other_four = cost.seconds * _passes(cost), other.seconds * _passes(other)
    known = reference is not None
    return (
        str(cost.tokens),
        f"{cost.parameters / 1e6:.1f} M",
        f"{cost.flop / 1e12:.3f}",
        f"{cost.flop / cost.seconds / 1e9:.0f}",
        f"{cost.share_of_peak:.0%}",
        f"{cost.share_done:.0%}",
        f"{cost.seconds:.2f}",
        ratio(cost.seconds, other.seconds) if known else "-",
        f"{four:.2f}",
        ratio(four, other_four) if known else "-",
        "-" if cost.memory is None else f"{cost.memory / 1e9:.2f}",
        ratio(cost.memory, other.memory) if known else "-",
    )


def _passes(cost: StepCost) -> int:
    return -(-_LEADS // cost.leads)


def _notes() -> None:
    click.echo(
        "TFLOP: matrix products that the formulas need, three times the forward ones and "
        "12 N^2 D an attention;\nnothing recomputed and no column of a bias counts. Peak: "
        "this machine's 2,048 x 2,048 product in the\nsame precision, measured by the same "
        "process. done: of peak without the pairs that attention leaves out\nbecause they "
        "weigh nothing, under random winds and the strengths a training starts with. GB: "
        "peak of the process\nabove its imports. No dropout and no drop path anywhere. published: "
        "memory as torch alone\nhandles it; the others: as aqnet sets it for every training (large "
        "pages; limits of the heap)."
    )
