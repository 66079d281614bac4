"""Scoreboard: every score of several forecasts on common pairs, in sums that merge."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from aqnet.errors import explain
from aqnet.events import CategorySums, EventSums, NeighbourhoodSums
from aqnet.io import atomic_file
from aqnet.metrics import ErrorSums, VerificationError
from aqnet.variables import TARGETS
from aqnet.verification.board_design import AXES, Design, position
from aqnet.verification.groups import ALL
from aqnet.verification.standards import LEVELS

__all__ = ["AXES", "Design", "Scoreboard", "load_scoreboard", "position", "save_scoreboard"]

_FORMAT, _VERSION = "aqnet-scoreboard", 2


def _empty(design: Design) -> dict[str, dict[str, object]]:
    """Sums of each kind for each forecast."""
    shape, limits = design.shape, design.limits()
    kinds = {"error": lambda: ErrorSums(shape)}
    if design.anomalies:
        kinds["anomaly"] = lambda: ErrorSums(shape)
    if limits.shape[-1]:
        kinds["event"] = lambda: EventSums(shape, limits)
        if design.windows:
            kinds["neighbourhood"] = lambda: NeighbourhoodSums(shape, limits, design.windows)
    if design.index:
        kinds["level"] = lambda: CategorySums(shape, len(LEVELS))
        kinds["primary"] = lambda: CategorySums(shape, len(TARGETS) + 1)
    if design.each_place:
        kinds["place"] = lambda: ErrorSums((*design.cells, design.each_place))
    return {kind: {name: make() for name in design.forecasts} for kind, make in kinds.items()}


class Scoreboard:
    """Scores per lead time, pollutant, group of places, sun, season and hour of several forecasts.

    All forecasts are scored on the same pairs: those where the truth and every forecast is known.

    Attributes
    ----------
    design : Design
    sums : dict of kind to dict of forecast to sums
        Kinds: `error` (ErrorSums), `anomaly` (ErrorSums of departures from a climatology),
        `event`, `neighbourhood`, all with cells `AXES`; `place`: ErrorSums (L, P, places). For an
        index `level` and `primary` (CategorySums): its levels, and none or the pollutants.
    missing : dict of forecast to (L, P, G) float64
        Pairs of a group with known truth that nobody is scored on as this forecast lacks them.
    times : (N,) datetime64[h]
        Init times, UTC, ascending.
    weight : (N, L, P, G) float64
        Sum of weights of the pairs of each init time.
    squares : dict of forecast to (N, L, P, G) float64
        Weighted sum of squared errors of each init time, (ug/m3)^2.
    record : dict
        What made it, see `aqnet.verification.provenance.score_record`; empty for a board that
        was made in memory or merged. JSON values; files keep it.
    """

    def __init__(self, design: Design) -> None:
        self.design, self.sums = design, _empty(design)
        self.record: dict = {}
        series = (0, *design.cells, len(design.groups))
        self.missing = {name: np.zeros(series[1:]) for name in design.forecasts}
        self.times, self.weight = np.zeros(0, "datetime64[h]"), np.zeros(series)
        self.squares = {name: np.zeros(series) for name in design.forecasts}

    def extend(
        self, times: np.ndarray, weight: np.ndarray, squares: Mapping[str, np.ndarray]
    ) -> None:
        """Add init times to the series; VerificationError for one that is there already."""
        times = np.concatenate([self.times, np.asarray(times).astype("datetime64[h]")])
        order = np.argsort(times, kind="stable")
        if (repeated := times[order][1:] == times[order][:-1]).any():
            raise VerificationError(
                explain("init times scored twice", expected="each init time once",
                        found=f"{repeated.sum()} repeated, the first "
                        f"{times[order][1:][repeated][0]}",
                        remedy="give parts that do not overlap")
            )  # fmt: skip
        self.times = times[order]
        self.weight = np.concatenate([self.weight, weight])[order]
        for name in self.design.forecasts:
            self.squares[name] = np.concatenate([self.squares[name], squares[name]])[order]

    def merge(self, other: Scoreboard) -> Scoreboard:
        """Scoreboard of the init times of both, as a new object.

        Raises
        ------
        VerificationError
            The designs differ, or an init time is in both.
        """
        if self.design != other.design:
            mine, theirs = asdict(self.design), asdict(other.design)
            names = [k for k in mine if mine[k] != theirs[k]]
            raise VerificationError(
                explain("scoreboards of other designs cannot be merged",
                        expected={k: mine[k] for k in names}, found={k: theirs[k] for k in names},
                        remedy="merge parts of one evaluation")
            )  # fmt: skip
        merged = Scoreboard(self.design)
        for kind, named in self.sums.items():
            merged.sums[kind] = {n: s.merge(other.sums[kind][n]) for n, s in named.items()}
        merged.missing = {n: m + other.missing[n] for n, m in self.missing.items()}
        merged.times, merged.weight, merged.squares = self.times, self.weight, dict(self.squares)
        merged.extend(other.times, other.weight, other.squares)
        return merged

    def loss_series(
        self, forecast: str, lead: int, pollutant: str, group: str = ALL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared error per init time of a group.

        The sum of weighted squares of each init time over the *mean* weight, so that the mean
        over times is exactly the square of `rmse_over_space_time`.

        Returns
        -------
        times : (T,) datetime64[h], ascending
            Init times with at least one pair.
        loss : (T,)
            (ug/m3)^2.
        """
        labels = {self.design.lead_axis: lead, "pollutant": pollutant, "group": group}
        cell = tuple(
            position(self.design.labels(axis), label, axis) for axis, label in labels.items()
        )
        weight = self.weight[:, *cell]
        position(self.design.forecasts, forecast, "forecast")
        used = weight > 0
        loss = self.squares[forecast][:, *cell][used]
        return self.times[used], loss / weight[used].mean() if used.any() else loss


# ---- files


def _arrays(board: Scoreboard) -> dict[str, np.ndarray]:
    """Everything but the design, by the name of its entry in a file."""
    held = {"times": board.times.astype(np.int64), "weight": board.weight}
    for name in board.design.forecasts:
        held |= {f"missing/{name}": board.missing[name], f"squares/{name}": board.squares[name]}
        for kind, named in board.sums.items():
            state = named[name].state
            held |= {f"{kind}/{name}/{field}": values for field, values in state.items()}
    return held


def save_scoreboard(board: Scoreboard, path: str | Path) -> None:
    """Write a scoreboard to a .npz file, whole or not at all; nothing in it is pickled."""
    header = {"format": _FORMAT, "version": _VERSION, "design": asdict(board.design),
              "record": board.record}  # fmt: skip
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
    with atomic_file(path) as file:
        np.savez_compressed(file, header=text, **_arrays(board))


def load_scoreboard(path: str | Path) -> Scoreboard:
    """Inverse of `save_scoreboard`, exact.

    Raises
    ------
    VerificationError
        No such file, another format, or arrays that the design does not have.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        design = Design(**{k: _tuples(v) for k, v in header["design"].items()})
        held = (header["format"], header["version"], isinstance(header["record"], dict))
        if held != (_FORMAT, _VERSION, True):
            raise ValueError(f"format {header['format']} {header['version']}")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as problem:
        raise _no_scoreboard(path, repr(problem)) from problem
    board = Scoreboard(design)
    board.record = header["record"]
    expected = {name: values.shape for name, values in _arrays(board).items()}
    count = arrays.get("times", np.zeros(0)).shape[0]
    series = ("times", "weight", "squares/")
    expected |= {k: (count, *s[1:]) for k, s in expected.items() if k.startswith(series)}
    found = {name: values.shape for name, values in arrays.items()}
    if wrong := sorted(k for k in expected | found if expected.get(k) != found.get(k)):
        raise _no_scoreboard(path, f"missing, surplus or of another shape: {wrong}")
    _fill(board, arrays)
    return board


def _fill(board: Scoreboard, arrays: Mapping[str, np.ndarray]) -> None:
    board.times, board.weight = arrays["times"].astype("datetime64[h]"), arrays["weight"]
    for name in board.design.forecasts:
        board.missing[name] = arrays[f"missing/{name}"]
        board.squares[name] = arrays[f"squares/{name}"]
        for kind, named in board.sums.items():
            for field in named[name].state:
                named[name].state[field] = arrays[f"{kind}/{name}/{field}"]


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _no_scoreboard(path: Path, found: str) -> VerificationError:
    return VerificationError(
        explain(f"{path} is not a scoreboard", expected=f"{_FORMAT} {_VERSION}, a .npz file",
                found=found, remedy="use what save_scoreboard wrote, or score again")
    )  # fmt: skip
