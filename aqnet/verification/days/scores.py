"""Scoring daily products: days of one initialisation, or composites of fixed lead times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.years.year_set import YearSet
from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.progress import Progress, silent
from aqnet.verification.days.products import BEIJING_OFFSET_H
from aqnet.verification.days.scoring import AQI, PRODUCTS, DayScoring
from aqnet.verification.days.sources import CellForecasts, ProductMaker
from aqnet.verification.groups import Groups
from aqnet.verification.scoreboard import Scoreboard
from aqnet.verification.scoring import CellTruth, check_forecasts, packed_climatology
from aqnet.verification.standards import Edition, StandardError, edition
from aqnet.verification.store.checks import common_axes
from aqnet.verification.store.reader import ForecastStore

__all__ = ["day_maker", "score_days"]


def score_days(
    stores: ForecastStore | Sequence[ForecastStore],
    truth: YearSet,
    members: Mapping[str, np.ndarray] | None = None,
    *,
    standard: str | Edition,
    products: Sequence[str] | None = None,
    composite: bool = False,
    baselines: Sequence[str] = ("persistence",),
    climatology: HarmonicClimatology | None = None,
    lead_times_h: Sequence[int] | None = None,
    each_place: bool = False,
    workers: int = 0,
    progress: Progress = silent,
) -> Scoreboard:
    """Score daily products of forecast stores and baselines on common pairs.

    Days are Beijing days. A lead day is the first, second, ... day all of whose hours end after
    the init time, and needs all its 24 hours; the truth follows the rules of validity of the
    edition. Events are exceedances of the class 2 limit (AQI: above 100).

    Parameters
    ----------
    stores, truth, members
        As in `aqnet.verification.scoring.score`.
    standard : str or Edition
        Stands in the design, and so in every table.
    products : sequence of str, optional
        Of `PRODUCTS`. Default all; all but AQI for a composite.
    composite : bool
        Days of hours that were each forecast a fixed time before, for every lead time of the
        stores: labelled as such (`Design.days`), never with an AQI.
    baselines : sequence of str
        "persistence": the last whole day before the init time (composite: each hour's value a
        lead time before). "climatology": days of the usual hours, whose maxima are low.
    climatology : HarmonicClimatology, optional
        As in `score`; for the baseline alone.
    lead_times_h : sequence of int, optional
        Default those of the stores, which then must not differ.
    each_place : bool
        Keep the sums of every place, all days together.
    workers, progress
        As in `score`.

    Raises
    ------
    StandardError
        Unknown edition, a figure that it lacks, or an AQI of a composite.
    VerificationError
        Unknown product, or no day of any init time has hourly lead times.
    StoreError, CoverageError, ParameterError
        As in `score`.
    """
    stores = (stores,) if isinstance(stores, ForecastStore) else tuple(stores)
    check_forecasts(stores, truth, baselines, climatology)
    maker = day_maker(standard, products, composite)
    mask = reduce(np.logical_and, [store.mask for store in stores], truth.mask)
    times, leads, _ = common_axes(stores, mask, lead_times_h, maker.pollutants)
    scoring = DayScoring.of(
        [CellForecasts(store, mask) for store in stores], CellTruth(truth, mask),
        Groups.of_grid(truth.grid, mask, members, BEIJING_OFFSET_H), maker, times, leads,
        composite=composite, baselines=baselines, each_place=each_place, weight="area [km2]",
        climatology=packed_climatology(climatology, maker.pollutants, mask),
    )  # fmt: skip
    return scoring.board(workers, progress)


def day_maker(
    standard: str | Edition, products: Sequence[str] | None, composite: bool
) -> ProductMaker:
    """Maker of the products that `score_days` describes; StandardError, VerificationError."""
    standard = edition(standard)
    names = tuple(products or (name for name in PRODUCTS if not (composite and name == AQI)))
    if unknown := [name for name in names if name not in PRODUCTS]:
        raise VerificationError(
            explain("no such daily product", expected=list(PRODUCTS), found=unknown,
                    remedy="choose among them")
        )  # fmt: skip
    if AQI in names and composite:
        raise StandardError(
            explain("a composite of fixed lead times has no air quality index", found=list(names),
                    expected="products of concentrations", remedy=f"leave {AQI} out, or score "
                    "hourly forecasts of one initialisation")
        )  # fmt: skip
    if AQI in names:
        standard.indicators()
    return ProductMaker(standard, tuple(PRODUCTS[name] for name in names))
