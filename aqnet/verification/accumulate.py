"""Adding blocks of forecasts and truths to a scoreboard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.field_sums import (
    FieldOrder,
    Windows,
    error_moments,
    event_counts,
    place_moments,
    share_squares,
    summed,
)
from aqnet.verification.groups import SUN, Groups, time_cells
from aqnet.verification.scoreboard import Design, Scoreboard

__all__ = ["Accumulator", "design_of"]


def design_of(
    groups: Groups,
    forecasts: Sequence[str],
    lead_times_h: Sequence[int],
    pollutants: Sequence[str],
    thresholds: Mapping[str, Sequence[float]] | None = None,
    windows: Sequence[int] = (),
    *,
    anomalies: bool = False,
    each_place: bool = False,
    weight: str = "area [km2]",
) -> Design:
    """Design of a scoreboard of these places; see `Design`.

    `thresholds`: for each pollutant as many ascending numbers, ug/m3. Raises VerificationError.
    """
    limits = [tuple(map(float, (thresholds or {}).get(name, ()))) for name in pollutants]
    uneven = len({len(t) for t in limits}) > 1 or any(list(t) != sorted(set(t)) for t in limits)
    if uneven:
        raise VerificationError(
            explain("bad thresholds", expected="as many ascending numbers for every pollutant",
                    found=dict(zip(pollutants, limits, strict=True)),
                    remedy="give each pollutant the same number of thresholds")
        )  # fmt: skip
    classes = tuple(tuple(np.flatnonzero(row).tolist()) for row in groups.in_group)
    return Design(
        tuple(forecasts), tuple(int(h) for h in lead_times_h), tuple(pollutants), groups.names,
        classes, groups.in_group.shape[1], tuple(limits), tuple(windows), anomalies,
        groups.lat.size if each_place else 0, groups.utc_offset_h, weight,
    )  # fmt: skip


class _Orders:
    """Orders of the places at the last hours, which several lead times share."""

    def __init__(self, groups: Groups, hours: int) -> None:
        self.groups, self.hours, self._held = groups, hours, OrderedDict()

    def at(self, valid: np.datetime64) -> FieldOrder:
        if valid not in self._held:
            order, cell = self.groups.by_sun(valid)
            size = 2 * self.groups.in_group.shape[1]
            self._held[valid] = FieldOrder(order, cell, self.groups.weight[order], size)
            if len(self._held) > self.hours:
                self._held.popitem(last=False)
        self._held.move_to_end(valid)
        return self._held[valid]


class Accumulator:
    """Adds blocks of pairs to a scoreboard.

    Parameters
    ----------
    design : Design
    groups : Groups
        Places of the arrays that are added.
    mask : (H, W) bool, optional
        Cells of the grid that are the places; needed if the design has windows.
    """

    def __init__(self, design: Design, groups: Groups, mask: np.ndarray | None = None) -> None:
        if design.windows and (mask is None or int(mask.sum()) != groups.lat.size):
            found = "no mask" if mask is None else f"{int(mask.sum())} cells"
            raise VerificationError(
                explain("windows need the cells of a grid", expected=f"{groups.lat.size} cells",
                        found=found, remedy="give the mask of the places, or no windows")
            )  # fmt: skip
        self.board, self.design, self.groups = Scoreboard(design), design, groups
        self.limits = np.asarray(design.thresholds, dtype=np.float64)
        self._windows = Windows(mask, design.windows) if design.windows else None
        # Consecutive init times with the same leads meet each valid time once a lead.
        self._hours = len(design.lead_times_h) * 48
        # Not a method of this object: a circle would keep its 500 MB until garbage is collected.
        self._orders = _Orders(groups, self._hours)
        self._shares: OrderedDict[np.datetime64, tuple[np.ndarray, list]] = OrderedDict()

    def add(
        self,
        init_times: np.ndarray,
        forecasts: Mapping[str, np.ndarray],
        truth: np.ndarray,
        climatology: np.ndarray | None = None,
    ) -> None:
        """Add a block. A pair counts if the truth and all forecasts are known.

        Parameters
        ----------
        init_times : (n,) datetime64, UTC
            Each once over all blocks.
        forecasts : mapping of name to (n, L, P, C)
            ug/m3; NaN where there is none.
        truth : (n, L, P, C)
            ug/m3 at the valid times; NaN where unknown.
        climatology : (n, L, P, C), if the design has anomalies
            ug/m3 at the valid times, finite wherever a pair counts.

        Raises
        ------
        VerificationError
            Other shapes or forecasts than the design says, infinite values, a lacking climatology,
            or an init time that was added before.
        """
        times = np.asarray(init_times).astype("datetime64[h]")
        self._check(times, forecasts, truth, climatology)
        leads = np.asarray(self.design.lead_times_h).astype("timedelta64[h]")
        valid = times[:, None] + leads
        season, hour = time_cells(valid, self.design.utc_offset_h)
        series = (len(times), *self.board.weight.shape[1:])
        weight = np.zeros(series)
        squares = {name: np.zeros(series) for name in self.design.forecasts}
        for i, k in np.ndindex(valid.shape):
            index = (k, int(season[i, k]), int(hour[i, k]))
            fields = {name: forecasts[name][i, k] for name in self.design.forecasts}
            usual = None if climatology is None else climatology[i, k]
            found = self._fields(valid[i, k], k, fields, truth[i, k], usual, index)
            for name, (w, square) in found.items():
                weight[i, k], squares[name][i, k] = w, square
        self.board.extend(times, weight, squares)
        if self.design.each_place:
            self._add_places(forecasts, truth)

    def _check(self, times: np.ndarray, forecasts: Mapping, truth, climatology) -> None:
        d = self.design
        shape = (len(times), len(d.lead_times_h), len(d.pollutants), self.groups.lat.size)
        arrays = {"truth": truth, **forecasts}
        if d.anomalies:
            arrays["climatology"] = climatology
        wrong = {name: np.shape(a) for name, a in arrays.items() if np.shape(a) != shape}
        other = set(forecasts) ^ set(d.forecasts)
        infinite = [name for name, a in arrays.items() if not wrong and np.isinf(a).any()]
        if wrong or other or infinite or (climatology is None) == d.anomalies:
            raise VerificationError(
                explain("a block cannot be scored", remedy="see Accumulator.add",
                        expected=f"{shape} of {', '.join(d.forecasts)}, nothing infinite"
                        f"{', a climatology' if d.anomalies else ', no climatology'}",
                        found=f"other shapes {wrong}, lacking or surplus {sorted(other)}, "
                        f"infinite {infinite}")
            )  # fmt: skip

    def _fields(
        self,
        valid: np.datetime64,
        lead: int,
        forecasts: Mapping[str, np.ndarray],
        truth: np.ndarray,
        usual: np.ndarray | None,
        index: tuple,
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Add the pairs of one init time and lead time; weight and squares (P, G) a forecast."""
        everywhere, known = self._orders.at(valid), np.isfinite(truth)
        lost = {name: known & np.isnan(f) for name, f in forecasts.items()}
        for name, cells in lost.items():
            if cells.any():
                self.board.missing[name][lead] += cells @ self.groups.member_table
        known = known & ~np.any(list(lost.values()), axis=0)
        orders = [everywhere if row.all() else everywhere.where(row) for row in known]
        shares = self._truth_shares(valid, truth, known, orders) if self._windows else None
        observed = _ordered(truth, orders)
        series = {}
        for name, forecast in forecasts.items():
            pairs = list(zip(_ordered(forecast, orders), observed, orders, strict=True))
            moments = self._stack([error_moments(f, o, at) for f, o, at in pairs])
            self.board.sums["error"][name].add_moments(moments, index)
            if usual is not None:
                self._add_anomalies(name, pairs, usual, index)
            if self.limits.shape[1]:
                counts = [event_counts(f, o, t, at)
                          for (f, o, at), t in zip(pairs, self.limits, strict=True)]  # fmt: skip
                self.board.sums["event"][name].add(self._stack(counts), index)
            if self._windows:
                self._add_shares(name, forecast, known, orders, shares, index)
            square = moments["m_dd"] + moments["weight"] * moments["mean_d"] ** 2
            groups = self.groups.in_group.T.astype(np.float64)
            series[name] = (moments["weight"].sum(-1) @ groups, square.sum(-1) @ groups)
        return series

    def _stack(self, rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Sums (P, B, 2, ...) from those of each pollutant (2 B, ...)."""
        shape = (len(rows), self.design.classes, len(SUN))
        return {k: np.stack([row[k] for row in rows]).reshape(*shape, *rows[0][k].shape[1:])
                for k in rows[0]}  # fmt: skip

    def _add_anomalies(self, name: str, pairs: list, usual: np.ndarray, index: tuple) -> None:
        rows = []
        for p, (f, o, at) in enumerate(pairs):
            normal = usual[p, at.order].astype(np.float64)
            self._require_climatology(normal)
            rows.append(error_moments(f - normal, o - normal, at))
        self.board.sums["anomaly"][name].add_moments(self._stack(rows), index)

    @staticmethod
    def _require_climatology(normal: np.ndarray | None) -> None:
        if normal is not None and not np.isfinite(normal).all():
            found = f"NaN in {np.sum(~np.isfinite(normal))} of {normal.size} places"
            raise VerificationError(
                explain("the climatology lacks values where pairs are scored",
                        expected="a value for every scored place", found=found,
                        remedy="fit it on data that cover the truth")
            )  # fmt: skip

    def _truth_shares(
        self, valid: np.datetime64, truth: np.ndarray, known: np.ndarray, orders: list[FieldOrder]
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each pollutant counts (T, Q, K), their square sums, and weights (Q, K)."""
        if known.all() and valid in self._shares:  # at another lead time
            kept, found = self._shares[valid]
            if np.array_equal(kept, truth):
                return found
        found, weight = [], None
        for p, at in enumerate(orders):
            if weight is None or not known.all():
                weight = self._windows.weight(known[p], at)
            counts = self._windows.counts(truth[p], known[p], self.limits[p], at)
            found.append((counts, summed(weight * counts * counts, at), weight))
        if known.all():
            self._shares[valid] = (truth.copy(), found)
            if len(self._shares) > self._hours:
                self._shares.popitem(last=False)
        return found

    def _add_shares(
        self, name: str, forecast: np.ndarray, known: np.ndarray, orders: list[FieldOrder],
        shares: list, index: tuple,
    ) -> None:  # fmt: skip
        rows = []
        for p, (at, (counts, squares, weight)) in enumerate(zip(orders, shares, strict=True)):
            own = self._windows.counts(forecast[p], known[p], self.limits[p], at)
            rows.append(share_squares(own, counts, squares, weight, at))
        self.board.sums["neighbourhood"][name].add(self._stack(rows), index)

    def _add_places(self, forecasts: Mapping[str, np.ndarray], truth: np.ndarray) -> None:
        for k, p in np.ndindex(self.design.cells):
            fields = {name: forecasts[name][:, k, p] for name in self.design.forecasts}
            known = np.isfinite(truth[:, k, p])
            known &= np.all([np.isfinite(f) for f in fields.values()], axis=0)
            for name, values in fields.items():
                moments = place_moments(values, truth[:, k, p], known)
                self.board.sums["place"][name].add_moments(moments, (k, p))


def _ordered(values: np.ndarray, orders: Sequence[FieldOrder]) -> list[np.ndarray]:
    """Rows of (P, C) in the order of each."""
    return [np.take(row, at.order).astype(np.float64)
            for row, at in zip(values, orders, strict=True)]  # fmt: skip
