"""An experiment: what is trained, how, and on which data; presets, and changes by flat names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from aqnet.config import Config
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.errors import ParameterError, explain
from aqnet.io import repository_root
from aqnet.model import forecaster, grid_forecaster
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.model.presets import model_preset
from aqnet.training.config import GROUPS, TrainingConfig
from aqnet.variables import TARGETS

__all__ = ["EXPERIMENT_PRESETS", "FLAT_NAMES", "Experiment", "experiment", "experiment_of"]

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
        before, now = _flat(preset), _flat(self)
        changes = [f"{k}={v}" for k, v in now.items() if before.get(k) != v]
        return (
            f"preset {self.preset} with {', '.join(changes)}"
            if changes
            else (f"preset {self.preset}")
        )


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

# ---- flat names: fields of both configurations; of nested ones with the prefix

_PATHS = {"store": "store", "folder": "folder", "scan_cache": "scan", "terrain_cache": "terrain"}
_MODEL = [n for n in ModelConfig.model_fields if n not in ("physics", "scan")]
_PHYSICS = {f"physics_{name}": name for name in PhysicsConfig.model_fields}
_SCAN = {f"scan_{name}": name for name in ScanConfig.model_fields}
_TRAINING = [n for n in TrainingConfig.model_fields if n not in ("rates", "pollutant_weights")]
_RATES = {f"rate_{group}": group for group in GROUPS}
FLAT_NAMES = (
    *("manifest", *_PATHS, *_MODEL, "physics", *_PHYSICS, *_SCAN),
    *(*_TRAINING, *_RATES, "pollutant_weights"),
)


def _flat(chosen: Experiment) -> dict[str, object]:
    model, training = chosen.model, chosen.training
    values: dict[str, object] = {"manifest": chosen.manifest}
    values |= {name: getattr(chosen, field) for name, field in _PATHS.items()}
    values |= {name: getattr(model, name) for name in _MODEL}
    values["physics"] = model.physics is not None
    physics = model.physics or PhysicsConfig()
    values |= {name: getattr(physics, field) for name, field in _PHYSICS.items()}
    values |= {name: getattr(model.scan, field) for name, field in _SCAN.items()}
    values |= {name: getattr(training, name) for name in _TRAINING}
    values |= {name: training.rates.get(group, 1.0) for name, group in _RATES.items()}
    weights = training.pollutant_weights
    values["pollutant_weights"] = [weights.get(name, 1.0) for name in TARGETS]
    return values


def _refuse(problem: str, expected: object, found: object, remedy: str) -> ParameterError:
    return ParameterError(explain(problem, expected=expected, found=found, remedy=remedy))


def _checked_names(preset: str, given: Mapping[str, object]) -> None:
    if preset not in EXPERIMENT_PRESETS:
        known = ", ".join(EXPERIMENT_PRESETS)
        near = difflib.get_close_matches(preset, EXPERIMENT_PRESETS, n=1)
        remedy = f"did you mean {near[0]}?" if near else "choose one of them"
        raise _refuse(f"unknown preset {preset!r}", f"one of {known}", preset, remedy)
    for name in given:
        if name not in FLAT_NAMES:
            near = difflib.get_close_matches(name, FLAT_NAMES, n=1)
            remedy = f"did you mean {near[0]}?" if near else "see FLAT_NAMES"
            raise _refuse(f"unknown option {name} of an experiment", "a flat name", name, remedy)


def _part(config: Config, given: Mapping[str, object], names: Mapping[str, str]) -> dict:
    """Fields of a configuration, with the flat names that are given in their place."""
    fields = {field: getattr(config, field) for field in type(config).model_fields}
    return fields | {field: given[name] for name, field in names.items() if name in given}


def _physics_of(preset: PhysicsConfig | None, given: Mapping[str, object]) -> object:
    asked = [name for name in _PHYSICS if name in given and name != "physics_blocks"]
    wanted = given.get("physics", preset is not None)
    if not wanted and asked:
        raise _refuse(
            f"{', '.join(asked)} without physics attention",
            "physics=true",
            "physics attention is off",
            "switch it on, or leave these out",
        )
    return _part(preset or PhysicsConfig(), given, _PHYSICS) if wanted else None


def _blocks(text: object) -> object:
    """`all`, `first_block_only`, or indices such as `0,2`."""
    parts = str(text).replace(" ", "").split(",")
    return tuple(map(int, parts)) if all(p.isdecimal() for p in parts) else text


def _model_of(preset: ModelConfig, given: dict[str, object]) -> dict:
    if "physics_blocks" in given:
        given = given | {"physics_blocks": _blocks(given["physics_blocks"])}
    fields = _part(preset, given, {name: name for name in _MODEL})
    fields["physics"] = _physics_of(preset.physics, given)
    if fields["physics"] is None and "physics_blocks" not in given:
        fields["physics_blocks"] = "all"  # which blocks: a question of physics attention alone
    return fields | {"scan": _part(preset.scan, given, _SCAN)}


def _training_of(preset: TrainingConfig, given: Mapping[str, object]) -> dict:
    fields = _part(preset, given, {name: name for name in _TRAINING})
    rates = {group: given[name] for name, group in _RATES.items() if name in given}
    fields["rates"] = preset.rates | rates
    if "pollutant_weights" in given:
        weights = list(given["pollutant_weights"])
        if len(weights) != len(TARGETS):
            expected = f"{len(TARGETS)} numbers, for {', '.join(TARGETS)}"
            remedy = "give one weight for each pollutant"
            raise _refuse("pollutant_weights is not complete", expected, weights, remedy)
        fields["pollutant_weights"] = dict(zip(TARGETS, weights, strict=True))
    return fields


def _flat_name(place: tuple) -> str:
    """Flat name of a field that pydantic names by its place."""
    parts = [str(part) for part in place if not isinstance(part, int)]
    paths = {field: name for name, field in _PATHS.items()}
    if len(parts) == 1:
        return paths.get(parts[0], parts[0])
    prefix = {"physics": "physics_", "scan": "scan_", "rates": "rate_"}.get(parts[1], "")
    return prefix + parts[2] if prefix and len(parts) > 2 else parts[1]


def _not_valid(preset: str, given: Mapping[str, object], error: ValidationError) -> ParameterError:
    problems = []
    for item in error.errors(include_url=False):
        text = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        # what a validator of the whole configuration says names its fields itself
        whole = item["type"] == "value_error"
        problems.append(text if whole else f"{_flat_name(item['loc'])}: {text}")
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
    places = {field: _path(given[name]) for name, field in _PATHS.items() if name in given}
    fields = {
        "preset": preset,
        "manifest": _manifest(str(given.get("manifest", base.manifest))),
        "model": _model_of(base.model, given),
        "training": _training_of(base.training, given),
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
    given = [name for name, field in _PATHS.items() if field in wrong and getattr(chosen, field)]
    if given:
        kind = "fields" if grid else "stations"
        allowed = [name for name, field in _PATHS.items() if field not in wrong]
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
