"""A small made-up store: 8 x 8 cells, 6 stations, 516 days, three splits; ready in seconds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import zarr
from scipy.signal import lfilter

from aqnet.data.made_up import static_stack
from aqnet.data.normalisation import target_channels
from aqnet.data.splits import Split
from aqnet.data.stations.samples import (
    ForecastSamples,
    GriddedFields,
    StationRecords,
    load_fields,
    load_stations,
)
from aqnet.data.store import FORMAT_VERSION, AnalysisStore
from aqnet.grid import Grid
from aqnet.model.config import ModelConfig
from aqnet.model.presets import model_preset
from aqnet.training.config import TrainingConfig
from aqnet.training.setup import Preparation, prepare

torch.set_num_threads(1)

# A year to train on: a climatology of three annual harmonics runs wild beyond a shorter one.
DAYS = {"train": 366, "validation": 75, "test": 75}
START = np.datetime64("2013-03-01T00", "h")
HOURS = 24 * sum(DAYS.values())
LEADS = (12, 24, 48)
SMALL = {"lead_times_h": LEADS, "width": 16, "depth": 1, "heads": 2}
QUICK = TrainingConfig(max_epochs=2, batch_size=64, max_train_samples=320, ema_decay=0.9)
#         u v temp   rh  psfc    pm10 so2 no2 co    o3  pm25
MEAN = (0, 0, 290.0, 50, 101000, 110, 30, 50, 1200, 60, 80)
SPREAD = (2, 2, 5.0, 15, 500, 40, 8, 15, 300, 20, 30)


def splits() -> dict[str, Split]:
    """Three intervals, one after the other."""
    edges = START + 24 * np.cumsum([0, *DAYS.values()])
    return {n: Split(n, edges[i], edges[i + 1]) for i, n in enumerate(DAYS)}


def _series(rng: np.random.Generator) -> np.ndarray:
    """(T, 11) anomalies in units of the spread: a memory of two days and a daily wave."""
    memory = np.exp(-1 / 48)
    noise = rng.normal(size=(HOURS, 11)) * np.sqrt(1 - memory**2)
    day = 2 * np.pi * np.arange(HOURS)[:, None] / 24
    return lfilter([1], [1, -memory], noise, axis=0) + 0.5 * np.sin(day + np.arange(11))


@lru_cache(maxsize=1)
def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    lat, lon = 39.7 + 0.05 * np.arange(8), 116.0 + 0.05 * np.arange(8)
    lat2d, lon2d = np.meshgrid(lat, lon, indexing="ij")
    common = _series(rng)[:, :, None, None]
    local = 0.2 * rng.normal(size=(HOURS, 11, 8, 8))
    mean, spread = (np.array(x, float)[:, None, None] for x in (MEAN, SPREAD))
    inputs = (mean + spread * (common + local + 0.3 * (lat2d - 40))).astype(np.float32)
    at = target_channels()
    inputs[:, at] = np.maximum(inputs[:, at], 0)
    targets = inputs[:, at] + rng.normal(size=(HOURS, 6, 8, 8)).astype(np.float32)
    targets = np.maximum(targets, 0)
    targets[rng.random((HOURS, 6)) < 0.05] = np.nan
    error = np.broadcast_to(np.where(lat2d + lon2d > 156.3, 0.8, 0.2), targets.shape)
    cells = (np.array([0, 1, 3, 4, 6, 7]), np.array([2, 5, 1, 6, 3, 5]))
    values = targets[:, :, cells[0], cells[1]].transpose(0, 2, 1).copy()
    values[rng.random(values.shape) < 0.03] = np.nan
    hills, people = 50 + 900 * (lat2d - 39.7), 1e4 * (117 - lon2d)
    static = static_stack(Grid("small", lat, lon), elevation=hills, population=people)
    return {
        "time": (START + np.arange(HOURS)).astype(np.int64),
        "lat": lat,
        "lon": lon,
        "inputs": inputs,
        "inputs_valid": np.ones((HOURS, 11), bool),
        "targets": targets,
        "targets_error_ratio": error.astype(np.float32),
        "station_values": values,
        "static": static.astype(np.float32),
        "station_lat": lat[cells[0]],
        "station_lon": lon[cells[1]],
    }


def arrays() -> dict[str, np.ndarray]:
    """Fresh copies of the arrays of the store, free to change."""
    return {name: values.copy() for name, values in _arrays().items()}


def store_of(content: dict[str, np.ndarray]) -> AnalysisStore:
    """A store in memory."""
    group = zarr.create_group(store=zarr.storage.MemoryStore(), zarr_format=3)
    for name, values in content.items():
        chunks = (min(2000, len(values)), *values.shape[1:])
        group.create_array(name, data=values, chunks=chunks, compressors=None)
    group.attrs.update(
        {
            "format_version": FORMAT_VERSION,
            "content_sha256": "0" * 64,
            "utc_offset_h": 8.0,
            "stations": [f"station {i}" for i in range(6)],
            "withheld": [False] * 5 + [True],
        }
    )
    return AnalysisStore(Path("memory"), group)


def load(content: dict[str, np.ndarray]) -> tuple[GriddedFields, StationRecords]:
    """Fields and stations, fitted as for the real store."""
    store = store_of(content)
    return load_fields(store, splits()), load_stations(store, splits())


@lru_cache(maxsize=1)
def tiny() -> tuple[GriddedFields, StationRecords]:
    """Fields and stations of the unchanged store; shared, not to be changed."""
    return load(_arrays())


def grid() -> Grid:
    """The grid of the store."""
    return Grid("tiny", tiny()[0].lat, tiny()[0].lon)


def config(**changes) -> ModelConfig:
    """A small model without randomness in training, unless asked for."""
    return model_preset("beijing", **{**SMALL, "dropout": 0.0, "input_noise": 0.0, **changes})


@lru_cache(maxsize=8)
def _prepared(changes: tuple) -> Preparation:
    return prepare(*tiny(), grid(), config(**dict(changes)), QUICK)


def prepared(**changes) -> Preparation:
    """Prepared small model; shared, not to be changed."""
    return _prepared(tuple(sorted(changes.items())))


def batch_of(split: str = "train", indices=range(0, 60, 12)) -> dict[str, torch.Tensor]:
    """A batch of the unchanged store."""
    return ForecastSamples(tiny()[0], split, LEADS).__getitems__(list(indices))


def shake(model: torch.nn.Module, size: float = 0.3) -> torch.nn.Module:
    """Give every weight a random part, so that nothing is zero by initialisation."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)
    return model
