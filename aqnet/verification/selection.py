"""How much of the learned correction to apply, chosen on the validation year."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from aqnet.data.samples import ForecastSamples, GriddedFields, StationRecords, observed_at
from aqnet.grid import Grid
from aqnet.model.forecaster import Forecaster
from aqnet.model.statistical import STATISTICAL, StatisticalForecasts, situation_at
from aqnet.training.checkpoint import load_checkpoint, set_share
from aqnet.training.problem import StationData
from aqnet.training.setup import batches
from aqnet.verification.forecasts import sample_at_stations
from aqnet.verification.significance import bandwidth_h, diebold_mariano, holm, verdict

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


def _squares(forecast: np.ndarray, truth: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Sum over stations of squared errors, (N, L, 6)."""
    return (np.where(common, forecast - truth, 0.0) ** 2).sum(-1)


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
    truth = observed_at(stations, samples.rows, leads)[..., kept]
    situation = situation_at(stations.history, samples.rows, leads)
    rivals = [statistical(name, situation)[..., kept] for name in STATISTICAL]
    common = np.isfinite(truth) & np.all([np.isfinite(r) for r in rivals], axis=0)
    counts = common.sum(-1)
    rival_losses = np.stack([_squares(r, truth, common) for r in rivals])
    best = rival_losses.sum(1).argmin(0)
    rival = np.take_along_axis(rival_losses, best[None, None], axis=0)[0]
    start, correction = _start_and_correction(model, samples, stations, grid)
    trials = []
    for share in shares:
        loss = _squares(np.maximum(start + share * correction, 0.0), truth, common)
        trials.append(_trial(share, loss, rival, counts, samples.times, leads))
    return trials


def _trial(
    share: float,
    loss: np.ndarray,
    rival: np.ndarray,
    counts: np.ndarray,
    times: np.ndarray,
    leads: tuple[int, ...],
) -> ShareTrial:
    results = []
    for lead, hours in enumerate(leads):
        for p in range(loss.shape[2]):
            known = counts[:, lead, p] > 0
            width = bandwidth_h(hours)
            results.append(
                diebold_mariano(loss[known, lead, p], rival[known, lead, p], width, times[known])
            )
    adjusted = holm([r.p_value for r in results])
    verdicts = [verdict(p, r.mean_difference) for p, r in zip(adjusted, results, strict=True)]
    ratio = np.sqrt(loss.sum(0) / rival.sum(0)).mean()
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
