"""How the run of a notebook ends when a stop signal comes."""

from __future__ import annotations

import signal

import pytest

from aqnet.jobs.notebook_end import close_run
from aqnet.jobs.runs import RunFolder


@pytest.mark.parametrize(
    ("error", "status"), [(None, "complete"), (RuntimeError("stopped"), "interrupted")]
)
def test_a_signal_after_the_last_cell_interrupts_nothing(tmp_path, error, status):
    run = RunFolder.create("train/forecast", {}, path=tmp_path / "run")
    run.set_status("running")
    raised = close_run(run, "forecast", {"cells": []}, error, [signal.SIGTERM])
    assert run.record.status == status and (raised is None) == (error is None)
