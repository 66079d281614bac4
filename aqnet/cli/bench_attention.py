"""`aqnet bench attention`: what wind and terrain cost, and whether a device computes them right."""

from __future__ import annotations

import click

from aqnet.errors import AqnetError, explain

__all__ = ["attention"]

_NUMBER = click.IntRange(min=1)
_DTYPES = ("float64", "float32", "bfloat16", "float16")


def _sizes(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    """Numbers of tokens from a list separated by commas."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) for part in found):
        raise click.BadParameter(f"{text!r}: numbers of 1 or more, separated by commas")
    return [int(part) for part in found]


@click.command()
@click.option(
    "--tokens", default=8192, show_default=True, type=_NUMBER, help="N of the main table."
)
@click.option(
    "--growth", "sizes", default="1024,2048,4096,8192,16384", show_default=True, callback=_sizes,
    help="N of the growth table, separated by commas; empty for none.",
)  # fmt: skip
@click.option("--heads", default=8, show_default=True, type=_NUMBER, help="Attention heads.")
@click.option("--head-dim", default=96, show_default=True, type=_NUMBER, help="Features a head.")
@click.option("--batch", default=1, show_default=True, type=_NUMBER, help="Samples of a pass.")
@click.option(
    "--rank", default=14, show_default=True, type=_NUMBER, help="Rank of the ridge barrier."
)
@click.option(
    "--places",
    default=2048,
    show_default=True,
    type=_NUMBER,
    help="Places of the aggregation table.",
)
@click.option(
    "--repeats", default=3, show_default=True, type=_NUMBER, help="Passes; the shortest counts."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1 (ROCm too).")
@click.option(
    "--kernel", type=click.Choice(["by_device", "tiled", "cpu", "efficient", "flash"]),
    default="by_device", show_default=True,
    help="By device: on a CPU tiled, on a GPU efficient. flash is of 16 bit only.",
)  # fmt: skip
@click.option("--dtype", type=click.Choice(_DTYPES), default="float32", show_default=True,
              help="Of queries, keys and values.")  # fmt: skip
@click.option("--threads", type=_NUMBER, help="CPU threads (default: torch's).")
@click.option(
    "--check", is_flag=True,
    help="Compare outputs and gradients with the dense float64 form instead; takes a minute.",
)  # fmt: skip
def attention(check: bool, threads: int | None, **options) -> None:
    """Time and memory of attention with wind and terrain against plain attention."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    options["dtype"] = getattr(torch, options["dtype"])
    _require_device(options["device"])
    if check:
        _check(options)
    else:
        _bench(options)


def _require_device(device: str) -> None:
    import torch

    kind, _, index = device.partition(":")
    there = torch.cuda.device_count()
    ok = device == "cpu" or (
        kind == "cuda" and (index or "0").isdecimal() and int(index or 0) < there
    )
    if not ok:
        raise AqnetError(
            explain(
                f"there is no device {device!r}",
                expected="cpu" + "".join(f", cuda:{i}" for i in range(there)),
                found=device,
                remedy="choose one of these with --device",
            )
        )


def _bench(options: dict) -> None:
    from aqnet.model.bench_attention import (
        aggregation_costs,
        attention_costs,
        growth,
    )
    from aqnet.model.bench_machine import describe_machine, matmul_gflops
    from aqnet.model.check_attention import Sizes

    device, dtype = options["device"], options["dtype"]
    how = {name: options[name] for name in ("device", "kernel", "dtype", "repeats")}

    def sizes(tokens: int) -> Sizes:
        shape = {name: options[name] for name in ("batch", "heads", "head_dim", "rank")}
        return Sizes(tokens=tokens, **shape)

    click.echo(describe_machine(device))
    click.echo(f"matrix multiply: {matmul_gflops(device, dtype):.0f} GFLOP/s in {dtype}")
    click.echo(f"\nattention, N = {options['tokens']}, {options['heads']} heads of "
               f"{options['head_dim']}, forward and backward")  # fmt: skip
    _table(attention_costs(sizes(options["tokens"]), **how))
    numbers = options["sizes"]
    if numbers:
        click.echo("\ngrowth with N; the exponent is that of the time since the row above")
        pairs = [attention_costs(sizes(n), ("plain", "all"), **how) for n in numbers]
        _growth_table(pairs, [growth([p[k] for p in pairs]) for k in (0, 1)])
    click.echo(f"\naggregation of 15 variables at {options['places']} places")
    _table(aggregation_costs(sizes(options["places"]), device, dtype, options["repeats"]))
    click.echo(f"\nmatrix multiply again: {matmul_gflops(device, dtype):.0f} GFLOP/s")


def _memory(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e9:.3f}"


def _table(costs: list) -> None:
    click.echo(f"{'':24}{'time [s]':>10}{'ratio':>8}{'extra memory [GB]':>20}")
    for cost in costs:
        ratio = cost.seconds / costs[0].seconds
        click.echo(f"{cost.case:24}{cost.seconds:10.3f}{ratio:8.2f}{_memory(cost.memory):>20}")


def _growth_table(pairs: list, exponents: list) -> None:
    heads = ("plain [s]", "exponent", "all [s]", "exponent", "ratio", "plain [GB]", "all [GB]")
    click.echo(f"{'N':>6}" + "".join(f"{head:>12}" for head in heads))
    for row, (plain, everything) in enumerate(pairs):
        p, a = (f"{e[row - 1]:.2f}" if row else "" for e in exponents)
        columns = (
            f"{plain.seconds:.3f}",
            p,
            f"{everything.seconds:.3f}",
            a,
            f"{everything.seconds / plain.seconds:.2f}",
            _memory(plain.memory),
            _memory(everything.memory),
        )
        click.echo(f"{plain.tokens:6}" + "".join(f"{column:>12}" for column in columns))


def _check(options: dict) -> None:
    import torch

    from aqnet.model.bench_machine import describe_machine
    from aqnet.model.check_attention import Sizes, check_cases
    from aqnet.model.sorted_attention import require_kernel

    device, kernel, dtype = options["device"], options["kernel"], options["dtype"]
    require_kernel(kernel, torch.device(device).type, dtype)
    click.echo(f"{describe_machine(device)}; kernel {kernel}, {dtype}")
    click.echo("largest error of output and gradients, relative to the dense float64 form")
    shapes = (
        Sizes(2, 3, 301, 32),
        Sizes(1, 4, 256, 96, 14),
        Sizes(1, 2, 1, 64),
        Sizes(3, 1, 65, 8),
    )
    failed = []
    for sizes in shapes:
        click.echo(
            f"\nB = {sizes.batch}, {sizes.heads} heads of {sizes.head_dim}, N = {sizes.tokens}"
        )
        for case, error, allowed, worst in check_cases(device, kernel, dtype, sizes):
            verdict = "ok" if error <= allowed else "WRONG"
            click.echo(
                f"  {case:22}{error:10.1e}  allowed {allowed:.0e}  {verdict:6} worst: {worst}"
            )
            failed += [case] if error > allowed else []
    if failed:
        raise AqnetError(
            explain(
                f"kernel {kernel!r} on {device} is not exact",
                expected="errors within the tolerances",
                found=f"larger ones in {', '.join(dict.fromkeys(failed))}",
                remedy="use another kernel, or method 'blockwise', and report the table above",
            )
        )
    click.echo("\nall within the tolerances")
