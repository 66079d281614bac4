"""An experiment: what is trained, how, and on which data; presets, and changes by flat names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from aqnet.config import Config
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.errors import ParameterError, did_you_mean, explain
from aqnet.io import repository_root
from aqnet.model import forecaster, grid_forecaster
from aqnet.model.config import ModelConfig
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.presets import model_preset
from aqnet.training.config import TrainingConfig
from aqnet.training.options import (
    FLAT_NAMES,
    PATHS,
    flat_name,
    flat_values,
    model_with,
    training_with,
)

__all__ = ["EXPERIMENT_PRESETS", "Experiment", "experiment", "experiment_of"]

# Parameters of the training notebook that belong to one run of an experiment.
NOT_OPTIONS = ("run_dir", "resume", "parent", "correction_share")


class Experiment(Config):
    """A model, its training and its data.

    Attributes
    ----------
    preset : str
        What it was derived from.
    manifest : str
        Name or path of a data manifest.
    model, training : ModelConfig, TrainingConfig
    store : path or None
        Store of a manifest of stations; None: NAME.zarr in the data folder.
    folder, scan, terrain : path or None
        Of a manifest of fields: folder of the yearly stores, cache of scan orders, cache of
        ridges; None: the usual places in the data folder.
    """

    preset: str
    manifest: str = Field(min_length=1)
    model: ModelConfig
    training: TrainingConfig
    store: Path | None = None
    folder: Path | None = None
    scan: Path | None = None
    terrain: Path | None = None

    def describe(self) -> str:
        """The preset, and each flat name that differs from it, as one line for a log."""
        preset = EXPERIMENT_PRESETS[self.preset]
        before, now = flat_values(preset), flat_values(self)
        changes = [f"{k}={v}" for k, v in now.items() if before.get(k) != v]
        return f"preset {self.preset}" + (f" with {', '.join(changes)}" if changes else "")


# AdamW with the weight decay of the reference; learning rate 2e-4 at 1,600 samples a step. For
# other batches its square root rule (Malladi et al. 2022, On the SDEs and scaling rules for
# adaptive gradient algorithms, section 5). 2 samples a process: the memory of one GCD (64 GB).
_CHINA_TRAINING = TrainingConfig(
    max_epochs=30,
    batch_size=2,
    effective_batch=1600,
    learning_rate=2e-4,
    batch_rule="sqrt",
    weight_decay=0.01,
    ema_decay=0.0,
    patience_epochs=10,
    layer_decay=0.9,
    workers=4,
    accelerator="auto",
)

EXPERIMENT_PRESETS = {
    "beijing": Experiment(
        preset="beijing",
        manifest="beijing",
        model=model_preset("beijing"),
        training=TrainingConfig(),
    ),
    "china": Experiment(
        preset="china",
        manifest="caqra",
        model=model_preset("china"),
        training=_CHINA_TRAINING,
    ),
    "china_reference": Experiment(
        preset="china_reference",
        manifest="caqra",
        model=model_preset("china_reference"),
        training=_CHINA_TRAINING,
    ),
    # Trials on a coarse grid and two cores: minutes, not days. No ridges, so no cache of them, and
    # no drop-out: a short run sees no sample twice.
    "china_small": Experiment(
        preset="china_small",
        manifest="twin_small",
        model=model_preset(
            "china",
            width=96,
            depth=3,
            heads=4,
            decoder_depth=1,
            dropout=0.0,
            drop_path=0.0,
            physics=PhysicsConfig(),
        ),
        training=TrainingConfig(
            max_epochs=1,
            validate_every=250,
            max_validation_samples=512,
            batch_size=8,
            reference_batch=8,
            batch_rule="sqrt",
            learning_rate=2e-3,
            weight_decay=0.01,
            ema_decay=0.99,
        ),
    ),
}


# ---- a preset with changes


def _refuse(problem: str, expected: object, found: object, remedy: str) -> ParameterError:
    return ParameterError(explain(problem, expected=expected, found=found, remedy=remedy))


def _checked_names(preset: str, given: Mapping[str, object]) -> None:
    if preset not in EXPERIMENT_PRESETS:
        known = ", ".join(EXPERIMENT_PRESETS)
        remedy = did_you_mean(preset, EXPERIMENT_PRESETS, "choose one of them")
        raise _refuse(f"unknown preset {preset!r}", f"one of {known}", preset, remedy)
    for name in given:
        if name not in FLAT_NAMES:
            remedy = did_you_mean(name, FLAT_NAMES, "see FLAT_NAMES")
            raise _refuse(f"unknown option {name} of an experiment", "a flat name", name, remedy)


def _not_valid(preset: str, given: Mapping[str, object], error: ValidationError) -> ParameterError:
    problems = []
    for item in error.errors(include_url=False):
        text = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        # what a validator of the whole configuration says names its fields itself
        whole = item["type"] == "value_error"
        problems.append(text if whole else f"{flat_name(item['loc'])}: {text}")
    return _refuse(
        f"the preset {preset} does not take these options: {'; '.join(problems)}",
        "options that are valid together",
        ", ".join(f"{name} = {value}" for name, value in given.items()) or "the preset alone",
        "correct them; null keeps the preset's value",
    )


def _path(value: object) -> Path | None:
    """Relative paths count from the repository: notebook, command and script agree on it."""
    if value in (None, ""):
        return None
    path = Path(str(value))
    return path if path.is_absolute() else repository_root() / path


def experiment(preset: str, **options: object) -> Experiment:
    """A preset with some options changed.

    Parameters
    ----------
    preset : str
        Key of `EXPERIMENT_PRESETS`.
    **options
        By flat name (`FLAT_NAMES`): `manifest`; paths `store`, `folder`, `scan_cache`,
        `terrain_cache`; fields of `ModelConfig` and `TrainingConfig`; `physics` (whether), and
        fields of `PhysicsConfig` and `ScanConfig` with the prefix `physics_` or `scan_`;
        `rate_GROUP`; `pollutant_weights` in the order of `TARGETS`. None keeps the preset's value.

    Raises
    ------
    ParameterError
        Unknown preset or name, a value that is not valid, or options that do not go together.
    ManifestError
        There is no such manifest, or it is not valid.
    ModelError
        The model has settings that this kind of data does not have.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _checked_names(preset, given)
    base = EXPERIMENT_PRESETS[preset]
    places = {field: _path(given[name]) for name, field in PATHS.items() if name in given}
    fields = {
        "preset": preset,
        "manifest": _manifest(str(given.get("manifest", base.manifest))),
        "model": model_with(base.model, given),
        "training": training_with(base.training, given),
    }
    try:
        chosen = Experiment.model_validate(fields | places)
    except ValidationError as problem:
        raise _not_valid(preset, given, problem) from problem
    _check_kind(chosen)
    return chosen


def experiment_of(values: Mapping[str, object]) -> Experiment:
    """The experiment that the parameters of the training notebook, or of a run of it, describe.

    Raises
    ------
    ParameterError, ManifestError, ModelError
        As `experiment`.
    """
    return experiment(**{k: v for k, v in values.items() if k not in NOT_OPTIONS})


def _check_kind(chosen: Experiment) -> None:
    """Refuse paths and model settings that the manifest's kind of data does not have."""
    grid = isinstance(load_manifest(resolve_manifest(chosen.manifest)), GridManifest)
    wrong = ("store",) if grid else ("folder", "scan", "terrain")
    given = [name for name, field in PATHS.items() if field in wrong and getattr(chosen, field)]
    if given:
        kind = "fields" if grid else "stations"
        allowed = [name for name, field in PATHS.items() if field not in wrong]
        raise _refuse(
            f"{', '.join(given)} does not belong to the manifest {chosen.manifest}",
            f"of a manifest of {kind}: {', '.join(allowed)}",
            ", ".join(given),
            "leave it out, or choose another manifest",
        )
    (grid_forecaster if grid else forecaster).check_config(chosen.model)


def _manifest(text: str) -> str:
    """Name of a manifest, or the path of one as an absolute path."""
    return str(_path(text)) if Path(text).suffix in (".yaml", ".yml") else text
