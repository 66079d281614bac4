"""The page of all commands, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
from docs_text import ROOT, cell, fence, listed, require, table

from aqnet.cli import main


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Name, command and context of all commands, groups before what is in them."""

    def walk(name: str, command: click.Command, parent: click.Context | None) -> Iterator:
        context = click.Context(command, info_name=name.split()[-1], parent=parent)
        yield name, command, context
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                yield from walk(f"{name} {child}", command.get_command(context, child), context)

    yield from walk("aqnet", main, None)


def _kind(option: click.Option) -> str:
    if option.is_flag:
        return "flag"
    if isinstance(option.type, click.Choice):
        return listed(option.type.choices)
    text = option.make_metavar(click.Context(click.Command("x"))).replace(" RANGE", "")
    limits = option.type._describe_range() if hasattr(option.type, "_describe_range") else ""
    return cell(f"{text.strip('[]')}{', ' if limits else ''}{limits}")


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    # Machine-dependent defaults have words of their own; a path would be that of this machine.
    if isinstance(option.show_default, str):
        return cell(option.show_default)
    value = option.to_info_dict()["default"]  # None where click has a mark of its own for "not set"
    plain = value is not None and not callable(value) and not option.is_flag and value != ()
    if plain and str(ROOT) not in str(value):
        return ", ".join(map(str, value)) if isinstance(value, tuple) else f"`{value}`"
    on = option.is_flag and option.secondary_opts
    return f"`{(option.opts if value else option.secondary_opts)[0]}`" if on else ""


def _options(command: click.Command) -> str:
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    rows = []
    for option in options:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        row = (names, _kind(option), _default(option), cell(option.help))
        rows.append(row)
    return table(("Option", "Value", "Default", "Meaning"), rows) if rows else ""


def undocumented() -> list[str]:
    """Commands and options without a text of their own."""
    found = []
    for name, command, _ in commands():
        found += [] if command.help else [name]
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        found += [f"{name} {option.opts[-1]}" for option in options if not option.help]
    return found


def _help(command: click.Command) -> str:
    """Help as Markdown: what click must not wrap (after a backspace) stays as it is."""
    parts = inspect.cleandoc(command.help).split("\n\n")
    marked = [part.lstrip() for part in parts]
    return "\n\n".join(
        fence(inspect.cleandoc(part[1:].lstrip("\n")), "sh") if part.startswith("\b") else part
        for part in marked
    )


def page() -> str:
    """Markdown of the page."""
    require(undocumented(), "commands")
    said = [
        "# Commands\n",
        "Generated from the commands. Every error that aqnet raises on purpose says what was "
        "expected, what was found and what to do, and ends with exit code 1; wrong names and "
        "values end with 2 before anything starts, an interrupted run with 130. "
        "`aqnet --debug COMMAND` shows the traceback.\n",
    ]
    for name, command, context in commands():
        if name == "aqnet":
            continue
        group = isinstance(command, click.Group)
        said.append(f"{'##' if name.count(' ') == 1 else '###'} {name}\n")
        said.append(_help(command) + "\n")
        if not group:
            usage = " ".join((name, *command.collect_usage_pieces(context)))
            said += [fence(usage), _options(command)]
    return "\n".join(said)
