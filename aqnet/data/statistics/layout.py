"""What statistics hold: each array with its dimensions and definition, and what it is about."""

from __future__ import annotations

import json

import numpy as np

from aqnet.data.normalisation import static_moments
from aqnet.data.statistics.file import FORMAT, FORMAT_VERSION, Statistics
from aqnet.data.statistics.plan import SEGMENT_H, Plan, Source
from aqnet.data.statistics.streaming import LOG_OFFSET_UG_M3
from aqnet.variables import DYNAMIC, STATIC, TARGETS, VARIABLES

__all__ = ["DEFINITIONS", "assemble"]

_HOURS = "over valid hours of the split"
_ALL = "over valid cells and hours of the split, each cell alike"
_LOG = f"log(max(c, 0) + {LOG_OFFSET_UG_M3:g} ug/m3)"
_PAIRS = "over pairs of valid hours of the split exactly h apart"
_CELLS = ("lat", "lon")
DEFINITIONS = {  # name: dimensions, definition; units are those of the variable
    "count": (("variable", *_CELLS), f"hours with a value, {_HOURS}"),
    "mean": (("variable", *_CELLS), f"mean {_HOURS}"),
    "std": (("variable", *_CELLS), f"standard deviation {_HOURS}"),
    "log_mean": (("target", *_CELLS), f"mean of {_LOG} {_HOURS}"),
    "log_std": (("target", *_CELLS), f"standard deviation of {_LOG} {_HOURS}"),
    "climatology": (
        ("harmonic", "variable", *_CELLS),
        "coefficients on aqnet.data.climatology.harmonic_basis",
    ),
    "anomaly_std": (
        ("variable", *_CELLS),
        f"standard deviation of departures from the climatology {_HOURS}",
    ),
    "lag_correlation": (
        ("lead_h", "variable", *_CELLS),
        f"correlation of x(t) and x(t + h) {_PAIRS}; NaN where x is constant",
    ),
    "anomaly_lag_correlation": (
        ("lead_h", "variable", *_CELLS),
        f"correlation of departures from the climatology at t and t + h {_PAIRS}",
    ),
    "cell_quantiles": (
        ("cell_quantile", "variable", *_CELLS),
        f"quantiles {_HOURS}, linear between order statistics",
    ),
    "pairs": (("lead_h", "variable"), "pairs of hours of lag_correlation"),
    "quantiles": (("quantile", "variable"), f"quantiles {_ALL}, linear between order statistics"),
    "log_quantiles": (("quantile", "target"), f"quantiles of {_LOG} {_ALL}, linear as well"),
    "domain_mean": (("variable",), f"mean {_ALL}"),
    "domain_std": (("variable",), f"standard deviation {_ALL}"),
    "domain_anomaly_std": (("variable",), f"standard deviation about the climatology {_ALL}"),
    "domain_log_mean": (("target",), f"mean of {_LOG} {_ALL}"),
    "domain_log_std": (("target",), f"standard deviation of {_LOG} {_ALL}"),
    "static_mean": (("static_variable",), "mean over the active cells"),
    "static_std": (("static_variable",), "standard deviation over the active cells"),
}


def _maps(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(..., C) of the active cells to (..., H, W); NaN, or 0 of counts, elsewhere."""
    empty = 0 if values.dtype.kind == "i" else np.nan
    found = np.full((*values.shape[:-1], *mask.shape), empty, dtype=values.dtype)
    found[..., mask] = values
    return found


def _coordinates(plan: Plan, source: Source) -> dict:
    """Names and numbers of the dimensions; without a grid, rows and columns are numbered."""
    grid = getattr(source, "grid", None)
    axes = (grid.lat, grid.lon) if grid else [np.arange(float(n)) for n in source.mask.shape]
    return {
        "variable": list(DYNAMIC),
        "target": list(TARGETS),
        "static_variable": list(STATIC),
        "lead_h": np.array(plan.leads_h, dtype=np.int64),
        "lat": axes[0],
        "lon": axes[1],
    }


def _attributes(plan: Plan, about: dict) -> dict[str, str]:
    said = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "split": plan.split.name,
        "split_start": f"{plan.split.start}Z",
        "split_end": f"{plan.split.end}Z",  # the first hour that does not belong to it
        "first_hour": f"{plan.times[0]}Z",
        "last_hour": f"{plan.times[-1]}Z",
        "hours": len(plan.times),
        "utc_offset_h": plan.utc_offset_h,
        "annual_harmonics": plan.annual,
        "diurnal_harmonics": plan.diurnal,
        "log_offset_ug_m3": LOG_OFFSET_UG_M3,
        "segment_h": SEGMENT_H,
        "keep_bits": json.dumps(dict(zip(DYNAMIC, plan.keep_bits, strict=True))),
        "units": json.dumps({n: VARIABLES[n].unit for n in (*DYNAMIC, *STATIC)}),
        **about,
    }
    return {name: str(value) for name, value in said.items()}


def assemble(
    plan: Plan,
    source: Source,
    found: dict[str, np.ndarray],
    about: dict[str, str],
    coordinates: dict,
) -> Statistics:
    """Statistics from arrays by name, those of maps with the active cells C as last dimension.

    Parameters
    ----------
    plan, source
        What they were computed from.
    found : dict
        Keys of `DEFINITIONS`; the statistics of the static fields are added here.
    about : dict of str
        More attributes.
    coordinates : dict
        Of the dimensions that `plan` does not know.
    """
    mean, std = static_moments(source.static, source.mask)
    arrays = {
        name: ((name,), np.array(values), {})
        for name, values in (_coordinates(plan, source) | coordinates).items()
    }
    arrays["mask"] = (_CELLS, source.mask.astype(np.int8), {"definition": "1: active cells"})
    for name, values in (found | {"static_mean": mean, "static_std": std}).items():
        dimensions, text = DEFINITIONS[name]
        if dimensions[-2:] == _CELLS:
            values = _maps(values, source.mask)
        arrays[name] = (dimensions, values, {"definition": text})
    return Statistics(arrays, _attributes(plan, about))
