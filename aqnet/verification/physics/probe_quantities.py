"""Numbers of the counterfactual probes, with the sign that physics expects, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from aqnet.verification.physics.probes import Scene, Surroundings

__all__ = [
    "QUANTITIES",
    "Probed",
    "area_mean",
    "displacement_km",
    "downwind_minus_upwind",
    "rms",
    "summary",
    "wrong_sign_share",
]

SECTOR_DEG = 45.0  # to both sides of the wind: what is downwind and upwind
UNIT, KM = "ug/m3", "km"


@dataclass(frozen=True)
class Quantity:
    """A number of a probe: unit, the sign that physics expects (1, -1 or 0 for none), meaning."""

    unit: str
    expected: int
    meaning: str


# Between one and `reach` radii, within 45 degrees of the wind at the init time: downwind, upwind.
QUANTITIES = {
    ("source_removed", "at_source"): Quantity(
        UNIT, -1, "response to removing the source, mean over its region"),
    ("source_removed", "downwind_minus_upwind"): Quantity(
        UNIT, -1, "response downwind less response upwind of the source"),
    ("source_removed", "displacement_along"): Quantity(
        KM, 1, "centroid of the falling response less that of what was removed, along the wind at "
        "the init time"),
    ("source_removed", "displacement_across"): Quantity(
        KM, 0, "the same, to the left of the wind"),
    ("source_removed", "wrong_sign_share"): Quantity(
        "1", 0, "share of the absolute response that rises where pollution was removed"),
    ("source_removed_wind_turned", "displacement_along"): Quantity(
        KM, -1, "the displacement with the wind turned by 180 degrees, along the real wind"),
    ("source_removed", "contrast_real_minus_turned"): Quantity(
        UNIT, -1, "downwind less upwind (by the real wind) of the response, under it less under "
        "the turned wind; 0 for a model that ignores wind"),
    ("source_removed", "displacement_real_minus_turned"): Quantity(
        KM, 1, "displacement along the real wind, under it less under the turned wind: what the "
        "place does to the centroid cancels; 0 for a model that ignores wind"),
    ("source_removed_calm", "displacement_along"): Quantity(
        KM, 0, "the displacement without wind, along the real wind: near 0 in still air"),
    ("wind_turned", "rms"): Quantity(
        UNIT, 0, "root mean square over the domain of the response to turning the wind by 180 "
        "degrees; 0 for a model that ignores wind"),
    ("wind_turned", "upwind_minus_downwind"): Quantity(
        UNIT, 1, "the same response, upwind of the source less downwind (by the real wind)"),
    ("calm", "rms"): Quantity(
        UNIT, 0, "root mean square over the domain of the response to taking the wind away"),
    ("calm", "at_source"): Quantity(
        UNIT, 1, "the same response, mean over the region of the source: air stagnates"),
    ("calm", "mean"): Quantity(
        UNIT, 1, "the same response, mean over the grid of the stations"),
    ("wind_turned", "southerly_minus_northerly"): Quantity(
        UNIT, 1, "mean response over the grid of the stations, less what it would be the other way "
        "round: positive if a southerly brings more than a northerly, as in Beijing, with the "
        "plain in the south and mountains in the north"),
    ("ridge_raised", "at_receptor"): Quantity(
        UNIT, 0, "response of the forecast to a ridge between source and receptor, there"),
    ("ridge_raised", "influence_lost"): Quantity(
        UNIT, 1, "response at the receptor to removing the source, with less without the ridge: "
        "positive where the ridge holds the source's air back"),
    ("ridge_flattened", "at_receptor"): Quantity(
        UNIT, 0, "response of the forecast to flattening the terrain between them, there"),
    ("ridge_flattened", "influence_lost"): Quantity(
        UNIT, -1, "as of the raised ridge: negative where the way is open now"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Probed:
    """Values of quantities, and fields for pictures.

    Attributes
    ----------
    values : dict
        (probe, quantity, model): (B, L, P), NaN where the init time does not count.
    fields : dict
        Probe and model: response (B, L, P, N) [ug/m3].
    scene : Scene
        Of the init times B.
    """

    values: dict[tuple[str, str, str], np.ndarray]
    fields: dict[tuple[str, str], np.ndarray]
    scene: Scene


# ---- quantities of a response (B, L, P, N)


def area_mean(values: np.ndarray, area: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(B, L, P): by area over cells `chosen`, (N,) or (B, N); NaN where nothing is chosen."""
    weight = np.broadcast_to(chosen, (len(values), values.shape[-1])) * area
    total = weight.sum(-1)
    sums = np.einsum("blpn,bn->blp", np.nan_to_num(values), weight)
    return sums / np.where(total > 0, total, np.nan)[:, None, None]


def _sectors(source: Surroundings, reach_km: float) -> tuple[np.ndarray, np.ndarray]:
    """Downwind and upwind cells (B, N) bool; none without wind."""
    along, across = source.along_km()
    near = ~source.inside & (source.distance_km <= reach_km)
    narrow = np.abs(across) <= np.tan(np.deg2rad(SECTOR_DEG)) * np.abs(along)
    return near & narrow & (along > 0), near & narrow & (along < 0)


def downwind_minus_upwind(
    response: np.ndarray, source: Surroundings, reach_km: float
) -> np.ndarray:
    """Mean downwind less mean upwind, (B, L, P)."""
    down, up = _sectors(source, reach_km)
    return area_mean(response, source.area_km2, down) - area_mean(response, source.area_km2, up)


def _centroid(falling: np.ndarray, source: Surroundings, reach_km: float) -> np.ndarray:
    """(2, B, L, P) km along and across the wind, of `falling` (B, L, P, N) >= 0; NaN if it is 0."""
    weight = falling * (source.area_km2 * (source.distance_km <= reach_km))
    total = weight.sum(-1)
    total = np.where(total > 1e-9 * source.area_km2.sum(), total, np.nan)
    return np.stack([np.einsum("blpn,bn->blp", weight, x) / total for x in source.along_km()])


def displacement_km(
    response: np.ndarray, removed: np.ndarray, source: Surroundings, reach_km: float
) -> np.ndarray:
    """(2, B, L, P) km; `removed` (B, P, N) [ug/m3] was taken away, as a positive number."""
    start = _centroid(np.maximum(removed, 0)[:, None], source, reach_km)
    return _centroid(np.maximum(-response, 0), source, reach_km) - start


def wrong_sign_share(response: np.ndarray, source: Surroundings, reach_km: float) -> np.ndarray:
    """Share of the absolute response within reach that is positive, (B, L, P) [1]."""
    near = source.distance_km <= reach_km
    whole = area_mean(np.abs(response), source.area_km2, near)
    rising = area_mean(np.maximum(response, 0), source.area_km2, near)
    return rising / np.where(whole > 0, whole, np.nan)


def rms(response: np.ndarray, area_km2: np.ndarray) -> np.ndarray:
    """Root mean square over all cells, by area, (B, L, P)."""
    everywhere = np.ones(response.shape[-1], bool)
    return np.sqrt(area_mean(np.square(response), area_km2, everywhere))


# ---- table


def _verdict(mean: float, error: float, expected: int, count: int) -> str:
    """In words; a sign counts if Student's 95 % interval of the mean leaves 0 out."""
    if count < 3:
        return "too few init times"
    if abs(mean) < 1e-6 and error < 1e-6:
        return "no response"
    if not expected:
        return "no sign expected"
    if abs(mean) < stdtrit(count - 1, 0.975) * error:
        return "undecided"
    return "as expected" if np.sign(mean) == expected else "against expectation"


def summary(probed: Probed, leads_h: Sequence[int], pollutants: Sequence[str]) -> list[dict]:
    """A row for each probe, quantity, model, pollutant and lead time.

    Returns
    -------
    list of dict
        mean and standard_error over the init times (which are taken as independent), inits,
        expected ("+", "-" or "none"; always "none" for ozone), share_expected: of the init times
        with that sign, verdict.
    """
    rows = []
    for (probe, quantity, model), values in probed.values.items():
        about = QUANTITIES[probe, quantity]
        for p, name in enumerate(pollutants):
            for lead, hours in enumerate(leads_h):
                known = values[:, lead, p][np.isfinite(values[:, lead, p])]
                n = known.size
                mean = float(known.mean()) if n else None
                error = float(known.std(ddof=1) / np.sqrt(n)) if n > 1 else None
                # removing or trapping NO2 raises ozone here and lowers it there
                expected = 0 if name == "o3" else about.expected
                agree = float((np.sign(known) == expected).mean()) if n else None
                rows.append({
                    "probe": probe, "quantity": quantity, "model": model, "pollutant": name,
                    "lead_h": int(hours), "mean": mean, "standard_error": error,
                    "unit": about.unit, "inits": n,
                    "expected": {1: "+", -1: "-", 0: "none"}[expected],
                    "share_expected": agree if expected else None,
                    "verdict": _verdict(mean or 0.0, error or 0.0, expected, n),
                })  # fmt: skip
    return rows
