"""Ends of a training that were not planned: signals, and ranks that fail.

A signal only sets a flag. All ranks learn of it in the collective operation that ends each step,
and leave there together, with a checkpoint: a handler that saves or talks to other ranks would meet
them in the middle of something else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import ClassVar, NoReturn

from aqnet.errors import AqnetError, InterruptedRunError, RunError

__all__ = [
    "STOP_SIGNALS",
    "StopRequest",
    "children_shielded",
    "end_when_terminated",
    "ignore_stop_signals",
    "together",
]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_IMPATIENT_S = 2.0  # launchers pass a Ctrl-C on, which then comes twice at once
_POLL_S = 1.0
_PATIENCE_S = 5.0  # a peer's connection may break before its traceback is in the file
_GRACE_S = 3.0  # for the first rank to note the failure: a launcher ends all when one has left


def _graver(one: str | None, other: str | None) -> str | None:
    """SIGTERM before SIGUSR1 before SIGINT: what is cancelled does not go on by itself."""
    names = [name for name in (one, other) if name is not None]
    return max(names, key=lambda name: signal.Signals[name].value, default=None)


class StopRequest:
    """Notes a stop signal while the `with` block runs; the handlers before it come back after.

    One within another knows what the outer has noted: a script listens from its start to its end,
    a training only while it runs. A second SIGTERM or SIGUSR1 changes nothing, for schedulers send
    several; a second Ctrl-C, a while after the first, raises KeyboardInterrupt.
    """

    _innermost: ClassVar[StopRequest | None] = None

    def __init__(self) -> None:
        self.signal: str | None = None
        self._interrupted = float("inf")  # when the first Ctrl-C came
        self._outer: StopRequest | None = None
        self._before: dict[signal.Signals, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and now - self._interrupted > _IMPATIENT_S:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            self._interrupted = min(self._interrupted, now)
        self.signal = _graver(self.signal, signal.Signals(number).name)

    def __enter__(self) -> StopRequest:
        # Python allows handlers in the main thread alone; elsewhere its owner decides.
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in STOP_SIGNALS}
            self._outer, StopRequest._innermost = StopRequest._innermost, self
            if self._outer is not None:
                self.signal = _graver(self.signal, self._outer.signal)
                self._interrupted = min(self._interrupted, self._outer._interrupted)
        return self

    def __exit__(self, *error: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        if self._before:
            StopRequest._innermost = self._outer
        if self._outer is not None:
            self._outer.signal = _graver(self._outer.signal, self.signal)
            self._outer._interrupted = min(self._interrupted, self._outer._interrupted)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise InterruptedRunError(f"stopped by {signal.Signals(number).name}")


def end_when_terminated() -> None:
    """SIGTERM raises InterruptedRunError: for what has no checkpoint to go on from.

    A warning that time is nearly up is passed over: it may still be enough.
    """
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@contextmanager
def children_shielded() -> Iterator[None]:
    """Processes that are started in the block never receive a stop signal.

    Schedulers and terminals signal a whole group: workers of a DataLoader would die of it, and so
    would the server that forks them, which brings them down. A mask is inherited, a handler is not.
    What arrives meanwhile waits for the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stop_signals(worker: int = 0) -> None:
    """For workers of a DataLoader that a server forks which was started before."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def _say(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text if text.endswith("\n") else text + "\n")
    sys.stderr.flush()


def _leave(rank: int, code: int) -> None:
    # An ordinary exit would wait for collective operations that the other ranks never join.
    sys.stdout.flush()
    if rank:
        time.sleep(_GRACE_S)
    os._exit(code)


def _uncaught(error: BaseException) -> None:
    """What happens to an error that nobody catches: it is printed, a script notes it."""
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except Exception:  # the folder of the run may be what fails; the process ends all the same
        traceback.print_exc()
    sys.stderr.flush()


def _is_lost_peer(error: BaseException) -> bool:
    """Whether a collective operation failed: an error of torch that passed its distributed code."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, RuntimeError) and any("distributed" in f.filename for f in frames)


def _is_there(failure: Path) -> bool:
    try:
        return failure.exists()
    except OSError:  # of a file system that is ill for a moment; there is another look
        return False


def _await_reason(failure: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _is_there(failure) and time.monotonic() < deadline:
        time.sleep(0.1)


def _report(rank: int, failure: Path, error: BaseException) -> None:
    """Traceback of the rank that failed first; from the others, that they follow it."""
    if _is_lost_peer(error):
        _await_reason(failure)
    if _is_there(failure):
        _uncaught(_follows(rank, failure))
        return
    _say(f"rank {rank} failed:")
    _uncaught(error)
    # two may fail at once; and a full disk may be why this one does
    with suppress(OSError), failure.open("x") as file:
        file.write(f"rank {rank} failed:\n" + "".join(traceback.format_exception(error)))


def _follows(rank: int, failure: Path) -> RunError:
    return RunError(f"rank {rank} stops, because another rank failed: see {failure}")


def _watch(rank: int, failure: Path, done: threading.Event, end: threading.Lock) -> None:
    while not done.wait(_POLL_S):
        if _is_there(failure):
            end.acquire()
            _uncaught(_follows(rank, failure))
            _leave(rank, 1)


@contextmanager
def together(rank: int, processes: int, failure: Path) -> Iterator[None]:
    """Bring all ranks down when one fails, the reason first.

    The failing rank prints its traceback, writes it to the file `failure`, and exits. The others,
    which may be waiting for it in a collective operation, look for that file from a thread of their
    own. With one process errors are raised as usual, and so is the agreed stop.

    Parameters
    ----------
    rank, processes : int
    failure : path
        On a file system that all ranks see, and that no earlier start has used: one that is gone
        may still be seen from another node.
    """
    if processes == 1:
        yield
        return
    done = threading.Event()
    end = threading.Lock()  # taken once, by the thread that ends this process
    threading.Thread(target=_watch, args=(rank, failure, done, end), daemon=True).start()
    try:
        yield
    except InterruptedRunError:
        raise
    except BaseException as error:  # SystemExit too: the other ranks wait for this one
        end.acquire()
        _report(rank, failure, error)
        _leave(rank, error.exit_code if isinstance(error, AqnetError) else 1)
    finally:
        done.set()
