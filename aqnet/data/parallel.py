"""Tasks in spawned processes, results in the order of the tasks: the same bits for any number."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager

from aqnet.errors import AqnetError, ParameterError, explain

__all__ = ["Workers", "death_explained", "start_worker"]

# A sum over threads has other last bits than a sum in one thread, so each process has one.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_state: object = None


def start_worker(state: object) -> None:
    """Initializer of a pool: a process that keeps `state` and ends with the one that started it."""
    global _state
    _state = state
    # Ctrl-C reaches all processes of a terminal; the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent (kill -9, out of memory) ends nobody: its tasks would go on, then wait."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(function: Callable, task: object) -> object:
    return function(_state, task)


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Variables of processes that start in the block; libraries read them when imported."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def death_explained(number: int) -> Iterator[None]:
    """AqnetError with a remedy where one of `number` processes of a pool dies in the block."""
    try:
        yield
    except BrokenProcessPool as error:
        way = "take fewer workers" if number > 1 else "free some"
        message = explain(
            "a worker process died",
            expected=f"{number} processes that work to the end",
            found=str(error),
            remedy=f"usually lack of memory: {way}, then run again",
        )
        raise AqnetError(message) from error


class Workers:
    """Processes that share a state, for the length of a `with` block.

    They are spawned, so a script must do its work below ``if __name__ == "__main__":``.

    Parameters
    ----------
    number : int
        Processes; 0 calls the functions in this process (last bits may then depend on the
        number of threads of its linear algebra).
    state : object
        Handed to every call; sent to each process once (must be picklable, e.g. a `YearSet`).
    """

    def __init__(self, number: int, state: object) -> None:
        if number < 0:
            message = explain("no number of processes", expected="0 (this process), 1, 2, ...",
                              found=number, remedy="correct `workers`")  # fmt: skip
            raise ParameterError(message)
        self.number, self.state, self._pool = number, state, None

    def __enter__(self) -> Workers:
        if self.number:
            self._others = set(multiprocessing.active_children())
            self._stack = ExitStack()
            self._stack.enter_context(environment(dict.fromkeys(_THREADS, "1")))
            self._pool = ProcessPoolExecutor(
                self.number, multiprocessing.get_context("spawn"), start_worker, (self.state,)
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._pool:
            return
        if kind is not None:  # do not wait for results that nobody wants any more
            for child in set(multiprocessing.active_children()) - self._others:
                child.terminate()
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def map(self, function: Callable, tasks: Iterable) -> Iterator:
        """Yield `function(state, task)` of each task, in their order, as they become ready.

        `function` is one of a module. At most one task more than there are processes waits, so
        that results do not pile up in memory.

        Raises
        ------
        AqnetError
            A process died (usually: killed for lack of memory).
        """
        if not self._pool:
            yield from (function(self.state, task) for task in tasks)
            return
        waiting: deque = deque()
        with death_explained(self.number):
            for task in tasks:
                waiting.append(self._pool.submit(_call, function, task))
                if len(waiting) > self.number:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
