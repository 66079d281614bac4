"""Where a patch looks: weights of attention, before anything is learned and of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from aqnet.errors import explain
from aqnet.explore.forecasts import Forecast
from aqnet.explore.world import World
from aqnet.model.attention import ModelError, PhysicalContext, PlainAttention, TokenDomain
from aqnet.model.domain import cells_of
from aqnet.model.layers import patch_wind
from aqnet.model.physics_attention import PhysicsAttention, PhysicsConfig, footprint, turned
from aqnet.model.ridge import factor_ridge, load_ridge, ridge_matrix, ridge_path, ridge_spec

__all__ = ["BIASES", "Footprints", "attention_row", "footprints_of_run", "prior_footprints"]

BIASES = {
    "plume": {"elevation": "off"},
    "plume, climb": {},
    "plume, ridges": {"elevation": "off", "ridge": True},
    "plume, climb, ridges": {"ridge": True},
}
_COMPUTED = 1024  # patches: ridges of more take minutes, and come from their cache
_RANK = 14
_KEPT = 4  # hours of queries and keys: 170 MB of 3,500 patches at full size


@dataclass(frozen=True, eq=False)
class Footprints:
    """Weights of attention over the patches of a world.

    Attributes
    ----------
    name : str
    patch : int
        Cells along the side of a patch.
    active : (rows, columns) bool
        Patches that are tokens.
    parts : tuple of str
        What `weights` can be asked for: sets of biases, or blocks of a network.
    heads : int
    weights : callable
        ``weights(time, token, part, lead_h)`` gives (heads, N), each row with sum 1, of the
        receiver `token`; time in UTC.
    lead_times_h : tuple of int
        Of a run with a pass for each lead time; empty where `lead_h` does not matter.
    """

    name: str
    patch: int
    active: np.ndarray
    parts: tuple[str, ...]
    heads: int
    weights: Callable[[np.datetime64, int, str, int], np.ndarray]
    lead_times_h: tuple[int, ...] = ()


# ---- before anything is learned


def prior_footprints(
    world: World, patch: int = 2, sigma_km: float | None = None, travel_h: float | None = None
) -> Footprints:
    """Softmax of the biases of physics attention alone, one head, strengths as they start.

    Parameters
    ----------
    world : World
    patch : int
    sigma_km : float, optional
        Width of the plume; default a sixteenth of the domain, at least a patch.
    travel_h : float, optional
        Travel time of the air [h]; default what a wind of 3 m/s takes for `sigma_km`.
    """
    at, active = world.grid.patches(patch), world.grid.active_patches(world.mask, patch)
    width_km = float(at.east_km.mean()) * active.shape[1]
    sigma_km = sigma_km or max(width_km / 16, float(at.north_km.mean()))
    travel_h = travel_h or sigma_km / (3 * 3.6)
    rows, columns = np.nonzero(active)
    cells = cells_of(active, patch)
    height = world.elevation_m.reshape(-1)[cells].mean(1).astype(np.float32)

    @lru_cache(2)
    def domain(ridges: bool) -> TokenDomain:
        pair = _ridges(world, patch, active) if ridges else None
        return TokenDomain(at.lat[rows], at.lon[columns], height, ridge=pair)

    def weights(time: np.datetime64, token: int, part: str, lead_h: int) -> np.ndarray:
        config = PhysicsConfig(
            position="none", plume_sigma_km=(sigma_km,), plume_tau_h=(travel_h,),
            plume_diffusivity_m2_s=(1e3,), **BIASES[part],
        )  # fmt: skip
        wind = patch_wind(torch.from_numpy(world.wind(time))[None], torch.from_numpy(cells))
        context, receiver = domain(config.ridge).context(wind), torch.tensor([token])
        return footprint(PhysicsAttention(1, config), context, receiver)[0, :, 0].numpy()

    name = f"before learning: plume of {sigma_km:.3g} km and {travel_h:.2g} h"
    return Footprints(name, patch, active, tuple(BIASES), 1, weights)


def _ridges(world: World, patch: int, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors (N, rank) of the ridges between active patches; CacheError if they must be built."""
    if active.size > _COMPUTED:
        spec = ridge_spec(world.grid, patch, elevation=world.elevation_m)
        factors = load_ridge(ridge_path(spec), spec)
        pair = factors.left, factors.right
    else:
        rows, columns = active.shape
        z = world.elevation_m.reshape(rows, patch, columns, patch).mean((1, 3))
        pair = factor_ridge(ridge_matrix(z), active.shape, min(_RANK, active.size))
    return tuple(x[np.flatnonzero(active)] for x in pair)


# ---- of a run


@torch.no_grad()
def attention_row(
    core: PlainAttention | PhysicsAttention, q: torch.Tensor, k: torch.Tensor,
    context: PhysicalContext, receiver: int,
) -> torch.Tensor:  # fmt: skip
    """Weights (B, heads, N) of one receiver: softmax of ``q . k / sqrt(d)`` and the biases.

    Parameters
    ----------
    core : PlainAttention or PhysicsAttention
        Which the queries and keys were given to.
    q, k : (B, heads, N, d)
    context : PhysicalContext
    receiver : int
        Position among the N tokens.

    Raises
    ------
    ModelError
        Another kind of core.
    """
    bias: torch.Tensor | float = 0.0
    if isinstance(core, PhysicsAttention):
        q, k = turned(core.config, q, k, context)
        bias = core.rows(context, torch.tensor([receiver]))
    elif not isinstance(core, PlainAttention):
        raise ModelError(
            explain("the weights of this attention cannot be shown", found=type(core).__name__,
                    expected="PlainAttention or PhysicsAttention", remedy="choose another run")
        )  # fmt: skip
    product = q[:, :, receiver : receiver + 1] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return torch.softmax(product.float() + bias, dim=-1)[:, :, 0]


def footprints_of_run(forecast: Forecast) -> Footprints:
    """Weights of the trained attention of a run, in each of its blocks.

    Raises
    ------
    ModelError
        The forecast is not one of a run.
    """
    model = forecast.model
    if model is None:
        raise ModelError(
            explain(f"{forecast.name} has no attention", expected="a run of aqnet",
                    found="forecasts without a network", remedy="choose a run")
        )  # fmt: skip
    network, config = model.network, model.config
    one = config.lead_mode == "one"
    cores = {f"block {i}": _inner(block.attention.core) for i, block in enumerate(network.blocks)}

    @lru_cache(_KEPT)
    def calls_at(time: np.datetime64) -> _Calls:
        with _Calls(cores, network.scan if config.scan.window else None) as calls:
            forecast.compute(time)
        return calls

    def weights(time: np.datetime64, token: int, part: str, lead_h: int) -> np.ndarray:
        calls = calls_at(np.datetime64(time, "h"))
        turn = leads.index(lead_h) if one else 0
        return calls.row(part, token, turn, max(len(leads), 1))

    active = model.domain.tokens(config)
    leads = forecast.lead_times_h if one else ()
    return Footprints(
        forecast.name, config.patch, active, tuple(cores), config.heads, weights, leads
    )


def _inner(core: torch.nn.Module) -> torch.nn.Module:
    """The core that windows are put around."""
    return getattr(core, "core", core)


class _Calls:
    """What cores were given while the block of a `with` ran; `row` reads weights from it."""

    def __init__(self, cores: dict[str, torch.nn.Module], scan: torch.nn.Module | None) -> None:
        self.cores, self.scan, self.order = cores, scan, None
        self.given: dict[str, list] = {name: [] for name in cores}
        self._hooks: list = []

    def __enter__(self) -> _Calls:
        for name, core in self.cores.items():

            def keep(module, args, name=name):
                self.given[name].append((args[0].detach(), args[1].detach(), args[3]))

            self._hooks.append(core.register_forward_pre_hook(keep))
        if self.scan is not None:

            def order(module, args, scan):
                self.order = scan.place[0]

            self._hooks.append(self.scan.register_forward_hook(order))
        return self

    def __exit__(self, *problem: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def row(self, name: str, token: int, turn: int, turns: int) -> np.ndarray:
        """(heads, N) of a token, of the pass `turn` of `turns`.

        With windows along the scan, a pass gives a core its tokens in several calls, each of
        blocks of one size: sample b of a call is its block b.
        """
        given, core = self.given[name], self.cores[name]
        calls = given[turn * len(given) // turns : (turn + 1) * len(given) // turns]
        place = token if self.order is None else int(self.order[token])
        total = sum(q.shape[0] * q.shape[2] for q, _, _ in calls)
        found, first = torch.zeros(calls[0][0].shape[1], total), 0
        for q, k, context in calls:
            blocks, size = q.shape[0], q.shape[2]
            if first <= place < first + blocks * size:
                block, inside = divmod(place - first, size)
                rows = attention_row(core, q, k, context, inside)[block]
                start = first + block * size
                found[:, start : start + size] = rows
            first += blocks * size
        return (found if self.order is None else found[:, self.order]).numpy()
