"""What all commands share: errors as messages, progress lines, an orderly stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from aqnet.errors import AqnetError, InterruptedRunError, explain

__all__ = [
    "Group",
    "Progress",
    "command_line",
    "echo",
    "need_lab",
    "sigterm_like_ctrl_c",
]


class Group(click.Group):
    """Prints an AqnetError as a message, and ends with its exit code."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; print an AqnetError instead of raising it."""
        try:
            return super().invoke(ctx)
        except AqnetError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            if ctx.params.get("debug"):
                raise
            click.echo("stopped by Ctrl-C or SIGTERM; run the command again to repeat it", err=True)
            ctx.exit(InterruptedRunError.exit_code)


def command_line() -> list[str]:
    """Words of the command that runs, every option with its value, for records."""
    context = click.get_current_context()
    command = context.command
    words, named = ["aqnet", str(command.name)], []
    for parameter in command.params:
        value = context.params.get(parameter.name)
        values = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            words += [str(v) for v in values]
        elif isinstance(value, bool):
            named += (parameter.opts if value else parameter.secondary_opts)[:1]
        else:
            named += [w for v in values if v is not None for w in (parameter.opts[0], str(v))]
    return words + named


def echo(text: str) -> None:
    """Print without a line end, at once."""
    click.echo(text, nl=False)
    sys.stdout.flush()


@contextmanager
def need_lab(problem: str) -> Iterator[None]:
    """Explain an import that fails because the packages of the extra `lab` are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = explain(
            f"{problem} in this environment",
            expected="the packages of the extra `lab` (papermill, ipykernel, ...)",
            found=f"no package {error.name}",
            remedy="pip install -c constraints.txt -e '.[lab]'",
        )
        raise AqnetError(message) from error


class Progress:
    """Progress of a long step: one rewritten line on a terminal, a line each tenth in a log."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None
        self._width = 0

    def __call__(self, step: str, fraction: float) -> None:
        line = f"{fraction:4.0%}  {step}"
        if sys.stdout.isatty():
            click.echo(f"\r{line:<{self._width}}", nl=fraction >= 1)
            self._width = len(line)
        elif self._last != (step, int(fraction * 10)):
            click.echo(line)
        self._last = (step, int(fraction * 10))


@contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM leave `with` and `finally` blocks, so that half-built folders go away."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
