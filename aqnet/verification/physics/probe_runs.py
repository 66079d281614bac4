"""The probes: a source removed, the wind turned or calmed, a ridge between two places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from aqnet.errors import CoverageError, ParameterError, explain
from aqnet.grid import distance_km
from aqnet.variables import TARGETS
from aqnet.verification.physics.probe_quantities import (
    Probed,
    area_mean,
    displacement_km,
    downwind_minus_upwind,
    rms,
    wrong_sign_share,
)
from aqnet.verification.physics.probes import (
    Forecasts,
    Place,
    Ridge,
    Scene,
    calmed,
    flattened,
    raised,
    surroundings_of,
    turned,
    without_source,
)

__all__ = ["probe_ridge", "probe_source", "probe_wind", "towards"]

REAL, TURNED = "source_removed", "source_removed_wind_turned"


def _run(model: Forecasts, scene: Scene, at: Sequence[int]) -> np.ndarray:
    """Forecast (B, L, P, N) float64 [ug/m3]."""
    found = model(scene)[:, :, at].astype(np.float64)
    if found.shape[-1] != scene.values.shape[-1] or not np.isfinite(found).all():
        raise CoverageError(
            explain("a forecast has no value where one is needed",
                    expected=f"finite values in {scene.values.shape[-1]} cells",
                    found=f"shape {found.shape}, {int((~np.isfinite(found)).sum())} not finite",
                    remedy="look at the inputs of these init times and at the checkpoint")
        )  # fmt: skip
    return found


def positions(pollutants: Sequence[str]) -> list[int]:
    """Positions in TARGETS; ParameterError for an unknown pollutant."""
    if unknown := [name for name in pollutants if name not in TARGETS]:
        raise ParameterError(
            explain("unknown pollutants", expected=", ".join(TARGETS), found=unknown,
                    remedy="choose among them")
        )  # fmt: skip
    return [TARGETS.index(name) for name in pollutants]


def probe_source(
    models: Mapping[str, Forecasts],
    scene: Scene,
    place: Place,
    pollutants: Sequence[str],
    reach_km: float,
) -> Probed:
    """Remove a source: under the real wind, the wind turned by 180 degrees, and in still air.

    Parameters
    ----------
    models : mapping
        Name to forecasts, controls among them.
    scene : Scene
    place : Place
    pollutants : sequence of str
    reach_km : float
        How far from the source responses are looked at.
    """
    at, source = positions(pollutants), surroundings_of(scene, place)
    removed = scene.targets() - without_source(scene, source).targets()
    removed = np.nan_to_num(removed[:, at].astype(np.float64))
    winds = {REAL: scene, TURNED: turned(scene), "source_removed_calm": calmed(scene)}
    values, fields = {}, {}
    for name, model in models.items():
        moved, contrast = {}, {}
        for probe, plain in winds.items():
            response = _run(model, without_source(plain, source), at) - _run(model, plain, at)
            fields[probe, name] = response
            moved[probe] = displacement_km(response, removed, source, reach_km)
            contrast[probe] = downwind_minus_upwind(response, source, reach_km)
            values[probe, "displacement_along", name] = moved[probe][0]
        response = fields[REAL, name]
        found = {
            "displacement_across": moved[REAL][1],
            "displacement_real_minus_turned": moved[REAL][0] - moved[TURNED][0],
            "downwind_minus_upwind": contrast[REAL],
            "contrast_real_minus_turned": contrast[REAL] - contrast[TURNED],
            "at_source": area_mean(response, source.area_km2, source.inside),
            "wrong_sign_share": wrong_sign_share(response, source, reach_km),
        }
        values |= {(REAL, quantity, name): each for quantity, each in found.items()}
    return Probed(values, fields, scene)


def probe_wind(
    models: Mapping[str, Forecasts],
    scene: Scene,
    place: Place,
    pollutants: Sequence[str],
    reach_km: float,
) -> Probed:
    """Turn the wind by 180 degrees, and take it away; arguments as `probe_source`."""
    at, source = positions(pollutants), surroundings_of(scene, place)
    values, fields = {}, {}
    for name, model in models.items():
        usual = _run(model, scene, at)
        for probe, changed in (("wind_turned", turned(scene)), ("calm", calmed(scene))):
            response = _run(model, changed, at) - usual
            fields[probe, name] = response
            values[probe, "rms", name] = rms(response, source.area_km2)
            if probe == "wind_turned":
                found = -downwind_minus_upwind(response, source, reach_km)
                values[probe, "upwind_minus_downwind", name] = found
            else:
                inside = area_mean(response, source.area_km2, source.inside)
                values[probe, "at_source", name] = inside
    return Probed(values, fields, scene)


def towards(scene: Scene, source: Place, receptor: Place, within_deg: float = 60.0) -> np.ndarray:
    """(B,) bool: the wind at the source blows to the receptor; CoverageError if it never does."""
    seen = surroundings_of(scene, source)
    cells = surroundings_of(scene, receptor).inside
    east, north = (
        float(np.mean(f(seen.bearing[cells]) * seen.distance_km[cells])) for f in (np.cos, np.sin)
    )
    cosine = (seen.wind @ np.array([east, north])) / np.hypot(east, north)
    found = seen.blows & (cosine >= np.cos(np.deg2rad(within_deg)) * seen.speed)
    if not found.any():
        raise CoverageError(
            explain("the wind never blows from the source to the receptor",
                    expected=f"a direction within {within_deg:g} degrees at one init time",
                    found=f"none of {len(found)} init times",
                    remedy="choose another receptor, more init times or another period")
        )  # fmt: skip
    return found


def probe_ridge(
    models: Mapping[str, Forecasts],
    scene: Scene,
    elevation: np.ndarray,
    ridge: Ridge,
    source: Place,
    receptor: Place,
    pollutants: Sequence[str],
) -> Probed:
    """Raise a ridge between source and receptor, and flatten what is there.

    Only init times whose wind blows towards the receptor count. `elevation`: (H, W) [m], of the
    model; it is given to the model anew for the unchanged terrain, too, so that a response is one
    to terrain alone. ParameterError: no room for a ridge.
    """
    apart = float(distance_km(source.lat, source.lon, receptor.lat, receptor.lon))
    if apart <= source.radius_km + receptor.radius_km:
        raise ParameterError(
            explain("source and receptor overlap",
                    expected=f"more than {source.radius_km + receptor.radius_km:g} km apart",
                    found=f"{apart:.0f} km", remedy="choose a receptor farther away")
        )  # fmt: skip
    at, scene = positions(pollutants), scene.only(towards(scene, source, receptor))
    seen, there = surroundings_of(scene, source), surroundings_of(scene, receptor)
    plain = replace(scene, elevation=elevation)
    grounds = {"ridge_raised": raised(scene, elevation, ridge, source, receptor),
               "ridge_flattened": flattened(scene, elevation, ridge, source, receptor)}  # fmt: skip
    values, fields = {}, {}
    for name, model in models.items():
        usual = _run(model, plain, at)
        without = _run(model, without_source(plain, seen), at) - usual
        for probe, ground in grounds.items():
            there_is = _run(model, ground, at)
            behind = _run(model, without_source(ground, seen), at) - there_is
            fields[probe, name] = response = there_is - usual
            lost = area_mean(behind - without, there.area_km2, there.inside)
            values[probe, "influence_lost", name] = lost
            values[probe, "at_receptor", name] = area_mean(response, there.area_km2, there.inside)
    return Probed(values, fields, scene)
