"""Batches from workers to the training process, in shared memory that is used again.

PyTorch sends each tensor of a worker in a new shared-memory file. Its pages are faulted in and
given back for every batch, and each file descriptor is handed over with a handshake: for hourly
fields that took a third of a worker's time. Here a worker fills a slot of memory that both
processes keep, and only says which; the slot is free again when the last tensor of the batch is
gone in the training process.
"""

from __future__ import annotations

import itertools
import math
import os
import weakref

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

__all__ = ["PooledSamples", "SlotPool"]

FREE, SENT, IN_USE = 0, 1, 2

_pools: weakref.WeakValueDictionary[int, SlotPool] = weakref.WeakValueDictionary()
_keys = itertools.count()


class SlotPool:
    """Slots of float32 in shared memory, some for each worker.

    Parameters
    ----------
    workers : int
    slots : int
        For each worker.
    numbers : int
        float32 numbers in a slot.
    """

    def __init__(self, workers: int, slots: int, numbers: int) -> None:
        self.slots, self.key = slots, next(_keys)
        self.memory = torch.empty((workers * slots, numbers)).share_memory_()
        self.state = torch.full((workers * slots,), FREE, dtype=torch.uint8).share_memory_()
        _pools[self.key] = self  # in the process that will receive

    def _own(self, worker: int) -> range:
        return range(worker * self.slots, (worker + 1) * self.slots)

    def reclaim(self, worker: int) -> None:
        """Free what an earlier worker of that number sent to a loader that is no more."""
        for slot in self._own(worker):
            if self.state[slot] == SENT:
                self.state[slot] = FREE

    def claim(self, worker: int) -> int | None:
        """A free slot of a worker, for it to fill and send; None if all are in use."""
        for slot in self._own(worker):
            if self.state[slot] == FREE:
                self.state[slot] = SENT
                return slot
        return None

    def received(self, slot: int) -> torch.Tensor:
        """The numbers of a slot; when no tensor uses them any more the slot is free again."""
        self.state[slot] = IN_USE
        # torch keeps this array as long as the storage lives, whatever views are made of it
        values = self.memory[slot].numpy()
        weakref.finalize(values, _release, self.state, slot).atexit = False
        return torch.from_numpy(values)


def _release(state: torch.Tensor, slot: int) -> None:
    state[slot] = FREE


class _Shipment(dict):
    """A batch in a slot: pickled as the number of the slot, unpickled as a plain dict."""

    def __init__(self, batch: dict, key: int, slot: int, shapes: dict) -> None:
        super().__init__(batch)
        self._place = key, slot, shapes

    def __reduce__(self) -> tuple:
        _, _, shapes = self._place
        rest = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value
            for name, value in self.items()
            if name not in shapes
        }
        return _arrived, (*self._place, rest, list(self))


def _arrived(key: int, slot: int, shapes: dict, rest: dict, names: list[str]) -> dict:
    numbers, start, fields = _pools[key].received(slot), 0, {}
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        fields[name] = numbers[start:stop].view(shape)
        start = stop
    rest = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in rest.items()}
    return {name: fields[name] if name in fields else rest[name] for name in names}


class PooledSamples(Dataset):
    """A data set whose batches come through a pool; in the process itself, as they are.

    Parameters
    ----------
    samples : Dataset
        With ``batch(numbers, new)``, which makes a dict; ``new(name, *shape)`` gives the float32
        tensors to fill, all others are small.
    workers : int
    slots : int
        Batches of one worker under way or in use at the same time; further ones are sent in the
        way of PyTorch.
    numbers : int
        float32 numbers of the largest batch.
    """

    def __init__(self, samples: Dataset, workers: int, slots: int, numbers: int) -> None:
        self.samples, self.pool = samples, SlotPool(workers, slots, numbers)
        self._process: int | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, numbers: list[int]) -> dict:
        """A batch, in a worker in a slot."""
        worker = get_worker_info()
        slot = None if worker is None else self._claim(worker.id)
        if slot is None:
            return self.samples.__getitems__(numbers)
        memory, shapes, used = self.pool.memory[slot], {}, 0

        def new(name: str, *shape: int) -> torch.Tensor:
            nonlocal used
            shapes[name], start, used = shape, used, used + math.prod(shape)
            return memory[start:used].view(shape)

        try:
            batch = self.samples.batch(numbers, new)
        except BaseException:
            self.pool.state[slot] = FREE  # nobody will receive it
            raise
        return _Shipment(batch, self.pool.key, slot, shapes)

    def _claim(self, worker: int) -> int | None:
        if self._process != os.getpid():  # the first batch of this worker
            self._process = os.getpid()
            self.pool.reclaim(worker)
        return self.pool.claim(worker)
