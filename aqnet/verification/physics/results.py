"""Folders that `aqnet physics` and `aqnet probe` write: results.json and pictures, for reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aqnet.data.years.format import stamp
from aqnet.data.years.reader import YearSet
from aqnet.io import atomic_directory, atomic_write_json
from aqnet.verification.physics import figures
from aqnet.verification.physics.checks import VALUE_CHECKS, check_store, check_truth
from aqnet.verification.physics.mass_budget import MassBudget, mass_budget
from aqnet.verification.physics.probe_models import (
    CONTROLS,
    GridForecasts,
    controls,
    require_same_domain,
)
from aqnet.verification.physics.probe_quantities import QUANTITIES, Probed, summary
from aqnet.verification.physics.probe_runs import probe_ridge, probe_source, probe_wind
from aqnet.verification.physics.probes import (
    Place,
    Ridge,
    Scene,
    flattened,
    raised,
    surroundings_of,
)
from aqnet.verification.store.reader import ForecastStore

__all__ = [
    "BUDGET",
    "FORMAT_VERSION",
    "Album",
    "ProbeSettings",
    "definitions_of",
    "stamps",
    "write_checks",
    "write_probes",
]

FORMAT_VERSION = 1
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
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class ProbeSettings:
    """What is probed, and where; see `aqnet.verification.physics.probe_runs`."""

    source: Place
    probes: tuple[str, ...]
    pollutants: tuple[str, ...]
    reach_km: float
    controls: tuple[str, ...] = tuple(CONTROLS)
    receptor: Place | None = None
    ridge: Ridge = field(default_factory=Ridge)


class Album:
    """Pictures of a folder, with what they show."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.entries = folder, []

    def add(self, file: str, title: str, caption: str, figure: Figure) -> None:
        """Write a figure and note what it shows."""
        figure.savefig(self.folder / file, dpi=110)
        self.entries.append({"file": file, "title": title, "caption": caption})


# ---- checks of a store


def write_checks(
    folder: str | Path,
    store: ForecastStore,
    truth: YearSet | None,
    members: Mapping[str, np.ndarray],
    record: dict,
    *,
    inits: int = 120,
    pollutants: Sequence[str] | None = None,
    progress: Progress = lambda step, share: None,
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
        found = {
            "kind": "physics",
            "version": FORMAT_VERSION,
            "record": record,
            "definitions": VALUE_CHECKS | BUDGET,
            "values": rows,
            "budget": None if budget is None else _budget(budget),
            "pictures": album.entries,
        }
        atomic_write_json(draft / "results.json", found)
    return found


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


# ---- probes of a checkpoint


def write_probes(
    folder: str | Path,
    forecasts: GridForecasts,
    scene: Scene,
    settings: ProbeSettings,
    record: dict,
    progress: Progress = lambda step, share: None,
) -> dict:
    """Probe a checkpoint for fields, write `folder` and return the content of its results.json.

    Raises
    ------
    StoreError
        The scene is not of the grid and mask of the checkpoint.
    CoverageError, ParameterError
        A place has no cell, the wind never blows to the receptor, or there is no receptor.
    """
    require_same_domain(forecasts, scene)
    models = {"checkpoint": forecasts, **controls(forecasts, settings.controls)}
    with atomic_directory(folder) as draft:
        rows, album = [], Album(draft)
        for done, probe in enumerate(settings.probes, start=1):
            probed, draw = _probe(probe, models, scene, settings)
            rows += summary(probed, forecasts.leads_h, settings.pollutants)
            draw(probed, forecasts, settings, album)
            progress("probes", done / len(settings.probes))
        _draw_numbers(rows, settings, album)
        found = {
            "kind": "probe",
            "version": FORMAT_VERSION,
            "record": record,
            "settings": asdict(settings) | {
                "lead_times_h": list(forecasts.leads_h),
                "init_times": stamps(scene.times),
            },
            "definitions": definitions_of(rows)
            | {f"control {name}": CONTROLS[name] for name in settings.controls},
            "rows": rows,
            "pictures": album.entries,
        }  # fmt: skip
        atomic_write_json(draft / "results.json", found)
    return found


def definitions_of(rows: Sequence[Mapping]) -> dict[str, dict]:
    """Unit, expected sign and meaning of the quantities in rows of `summary`."""
    keys = dict.fromkeys((row["probe"], row["quantity"]) for row in rows)
    return {" ".join(key): asdict(QUANTITIES[key]) for key in keys}


def stamps(times: np.ndarray) -> list[str]:
    """UTC hours as text."""
    return [stamp(time) for time in times]


def _probe(probe: str, models: Mapping, scene: Scene, s: ProbeSettings) -> tuple[Probed, Callable]:
    if probe == "ridge":
        elevation = np.array(models["checkpoint"].model.domain.elevation, dtype=np.float64)
        probed = probe_ridge(models, scene, elevation, s.ridge, s.source, s.receptor, s.pollutants)
        return probed, _draw_ridge
    run, draw = {"source": (probe_source, _draw_source), "wind": (probe_wind, _draw_wind)}[probe]
    return run(models, scene, s.source, s.pollutants, s.reach_km), draw


def _windiest(scene: Scene, source: Place) -> int:
    return int(np.argmax(surroundings_of(scene, source).speed))


def _draw_source(probed: Probed, forecasts: GridForecasts, s: ProbeSettings, album: Album) -> None:
    seen, leads = surroundings_of(probed.scene, s.source), forecasts.leads_h
    for p, name in enumerate(s.pollutants):
        of = {model: probed.fields["source_removed", model][:, :, p]
              for model in ("checkpoint", *s.controls)}  # fmt: skip
        album.add(
            f"source_along_wind_{name}.png", f"Source removed, {name}, in the frame of the wind",
            "Mean response over the init times, each turned so that the wind at the source blows "
            "to the right. Physics moves it to the right with lead time; a model that does not "
            "know the wind leaves it where it is.",
            figures.draw_composites(of, seen, leads, name, s.reach_km),
        )  # fmt: skip
        winds = {"real wind": "source_removed", "wind turned": "source_removed_wind_turned",
                 "calm": "source_removed_calm"}  # fmt: skip
        shown = {t: probed.fields[k, "checkpoint"][:, :, p] for t, k in winds.items()}
        album.add(
            f"source_maps_{name}.png", f"Source removed, {name}, one init time",
            "The windiest init time. Black circle: the source. Arrows: the real wind, in all rows.",
            figures.draw_responses(shown, probed.scene, _windiest(probed.scene, s.source), leads,
                                   name, s.source),
        )  # fmt: skip


def _draw_wind(probed: Probed, forecasts: GridForecasts, s: ProbeSettings, album: Album) -> None:
    for p, name in enumerate(s.pollutants):
        shown = {t: probed.fields[k, "checkpoint"][:, :, p]
                 for t, k in (("wind turned", "wind_turned"), ("calm", "calm"))}  # fmt: skip
        album.add(
            f"wind_maps_{name}.png", f"Wind turned and calmed, {name}, one init time",
            "Forecast with the changed wind less that with the real one (arrows), at the windiest "
            "init time.",
            figures.draw_responses(shown, probed.scene, _windiest(probed.scene, s.source),
                                   forecasts.leads_h, name, s.source),
        )  # fmt: skip


def _draw_ridge(probed: Probed, forecasts: GridForecasts, s: ProbeSettings, album: Album) -> None:
    ground = np.array(forecasts.model.domain.elevation, dtype=np.float64)
    titles = {"ridge raised": ("ridge_raised", raised),
              "ridge flattened": ("ridge_flattened", flattened)}  # fmt: skip
    change = {
        title: make(probed.scene, ground, s.ridge, s.source, s.receptor).elevation - ground
        for title, (_, make) in titles.items()
    }
    for p, name in enumerate(s.pollutants):
        shown = {t: probed.fields[k, "checkpoint"][:, :, p] for t, (k, _) in titles.items()}
        album.add(
            f"ridge_maps_{name}.png", f"Ridge raised and flattened, {name}",
            "Mean response to the terrain alone, over init times with wind from the source (black "
            "circle) to the receptor (green). Dashed: 25 % and 60 % of the change of the terrain, "
            + ", ".join(f"{t} by up to {np.abs(c).max():.0f} m" for t, c in change.items()) + ".",
            figures.draw_responses(shown, probed.scene, None, forecasts.leads_h, name, s.source,
                                   s.receptor, change),
        )  # fmt: skip


def _draw_numbers(rows: Sequence[Mapping], s: ProbeSettings, album: Album) -> None:
    for name in s.pollutants:
        album.add(
            f"numbers_{name}.png", f"Numbers of the probes, {name}",
            "Quantities for which physics expects a sign; bars are two standard errors over the "
            "init times.",
            figures.draw_numbers(rows, name),
        )  # fmt: skip
