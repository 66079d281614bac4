"""metrics.csv of a resumed training: rows up to its step, whatever happens while it begins."""

from __future__ import annotations

import csv

import pytest

from aqnet.training import logs
from aqnet.training.logs import METRICS, RunLog


def begin(folder, step):
    return RunLog(folder, step, lambda line: None, active=True)


def losses(folder):
    with (folder / METRICS).open(newline="") as file:
        return {int(row["step"]): row["loss"] for row in csv.DictReader(file)}


@pytest.fixture
def folder(tmp_path):
    """Of a training with the metrics of four steps."""
    log = begin(tmp_path / "run", 0)
    for step in (1, 2, 3, 4):
        log.record(step, {"loss": step / 2}, {"extra": 1.0} if step % 2 else {})
    log.close()
    return tmp_path / "run"


def test_rows_up_to_the_step_stay(folder):
    begin(folder, 3).close()
    assert losses(folder) == {1: "0.5", 2: "1.0", 3: "1.5"}
    assert not list(folder.glob("*.kept"))


def test_a_start_that_dies_while_it_writes_them_loses_no_row(folder, monkeypatch):
    """Lightning's logger removes metrics.csv before the rows are written back."""

    def killed(*arguments):
        assert not (folder / METRICS).exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        writer = property(lambda self: _Removing(folder, killed))
        patch.setattr(logs.CSVLogger, "experiment", writer)
        with pytest.raises(KeyboardInterrupt):
            begin(folder, 3)
    begin(folder, 3).close()
    assert losses(folder) == {1: "0.5", 2: "1.0", 3: "1.5"}
    assert not list(folder.glob("*.kept"))
    (folder / METRICS).rename(folder / "metrics.kept")
    begin(folder, 2).close()  # from an earlier checkpoint than the start that died
    assert losses(folder) == {1: "0.5", 2: "1.0"}


class _Removing:
    """Lightning's writer, of a process that is killed at its first row."""

    def __init__(self, folder, killed):
        (folder / METRICS).unlink()
        self.log_metrics = killed
