"""Which processes of a run are slow, silent, or waited for, from their heartbeats."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from aqnet.training.heartbeat import INTERVAL_S, Beat

__all__ = ["SILENT_S", "describe_ranks"]

SILENT_S = 2 * INTERVAL_S
_SLOW = 1.25  # times the median own time of a step
_AWAITED_S = INTERVAL_S  # others have waited so long for a rank that does not wait
_NAMED = 4  # at most


def _list(kind: str, each: Sequence[str]) -> str:
    more = f", and {len(each) - _NAMED} more" if len(each) > _NAMED else ""
    return f"{kind}: {', '.join(each[:_NAMED])}{more}"


def _name(beat: Beat) -> str:
    return f"rank {beat.rank} on {beat.host}"


def _where(beat: Beat) -> str:
    return f"pid {beat.pid}, {beat.phase}, step {beat.step}"


def _slow(beats: Sequence[Beat]) -> list[str]:
    usual = median_low(beat.own_seconds_per_step for beat in beats)
    slow = [beat for beat in beats if usual and beat.own_seconds_per_step > _SLOW * usual]
    slow.sort(key=lambda beat: -beat.own_seconds_per_step)
    return [
        f"{_name(beat)} ({beat.own_seconds_per_step:.3g} s of its own a step, others {usual:.3g})"
        for beat in slow
    ]


def _awaited(beats: Sequence[Beat]) -> list[str]:
    """Ranks that compute, read or save while all others have been waiting."""
    busy = [beat for beat in beats if not beat.waiting_s]
    waiting = [beat.waiting_s for beat in beats if beat.waiting_s]
    if not waiting or len(busy) > len(waiting) or min(waiting) < _AWAITED_S:
        return []
    return [f"{_name(beat)} for {min(waiting):.0f} s ({_where(beat)})" for beat in busy]


def describe_ranks(beats: Sequence[Beat], now: float) -> list[str]:
    """How many ranks report, and one line for each kind of trouble.

    Parameters
    ----------
    beats : sequence of Beat
        Of one start, as `read_beats` gives them; at least one.
    now : float
        Seconds since 1970.
    """
    world = beats[0].world
    silent = [b for b in beats if b.phase != "ended" and now - b.written > SILENT_S]
    missing = sorted(set(range(world)) - {beat.rank for beat in beats})
    living = [beat for beat in beats if beat not in silent]
    lines = [f"{len(living)} of {world} report"]
    if missing:
        lines.append(_list("no sign of life yet", [f"rank {rank}" for rank in missing]))
    if silent:
        lines.append(_list("silent", [
            f"{_name(b)} for {now - b.written:.0f} s ({_where(b)})" for b in silent
        ]))  # fmt: skip
    if len(living) > 1:
        kinds = {"slow": _slow(living), "all wait for": _awaited(living)}
        lines += [_list(kind, each) for kind, each in kinds.items() if each]
    return lines
