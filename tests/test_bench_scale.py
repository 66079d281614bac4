"""Measured groups of processes, their record, and the machine that one process tells of."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from aqnet.cli.bench_scale import scale
from aqnet.errors import AqnetError
from aqnet.io import repository_root
from aqnet.jobs import bench_scale
from aqnet.jobs.bench_scale import machine_here, measure, predictions
from aqnet.jobs.bench_scale_record import Measured, Record, read_record

RECORDED = repository_root() / "nbs/50_plan_for_scale.json"


def group(ranks: int, step: float, start: float) -> Measured:
    steps = (step, 1.02 * step, 1.04 * step)
    return Measured(ranks, 100.0, start, 0.1, 2 * step, start + 1, steps, 4000, 150, 0.05, 1e-4)


@pytest.fixture
def record() -> Record:
    groups = (group(1, 0.2, 5.0), group(2, 0.22, 5.5), group(4, 0.5, 10.0))
    return Record("a machine", 2, "2020-01-01T00:00:00+00:00", groups)


def test_a_record_is_read_as_it_was_written(record, tmp_path):
    record.write(tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record


def test_one_process_is_predicted_as_measured_and_others_from_it(record):
    found = predictions(record)
    assert found[1].step_s == pytest.approx(0.2)
    assert found[1].first_update_s == pytest.approx(5 + 0.1 + 0.4)
    # two have a core each; four share two
    assert found[2].parts["compute"] == pytest.approx(0.2)
    assert found[4].parts["compute"] == pytest.approx(0.4)
    assert found[4].start_parts["imports"] == pytest.approx(10)


def test_what_is_compared_is_not_used(record):
    changed = [g if g.ranks == 1 else group(g.ranks, 9.0, 99.0) for g in record.groups]
    other = Record(record.machine, record.cores, record.measured_at, tuple(changed))
    assert machine_here(other) == machine_here(record)
    assert predictions(other) == predictions(record)


def test_the_command_prints_both_and_writes_a_record(record, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_scale, "measure", lambda: record)
    out = tmp_path / "found.json"
    done = CliRunner().invoke(scale, ["--record", str(out)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "2 cores" in lines[0] and len([x for x in lines if x[8:9] in "124"]) == 3
    assert read_record(out) == record


def test_the_record_of_the_notebook_is_whole():
    found = read_record(RECORDED)
    assert [g.ranks for g in found.groups] == [1, 2, 4]
    assert set(predictions(found)) == {1, 2, 4}


def test_a_process_that_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(bench_scale, "_START", "raise SystemExit('broken')")
    with pytest.raises(AqnetError, match="broken"):
        measure((1,), rounds=1)


@pytest.mark.slow
def test_two_processes_train():
    (found,) = measure((2,), rounds=1).groups
    assert found.ranks == 2 and len(found.steps_s) == bench_scale.STEPS
    assert 0 < found.step_s < found.first_update_s
    assert found.import_s + found.group_s < found.first_update_s
    assert 100 < found.own_files < 300 < found.files
