"""Forecast stores side by side, what one holds in words, and its verification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from itertools import product
from pathlib import Path

import numpy as np

from aqnet.data.years.format import stamp
from aqnet.errors import AqnetError, CoverageError, LeadTimeError, explain
from aqnet.progress import Progress, silent
from aqnet.verification.store.format import UNIT, block_digest
from aqnet.verification.store.reader import ForecastStore, broken, open_forecast_store

__all__ = ["common_axes", "describe_forecast_store", "verify_forecast_store"]


def common_axes(
    stores: Sequence[ForecastStore],
    mask: np.ndarray,
    lead_times_h: Sequence[int] | None,
    pollutants: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[int, ...], tuple[str, ...]]:
    """Init times that all stores have, and the lead times and pollutants to score.

    Raises
    ------
    CoverageError
        No cell of `mask` or no init time is left, or a store lacks a pollutant.
    LeadTimeError, CoverageError
        Lead times or pollutants differ between the stores, and None leaves the choice to them.
    """
    times = reduce(np.intersect1d, [store.init_times for store in stores])
    leads = _shared("lead_times_h", LeadTimeError, stores, lead_times_h)
    for store, lead in product(stores, leads):
        store.lead_index(lead)
    names = _shared("pollutants", CoverageError, stores, pollutants)
    lacking = {s.name: [n for n in names if n not in s.pollutants] for s in stores}
    if not (mask.any() and times.size and leads and names) or any(lacking.values()):
        found = {"cells": int(mask.sum()), "init times": times.size, "lead times": leads,
                 "pollutants": names, "not in the stores": lacking}  # fmt: skip
        raise CoverageError(
            explain("the forecasts and the truth have too little in common", found=found,
                    expected="some of each, all of the asked pollutants in each store",
                    remedy="score stores of the same period, lead times and pollutants")
        )  # fmt: skip
    return times, leads, names


def _shared(
    what: str, error: type[AqnetError], stores: Sequence[ForecastStore], asked: Sequence | None
) -> tuple:
    """What is asked for, or what every store has; an error if they differ and nobody chose."""
    if asked is not None:
        return tuple(asked)
    held = {store.name: getattr(store, what) for store in stores}
    first = held[stores[0].name]
    if len(set(held.values())) > 1:
        common = [x for x in first if all(x in other for other in held.values())]
        raise error(
            explain(f"the stores differ in {what}", expected="the same, or a choice", found=held,
                    remedy=f"choose by `{what}` (--leads, --pollutants); all have {common}")
        )  # fmt: skip
    return first


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


def verify_forecast_store(
    path: str | Path, progress: Progress = silent
) -> str:
    """Compare every value with the digests in the store; return the digest of its content.

    Raises
    ------
    StoreError
        Names the block that differs.
    """
    store = open_forecast_store(path)
    for number, rows in enumerate(store.blocks()):
        values = [store.read(rows, None, name, cells=True) for name in store.pollutants]
        found = block_digest(np.stack(values))
        if not np.array_equal(found, store.block_sha256[number]):
            what = f"block {number} (from {stamp(store.init_times[rows.start])}) has other values"
            recorded = store.block_sha256[number].tobytes().hex()
            raise broken(store.path, what, recorded, found.tobytes().hex())
        progress(f"blocks of {store.path.name}", (number + 1) / len(store.blocks()))
    return store.digest
