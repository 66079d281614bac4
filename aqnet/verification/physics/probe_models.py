"""What is probed: a checkpoint for fields on scenes, and controls that cannot know the physics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from aqnet.data.batches import FieldSamples
from aqnet.data.splits import Split
from aqnet.data.years.year_set import YearSet
from aqnet.errors import ParameterError, StoreError, explain
from aqnet.model.domain import Domain
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.model.ridge import RidgeFactors, factor_ridge, ridge_matrix
from aqnet.variables import STATIC
from aqnet.verification.physics.probes import Forecasts, Scene, calmed

__all__ = [
    "CONTROLS",
    "GridForecasts",
    "controls",
    "require_same_domain",
    "scene_of",
    "with_terrain",
]

CONTROLS = {
    "untrained": "the network of the checkpoint with fresh weights and a random last layer, which "
    "otherwise starts at 0 (seed 0): what the architecture does before it has learned; where its "
    "responses are means something, their sizes and signs do not",
    "wind_blind": "the checkpoint, told that there is no wind whatever the scene says",
    "persistence": "the values of the init time",
}
_BATCH = 4


def with_terrain(model: GridForecaster, elevation: np.ndarray) -> GridForecaster:
    """The trained network on another terrain: inputs, barriers and ridges follow; weights stay.

    Parameters
    ----------
    model : GridForecaster
    elevation : (H, W)
        m.
    """
    own, patch = model.domain, model.config.patch
    static = np.array(own.static, dtype=np.float64)
    static[STATIC.index("elevation")] = elevation
    ridge = own.ridge
    if ridge is not None:
        rows, columns = (n // patch for n in own.grid.shape)
        patches = elevation.reshape(rows, patch, columns, patch).mean((1, 3))
        rank, header = ridge.left.shape[1], ridge.header
        made_by = {n: header[n] for n in ("near_power", "sweeps") if n in header}
        factors = factor_ridge(ridge_matrix(patches), (rows, columns), rank, **made_by)
        ridge = RidgeFactors(*factors, {}, {"grid_sha256": own.grid.digest})
    domain = Domain(own.grid, own.mask, static, ridge, own.orders)
    changed = GridForecaster(model.config, domain, model.normaliser, model.channels)
    changed.load_state_dict(changed.state_dict() | dict(model.named_parameters()))
    return changed.to(next(model.parameters()).device).eval()


class GridForecasts:
    """Forecasts of a checkpoint for fields, (B, L, 6, N) ug/m3, of scenes.

    Parameters
    ----------
    model : GridForecaster
    leads_h : sequence of int
        Those of the model, or with lead mode "one" any.
    """

    def __init__(self, model: GridForecaster, leads_h: Sequence[int]) -> None:
        self.model, self.leads_h = model.eval(), tuple(leads_h)
        self._terrain: tuple[bytes, GridForecaster] | None = None

    def __call__(self, scene: Scene) -> np.ndarray:
        """Forecasts of all init times of a scene."""
        model = self._on(scene.elevation)
        parts = [
            self._batch(model, scene.times[i : i + _BATCH], scene.values[i : i + _BATCH])
            for i in range(0, len(scene.times), _BATCH)
        ]
        return np.concatenate(parts)[..., scene.mask]

    def _on(self, elevation: np.ndarray | None) -> GridForecaster:
        if elevation is None:
            return self.model
        key = np.ascontiguousarray(elevation, np.float64).tobytes()
        if self._terrain is None or self._terrain[0] != key:
            self._terrain = key, with_terrain(self.model, np.asarray(elevation, np.float64))
        return self._terrain[1]

    @torch.no_grad()
    def _batch(self, model: GridForecaster, times: np.ndarray, values: np.ndarray) -> np.ndarray:
        device = next(model.parameters()).device
        batch = {
            "hours": torch.from_numpy(times.astype(np.int64)).to(device),
            "inputs": torch.from_numpy(values.astype(np.float32)).to(device),
        }
        if model.config.lead_mode == "one":
            return model.at_leads(batch, self.leads_h).float().cpu().numpy()
        own = model.config.lead_times_h
        leads = torch.tensor(own, device=device).expand(len(times), -1)
        found = model(batch | {"leads_h": leads})
        return found[:, [own.index(h) for h in self.leads_h]].float().cpu().numpy()


def controls(forecasts: GridForecasts, names: Sequence[str]) -> dict[str, Forecasts]:
    """Some of `CONTROLS` beside a checkpoint; ParameterError for an unknown name."""
    if unknown := [name for name in names if name not in CONTROLS]:
        raise ParameterError(
            explain("unknown controls", expected=", ".join(CONTROLS), found=unknown,
                    remedy="choose among them")
        )  # fmt: skip
    makers = {"untrained": _untrained, "wind_blind": _wind_blind, "persistence": _persistence}
    return {name: makers[name](forecasts) for name in names}


def _untrained(forecasts: GridForecasts) -> Forecasts:
    own = forecasts.model
    torch.manual_seed(0)
    fresh = GridForecaster(own.config, own.domain, own.normaliser, own.channels)
    torch.nn.init.normal_(fresh.network.decode.out.weight, std=own.config.width**-0.5)
    return GridForecasts(fresh.to(next(own.parameters()).device), forecasts.leads_h)


def _wind_blind(forecasts: GridForecasts) -> Forecasts:
    return lambda scene: forecasts(calmed(scene))


def _persistence(forecasts: GridForecasts) -> Forecasts:
    return lambda scene: np.repeat(scene.targets()[:, None], len(forecasts.leads_h), axis=1)


def scene_of(
    years: YearSet,
    split: Split,
    model: GridForecaster,
    leads_h: Sequence[int],
    *,
    inits: int,
    apart_h: int = 24,
) -> Scene:
    """Inputs of at most `inits` init times of a split, evenly chosen, `apart_h` or more apart.

    SampleError, LeadTimeError as `FieldSamples`.
    """
    config = model.config
    samples = FieldSamples(years, split, leads_h, config.history_h,
                           optional_inputs=config.optional_inputs)  # fmt: skip
    times, chosen = samples.index.times, []
    wanted = np.linspace(0, len(times) - 1, min(inits, len(times))).astype(int)
    for number in np.unique(wanted).tolist():
        if not chosen or (times[number] - times[chosen[-1]]) >= np.timedelta64(apart_h, "h"):
            chosen.append(number)
    inputs = [samples.__getitems__([number])["inputs"][0].numpy() for number in chosen]
    return Scene(times[chosen], np.stack(inputs), years.grid, years.mask)


def require_same_domain(forecasts: GridForecasts, scene: Scene) -> None:
    """StoreError unless a scene is on the grid and mask of a checkpoint."""
    domain = forecasts.model.domain
    if domain.grid.digest != scene.grid.digest or not np.array_equal(domain.mask, scene.mask):
        raise StoreError(
            explain("the checkpoint does not fit the stores",
                    expected=f"grid {domain.grid.name}, {int(domain.mask.sum())} cells",
                    found=f"grid {scene.grid.name}, {int(scene.mask.sum())} cells",
                    remedy="name the manifest of the training, or one on its grid and mask")
        )  # fmt: skip
