"""Typed parameters: the grammar of the cell, conversion of text, and the order of sources."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aqnet.errors import ParameterError
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameter_types import TYPES, render
from aqnet.jobs.parameters import (
    Parameter,
    convert,
    declared_values,
    parse_assignments,
    resolve,
)


def cell(source, *tags, kind="code"):
    return {"cell_type": kind, "source": source, "metadata": {"tags": list(tags)}}


def notebook(*cells):
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)}


def parse(source):
    return parse_parameters(notebook(cell(source, "parameters")), "train.ipynb")


EXAMPLE = """\
# optimiser
learning_rate: float = 3e-4  # peak learning rate [1] {1e-6..1e-1}
batch: int = 16  # samples per step {1..}
device: str = "auto"  # where to compute {cpu|cuda|auto}
lead_times: list[int] = [12, 24]  # lead times [h] {12|24|48|96}
weights: list[float] = [1, 0.5]  # weight of each pollutant [1] {0..}
compile: bool = False
title: str = "a # b [c]"  # shown in the report
"""


# ---- the cell


def test_every_part_of_a_line_is_read():
    rate, batch, device, leads, weights, compiled, title = parse(EXAMPLE)
    assert rate == Parameter(
        "learning_rate", "float", 3e-4, "peak learning rate", "1", 1e-6, 1e-1, None
    )
    assert batch == Parameter("batch", "int", 16, "samples per step", "", 1, None, None)
    assert device.choices == ("cpu", "cuda", "auto") and device.unit == ""
    assert leads.default == [12, 24] and leads.choices == (12, 24, 48, 96) and leads.unit == "h"
    assert weights.default == [1.0, 0.5] and all(type(w) is float for w in weights.default)
    assert compiled == Parameter("compile", "bool", False)
    assert title.default == "a # b [c]" and title.help == "shown in the report"


def test_a_declaration_may_span_lines_with_the_comment_at_its_end():
    (parameter,) = parse("names: list[str] = [\n    'a',\n    'b',\n]  # stations\n")
    assert parameter.default == ["a", "b"] and parameter.help == "stations"


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("x = 3", "another statement"),
        ("import os", "another statement"),
        ("x: int", "another statement"),
        ("a.b: int = 3", "another statement"),
        ("x: dict = {}", "a type out of int, float"),
        ("x: list = []", "found:    list"),
        ("x: None | int = 3", "found:    None | int"),
        ("x: int | None | None = 3", "found:    int | None | None"),
        ("x: int | None = '3'", "default of type int | None"),
        ("x: str | None = 'null'", "None, not its text"),
        ("x: str | None = None  # {null|b}", "choices without null"),
        ("x: int | None = 3  # {4..5}", "at least 4"),
        ("x: int = None", "None (NoneType)"),
        ("x: int = 2 * 3", "found:    2 * 3"),
        ("x: int = len('a')", "a literal as default"),
        ("x: int = True", "True (bool)"),
        ("x: int = 3.0", "3.0 (float)"),
        ("x: int = '3'", "'3' (str)"),
        ("x: list[int] = ['3']", "default of type list[int]"),
        ("x: list[int] = 3", "a list such as"),
        ("x: bool = 1", "1 (int)"),
        ("x: str = 1", "default of type str"),
        ("x: float = 1e999", "a finite number"),
        ("x: int = 3  # {4..5}", "at least 4"),
        ("x: int = 3  # {0..2}", "at most 2"),
        ("x: int = 3  # {5..4}", "low <= high"),
        ("x: int = 3  # {..}", "low <= high"),
        ("x: int = 3  # {a..b}", "a whole number"),
        ("x: int = 3  # {0..5} [h]", "one {range} at the end"),
        ("x: str = 'a'  # {b|c}", "one of 'b', 'c'"),
        ("x: str = 'a'  # {a|a}", "different choices"),
        ("x: list[int] = [12, 13]  # {12|24}", "one of 12, 24"),
        ("x: int = = 3", "expected: Python"),
    ],
)
def test_any_other_line_is_refused_by_name_and_number(line, part):
    with pytest.raises(ParameterError) as caught:
        parse(f"# first\nok: int = 1\n{line}\n")
    message = str(caught.value)
    assert "train.ipynb, parameters cell, line 3: " + line in message
    assert part in message


def test_a_name_declared_twice_is_refused():
    with pytest.raises(ParameterError, match="line 2: x: int = 2"):
        parse("x: int = 1\nx: int = 2")


@pytest.mark.parametrize("count", [0, 2])
def test_there_must_be_exactly_one_parameters_cell(count):
    cells = [cell("x: int = 1", "parameters")] * count
    untagged = [cell("y: int = 1"), cell("x: int = 1", "parameters", kind="markdown")]
    with pytest.raises(ParameterError, match=f"train.ipynb has {count} cells tagged"):
        parse_parameters(notebook(*cells, *untagged), "train.ipynb")


def test_source_may_be_a_list_of_lines():
    content = notebook(cell(["x: int = 1\n", "y: int = 2"], "parameters"))
    assert [p.name for p in parse_parameters(content)] == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "no file there"),
        ("print(1)", "a .ipynb file (JSON)"),
        ("[]", "format None"),
        ('{"nbformat": 3, "worksheets": []}', "format 3"),
    ],
)
def test_an_unusable_file_is_named(tmp_path, content, part):
    path = tmp_path / "odd.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ParameterError) as caught:
        parse_parameters(path)
    assert "odd.ipynb" in str(caught.value) and part in str(caught.value)


# ---- values


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("int", "12", 12),
        ("int", " -3 ", -3),
        ("float", "1e-4", 1e-4),
        ("float", 2, 2.0),
        ("bool", "false", False),
        ("bool", "True", True),
        ("str", "12", "12"),
        ("str", "", ""),
        ("list[int]", "[12,24]", [12, 24]),
        ("list[int]", "[]", []),
        ("list[int]", (1, 2), [1, 2]),
        ("list[float]", "[1e-4, 2]", [1e-4, 2.0]),
        ("list[float]", ["1e-4", 2], [1e-4, 2.0]),
        ("list[str]", "[a, 'b, c', no, 12]", ["a", "b, c", "no", "12"]),
    ],
)
def test_values_are_converted_by_the_declared_type(kind, given, value):
    result = convert(Parameter("x", kind, value), given, "-p")
    assert result == value and type(result) is type(value)
    if isinstance(value, list):
        assert [type(item) for item in result] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *[("int", v) for v in ("12.0", "1e3", "", "true", "١٢", True, 12.0, None, [1])],
        *[("float", v) for v in ("nan", "inf", "", "a", True, None, 10**400, [1.0])],
        *[("bool", v) for v in ("yes", "1", "", 1, 0, None)],
        *[("str", v) for v in (1, 1.0, True, None, ["a"])],
        *[("list[int]", v) for v in ("12", "12,24", "[1.5]", "[[1]]", "[1", "{a: 1}", "- 1")],
        *[("list[int]", v) for v in ("", 12, None, [None], [True], {"a": 1})],
    ],
)
def test_other_values_are_refused_with_what_was_expected_and_found(kind, given):
    defaults = {"int": 1, "float": 1.0, "bool": True, "str": "a", "list[int]": [1]}
    with pytest.raises(ParameterError) as caught:
        convert(Parameter("x", kind, defaults[kind]), given, "sweep.yaml")
    message = str(caught.value)
    assert "parameter x (sweep.yaml)" in message and f"expected: {kind}" in message
    assert "for example -p x=" in message


def test_ranges_hold_for_values_and_for_items():
    rate, batch, device, leads, *_ = parse(EXAMPLE)
    assert convert(rate, "0.1", "-p") == 0.1
    for parameter, text, part in [
        (rate, "0.2", "at most 0.1"),
        (rate, "1e-9", "at least 1e-06"),
        (batch, "0", "at least 1"),
        (device, "tpu", "one of 'cpu', 'cuda', 'auto'"),
        (leads, "[12, 500]", "one of 12, 24, 48, 96 needed"),
    ]:
        with pytest.raises(ParameterError, match=part):
            convert(parameter, text, "-p")
    with pytest.raises(ParameterError, match=r"float \(no unit\), range 1e-06..0.1"):
        convert(rate, "0.2", "-p")


TEXT = st.text(st.characters(exclude_categories=("Cs",)))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = {"int": st.integers(), "float": FLOATS, "bool": st.booleans(), "str": TEXT}
VALUES |= {f"list[{kind}]": st.lists(VALUES[kind]) for kind in ("int", "float", "str")}


@given(st.sampled_from(TYPES).flatmap(lambda kind: st.tuples(st.just(kind), VALUES[kind])))
def test_any_value_survives_being_written_as_text(case):
    kind, value = case
    parameter = Parameter("x", kind, value)
    result = resolve([parameter], assignments=[f"x={render(value)}"])["x"]
    assert result == value and type(result) is type(value)
    if kind == "float":
        assert math.copysign(1, result) == math.copysign(1, value)


@given(st.sampled_from(TYPES).flatmap(lambda kind: st.tuples(st.just(kind), VALUES[kind])))
def test_any_value_survives_a_yaml_file(case):
    kind, value = case
    read = yaml.safe_load(yaml.safe_dump({"x": value}))
    assert resolve([Parameter("x", kind, value)], assignments=read)["x"] == value


# ---- optional values

OPTIONAL = """\
width: int | None = None  # of a token; null: the preset's [1] {8..}
scan: str | None = None  # order of the tokens {none|lanes}
shares: list[float] | None = [0.5]  # {0..1}
name: str | None = "a"
"""


def test_an_optional_parameter_is_null_or_of_its_type():
    width, scan, shares, name = parse(OPTIONAL)
    assert width == Parameter(
        "width", "int", None, "of a token; null: the preset's", "1", 8, optional=True
    )
    assert width.describe() == "int (no unit), range 8..; or null"
    assert shares.default == [0.5] and name.default == "a"
    for parameter, text, value in [
        (width, "16", 16),
        (width, "null", None),
        (width, None, None),
        (scan, "none", "none"),
        (scan, "null", None),
        (shares, "null", None),
        (shares, "[0, 1]", [0.0, 1.0]),
        (name, "", ""),
        (name, "null", None),
    ]:
        assert convert(parameter, text, "-p") == value
    for parameter, text in [
        (width, "4"),
        (width, "none"),
        (width, ""),
        (scan, "None"),
        (shares, "[null]"),
        (shares, [None]),
    ]:
        with pytest.raises(ParameterError, match="or null"):
            convert(parameter, text, "-p")
    with pytest.raises(ParameterError, match="-p scan=none"):
        convert(scan, "rows", "-p")


def test_null_of_a_file_is_none_only_where_declared(tmp_path):
    (tmp_path / "a.yaml").write_text("name: null\nscan: none\nshares: ~\n")
    values = resolve(parse(OPTIONAL), [tmp_path / "a.yaml"], ["width=8"])
    assert values == {"width": 8, "scan": "none", "shares": None, "name": None}
    (tmp_path / "a.yaml").write_text("batch: null\n")
    with pytest.raises(ParameterError, match="a whole number needed"):
        resolve(parse(EXAMPLE), [tmp_path / "a.yaml"])


@given(
    st.sampled_from(TYPES).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.none() | VALUES[kind].filter(lambda v: v != "null")
        )
    )
)
def test_any_optional_value_survives_text_and_yaml(case):
    kind, value = case
    parameter = Parameter("x", kind, value, optional=True)
    assert resolve([parameter], assignments=[f"x={render(value)}"])["x"] == value
    read = yaml.safe_load(yaml.safe_dump({"x": value}))
    assert resolve([parameter], assignments=read)["x"] == value


def test_declared_values_are_those_of_the_parameters_cell_in_a_namespace():
    namespace = {}
    exec(EXAMPLE, namespace)
    namespace |= {"batch": 32, "other": 1}
    values = declared_values(namespace)
    assert values == resolve(parse(EXAMPLE), assignments={"batch": 32})
    assert list(values) == [p.name for p in parse(EXAMPLE)]
    with pytest.raises(ParameterError, match="no parameters yet"):
        declared_values({"batch": 32})
    later = {"__annotate__": lambda form: {"batch": int}, "batch": 32}  # as Python 3.14 has it
    assert declared_values(later) == {"batch": 32}


# ---- sources


def test_defaults_then_files_then_assignments(tmp_path):
    (tmp_path / "a.yaml").write_text("learning_rate: 1e-4\nbatch: 8\ndevice: cpu\n")
    (tmp_path / "b.yaml").write_text("batch: 32\nlead_times: [48]\n")
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    values = resolve(parse(EXAMPLE), files, ["device=cuda", "title=x=y"])
    assert values == {
        "learning_rate": 1e-4,
        "batch": 32,
        "device": "cuda",
        "lead_times": [48],
        "weights": [1.0, 0.5],
        "compile": False,
        "title": "x=y",
    }
    assert list(values) == [p.name for p in parse(EXAMPLE)]


def test_plain_date_in_a_file_stays_the_text_it_was(tmp_path):
    (tmp_path / "a.yaml").write_text("start: 2013-03-01\n")
    assert resolve([Parameter("start", "str", "")], [tmp_path / "a.yaml"])["start"] == "2013-03-01"


def test_changing_a_resolved_list_does_not_change_the_default():
    parameters = parse(EXAMPLE)
    resolve(parameters)["lead_times"].append(96)
    assert resolve(parameters)["lead_times"] == [12, 24]


def test_unknown_names_are_refused_with_the_nearest_one(tmp_path):
    (tmp_path / "a.yaml").write_text("lerning_rate: 1e-4\n")
    with pytest.raises(ParameterError) as caught:
        resolve(parse(EXAMPLE), [tmp_path / "a.yaml"], ["zzz=1", "batch=x"])
    message = str(caught.value)
    assert "unknown parameter lerning_rate" in message and "a.yaml" in message
    assert "did you mean learning_rate?" in message
    assert "unknown parameter zzz (-p)" in message and "lists them" in message
    assert "parameter batch (-p): a whole number needed" in message


def test_assignments_are_checked():
    assert parse_assignments(["a=1", "b=", "c==="]) == {"a": "1", "b": "", "c": "=="}
    for items, part in [
        (["a"], "given as name=value"),
        (["=1"], "given as name=value"),
        (["a=1", "a=2"], "a is given twice"),
    ]:
        with pytest.raises(ParameterError, match=part):
            parse_assignments(items)


def test_parameter_errors_end_with_code_2():
    assert ParameterError.exit_code == 2
