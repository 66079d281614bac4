"""Workers: results in order, one thread each, and nothing left when a block ends early."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aqnet.data.parallel import Workers
from aqnet.errors import AqnetError, DataError, ParameterError


def late_first(state, task):
    time.sleep(0.3 if task == 0 else 0.0)
    return state + task


def environment(_, name):
    return os.environ.get(name)


def process(*_):
    return os.getpid()


def bad(_, task):
    raise DataError(f"task {task}")


def die(*_):
    os._exit(9)


def wait(_, seconds):
    time.sleep(seconds)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_results_come_in_the_order_of_the_tasks(number):
    with Workers(number, 100) as pool:
        assert list(pool.map(late_first, range(5))) == [100, 101, 102, 103, 104]
        assert list(pool.map(late_first, [])) == []
        assert (next(pool.map(process, [0])) == os.getpid()) == (number == 0)
    assert not multiprocessing.active_children()


def test_processes_have_one_thread_and_this_one_what_it_had(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with Workers(1, None) as pool:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        assert list(pool.map(environment, names)) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("number", [0, 1])
def test_an_error_of_a_task_is_raised_here(number):
    with pytest.raises(DataError, match="task 3"), Workers(number, None) as pool:
        list(pool.map(bad, [3, 4]))
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_named():
    with pytest.raises(AqnetError, match=r"worker process died(.|\n)*memory"):  # noqa: SIM117
        with Workers(1, None) as pool:
            list(pool.map(die, [0]))


def test_an_interrupted_block_does_not_wait_for_its_tasks():
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(1, None) as pool:
        for done, _ in enumerate(pool.map(wait, [0, 60, 60])):
            if done == 0:
                raise KeyboardInterrupt
    assert time.monotonic() - start < 30
    assert not multiprocessing.active_children()


PARENT = """
import os, signal, sys
from test_parallel import process
from aqnet.data.parallel import Workers

if __name__ == "__main__":
    with Workers(2, None) as pool:
        print(*sorted(set(pool.map(process, range(8)))), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def ended(worker: int) -> bool:
    """Gone, or a zombie that nobody has collected yet."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(worker)], capture_output=True, text=True)
    return state.stdout.strip()[:1] in ("", "Z")


def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with (tmp_path / "pids").open("w") as pids:  # a pipe would be open until the workers end
        done = subprocess.run([sys.executable, tmp_path / "parent.py"], stdout=pids, timeout=60,
                              env=os.environ | {"PYTHONPATH": path})  # fmt: skip
    workers = [int(number) for number in (tmp_path / "pids").read_text().split()]
    assert done.returncode == -signal.SIGKILL and workers
    until = time.monotonic() + 20
    while not all(ended(worker) for worker in workers):
        assert time.monotonic() < until, "a worker goes on without its parent"
        time.sleep(0.1)


def test_a_negative_number_is_refused():
    with pytest.raises(ParameterError, match="number of processes"):
        Workers(-1, None)
