"""Batches of a rank: an exact place in the order of training, each validation sample once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from lightning.fabric import Fabric
from torch.utils.data import DataLoader, Dataset, Sampler

from aqnet.data.batches import FieldSamples, field_loader, whole_batch
from aqnet.data.order import EvaluationSampler, GlobalOrderSampler
from aqnet.training.config import TrainingConfig
from aqnet.training.schedule import Plan
from aqnet.training.seeds import derive
from aqnet.training.shutdown import children_shielded, ignore_stop_signals

__all__ = ["chosen_samples", "training_loader", "validation_loader"]


def chosen_samples(samples: int, maximum: int) -> np.ndarray:
    """Positions of at most `maximum` samples, evenly spread; 0: all."""
    if maximum == 0 or maximum >= samples:
        return np.arange(samples)
    return np.linspace(0, samples - 1, maximum).round().astype(int)


class _Chosen(Sampler[int]):
    """Samples at the places that another sampler names."""

    def __init__(self, places: Sampler[int], chosen: np.ndarray) -> None:
        self.places, self.chosen = places, chosen

    def __iter__(self) -> Iterator[int]:
        return (int(self.chosen[place]) for place in self.places)

    def __len__(self) -> int:
        return len(self.places)


class _Loader:
    """A DataLoader whose workers outlive the stop signals of their group."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        loader.worker_init_fn = ignore_stop_signals

    def __iter__(self) -> Iterator[dict]:
        with children_shielded():
            return iter(self._loader)


def _loader(
    samples: Dataset, sampler: Sampler[int], config: TrainingConfig, fabric: Fabric
) -> _Loader:
    options = {"pin_memory": fabric.device.type == "cuda"}
    if isinstance(samples, FieldSamples):
        loader = field_loader(samples, sampler, config.batch_size, config.workers, **options)
    else:
        loader = DataLoader(
            samples,
            config.batch_size,
            sampler=sampler,
            collate_fn=whole_batch,
            num_workers=config.workers,
            persistent_workers=config.workers > 0,
            multiprocessing_context="forkserver" if config.workers else None,
            **options,
        )
    return _Loader(loader)


def training_loader(
    samples: Dataset, config: TrainingConfig, plan: Plan, fabric: Fabric
) -> tuple[GlobalOrderSampler, Iterable[dict]]:
    """Sampler with the cursor, and this rank's loader of `plan.passes` batches a step."""
    sampler = GlobalOrderSampler(
        plan.samples,
        derive(config.seed, "order"),
        fabric.global_rank,
        fabric.world_size,
        plan.effective,
        fill=True,
    )
    places = _Chosen(sampler, chosen_samples(len(samples), config.max_train_samples))
    return sampler, _loader(samples, places, config, fabric)


def validation_loader(samples: Dataset, config: TrainingConfig, fabric: Fabric) -> Iterable[dict]:
    """This rank's part of the chosen validation samples, in order."""
    chosen = chosen_samples(len(samples), config.max_validation_samples)
    part = EvaluationSampler(len(chosen), fabric.global_rank, fabric.world_size)
    return _loader(samples, _Chosen(part, chosen), config, fabric)
