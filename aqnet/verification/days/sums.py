"""Adding daily products of forecasts and truth to a scoreboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aqnet.variables import TARGETS
from aqnet.verification.field_sums import FieldOrder, error_moments, event_counts, place_moments
from aqnet.verification.groups import Groups, time_cells
from aqnet.verification.scoreboard import Design, Scoreboard
from aqnet.verification.standards import LEVELS, level

__all__ = ["DayAdder", "DayFields", "primary_pair"]


class DayFields(NamedTuple):
    """Products of one day, in the order of the pollutants of a `Design`.

    values : (Q, C) float64
        ug/m3; the index as it is; NaN where there is none.
    primary : (P, C) bool
        Of `TARGETS`: makes the index; all False without an index.
    """

    values: np.ndarray
    primary: np.ndarray


def primary_pair(forecast: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Primary pollutants (P, C) bool as categories (C,): 0 is none, then `TARGETS`.

    Several pollutants may make an index. If the two have one in common, it is the category of
    both (the first one); otherwise each has its first.
    """
    shared = forecast & truth

    def category(own: np.ndarray) -> np.ndarray:
        chosen = np.where(shared.any(0), shared, own)
        return np.where(chosen.any(0), chosen.argmax(0) + 1, 0)

    return category(forecast), category(truth)


class DayAdder:
    """Adds days to a scoreboard; a pair counts if the truth and all forecasts are known.

    Parameters
    ----------
    design : Design
        Of days (`edition`), with thresholds.
    groups : Groups
        Places of the arrays that are added.
    """

    def __init__(self, design: Design, groups: Groups) -> None:
        self.board, self.design, self.groups = Scoreboard(design), design, groups
        self.limits = np.asarray(design.thresholds, dtype=np.float64)
        order = np.argsort(groups.classes, kind="stable")
        cell, weight = groups.classes[order], groups.weight[order]
        self._everywhere = FieldOrder(order, cell, weight, design.classes)

    def add(
        self,
        time: np.datetime64,
        days: np.ndarray,
        forecasts: Mapping[str, list[DayFields | None]],
        truth: list[DayFields | None],
    ) -> None:
        """Add one init time, or one day of a composite.

        Parameters
        ----------
        time : datetime64, UTC
            Each once.
        days : (L,) datetime64[D]
            Beijing date of each lead.
        forecasts : mapping of name to L DayFields
        truth : L DayFields
            None where there is none: such a day does not count.
        """
        names = self.design.forecasts
        series = self.board.weight.shape[1:]
        weight, squares = np.zeros(series), {name: np.zeros(series) for name in names}
        for k, observed in enumerate(truth):
            own = {name: forecasts[name][k] for name in names}
            if observed is None or any(fields is None for fields in own.values()):
                continue
            season, _ = time_cells(days[k].astype("datetime64[h]"), 0.0)  # dates are local
            found = self._day((k, int(season), 0), own, observed)
            weight[k] = found.pop("")
            for name, square in found.items():
                squares[name][k] = square
        one = {name: square[None] for name, square in squares.items()}
        self.board.extend(np.array([time]), weight[None], one)

    def _day(
        self, index: tuple, forecasts: Mapping[str, DayFields], truth: DayFields
    ) -> dict[str, np.ndarray]:
        """Add a day; weight (under "") and squared errors of each forecast, (Q, G)."""
        table, groups = self.groups.member_table, self.groups.in_group.T.astype(np.float64)
        known = np.isfinite(truth.values)
        lost = {name: known & np.isnan(f.values) for name, f in forecasts.items()}
        for name, places in lost.items():
            self.board.missing[name][index[0]] += places @ table
        known &= ~np.any(list(lost.values()), axis=0)
        orders = [self._everywhere.where(row) for row in known]
        series = {}
        for name, own in forecasts.items():
            pairs = [(own.values[q, at.order], truth.values[q, at.order], at)
                     for q, at in enumerate(orders)]  # fmt: skip
            moments = _stack([error_moments(*pair) for pair in pairs])
            self.board.sums["error"][name].add_moments(moments, index)
            counts = [event_counts(f, o, limits, at)
                      for (f, o, at), limits in zip(pairs, self.limits, strict=True)]  # fmt: skip
            self.board.sums["event"][name].add(_stack(counts), index)
            if self.design.index:
                self._categories(name, index, own, truth, orders)
            if self.design.each_place:
                self._places(name, index[0], own, truth, known)
            square = moments["m_dd"] + moments["weight"] * moments["mean_d"] ** 2
            series[""] = moments["weight"].sum(-1) @ groups
            series[name] = square.sum(-1) @ groups
        return series

    def _categories(
        self, name: str, index: tuple, own: DayFields, truth: DayFields, orders: list[FieldOrder]
    ) -> None:
        q = self.design.pollutants.index(self.design.index)
        at = orders[q]
        levels = [level(fields.values[q, at.order]).astype(int) for fields in (own, truth)]
        primary = primary_pair(own.primary[:, at.order], truth.primary[:, at.order])
        for kind, pair, size in (
            ("level", levels, len(LEVELS)),
            ("primary", primary, len(TARGETS) + 1),
        ):
            code = (at.cell * size + pair[1]) * size + pair[0]
            counts = np.bincount(code, at.weight, at.size * size**2)
            state = self.board.sums[kind][name].state["pairs"]
            state[(*index, q)] += counts.reshape(at.size, 1, size, size)

    def _places(
        self, name: str, lead: int, own: DayFields, truth: DayFields, known: np.ndarray
    ) -> None:
        for q, here in enumerate(known):
            moments = place_moments(own.values[q][None], truth.values[q][None], here[None])
            self.board.sums["place"][name].add_moments(moments, (lead, q))


def _stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Sums (Q, B, 1, ...) from those of each product (B, ...)."""
    return {k: np.stack([row[k] for row in rows])[:, :, None] for k in rows[0]}
