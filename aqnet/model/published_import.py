"""From a file in a published layout to the state of this network, strictly."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from aqnet.errors import explain
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig
from aqnet.model.published import (
    NEUTRAL,
    PUBLISHED_INPUTS,
    State,
    expected_shapes,
    layout_of,
    plain_name,
    published_config,
    rows_of,
    tensor_here,
)
from aqnet.variables import TARGETS

__all__ = ["Imported", "fill_network", "import_state", "read_state"]


# ---- file


def read_state(path: str | Path) -> State:
    """State dict of a file: the dict itself, or `state_dict` in a checkpoint of Lightning.

    Only tensors and plain values are read; nothing in the file is run.

    Raises
    ------
    ModelError
        No such file, damaged, with objects that only code can restore, or without tensors.
    """
    path, expected = Path(path), "tensors by name, or `state_dict` with them"
    if not path.is_file():
        raise _unreadable(path, "does not exist", expected, "nothing", "check the path")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as problem:
        objects = re.findall(r"GLOBAL (\S+)", str(problem))
        found = f"objects of {objects[0]}" if objects else str(problem).splitlines()[0]
        raise _unreadable(
            path, "holds more than tensors and plain values", expected, found, _EXTRACT
        ) from problem
    # a cut archive: OSError or RuntimeError, by its size
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError) as problem:
        found = f"{type(problem).__name__}: {str(problem).splitlines()[0]}"
        raise _unreadable(path, "cannot be read", expected, found, "copy it again") from problem
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(map(torch.is_tensor, state.values())):
        found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise _unreadable(path, "is no state dict", expected, found, "save `model.state_dict()`")
    return state


_EXTRACT = (
    "save the weights alone where the file was written: torch.save(model.state_dict(), NEW_FILE)"
)


def _unreadable(path: Path, problem: str, expected: str, found: object, remedy: str) -> ModelError:
    return ModelError(explain(f"{path} {problem}", expected=expected, found=found, remedy=remedy))


# ---- import


@dataclass(frozen=True, eq=False)
class Imported:
    """A network's state from a published one.

    Attributes
    ----------
    layout : str
    config : ModelConfig
    state : dict of tensors
        Of `FieldTransformer`, by name; without `fresh`.
    used : tuple of (name in the file, name here)
    parameters : int
        Numbers of the file that are used.
    buffers, unused : tuple of names in the file
        Without effect here: mask and indices, and what the caller let be unused.
    missing : tuple of names in the published layout
    fresh : tuple of names here
        Tensors that keep the values of a new network, for their source is missing.
    """

    layout: str
    config: ModelConfig
    state: State
    used: tuple[tuple[str, str], ...]
    parameters: int
    buffers: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    fresh: tuple[str, ...]


def import_state(
    state: State,
    layout: str = "auto",
    shape: tuple[int, int] = (128, 256),
    allow_missing: Iterable[str] = (),
    allow_unused: Iterable[str] = (),
    **sizes,
) -> Imported:
    """Translate a published state dict.

    Parameters
    ----------
    state : dict of tensors
        With or without the prefixes `model.` and `climax.`.
    layout : "auto", "published" or "earlier"
    shape : (H, W)
        Of the grid: the position embedding tells the number of patches alone. Sides in patches
        that divide 128, as the published ones, give the published relative positions.
    allow_missing, allow_unused : names
        Tensors that may be absent from `state` (published names; the network then starts anew
        there, and the elevation has no effect without `blocks.0.attn.alpha`), and tensors in it
        (their names there) to leave aside.
    **sizes
        Fields of `ModelConfig` that differ from the published ones: width, depth, heads, patch.

    Raises
    ------
    ModelError
        An unknown layout; missing or unknown names, or shapes that differ; names in
        `allow_missing` or `allow_unused` that are not missing or unused.
    """
    layout = layout_of(state) if layout == "auto" else layout
    config = published_config(layout, **sizes)
    names, expected = _plain_names(state), expected_shapes(layout, config, shape)
    buffers = _check_buffers(state, names)
    missing = sorted(set(expected) - set(names))
    unused = sorted({own for n, own in names.items() if n not in expected} - set(buffers))
    _check_names(missing, unused, {plain_name(n) for n in allow_missing}, set(allow_unused))
    found = {n: state[names[n]] for n in expected if n in names}
    _check_values(found, names, expected)
    sources = found | {n: torch.zeros(expected[n]) for n in missing if n in NEUTRAL}
    rows = rows_of(layout, config.depth)
    whole = [row for row in rows if set(row.theirs) <= set(sources)]
    places = {n: row.ours for row in whole for n in row.theirs}
    return Imported(
        layout=layout,
        config=config,
        state={row.ours: tensor_here(row, sources, config) for row in whole},
        used=tuple((own, places[n]) for n, own in names.items() if n in places),
        parameters=sum(value.numel() for value in found.values()),
        buffers=tuple(buffers),
        unused=tuple(unused),
        missing=tuple(missing),
        fresh=tuple(row.ours for row in rows if row not in whole),
    )


def fill_network(network: torch.nn.Module, imported: Imported) -> None:
    """Put the weights into a `FieldTransformer` of `imported.config`.

    Raises
    ------
    ModelError
        A parameter of the network has no source, or another shape.
    """
    sides = [
        {n: tuple(p.shape) for n, p in network.named_parameters() if n not in imported.fresh},
        {n: tuple(v.shape) for n, v in imported.state.items()},
    ]
    differ = sorted(n for n in {*sides[0], *sides[1]} if sides[0].get(n) != sides[1].get(n))
    if differ:
        shown = [{n: side.get(n, "nothing") for n in differ[:4]} for side in sides]
        raise ModelError(
            explain(f"{len(differ)} tensors do not fit the network", expected=shown[0],
                    found=shown[1], remedy="build the network with the imported configuration, "
                    "on the grid of the import")
        )  # fmt: skip
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in imported.state:
                parameter.copy_(imported.state[name])


# ---- checks


def _plain_names(state: State) -> dict[str, str]:
    """Name in the published layout -> name in the file."""
    found: dict[str, str] = {}
    for name in state:
        plain = plain_name(name)
        if plain in found:
            raise ModelError(
                explain(f"two tensors are {plain!r} of the published layout",
                        expected="one model in the file", found=f"{found[plain]} and {name}",
                        remedy="import a file with the state dict of one model")
            )  # fmt: skip
        found[plain] = name
    return found


def _check_buffers(state: State, names: dict[str, str]) -> list[str]:
    """Names of the file's buffers; ModelError if one says that the model is another."""
    order = torch.tensor([PUBLISHED_INPUTS.index(name) for name in TARGETS])
    wanted = {"target_indices": order, "blocks.0.attn.H_scale": torch.tensor(1000.0)}
    for plain, value in wanted.items():
        if plain in names and not torch.equal(state[names[plain]].cpu().to(value.dtype), value):
            raise ModelError(
                explain(f"the file is of another model: its {names[plain]} differs",
                        expected=value.tolist(), found=state[names[plain]].tolist(),
                        remedy="import a checkpoint with the published variables and scale")
            )  # fmt: skip
    return [names[plain] for plain in (*wanted, "china_mask") if plain in names]


def _check_names(missing: list, unused: list, may_miss: set, may_ignore: set) -> None:
    problems = {
        "missing": sorted(set(missing) - may_miss),
        "unknown": sorted(set(unused) - may_ignore),
        "allowed to be missing, but there (or no name of the layout)": sorted(
            may_miss - set(missing)
        ),
        "allowed to be unused, but used (or not in the file)": sorted(may_ignore - set(unused)),
    }
    found = "; ".join(f"{n} ({len(v)}): {', '.join(v)}" for n, v in problems.items() if v)
    if found:
        raise ModelError(
            explain("the names are not those of the layout",
                    expected="each tensor of the layout once, and no other", found=found,
                    remedy="check the file and --layout; name what may differ with "
                    "--allow-missing and --allow-unused")
        )  # fmt: skip


def _check_values(found: State, names: dict[str, str], expected: dict[str, tuple]) -> None:
    """Shapes as expected (numbers may have none), and finite values."""
    wrong = {n: tuple(v.shape) for n, v in found.items() if tuple(v.shape) != expected[n]}
    wrong = {n: s for n, s in wrong.items() if (s, expected[n]) != ((), (1,))}
    if wrong:
        some = list(wrong)[:4]
        raise ModelError(
            explain(f"{len(wrong)} tensors have another shape than published",
                    expected={names[n]: expected[n] for n in some},
                    found={names[n]: wrong[n] for n in some},
                    remedy="import a checkpoint of 128 x 256 cells, width 768, depth 6, 8 heads")
        )  # fmt: skip
    broken = [names[n] for n, v in found.items() if not torch.isfinite(v).all()]
    if broken:
        raise ModelError(
            explain("weights are not finite", expected="finite numbers",
                    found=f"NaN or infinite in {', '.join(broken)}",
                    remedy="import a checkpoint from before the training failed")
        )  # fmt: skip
