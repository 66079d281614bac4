from __future__ import annotations

import numpy as np

from aqnet.errors import DataError, explain


class VerificationError(DataError):
    """Forecasts and observations cannot be compared as given."""


# Everything that a score needs, per cell. Means and *central* moments, not raw sums: a raw
# sum of squares of CO (1e4 ug/m3) keeps no digits for an error of 1e-3 ug/m3.
FIELDS = (
    "n",  # pairs counted
    "weight",  # sum of weights
    "mean_f", "mean_o", "mean_d",  # weighted means of forecast, truth, difference f - o
    "m_ff", "m_oo", "m_fo", "m_dd",  # weighted sums of products of departures from the means
    "sum_abs",  # weighted sum of |f - o|
)  # fmt: skip

# Standard deviation over mean below which a series is constant up to float64 rounding:
# a mean of n equal numbers is off by a few 1e-16 of its size.
CONSTANT_BELOW = 1e-10


def _as_cells(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Turn (N, *shape, *pooled) into (*shape, K) in float64, or refuse."""
    values = np.asarray(values, dtype=np.float64)
    found = values.shape[1 : 1 + len(shape)]
    if values.ndim < 1 + len(shape) or found != shape:
        expected = f"(N, {', '.join(map(str, shape))}, ...): axis 0 and trailing axes are pooled"
        remedy = "put time first, then the axes of the cells, then stations or grid points"
        problem = f"{name} has the wrong shape"
        message = explain(problem, expected=expected, found=values.shape, remedy=remedy)
        raise VerificationError(message)
    return np.moveaxis(values, 0, -1).reshape(*shape, -1)


def _same_shape(forecast: np.ndarray, truth: np.ndarray) -> None:
    if np.shape(forecast) != np.shape(truth):
        raise VerificationError(
            explain(
                "forecast and truth differ in shape",
                expected=np.shape(truth),
                found=np.shape(forecast),
                remedy="bring both to the same init times, leads, pollutants and places",
            )
        )


def _full_weight(weight: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Weights at full shape; `None` is one everywhere."""
    weight = np.asarray(1.0 if weight is None else weight, dtype=np.float64)
    if not np.isfinite(weight).all() or (weight < 0).any():
        found = f"{np.sum(~np.isfinite(weight))} not finite, {np.sum(weight < 0)} negative"
        remedy = "use 0 for what is not scored"
        raise VerificationError(explain("bad weights", expected=">= 0", found=found, remedy=remedy))
    return np.broadcast_to(weight, shape)


def _usable(forecast: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Which pairs count: known truth and positive weight. Refuse an unknown forecast there."""
    usable = ~np.isnan(truth) & (weight > 0)
    for name, values in (("forecast", forecast), ("truth", truth)):
        bad = usable & ~np.isfinite(values)
        if bad.any():
            raise VerificationError(
                explain(
                    f"the {name} is NaN or infinite where a pair is to be scored",
                    expected="finite numbers wherever the truth is known and the weight positive",
                    found=f"{bad.sum()} of {usable.sum()} pairs",
                    remedy="score only the pairs that all forecasts have (Scorecard does)",
                )
            )
    return usable


def _batch_moments(f: np.ndarray, o: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    """Two-pass moments of (..., K) arrays over K; `w` is 0 where a pair does not count."""
    counts = w > 0
    f, o = np.where(counts, f, 0.0), np.where(counts, o, 0.0)
    d = f - o
    weight = w.sum(-1)
    safe = np.where(weight > 0, weight, 1.0)
    mean = {k: (w * x).sum(-1) / safe for k, x in (("f", f), ("o", o), ("d", d))}
    df, do, dd = (x - mean[k][..., None] for k, x in (("f", f), ("o", o), ("d", d)))
    return {
        "n": counts.sum(-1).astype(np.float64),
        "weight": weight,
        **{f"mean_{k}": value for k, value in mean.items()},
        "m_ff": (w * df * df).sum(-1),
        "m_oo": (w * do * do).sum(-1),
        "m_fo": (w * df * do).sum(-1),
        "m_dd": (w * dd * dd).sum(-1),
        "sum_abs": (w * np.abs(d)).sum(-1),
    }


def _merge_moments(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Moments of the union of two samples (Chan, Golub and LeVeque 1983, eq. 2.1, weighted)."""
    weight = a["weight"] + b["weight"]
    share = b["weight"] / np.where(weight > 0, weight, 1.0)
    cross = a["weight"] * share  # w_a w_b / (w_a + w_b)
    step = {k: b[f"mean_{k}"] - a[f"mean_{k}"] for k in "fod"}
    merged = {f"mean_{k}": a[f"mean_{k}"] + step[k] * share for k in "fod"}
    for name in ("m_ff", "m_oo", "m_fo", "m_dd"):
        first, second = name[2], name[3]
        merged[name] = a[name] + b[name] + step[first] * step[second] * cross
    for name in ("n", "sum_abs"):
        merged[name] = a[name] + b[name]
    return merged | {"weight": weight}


def _per_weight(sums: ErrorSums, total: np.ndarray) -> np.ndarray:
    """Divide a weighted sum by the sum of weights; NaN in a cell without pairs."""
    weight = sums.state["weight"]
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


def bias_over_space_time(sums: ErrorSums) -> np.ndarray:
    """Mean of forecast - truth over all pairs of a cell, in the unit of the data.

    Positive where the forecast is too high. NaN in a cell without pairs.
    """
    return _per_weight(sums, sums.state["weight"] * sums.state["mean_d"])


def mae_over_space_time(sums: ErrorSums) -> np.ndarray:
    """Mean of |forecast - truth| over all pairs of a cell; NaN in a cell without pairs."""
    return _per_weight(sums, sums.state["sum_abs"])


def rmse_over_space_time(sums: ErrorSums) -> np.ndarray:
    """Root of the mean of (forecast - truth)^2 over all pairs of a cell, in the unit of the data.

    Times and places are pooled before the root: this is not the mean over stations of the
    RMSE of each. Computed as sqrt(variance of the difference + bias^2), two terms that cannot
    cancel. NaN in a cell without pairs.
    """
    return np.sqrt(_per_weight(sums, sums.state["m_dd"]) + bias_over_space_time(sums) ** 2)


def correlation_over_space_time(sums: ErrorSums) -> np.ndarray:
    """Pearson correlation of forecast and truth over all pairs of a cell [1].

    Pooled over times and places, so differences between stations, seasons and hours count:
    a climatology can correlate well. NaN without pairs, or where forecast or truth is constant
    (standard deviation at most `CONSTANT_BELOW` of the mean).
    """
    s = sums.state
    var_f, var_o = _per_weight(sums, s["m_ff"]), _per_weight(sums, s["m_oo"])
    with np.errstate(invalid="ignore"):
        varies = np.sqrt(var_f) > CONSTANT_BELOW * np.abs(s["mean_f"])
        varies &= np.sqrt(var_o) > CONSTANT_BELOW * np.abs(s["mean_o"])
    product = np.where(varies, np.sqrt(s["m_ff"]) * np.sqrt(s["m_oo"]), 1.0)
    return np.where(varies, np.clip(s["m_fo"] / product, -1.0, 1.0), np.nan)


def _update(
    self: ErrorSums, forecast: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None
) -> ErrorSums:
    """Add pairs; axis 0 and the axes after the cells are pooled.

    Parameters
    ----------
    forecast, truth : (N, *shape, *pooled), same unit
        A pair with NaN truth or zero weight does not count.
    weight : broadcastable to forecast, optional
        Finite and >= 0, for example area or a mask of scored grid cells.

    Raises
    ------
    VerificationError
        Wrong shape, bad weight, or a forecast that is not finite where a pair counts.
    """
    _same_shape(forecast, truth)
    weight = _full_weight(weight, np.shape(forecast))
    f, o = _as_cells("forecast", forecast, self.shape), _as_cells("truth", truth, self.shape)
    w = _as_cells("weight", weight, self.shape)
    self.state = _merge_moments(self.state, _batch_moments(f, o, np.where(_usable(f, o, w), w, 0)))
    return self


def _merge(self: ErrorSums, other: ErrorSums) -> ErrorSums:
    """Sums over the pairs of both, as a new object. Raises VerificationError on other cells."""
    if self.shape != other.shape:
        raise VerificationError(
            explain(
                "sums over different cells cannot be merged",
                expected=self.shape,
                found=other.shape,
                remedy="merge sums of the same lead times and pollutants",
            )
        )
    merged = ErrorSums(self.shape)
    merged.state = _merge_moments(self.state, other.state)
    return merged


def _to_dict(self: ErrorSums) -> dict:
    """JSON-ready and exact: `ErrorSums.from_dict` gives the same float64 numbers back."""
    return {"shape": list(self.shape)} | {k: self.state[k].tolist() for k in FIELDS}


def _from_dict(content: dict) -> ErrorSums:
    """Inverse of `to_dict`. Raises VerificationError on missing or surplus keys or shapes."""
    sums = ErrorSums(tuple(content.get("shape", ())))
    state = {k: np.asarray(v, dtype=np.float64) for k, v in content.items() if k != "shape"}
    wrong = set(state) ^ set(FIELDS)
    wrong |= {k for k, v in state.items() if v.shape != sums.shape or not np.isfinite(v).all()}
    if wrong or "shape" not in content:
        raise VerificationError(
            explain(
                "not a record of error sums",
                expected=f"'shape' and finite arrays of that shape: {', '.join(FIELDS)}",
                found=f"missing, surplus or ill-shaped: {sorted(wrong) or ['shape']}",
                remedy="use what ErrorSums.to_dict wrote",
            )
        )
    sums.state = state
    return sums


class ErrorSums:
    """Everything that RMSE, MAE, bias and correlation need, in a form that can be merged.

    Parameters
    ----------
    shape : tuple of int
        Cells kept apart, for example (4, 6) for lead times x pollutants. `update` takes
        (N, *shape, ...) and pools axis 0 and everything after the cells.

    Any split of the data over batches or processes gives the same scores to 1e-9 relative.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.state = {name: np.zeros(self.shape) for name in FIELDS}

    update, merge, __add__ = _update, _merge, _merge
    to_dict, from_dict = _to_dict, staticmethod(_from_dict)
    n = property(lambda self: self.state["n"].astype(np.int64), doc="Pairs counted per cell.")
    rmse, mae = rmse_over_space_time, mae_over_space_time
    bias, correlation = bias_over_space_time, correlation_over_space_time
