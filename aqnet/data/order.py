"""The order of samples: a pure function of seed and epoch, whatever the number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from aqnet.errors import SampleError, explain

__all__ = ["EvaluationSampler", "GlobalOrderSampler", "rounded_batches", "seeded_order"]


def seeded_order(indices: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Order of an epoch: a pure function of seed and epoch, the same on every machine."""
    return np.random.default_rng([seed, epoch]).permutation(indices)


def rounded_batches(n: int, batch_size: int) -> int:
    """Batches of an epoch that is rounded to full ones, halves up."""
    return (2 * n + batch_size) // (2 * batch_size)


def _check_rank(rank: int, world: int) -> None:
    if world < 1 or not 0 <= rank < world:
        raise SampleError(
            explain(
                "a rank outside its world",
                expected="0 <= rank < world",
                found=f"rank {rank} of world {world}",
                remedy="pass the rank and the number of all training processes",
            )
        )


class GlobalOrderSampler(Sampler[int]):
    """This rank's slices of the global batches of an epoch.

    The order of all n samples comes from (seed, epoch) alone. It is cut into global batches, and
    rank r of a world of R takes the r-th of R equal, contiguous slices of each. So global batch k
    is the same set of samples for every world size, and gradients averaged over equal slices are
    those of one process.

    Give it to a DataLoader as `sampler` with `batch_size = sampler.slice_size`, or a divisor of
    it for gradient accumulation.

    With Lightning, pass `use_distributed_sampler=False` to the Trainer: it would cut the slices
    again.

    Workers fetch ahead of training, so iterating does not move the cursor: the training loop calls
    `advance` after each optimiser step. The next iteration starts at the cursor.

    Parameters
    ----------
    n : int
        Samples of the data set.
    seed : int
    rank, world : int
        This process, and the number of processes; `world` divides `batch_size`.
    batch_size : int
        Samples of a GLOBAL batch, over all ranks and accumulation steps.
    drop_last : bool
        True: the n % batch_size samples that do not fill a batch are left out of this epoch
        (another epoch has another order), so every step weighs its samples alike and all ranks
        take equally many. False: they are a last, smaller batch, whose slices differ by at most
        one sample and may be empty; ranks that meet in collective operations cannot use it.
    fill : bool
        True: an epoch has round(n / batch_size) batches, all full, whatever `drop_last` says. What
        the last one lacks it takes from the beginning of the epoch's own order.

    Raises
    ------
    SampleError
        Sizes that do not fit each other; no full batch.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 1,
        drop_last: bool = True,
        fill: bool = False,
    ) -> None:
        _check_rank(rank, world)
        least = -(-batch_size // 2) if fill else batch_size if drop_last else 1
        _check_batches(n, world, batch_size, least)
        self.n, self.seed, self.rank, self.world = n, seed, rank, world
        self.batch_size, self.drop_last, self.fill = batch_size, drop_last, fill
        self.length = rounded_batches(n, batch_size) * batch_size if fill else n  # of an epoch
        self.epoch, self.consumed = 0, 0

    # ---- the epoch

    def order(self) -> np.ndarray:
        """Samples in the order of the epoch, (length,) int64."""
        return np.resize(seeded_order(np.arange(self.n), self.seed, self.epoch), self.length)

    def global_batches(self) -> Iterator[np.ndarray]:
        """Samples of each global batch from the cursor on, the same on every rank."""
        order = self.order()[self.consumed :]
        end = self.batch_size * self.batches_left
        for start in range(0, end, self.batch_size):
            yield order[start : start + self.batch_size]

    @property
    def slice_size(self) -> int:
        """Samples of a full global batch that fall to one rank."""
        return self.batch_size // self.world

    @property
    def batches_left(self) -> int:
        """Global batches from the cursor to the end of the epoch."""
        left = self.length - self.consumed
        return left // self.batch_size if self.drop_last else -(-left // self.batch_size)

    def __iter__(self) -> Iterator[int]:
        for batch in self.global_batches():
            yield from batch[_slice(len(batch), self.rank, self.world)].tolist()

    def __len__(self) -> int:
        """Samples that the next iteration yields on this rank."""
        full, rest = divmod(self.length - self.consumed, self.batch_size)
        last = _slice(0 if self.drop_last else rest, self.rank, self.world)
        return full * self.slice_size + last.stop - last.start

    # ---- the cursor

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; another one than the present starts at its beginning."""
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0

    def advance(self, batches: int = 1) -> None:
        """Move the cursor past global batches that training has finished.

        Raises
        ------
        SampleError
            The epoch has fewer left.
        """
        if not 0 <= batches <= self.batches_left:
            raise SampleError(
                explain(
                    f"cannot advance by {batches} batches",
                    expected=f"0 to {self.batches_left}, what is left of epoch {self.epoch}",
                    found=batches,
                    remedy="call set_epoch for the next epoch; advance once an optimiser step",
                )
            )
        self.consumed = min(self.consumed + batches * self.batch_size, self.length)

    def state_dict(self) -> dict:
        """Plain values; the same on every rank after the same step."""
        return {
            "n": self.n,
            "seed": self.seed,
            "epoch": self.epoch,
            "batch_size": self.batch_size,
            "consumed": self.consumed,
            "order_sha256": self._order_digest(self.epoch),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where a state was taken, also with another world.

        The cursor counts samples over all ranks. With the same global batch the batches that
        follow are those of the uninterrupted epoch. With another one, which `fill` refuses (its
        epochs differ in length), they are cut anew from the cursor on: no sample comes twice and
        none is skipped, but for those that `drop_last` leaves out.

        Raises
        ------
        SampleError
            The state belongs to another number of samples or seed, with `fill` to another batch
            size, or this version of numpy draws another order from the same seed; names what
            differs.
        """
        # States of before do not name their batch; training compares that of its checkpoints.
        same = ("n", "seed", *(["batch_size"] if self.fill and "batch_size" in state else []))
        for key in same:
            if state[key] != getattr(self, key):
                raise _other_state(key, state[key], getattr(self, key))
        if not 0 <= state["consumed"] <= self.length:
            raise _other_state("consumed", state["consumed"], f"0 to {self.length}")
        found = self._order_digest(state["epoch"])
        if state["order_sha256"] != found:
            raise _other_state("order_sha256", state["order_sha256"], found)
        self.epoch, self.consumed = state["epoch"], state["consumed"]

    def _order_digest(self, epoch: int) -> str:
        order = seeded_order(np.arange(self.n), self.seed, epoch)
        return hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()


def _check_batches(n: int, world: int, batch_size: int, least: int) -> None:
    if batch_size < 1 or batch_size % world:
        raise SampleError(
            explain(
                "the global batch cannot be divided evenly among the ranks",
                expected=f"a positive multiple of the {world} ranks",
                found=f"batch_size {batch_size}",
                remedy="choose another global batch or another number of ranks",
            )
        )
    if n < least:
        raise SampleError(
            explain(
                "there are fewer samples than one global batch",
                expected=f"at least {least} samples",
                found=n,
                remedy="choose a smaller global batch or a longer period",
            )
        )


def _slice(size: int, rank: int, world: int) -> slice:
    """The rank's contiguous part of `size` things; parts differ by at most one."""
    return slice(rank * size // world, (rank + 1) * size // world)


def _other_state(key: str, expected: object, found: object) -> SampleError:
    return SampleError(
        explain(
            f"this sampler cannot continue from that state: {key} differs",
            expected=f"{expected}, as in the state",
            found=found,
            remedy="continue with data, seed, batch and numpy of the first run, or begin anew",
        )
    )


class EvaluationSampler(Sampler[int]):
    """This rank's contiguous part of n samples: each sample exactly once over all ranks.

    Nothing is padded or repeated, so the parts differ by up to one sample: reduce sums and counts
    over ranks, not means, and do not synchronise ranks batch by batch.

    Parameters
    ----------
    n : int
    rank, world : int

    Raises
    ------
    SampleError
        The rank is not one of the world's.
    """

    def __init__(self, n: int, rank: int = 0, world: int = 1) -> None:
        _check_rank(rank, world)
        part = _slice(n, rank, world)
        self._indices = range(part.start, part.stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)
