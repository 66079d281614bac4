"""How much of the learned correction to apply, chosen on the validation year."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from aqnet.data.stations.samples import ForecastSamples, GriddedFields, StationRecords, observed_at
from aqnet.grid import Grid
from aqnet.model.forecaster import Forecaster
from aqnet.model.statistical import STATISTICAL, StatisticalForecasts, situation_at
from aqnet.training.checkpoint import load_checkpoint, set_share
from aqnet.training.setup import batches
from aqnet.training.station_problem import StationData
from aqnet.variables import TARGETS
from aqnet.verification.accumulate import design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.forecasts import sample_at_stations
from aqnet.verification.groups import ALL, Groups
from aqnet.verification.scores import CellComparison, best_forecasts, compare

__all__ = ["SHARES", "ShareTrial", "choose_share", "set_chosen_share", "try_shares"]

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
KEEP = 0.8  # of the reduction of RMSE that the best share brings


@dataclass(frozen=True)
class ShareTrial:
    """Outcome of one share in the validation year, at the assimilated stations.

    `won` and `lost` cells (lead time x pollutant) against the best statistical forecast, by the
    test that the evaluation uses; `rmse_ratio` is the mean over cells of the model's RMSE over
    that of the best statistical forecast [1].
    """

    share: float
    won: int
    lost: int
    rmse_ratio: float

    def to_dict(self) -> dict:
        """For a JSON file."""
        return asdict(self)


@torch.no_grad()
def _start_and_correction(
    model: Forecaster, samples: ForecastSamples, stations: StationRecords, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Start and full correction at the assimilated stations, (N, L, 6, S) ug/m3."""
    parts = []
    for batch in batches(samples):
        start, correction = model.start(batch), model.scale(batch) * model.correction(batch)
        both = (start, correction.expand_as(start))
        parts.append([sample_at_stations(grid, stations, x.numpy()) for x in both])
    start, correction = (
        np.concatenate(part)[..., ~stations.withheld] for part in zip(*parts, strict=True)
    )
    return start, correction


def try_shares(
    model: Forecaster,
    statistical: StatisticalForecasts,
    fields: GriddedFields,
    stations: StationRecords,
    grid: Grid,
    shares: tuple[float, ...] = SHARES,
) -> list[ShareTrial]:
    """Judge every share in the validation year.

    Parameters
    ----------
    model : Forecaster
        In evaluation mode.
    statistical : StatisticalForecasts
    fields : GriddedFields
    stations : StationRecords
    grid : Grid
    shares : tuple of float
        In (0, 1].
    """
    leads = statistical.lead_times_h
    samples = ForecastSamples(fields, "validation", leads)
    kept = ~stations.withheld
    situation = situation_at(stations.history, samples.rows, leads)
    forecasts = {name: statistical(name, situation)[..., kept] for name in STATISTICAL}
    start, correction = _start_and_correction(model, samples, stations, grid)
    named = {f"share {share}": share for share in shares}
    for name, share in named.items():
        forecasts[name] = np.maximum(start + share * correction, 0.0)
    places = Groups(stations.lat[kept], stations.lon[kept], np.ones(kept.sum()), {})
    design = design_of(places, tuple(forecasts), leads, TARGETS, weight="one a station")
    adder = BlockAccumulator(design, places)
    adder.add(samples.times, forecasts, observed_at(stations, samples.rows, leads)[..., kept])
    best = best_forecasts(adder.board, STATISTICAL, ALL)
    rivals = {cell: name for cell, (name, _) in best.items()}
    return [_trial(share, compare(adder.board, name, rivals, ALL)) for name, share in named.items()]


def _trial(share: float, cells: tuple[CellComparison, ...]) -> ShareTrial:
    verdicts = [cell.verdict for cell in cells]
    ratio = np.mean([cell.rmse_model / cell.rmse_opponent for cell in cells])
    return ShareTrial(share, verdicts.count("won"), verdicts.count("lost"), float(ratio))


def choose_share(trials: list[ShareTrial], keep: float = KEEP) -> ShareTrial:
    """The smallest share that keeps most of what the correction gains in the validation year.

    Among the shares with the fewest cells lost: the smallest one whose reduction of RMSE is at
    least `keep` times the largest reduction; the one with the lowest RMSE if none reduces it. In
    the spirit of the one-standard-error rule (Breiman et al. 1984, section 3.4.3): the mean error
    is flat near its minimum, and a smaller correction is right more steadily.
    """
    fewest = min(trial.lost for trial in trials)
    allowed = sorted((t for t in trials if t.lost == fewest), key=lambda t: t.share)
    best = min(allowed, key=lambda t: t.rmse_ratio)
    if best.rmse_ratio >= 1:
        return best
    return next(t for t in allowed if 1 - t.rmse_ratio >= keep * (1 - best.rmse_ratio))


def set_chosen_share(
    checkpoint: Path, data: StationData, share: float = 0.0, echo: Callable[[str], None] = print
) -> dict:
    """Judge the shares of a stored forecaster, and store the one that it applies from now on.

    Parameters
    ----------
    checkpoint : path
        Changed in place.
    data : StationData
        What it was trained on.
    share : float
        Applied as it is; 0: chosen by `choose_share`.
    echo : callable
        Takes one line for each share, and one for the choice.

    Returns
    -------
    dict
        `share`, and `share_trials` (records of `ShareTrial`).
    """
    loaded = load_checkpoint(checkpoint)
    trials = try_shares(loaded.model, loaded.statistical, data.fields, data.stations, data.grid)
    for t in trials:
        echo(f"share {t.share:.1f}: won {t.won}, lost {t.lost}, RMSE ratio {t.rmse_ratio:.4f}")
    share = share or choose_share(trials).share
    set_share(checkpoint, share)
    echo(f"share of the correction: {share}")
    return {"share": share, "share_trials": [trial.to_dict() for trial in trials]}
