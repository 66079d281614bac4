"""What `aqnet physics` writes of a forecast store: checks of its values, and its mass budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aqnet.data.years.year_set import YearSet
from aqnet.io import atomic_directory
from aqnet.progress import Progress, silent
from aqnet.verification.physics import figures
from aqnet.verification.physics.checks import VALUE_CHECKS, check_store, check_truth
from aqnet.verification.physics.mass_budget import MassBudget, mass_budget
from aqnet.verification.physics.results import Album, stamps, write_results
from aqnet.verification.store.reader import ForecastStore

__all__ = ["BUDGET", "write_checks"]

BUDGET = {
    "change": "area mean at the lead time less that at the init time [ug/m3]",
    "carried": "what the wind of the truth at the ground carries in through the faces of the "
    "region, in flux form on the sphere, over its area [ug/m3]",
    "lifted": "what air that converges at the ground takes out through the top, at the region's "
    "mean concentration [ug/m3]; where it diverges, that is assumed to come down",
    "transport": "carried + lifted",
    "residual": "change - carried - lifted: sources, sinks, chemistry, mixing with the air above, "
    "wind above the ground, and errors of the method. It need not be zero, in truth neither; "
    "`of` says whose it is, and rms_residual_minus_truth compares in the same hours",
    "kg_per_m": "mass of the region's lowest metre of air: no depth of the layer is known",
    "truth": "the truth at the init and lead times of the forecast alone, linear between",
    "truth_hourly": "the truth at every hour: what the lead times of the store leave out",
    "correlation": "of change with transport over the init times [1]",
}


def write_checks(
    folder: str | Path,
    store: ForecastStore,
    truth: YearSet | None,
    members: Mapping[str, np.ndarray],
    record: dict,
    *,
    inits: int = 120,
    pollutants: Sequence[str] | None = None,
    progress: Progress = silent,
) -> dict:
    """Check a forecast store, write `folder` and return the content of its results.json.

    Parameters
    ----------
    folder : path
        Must not exist.
    store : ForecastStore
    truth : YearSet or None
        None: values are checked, and there is neither a yardstick nor a mass budget.
    members : mapping
        Regions of the budget: name to (H, W) bool.
    record : dict
        Of what made it, see `aqnet.verification.provenance`.
    inits : int
        Init times of the budget, evenly chosen.
    pollutants : sequence of str, optional
        Of the budget; default all of the store.
    """
    with atomic_directory(folder) as draft:
        rows, album = check_store(store, progress), Album(draft)
        budget = None
        if truth is not None:
            rows += check_truth(truth, store, progress)
            budget = mass_budget(store, truth, members, inits=inits, pollutants=pollutants,
                                 progress=progress)  # fmt: skip
            _draw_budget(budget, album)
        table = None if budget is None else _budget(budget)
        return write_results(album, "physics", record, definitions=VALUE_CHECKS | BUDGET,
                             values=rows, budget=table)  # fmt: skip


def _budget(budget: MassBudget) -> dict:
    borders = budget.borders
    return {
        "regions": [
            {"name": name, "area_km2": float(area) * 1e-6, "covered": float(share)}
            for name, area, share in zip(borders.names, borders.area_m2, borders.covered,
                                         strict=True)
        ],
        "init_times": stamps(budget.init_times),
        "rows": budget.table(),
    }  # fmt: skip


def _draw_budget(budget: MassBudget, album: Album) -> None:
    lead = min(budget.lead_times_h, key=lambda h: abs(h - 24))  # a day: its cycle is no change
    for name in budget.pollutants:
        album.add(
            f"budget_{name}.png", f"Mass budget, {name}, {lead} h",
            "Change of the mean over each region against what the wind at the ground brings. On "
            "the grey line all change is transport; the distance from it is the residual.",
            figures.draw_budget(budget, name, lead),
        )  # fmt: skip
        album.add(
            f"residual_{name}.png", f"Residual of the mass budget, {name}",
            "Mean over init times (lines) and 95 % of them (shading). The truth is the yardstick.",
            figures.draw_residuals(budget, name),
        )  # fmt: skip
