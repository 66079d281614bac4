"""Where and how the points of a sweep run: a profile with its settings, checked."""

from __future__ import annotations

from dataclasses import dataclass

from aqnet.errors import ParameterError, explain
from aqnet.jobs.profiles import Profile, Required
from aqnet.jobs.scale import Size, size_of
from aqnet.jobs.submission import chosen_profile

__all__ = ["Cluster", "cluster_of"]


@dataclass(frozen=True)
class Cluster:
    """Where and how the points of a sweep run.

    Attributes
    ----------
    profile : Profile
        Without required settings left.
    gpus : int
        Processes of each element.
    size : Size
    throttle : int or None
        Elements that run at once.
    limit : int
        Jobs that a user may have queued.
    """

    profile: Profile
    gpus: int
    size: Size
    throttle: int | None
    limit: int

    @property
    def evaluation_size(self) -> Size:
        """Of an evaluation: one process."""
        return size_of(self.profile, 1)


def cluster_of(profile: str, settings: dict[str, str], gpus: int, throttle: int | None) -> Cluster:
    """Check a profile for a sweep.

    Raises
    ------
    ParameterError
        Settings are missing or do not fit.
    """
    chosen = chosen_profile(profile, settings)
    if isinstance(chosen.array_limit, Required):
        raise ParameterError(explain(
            f"the profile {chosen.name} leaves a setting to you",
            expected=f"array_limit ({chosen.array_limit.reason})", found="nothing",
            remedy="--set array_limit=...",
        ))  # fmt: skip
    return Cluster(chosen, gpus, size_of(chosen, gpus), throttle, chosen.array_limit.value)
