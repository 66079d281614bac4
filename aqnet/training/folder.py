"""The checkpoint files of a training: at every moment, one to resume from is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from aqnet.errors import RunError, explain
from aqnet.io import atomic_file
from aqnet.model.attention import ModelError
from aqnet.training.checkpoint import Checkpoint, read_checkpoint

__all__ = ["AUTO", "BEST", "LAST", "PREVIOUS", "CheckpointFolder", "read_last", "to_resume"]

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "last-previous.ckpt"
AUTO = "auto"  # resume from what the folder holds
_KEPT = "best-val_loss_*.ckpt"


# ---- to resume from


def _with_training_state(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path, training=True)
    if checkpoint.training is None:
        raise RunError(
            explain(f"{path} cannot be resumed", expected="a training state", found="none",
                    remedy=f"give {LAST}; others are for forecasts and for new trainings")
        )  # fmt: skip
    return checkpoint


def read_last(path: Path) -> Checkpoint:
    """A checkpoint to resume from.

    Raises
    ------
    ModelError
        It cannot be read.
    RunError
        It cannot be read, and the one before it is there; or it has no training state.
    """
    try:
        return _with_training_state(path)
    except ModelError as damage:
        before = path.with_name(PREVIOUS)
        if path.name != LAST or not before.exists():
            raise
        raise RunError(
            explain(f"{path} cannot be resumed", expected="a whole checkpoint",
                    found=str(damage).splitlines()[0],
                    remedy=f"resume from {before}, the one before it, as resume={AUTO} does")
        ) from damage  # fmt: skip


def to_resume(folder: Path, resume: Path | str | None) -> tuple[Checkpoint, Path, str] | None:
    """The checkpoint that a training in this folder goes on from, its path and a note.

    Parameters
    ----------
    folder : path
    resume : path, "auto" or None
        "auto": the folder's last.ckpt or, if it is gone or cannot be read, the one before it; the
        note says why.

    Returns
    -------
    checkpoint, path, note
        None if there is nothing to go on from.

    Raises
    ------
    ModelError
        It cannot be read; for "auto", none of those that are there.
    RunError
        As `read_last`.
    """
    if resume is None:
        return None
    if resume != AUTO:
        return read_last(Path(resume)), Path(resume), ""
    damage = None
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            checkpoint = _with_training_state(path)
        except ModelError as error:
            damage = damage or error
            continue
        if path.name == LAST:
            return checkpoint, path, ""
        return checkpoint, path, f"{LAST} is not used: {damage or 'it is gone'}"
    if damage is not None:
        raise damage
    return None


# ---- to write


def _lost(path: Path) -> RunError:
    return RunError(
        explain(f"{path} is gone, one of the best checkpoints of the run to resume",
                expected="the best checkpoints beside the last", found="no such file",
                remedy="bring it back; or begin a new run from a checkpoint that is left")
    )  # fmt: skip


class CheckpointFolder:
    """The best checkpoints, a link to the best of them, the last, and the one before it.

    `best.ckpt` is a link until the end of the training. Whoever changes it then (`set_share`)
    makes it a file of its own: the others stay as they were judged.

    Nothing that `last.ckpt` or `last-previous.ckpt` needs is removed or replaced before a newer
    `last.ckpt` is complete: a process may be killed, and a disk be full, at any time.

    Parameters
    ----------
    folder : path
    keep : int
        Best ones to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._whole = False  # last.ckpt, for this process has read or written it
        self._named: set[str] = set()  # best checkpoints that last.ckpt names

    def begin(self, best: list[tuple[float, str]], source: Path | None) -> None:
        """Make sure that the folder is free; or go on from the checkpoint `source`.

        That of another folder: its best checkpoints are brought here.

        Raises
        ------
        RunError
            Another training is here, or one of the best checkpoints is gone.
        """
        here = source is not None and source.parent.resolve() == self.folder.resolve()
        if not here:
            self._require_unused()
        self._whole = here and source.name == LAST
        self._named = {name for _, name in best}
        for _, name in best:
            if not (self.folder / name).exists():
                if here or not source.with_name(name).exists():
                    raise _lost(source.with_name(name))
                _copy(source.with_name(name), self.folder / name)
        if best:
            self._alias(best[0][1], BEST)

    def _require_unused(self) -> None:
        # one that was killed before its first last.ckpt has judged step 0 at most: nothing is lost
        best = sorted(path.name for path in self.folder.glob(_KEPT)) or [BEST]
        names = [LAST, PREVIOUS, *(n for n in best if not n.endswith("-step_0.ckpt"))]
        found = [name for name in names if (self.folder / name).exists()]
        if found:
            raise RunError(
                explain(f"{self.folder} holds a training already", expected="a folder without one",
                        found=found[0], remedy=f"go on with it (resume={AUTO}), or choose another "
                        "folder")
            )  # fmt: skip

    def add_best(
        self, best: list[tuple[float, str]], loss: float, epoch: int, step: int,
        write: Callable[[Path], None],
    ) -> list[tuple[float, str]]:  # fmt: skip
        """Write a checkpoint if it is among the best; the new list, best first.

        Older ones go when `last.ckpt` no longer names them. Doing it again changes nothing.
        """
        name = f"best-val_loss_{loss:.4f}-epoch_{epoch:02d}-step_{step}.ckpt"
        others = [each for each in best if each[1] != name]
        ranked = sorted([*others, (loss, name)], key=lambda each: each[0])  # stable: first wins
        kept = ranked[: self.keep]
        if (loss, name) in kept:
            write(self.folder / name)
            self._alias(kept[0][1], BEST)
        return kept

    def save_last(self, best: list[tuple[float, str]], write: Callable[[Path], None]) -> None:
        """Write `last.ckpt`, whose state names these best ones; the one before it stays."""
        if self._whole:
            self._alias(LAST, PREVIOUS)
        write(self.folder / LAST)
        named = {name for _, name in best}
        self._remove_best_but(named | self._named)
        self._whole, self._named = True, named

    def finish(self, best: list[tuple[float, str]]) -> None:
        """Leave the best, and the last: the training is over."""
        (self.folder / PREVIOUS).unlink(missing_ok=True)
        self._remove_best_but({name for _, name in best})

    def _remove_best_but(self, named: set[str]) -> None:
        for path in self.folder.glob(_KEPT):
            if path.name not in named:
                path.unlink()

    def _alias(self, name: str, alias: str) -> None:
        """Make one file the same as another, by a hard link or where there are none a copy."""
        temporary = self.folder / f".{alias}.new"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.folder / name, temporary)
        except OSError:  # file systems without hard links
            _copy(self.folder / name, self.folder / alias)
            return
        temporary.replace(self.folder / alias)
        temporary.unlink(missing_ok=True)  # rename leaves it if both are the same file already


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, atomic_file(target) as new:
        shutil.copyfileobj(old, new)
