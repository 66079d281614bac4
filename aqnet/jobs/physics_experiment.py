"""The experiment on the physics: which worlds it has and what is asked of them.

nbs/experiments/physics.yaml::

    reference: row-major             # of every arm that is neither in `main` nor in `references`
    references: {windows along lanes: windows along rows}
    main:                            # named before the runs: each with its own 95 % interval
      - {arm: full, reference: row-major, at_least: 0.10}
    trend: {arm: plume, reference: distance decay}   # must rise over the worlds of role `strength`
    null_margin: 0.02                # a gain that would not matter
    block_h: 168
    worlds:                          # name of the manifest, unless `manifest` gives another
      carried-1: {role: sealed, sweeps: [physics_sealed, physics_arms]}
      carried-still: {role: "null", sweeps: [physics_still], transport: 0.0,
                      null_for: [{arm: plume, reference: distance decay}]}

Each point of a sweep has an arm (an entry of its `list`), a seed, and the manifest of its world.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from aqnet.config import Config, load_yaml
from aqnet.errors import ParameterError
from aqnet.io import repository_root
from aqnet.jobs.sweeps.definition import Line, Name
from aqnet.verification.contrasts.estimates import Contrast
from aqnet.verification.contrasts.intervals import BLOCK_H

__all__ = ["ExperimentWorld", "Pair", "PhysicsExperiment", "Role", "load_experiment"]

Role = Literal["development", "quick", "sealed", "null", "strength", "control", "observed"]


class Pair(Config):
    """An arm and what it is compared with.

    Attributes
    ----------
    arm, reference : str
    at_least : float
        Gain [1] that the arm should reach.
    """

    arm: Line
    reference: Line
    at_least: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _two_arms(self) -> Pair:
        if self.arm == self.reference:
            raise ValueError(f"{self.arm} is compared with itself")
        return self

    @property
    def contrast(self) -> Contrast:
        """As `aqnet.verification.contrasts.estimates` takes it: a main one, without Holm's."""
        return Contrast(self.arm, self.reference, self.at_least, True)


class ExperimentWorld(Config):
    """A world and the sweeps that run arms in it.

    Attributes
    ----------
    role : str
        development: arms are designed on it; quick: an impression in minutes; sealed: opened
        once, judges; null: without the process that an arm is made for; control: with inputs that
        say nothing; strength: one of several strengths of transport; observed: Beijing, CAQRA.
    sweep : str
    sweeps : tuple of str
        Whose points with this manifest are its runs, each arm and seed once.
    transport, blocking : float
        Strength of transport and of blocking by terrain in a twin [1].
    grid : str
        Worlds of different grids are never pooled.
    manifest : str
        Of its data; empty: the name of the world.
    null_for : tuple of Pair
        Whose gain must be null here; needed for the roles null and control.
    """

    role: Role
    sweeps: Annotated[tuple[Name, ...], Field(min_length=1)]
    transport: Annotated[float, Field(ge=0)] = 1.0
    blocking: Annotated[float, Field(ge=0)] = 1.0
    grid: Line = "32x64"
    manifest: str = ""
    null_for: tuple[Pair, ...] = ()

    @model_validator(mode="after")
    def _nulls(self) -> ExperimentWorld:
        if bool(self.null_for) != (self.role in ("null", "control")):
            raise ValueError("null_for belongs to worlds of role null or control, and they need it")
        return self


class PhysicsExperiment(Config):
    """Content of the file; see the module.

    Attributes
    ----------
    reference : str
        Arm that those beyond `main` are compared with: with Holm's correction, all of them.
    references : dict of arm to arm
        Other references, for arms that differ from `reference` in more than one thing.
    main : tuple of Pair
    trend : Pair, optional
    null_margin : float
        Gain [1] that would not matter: an interval that reaches beyond it is no null.
    block_h : int
        Blocks of time of the bootstrap [h].
    worlds : dict of name to ExperimentWorld
    """

    reference: Line
    references: dict[Line, Line] = Field(default_factory=dict)
    main: Annotated[tuple[Pair, ...], Field(min_length=1)]
    trend: Pair | None = None
    null_margin: Annotated[float, Field(gt=0, lt=1)]
    block_h: Annotated[int, Field(ge=24)] = BLOCK_H
    worlds: Annotated[dict[Name, ExperimentWorld], Field(min_length=1)]

    @field_validator("references")
    @classmethod
    def _references(cls, references: dict[str, str]) -> dict[str, str]:
        if own := [arm for arm, other in references.items() if arm == other]:
            raise ValueError(f"compared with itself: {', '.join(own)}")
        return references

    @model_validator(mode="after")
    def _strengths(self) -> PhysicsExperiment:
        strengths = {w.transport for w in self.worlds.values() if w.role == "strength"}
        if (self.trend is None) != (len(strengths) == 0) or len(strengths) == 1:
            raise ValueError("`trend` needs worlds of role strength, of two strengths or more, and "
                             f"they need `trend`; strengths {sorted(strengths)}")  # fmt: skip
        return self

    def names(self, role: Role, grid: str) -> tuple[str, ...]:
        """Worlds of a role and grid, in the order of the file."""
        return tuple(n for n, w in self.worlds.items() if (w.role, w.grid) == (role, grid))

    def contrasts(self, arms: Sequence[str]) -> tuple[Contrast, ...]:
        """The main contrasts, and all other arms against their reference."""
        main = [pair.contrast for pair in self.main]
        asked = {(c.arm, c.reference) for c in main}
        others = [(arm, self.references.get(arm, self.reference)) for arm in arms]
        return (*main, *(Contrast(*p) for p in others if p[0] != p[1] and p not in asked))

    @property
    def sweeps(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(s for world in self.worlds.values() for s in world.sweeps))


def load_experiment(path: str | Path) -> PhysicsExperiment:
    """Read the file of an experiment; relative paths are of the repository.

    Raises
    ------
    ParameterError
        No such file, unknown keys, wrong types, or worlds that do not fit their role.
    """
    return load_yaml(repository_root() / path, PhysicsExperiment, ParameterError)
