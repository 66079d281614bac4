"""How a long step tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, float], None]  # called with the name of a step and its share done, 0 to 1


def silent(step: str, share: float) -> None:
    """No progress is shown."""
