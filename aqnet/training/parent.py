"""Training that begins with the weights of another checkpoint, its parent."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.fabric import Fabric

from aqnet.errors import explain
from aqnet.model.attention import ModelError
from aqnet.training.checkpoint import Checkpoint, read_checkpoint
from aqnet.training.identity_difference import identity_differences
from aqnet.training.problem import Problem

__all__ = ["begin_from", "take_weights"]


def begin_from(problem: Problem, path: Path, fabric: Fabric) -> tuple[str, list[str]]:
    """Put the weights of a checkpoint into the model of a problem; every rank calls this.

    Parameters
    ----------
    problem : Problem
        Its model is changed in place.
    path : path
        Read by the first rank, once.
    fabric : Fabric

    Returns
    -------
    sha256 : str
        Of the checkpoint, for `train`.
    differences : list of str
        As `take_weights`.

    Raises
    ------
    ModelError
        No checkpoint, or as `take_weights`.
    """
    found = read_checkpoint(path) if fabric.is_global_zero else None
    parent: Checkpoint = fabric.broadcast(found)
    return parent.sha256, take_weights(problem, parent, path)


def take_weights(problem: Problem, parent: Checkpoint, path: Path) -> list[str]:
    """Put the weights of a checkpoint, which was read from `path`, into the model of a problem.

    Only what gradient descent trains is taken. What is fitted in closed form (normalisation,
    climatologies, regressions) and the state of the optimiser are this training's own.

    Returns
    -------
    list of str
        What the parent was trained on, and its settings, where they are others.

    Raises
    ------
    ModelError
        Another kind or other variables; weights of other names or shapes.
    """
    _require_same_inputs(parent, problem, path)
    _fill(problem.model, parent.state, path)
    return _differences(parent, problem)


def _require_same_inputs(parent: Checkpoint, problem: Problem, path: Path) -> None:
    here, there = problem.identity, parent.identity
    mine = {"kind": problem.model.kind}
    its = {"kind": parent.kind}
    if there is not None:  # imported weights do not say; their shapes have to fit
        mine |= {"variables": here.variables, "static variables": here.static_variables}
        its |= {"variables": there.variables, "static variables": there.static_variables}
    if wrong := [name for name in mine if mine[name] != its[name]]:
        raise ModelError(
            explain(f"training cannot begin with {path}", expected={n: mine[n] for n in wrong},
                    found={n: its[n] for n in wrong},
                    remedy="choose a parent of the same kind of data and the same variables")
        )  # fmt: skip


def _fill(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    own = dict(model.named_parameters())
    buffers = {name for name, _ in model.named_buffers()}
    surplus = [name for name in state if name not in own and name not in buffers]
    wrong = [n for n, p in own.items() if n not in state or state[n].shape != p.shape]
    if wrong or surplus:
        shown = {n: tuple(own[n].shape) for n in wrong[:4]}
        found = {n: tuple(state[n].shape) if n in state else "nothing" for n in wrong[:4]}
        found |= {n: tuple(state[n].shape) for n in surplus[:4]}
        raise ModelError(
            explain(f"the weights of {path} do not fit this model: {len(wrong) + len(surplus)} "
                    "names differ", expected=shown or "no others", found=found,
                    remedy="give this training the parent's settings (aqnet checkpoint inspect)")
        )  # fmt: skip
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def _differences(parent: Checkpoint, problem: Problem) -> list[str]:
    settings = [each.settings() for each in (parent.config, problem.model.config)]
    found = {n: (a, settings[1][n]) for n, a in settings[0].items() if a != settings[1][n]}
    if parent.identity is None:
        found["data"] = "not recorded", problem.identity.manifest
    else:
        found |= identity_differences(parent.identity, problem.identity)
    return [f"{name}: {there} in the parent, {here} here" for name, (there, here) in found.items()]
