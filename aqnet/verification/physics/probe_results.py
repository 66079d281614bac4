"""What `aqnet probe` writes of a checkpoint for fields: quantities with their signs, and maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from aqnet.errors import ParameterError, explain
from aqnet.io import atomic_directory
from aqnet.progress import Progress, silent
from aqnet.verification.physics import figures
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
from aqnet.verification.physics.results import Album, stamps, write_results

__all__ = ["ProbeSettings", "definitions_of", "write_probes"]


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


def write_probes(
    folder: str | Path,
    forecasts: GridForecasts,
    scene: Scene,
    settings: ProbeSettings,
    record: dict,
    progress: Progress = silent,
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
    if "ridge" in settings.probes and settings.receptor is None:
        raise ParameterError(
            explain("the probe of a ridge needs a receptor", expected="a place behind the ridge",
                    found="none", remedy="name it, or leave the probe out")
        )  # fmt: skip
    models = {"checkpoint": forecasts, **controls(forecasts, settings.controls)}
    with atomic_directory(folder) as draft:
        rows, album = [], Album(draft)
        for done, probe in enumerate(settings.probes, start=1):
            probed, draw = _probe(probe, models, scene, settings)
            rows += summary(probed, forecasts.leads_h, settings.pollutants)
            draw(probed, forecasts, settings, album)
            progress("probes", done / len(settings.probes))
        _draw_numbers(rows, settings, album)
        told = asdict(settings) | {
            "lead_times_h": list(forecasts.leads_h),
            "init_times": stamps(scene.times),
        }
        compared = {name: CONTROLS[name] for name in settings.controls}
        return write_results(album, "probe", record, settings=told, rows=rows,
                             definitions=definitions_of(rows, compared))  # fmt: skip


def definitions_of(rows: Sequence[Mapping], controls: Mapping[str, str]) -> dict:
    """Unit, expected sign and meaning of the quantities in rows of `summary`, and the controls."""
    keys = dict.fromkeys((row["probe"], row["quantity"]) for row in rows)
    found = {" ".join(key): asdict(QUANTITIES[key]) for key in keys}
    return found | {f"control {name}": meaning for name, meaning in controls.items()}


# ---- the probes, and their pictures


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
    for name in (p for p in s.pollutants if figures.with_expected_sign(rows, p)):
        album.add(
            f"numbers_{name}.png", f"Numbers of the probes, {name}",
            "Quantities for which physics expects a sign; bars are two standard errors over the "
            "init times.",
            figures.draw_numbers(rows, name),
        )  # fmt: skip
