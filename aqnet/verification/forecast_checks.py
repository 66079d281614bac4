"""Forecast stores side by side, and what one holds in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from aqnet.data.year_format import stamp
from aqnet.errors import StoreError, explain
from aqnet.verification.forecast_format import UNIT
from aqnet.verification.forecast_reader import ForecastStore, open_forecast_store

__all__ = ["describe_forecast_store", "require_comparable"]


def require_comparable(first: ForecastStore, second: ForecastStore) -> None:
    """Refuse, by a StoreError, two stores that differ in grid or mask.

    Init times, leads and pollutants may differ: take those that both have.
    """
    differ = {}
    if first.grid.digest != second.grid.digest:
        differ["grid"] = [(s.grid.name, s.grid.shape, s.grid.digest[:12]) for s in (first, second)]
    elif not np.array_equal(first.mask, second.mask):
        differ["mask"] = [f"{int(s.mask.sum())} cells" for s in (first, second)]
    if differ:
        raise StoreError(
            explain(f"{first.path} and {second.path} cannot be compared: {', '.join(differ)}",
                    expected="; ".join(f"{k}: {v[0]}" for k, v in differ.items()),
                    found="; ".join(f"{k}: {v[1]}" for k, v in differ.items()),
                    remedy="write or import both on the same grid and mask")
        )  # fmt: skip


def describe_forecast_store(path: str | Path) -> str:
    """What a forecast store holds, one fact a line."""
    store = open_forecast_store(path)
    size = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    cells, about = int(store.mask.sum()), store.attributes
    facts = {
        "title": about["title"] + (" (SYNTHETIC)" if store.synthetic else ""),
        "init times": f"{len(store.init_times)}, {stamp(store.init_times[0])} to "
        f"{stamp(store.init_times[-1])}; skipped {len(about['skipped'])}",
        "lead times": f"{len(store.lead_times_h)}: {store.lead_times_h[0]} to "
        f"{store.lead_times_h[-1]} h",
        "pollutants": ", ".join(store.pollutants) + f" in {UNIT}",
        "grid": f"{store.grid.name} {store.grid.shape}, {cells} cells, {store.grid.digest[:12]}",
        "size": f"{size / 1e6:.1f} MB, {about['keep_bits']} bits of mantissa",
        **{name: json.dumps(about[name]) for name in ("kind", "source", "data", "run", "code")},
        "content": store.digest,
        "history": about["history"],
    }
    return "\n".join(f"{name:<11}{fact}" for name, fact in facts.items())
