"""What is in a checkpoint, and how two of them differ, as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aqnet.config import Config
from aqnet.training.checkpoint import Checkpoint, read_checkpoint
from aqnet.training.identity_difference import identity_differences

__all__ = ["GroupChange", "compare_checkpoints", "describe_checkpoint", "group_changes"]


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, with dots between the names."""
    if isinstance(value, Config):
        value = value.model_dump(mode="json")
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, object] = {}
    for key, item in value.items():
        found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def _table(values: dict[str, object], indent: str = "  ") -> Iterator[str]:
    width = max(map(len, values), default=0) + 2
    for name, value in values.items():
        yield f"{indent}{name:{width}}{value}"


def _group(name: str) -> str:
    """Part of the model that a weight belongs to: network.blocks.3, network.position, linear."""
    parts = name.split(".")
    if "blocks" in parts[:-2]:
        return ".".join(parts[: parts.index("blocks") + 2])
    return ".".join(parts[:2]) if parts[0] == "network" else parts[0]


def _groups(state: dict[str, torch.Tensor]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in state:
        found.setdefault(_group(name), []).append(name)
    return found


# ---- one


def _code(checkpoint: Checkpoint) -> str:
    code, git = checkpoint.code, checkpoint.code.git
    changed = f", {len(git.dirty)} changed files" if git.dirty else ""
    return f"aqnet {code.aqnet}, torch {code.torch}, {git.commit or git.state}{changed}"


def _without_parent(checkpoint: Checkpoint) -> str:
    here = checkpoint.identity is not None  # what was imported does not say its data
    return "none: trained from the start" if here else "none: not trained here, see the notes"


def _progress(checkpoint: Checkpoint) -> str:
    at, loss = checkpoint.progress, checkpoint.progress.val_loss
    judged = "not validated" if loss is None else f"validation loss {loss:.6g}"
    return f"step {at.step}, epoch {at.epoch}, {judged}"


def _training(training: dict | None) -> str:
    if training is None:
        return "none: cannot be resumed"
    return f"{_megabytes(training):.1f} MB: {', '.join(map(str, training))}"


def _megabytes(value: object) -> float:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.nbytes / 1e6
    items = value.values() if isinstance(value, dict) else value
    nested = isinstance(value, (dict, list, tuple))
    return sum(_megabytes(item) for item in items) if nested else 0.0


def _weights(state: dict[str, torch.Tensor]) -> Iterator[str]:
    count = sum(v.numel() for v in state.values())
    yield f"weights and buffers: {count:,} numbers, {_megabytes(state):.1f} MB"
    groups = _groups(state)
    width = max(map(len, groups), default=5)
    yield f"  {'group':{width}}{'numbers':>12}{'rms':>12}{'not finite':>12}"
    for group, names in groups.items():
        numbers = sum(state[n].numel() for n in names)
        square = sum(float(state[n].double().square().sum()) for n in names)
        bad = sum(int((~torch.isfinite(state[n])).sum()) for n in names)
        rms = (square / numbers) ** 0.5 if numbers else 0.0
        yield f"  {group:{width}}{numbers:12,}{rms:12.4g}{bad:12,}"


def _arrays(arrays: dict[str, np.ndarray]) -> Iterator[str]:
    yield f"arrays: {_megabytes(arrays):.1f} MB"
    yield from _table({n: f"{a.dtype} {tuple(a.shape)}" for n, a in arrays.items()})


def _trained_on(checkpoint: Checkpoint) -> dict[str, object]:
    if checkpoint.identity is None:
        return {"data": "not recorded"}
    found = checkpoint.identity.model_dump(mode="json")
    stores = {f"store {name}": digest for name, digest in found.pop("stores")}
    named = {k: " ".join(v) if isinstance(v, list) else v for k, v in found.items()}
    return named | stores


def _trained_with(checkpoint: Checkpoint) -> dict[str, object]:
    return _flat(checkpoint.trained_with or {"settings": "not recorded"})


def describe_checkpoint(path: str | Path) -> str:
    """What a file holds, in lines; every byte of it is checked.

    Raises
    ------
    ModelError
        As `read_checkpoint`.
    """
    c = read_checkpoint(path, training=True)
    facts = {
        "size": f"{Path(path).stat().st_size / 1e6:.1f} MB, every byte checked",
        "content": c.sha256,
        "parent": c.parent or _without_parent(c),
        "progress": _progress(c),
        "training": _training(c.training),
        "code": _code(c),
        **{f"note {i + 1}": note for i, note in enumerate(c.notes)},
    }
    lines = [f"{path}: forecaster of kind {c.kind!r}", *_table(facts), "trained on"]
    lines += [*_table(_trained_on(c)), "trained with", *_table(_trained_with(c))]
    lines += ["configuration", *_table(_flat(c.config))]
    lines += [*_arrays(c.arrays), *_weights(c.state)]
    if c.extra:
        lines.append(f"beside the model: {', '.join(c.extra)}")
    return "\n".join(lines)


# ---- two


@dataclass(frozen=True)
class GroupChange:
    """How the weights of a group differ.

    Attributes
    ----------
    group : str
    numbers : int
        Of the tensors that both have in one shape.
    relative : float
        ``|B - A| / |A|`` over these, in the Euclidean norm; infinite if A is 0 and B is not.
    largest : float
        Largest ``|B - A|`` of a number.
    """

    group: str
    numbers: int
    relative: float
    largest: float


def _shared(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: v for n, v in a.items() if n in b and v.shape == b[n].shape}


def group_changes(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[GroupChange]:
    """Differences of two state dicts by group, over tensors of the same name and shape."""
    shared, found = _shared(a, b), []
    for group, names in _groups(shared).items():
        before = change = largest = 0.0
        for name in names:
            x, y = a[name].double(), b[name].double()
            before += float(x.square().sum())
            change += float((y - x).square().sum())
            largest = max(largest, float((y - x).abs().max())) if x.numel() else largest
        relative = (change / before) ** 0.5 if before else (float("inf") if change else 0.0)
        numbers = sum(a[name].numel() for name in names)
        found.append(GroupChange(group, numbers, relative, largest))
    return found


def _changed(a: dict[str, object], b: dict[str, object]) -> dict[str, str]:
    """Entries that differ, as "of A | of B"."""
    names = list(dict.fromkeys([*a, *b]))
    absent = "(not there)"
    return {
        n: f"{a.get(n, absent)} | {b.get(n, absent)}"
        for n in names
        if n not in a or n not in b or a[n] != b[n]
    }


def _array_text(array: np.ndarray) -> str:
    return f"{array.dtype} {tuple(array.shape)}"


def _arrays_changed(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, str]:
    found = _changed(*({n: _array_text(v) for n, v in each.items()} for each in (a, b)))
    for name in [n for n in a if n in b and n not in found]:
        x, y = a[name], b[name]
        differ = x != y
        if x.dtype.kind == "f":
            differ &= ~(np.isnan(x) & np.isnan(y))
        if differ.any():
            found[name] = f"{np.count_nonzero(differ):,} of {x.size:,} values differ"
    return found


def _names_changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, str]:
    return _changed(*({n: f"{tuple(v.shape)}" for n, v in each.items()} for each in (a, b)))


def _weights_changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> Iterator[str]:
    changes = group_changes(a, b)
    width = max((len(c.group) for c in changes), default=5)
    yield f"weights{'':{max(width - 5, 0)}}{'numbers':>12}{'|B-A|/|A|':>12}{'largest':>12}"
    for c in changes:
        yield f"  {c.group:{width}}{c.numbers:12,}{c.relative:12.4g}{c.largest:12.4g}"


def _plain_numbers(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {k: _plain_numbers(v) for k, v in value.items()}
    return value


def _extra_changed(a: dict, b: dict) -> dict[str, str]:
    changed = _changed(_plain_numbers(a), _plain_numbers(b))
    missing = "in one of them only"
    return {n: "differs" if n in a and n in b else missing for n in changed}


def _identity_changed(a: Checkpoint, b: Checkpoint) -> dict[str, str]:
    if a.identity is None or b.identity is None:
        recorded = ["recorded" if c.identity else "not recorded" for c in (a, b)]
        return {} if recorded[0] == recorded[1] else {"data": " | ".join(recorded)}
    found = identity_differences(a.identity, b.identity)
    return {name: " | ".join(both) for name, both in found.items()}


def _settings_changed(a: Checkpoint, b: Checkpoint) -> dict[str, str]:
    if a.trained_with is None or b.trained_with is None:
        recorded = ["recorded" if c.trained_with else "not recorded" for c in (a, b)]
        return {"settings": " | ".join(recorded)}
    return _changed(_flat(a.trained_with), _flat(b.trained_with))


def _facts(c: Checkpoint) -> dict[str, object]:
    return {"kind": c.kind, "progress": _progress(c), "code": _code(c),
            "parent": c.parent or "none", "notes": "; ".join(c.notes) or "none"}  # fmt: skip


def _relation(a: Checkpoint, b: Checkpoint) -> str:
    if a.sha256 == b.sha256:
        return "the same forecaster"
    if a.sha256 == b.parent:
        return "B was trained from A"
    return "A was trained from B" if b.sha256 == a.parent else "neither is the parent of the other"


def compare_checkpoints(a: str | Path, b: str | Path) -> str:
    """How two files differ, in lines; the states of their training are not compared.

    Raises
    ------
    ModelError
        As `read_checkpoint`.
    """
    one, two = read_checkpoint(a), read_checkpoint(b)
    lines = [f"A: {a}", f"   {one.sha256}", f"B: {b}", f"   {two.sha256}", _relation(one, two)]
    if one.sha256 == two.sha256:
        return "\n".join(lines)
    sections = {
        "checkpoint": _changed(_facts(one), _facts(two)),
        "trained on": _identity_changed(one, two),
        "trained with": _settings_changed(one, two),
        "configuration": _changed(_flat(one.config), _flat(two.config)),
        "arrays": _arrays_changed(one.arrays, two.arrays),
        "beside the model": _extra_changed(one.extra, two.extra),
        "names and shapes of weights": _names_changed(one.state, two.state),
    }
    for title, changed in sections.items():
        lines += [title, *_table(changed)] if changed else [f"{title}: the same"]
    return "\n".join([*lines, *_weights_changed(one.state, two.state)])
