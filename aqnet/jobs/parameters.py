"""Parameters of a notebook: what they may be, and their values from defaults, files and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aqnet.config import read_yaml
from aqnet.errors import ParameterError, did_you_mean, explain
from aqnet.jobs.parameter_types import NULL, MismatchError, Value, item_type, render, typed

__all__ = [
    "FORM",
    "Parameter",
    "check_values",
    "convert",
    "declared_values",
    "parse_assignments",
    "resolve",
]

FORM = "name: type = default  # help [unit] {range}"  # of a line of the parameters cell


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook.

    Attributes
    ----------
    name : str
        Python name.
    type : str
        One of int, float, str, bool, list[int], list[float], list[str].
    default : int, float, str, bool, list or None
        Value of that type; None only if `optional`.
    help, unit : str
        From the comment; empty if not given.
    minimum, maximum : float or None
        Closed range of the value, or of each item of a list.
    choices : tuple or None
        Allowed values, or allowed items of a list.
    optional : bool
        Whether the value may be None (declared `type | None`).
    """

    name: str
    type: str
    default: Value
    help: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple | None = None
    optional: bool = False

    @property
    def item_type(self) -> str:
        """Type of one item of a list; the type itself otherwise."""
        return item_type(self.type)

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return self.type.startswith("list[")

    def describe(self) -> str:
        """Type, unit and range in one phrase, as error messages and `aqnet params` show it."""
        text = self.type
        if self.unit:
            text += f" in {self.unit}" if self.unit != "1" else " (no unit)"
        if self.choices is not None:
            text += f", one of {', '.join(render(c) for c in self.choices)}"
        if self.minimum is not None or self.maximum is not None:
            low = "" if self.minimum is None else render(self.minimum)
            high = "" if self.maximum is None else render(self.maximum)
            text += f", range {low}..{high}"
        return f"{text}; or {NULL}" if self.optional else text

    def typed(self, value: object) -> Value:
        """A value of the parameter's type and range.

        Raises
        ------
        MismatchError
            Wrong type or out of range.
        """
        if self.optional and (value is None or value == NULL):
            return None
        result = typed(self.type, value)
        for item in result if self.is_list else [result]:
            self._check_range(item)
        return result

    def _check_range(self, item: Value) -> None:
        if self.choices is not None and item not in self.choices:
            raise MismatchError(f"one of {', '.join(map(repr, self.choices))}", repr(item))
        if self.minimum is not None and item < self.minimum:
            raise MismatchError(f"at least {self.minimum!r}", repr(item))
        if self.maximum is not None and item > self.maximum:
            raise MismatchError(f"at most {self.maximum!r}", repr(item))


def convert(parameter: Parameter, value: object, source: str) -> Value:
    """Turn text or a YAML value into a value of the parameter's type and range.

    Parameters
    ----------
    parameter : Parameter
        What is expected.
    value : object
        Text (`"[12,24]"`, `"1e-4"`, `"false"`, `"null"`) or a typed value.
    source : str
        Where the value stands, for the message.

    Returns
    -------
    int, float, str, bool, list or None

    Raises
    ------
    ParameterError
        Wrong type or out of range. A bool is not an int, 12.0 is not an int, and None is a value
        of an optional parameter only.
    """
    try:
        return parameter.typed(value)
    except MismatchError as mismatch:
        message = explain(
            f"parameter {parameter.name} ({source}): {mismatch.expected} needed",
            expected=parameter.describe(),
            found=mismatch.found,
            remedy=f"for example -p {parameter.name}={_example(parameter)}",
        )
        raise ParameterError(message) from None


def _example(parameter: Parameter) -> str:
    """A value that fits, where possible one that says more than `null`."""
    if parameter.default is None and parameter.choices:
        item = parameter.choices[0]
        return render([item] if parameter.is_list else item)
    return render(parameter.default)


# ---- sources of values


def parse_assignments(items: Sequence[str]) -> dict[str, str]:
    """Split `name=value` texts, as given with `-p`.

    Raises
    ------
    ParameterError
        A text without `=` or name, or a name given twice.
    """
    result: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        name = name.strip()
        if not separator or not name:
            problem, found = "a parameter must be given as name=value", f"-p {item}"
        elif name in result:
            problem = f"parameter {name} is given twice with -p"
            found = f"{name}={result[name]} and {name}={value}"
        else:
            result[name] = value
            continue
        remedy = "give each parameter once, as -p name=value"
        raise ParameterError(explain(problem, expected="name=value", found=found, remedy=remedy))
    return result


def _unknown(name: str, known: Sequence[str], source: str) -> str:
    return explain(
        f"unknown parameter {name} ({source})",
        expected=f"one of {', '.join(known)}" if known else "no parameter at all",
        found=name,
        remedy=did_you_mean(name, known, "`aqnet params NOTEBOOK` lists them"),
    )


def resolve(
    parameters: Sequence[Parameter],
    files: Sequence[str | Path] = (),
    assignments: Sequence[str] | Mapping[str, object] = (),
) -> dict[str, Value]:
    """Merge defaults, parameter files and assignments into one typed set of values.

    Parameters
    ----------
    parameters : sequence of Parameter
        What the notebook declares.
    files : sequence of path
        YAML files of `name: value`; a later file overrides an earlier one.
    assignments : sequence of str, or mapping
        `name=value` texts of the command line, or values by name; they override the files.

    Returns
    -------
    dict
        A value of the declared type for every parameter, in the order of `parameters`.

    Raises
    ------
    ParameterError
        Unknown names (with the nearest known one), wrong types, values out of range; all of
        them in one message.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    if not isinstance(assignments, Mapping):
        assignments = parse_assignments(assignments)
    layers = [(str(path), read_yaml(path, ParameterError)) for path in files]
    layers.append(("-p", assignments))
    values = {parameter.name: parameter.default for parameter in parameters}
    problems = []
    for source, given in layers:
        for name, value in given.items():
            if name not in by_name:
                problems.append(_unknown(str(name), list(by_name), source))
                continue
            try:
                values[name] = convert(by_name[name], value, source)
            except ParameterError as error:
                problems.append(str(error))
    if problems:
        raise ParameterError("\n".join(problems))
    return {n: list(v) if isinstance(v, list) else v for n, v in values.items()}


def check_values(parameters: Sequence[Parameter], values: Mapping[str, Value], label: str) -> None:
    """Check values that were typed into a parameters cell, by the rules of the command line.

    Parameters
    ----------
    parameters : sequence of Parameter
        What the saved notebook declares.
    values : mapping
        By name, in the running notebook.
    label : str
        Name of the notebook in messages.

    Raises
    ------
    ParameterError
        Wrong type or out of range; or other names than the saved notebook declares.
    """
    names = [parameter.name for parameter in parameters]
    if set(names) != set(values):
        message = explain(
            f"the parameters that run are not those of {label} as it is saved",
            expected=", ".join(names),
            found=", ".join(values),
            remedy="save the notebook, and run the parameters cell again",
        )
        raise ParameterError(message)
    for parameter in parameters:
        convert(parameter, values[parameter.name], "in the parameters cell")


def declared_values(namespace: Mapping[str, object]) -> dict[str, Value]:
    """Present values of the parameters in a notebook's own namespace.

    Parameters
    ----------
    namespace : mapping
        `globals()` in a cell: the same in JupyterLab, under `aqnet run` and in a compiled script.

    Returns
    -------
    dict
        By name, in the order of the parameters cell (the names that were declared with a type).

    Raises
    ------
    ParameterError
        The parameters cell has not been run.
    """
    names = namespace.get("__annotations__")
    if names is None and "__annotate__" in namespace:  # Python 3.14 computes them when asked
        names = namespace["__annotate__"](1)
    if names:
        return {name: namespace[name] for name in names}
    message = explain(
        "the notebook has no parameters yet",
        expected=f"a parameters cell of `{FORM}`, run before this one",
        found="no name declared with a type",
        remedy="run the parameters cell",
    )
    raise ParameterError(message)
