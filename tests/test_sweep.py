"""The file of a sweep: all points are checked first, and its name stands for one definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notebook_tools import aqnet, make_notebook
from sweep_case import BODY, TOY, begin, here, starts, write

from aqnet.errors import ParameterError
from aqnet.jobs.sweeps.definition import SweepDefinition, load_definition
from aqnet.jobs.sweeps.folder import Sweep
from aqnet.jobs.sweeps.points import combinations, plan_sweep


def test_points_are_the_product_in_a_stable_order(toy):
    plan = plan_sweep(load_definition(write(
        toy, grid={"width": [2, 4]}, zip={"seconds": [0.0, 0.5]}, seeds=[3, 1],
        list=[{"label": "plain", "parameters": {}}, {"parameters": {"mode": "b"}}],
    )))  # fmt: skip
    titles = [point.title for point in plan.points]
    assert len(titles) == 2 * 2 * 2 * 2
    assert titles[:3] == ["plain, seconds=0.0, width=2, seed=3",
                          "plain, seconds=0.0, width=2, seed=1",
                          "plain, seconds=0.0, width=4, seed=3"]  # fmt: skip
    assert titles[-1] == "mode=b, seconds=0.5, width=4, seed=1"
    last = plan.points[-1]
    assert (last.arm, last.setting, last.seed) == ("mode=b", "seconds=0.5, width=4", 1)
    assert last.values | {"folder": ""} == {
        "seed": 1, "width": 4, "mode": "b", "folder": "", "seconds": 0.5
    }  # fmt: skip
    assert len({point.run for point in plan.points}) == 16


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"sedds": 3}, "sedds: no such key"),
        ({"grid": {"width": []}}, "at least 1 item"),
        ({"list": []}, "at least 1 item"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": True}, "seeds"),
        ({"name": "../x"}, "name"),
        ({"zip": {"mode": ["a", "b"], "seed": [1]}}, "mode=2, seed=1"),
        ({"zip": {"width": [1, 2]}}, "one section only, not width"),
        ({"parameters": {"seed": 1}, "seeds": 2}, "one section only, not seed"),
        ({"list": [{"label": "x", "parameters": {}}] * 2}, "given twice: x"),
        ({"metrics": {"loss": "mean curve"}}, "not a metric: mean curve"),
        ({"evaluate": {"notebook": "a", "parameters": {"train_run": "x"}}}, "set by the sweep"),
        ({"summary": {"notebook": "a", "parameters": {"sweep": "x"}}}, "sweep is set by the sweep"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(toy, fields, part):
    with pytest.raises(ParameterError, match=part):
        load_definition(write(toy, **fields))


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"grid": {"width": [2, 99, "x"]}}, ["2 of 3 points are wrong", "points 1", "points 2"]),
        ({"grid": {"depth": [1]}}, ["unknown parameter depth"]),
        ({"grid": {"width": [4, "4"]}}, [r"\(width=4\) and \(width=4\)"]),
        ({"parameters": {"run_dir": "x"}}, ["run_dir is set by the sweep"]),
        ({"notebook": "nowhere.ipynb"}, ["cannot read the notebook"]),
    ],
)
def test_nothing_starts_if_one_point_is_wrong(toy, fields, parts):
    with pytest.raises(ParameterError) as error:
        begin(toy, **fields)
    assert all(error.match(part) for part in parts) and not (toy / "runs").exists()


def test_the_command_ends_with_code_2_if_a_point_is_wrong(toy):
    done = aqnet("sweep", "run", write(toy, grid={"width": [2, 99]}), cwd=toy)
    assert done.returncode == 2 and "1 of 2 points" in done.stderr
    assert not (toy / "runs").exists()


def test_seeds_need_a_parameter_and_an_evaluation_the_run(toy):
    make_notebook(toy / "plain.ipynb", "width: int = 1\n", "pass")
    with pytest.raises(ParameterError, match="no seed"):
        plan_sweep(load_definition(write(toy, notebook=str(toy / "plain.ipynb"), seeds=2,
                                         parameters={})))  # fmt: skip
    with pytest.raises(ParameterError, match="no train_run"):
        plan_sweep(load_definition(write(toy, evaluate={"notebook": str(toy / "plain.ipynb")})))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 4), st.integers(1, 3))
def test_the_number_of_points_is_the_product(sizes, rows, seeds):
    made = SweepDefinition(
        name="x", notebook="x.ipynb", grid={f"g{i}": tuple(range(n)) for i, n in enumerate(sizes)},
        zip={"a": tuple(range(rows)), "b": tuple(range(rows))}, seeds=seeds,
    )  # fmt: skip
    found = [repr(point) for point in combinations(made)]
    assert len(found) == len(set(found)) == math.prod(sizes) * rows * seeds


def test_a_dry_run_writes_nothing(toy):
    done = aqnet("sweep", "run", write(toy, seeds=2), "--dry-run", cwd=toy)
    assert done.returncode == 0 and not (toy / "runs").exists()
    assert "6 points" in done.stdout and "3 settings x 2 seeds" in done.stdout


# ---- the stored sweep


def test_a_name_stands_for_one_definition(toy):
    first = begin(toy)
    before = (first.path / "points.json").read_bytes()
    assert begin(toy).points == first.points
    with pytest.raises(ParameterError) as error:
        begin(toy, grid={"width": [2, 4, 16]}, seeds=2)
    assert error.match(r"grid\.width\.2 = 8") and error.match(r"grid\.width\.2 = 16")
    assert error.match("seeds = 2") and "notebook" not in str(error.value)
    make_notebook(toy / "toy.ipynb", TOY, BODY + "print(1)\n")
    with pytest.raises(ParameterError, match="notebook_sha256"):
        begin(toy)
    with pytest.raises(ParameterError, match="begun with another definition"):
        here(first)
    assert (first.path / "points.json").read_bytes() == before and starts(toy) == []


def test_an_unknown_sweep_names_the_known(toy):
    begin(toy)
    with pytest.raises(ParameterError, match="expected: widths"):
        Sweep.open("width")
