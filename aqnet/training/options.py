"""Options of an experiment by flat names: one name for each field, however deep it is nested.

They are parameters of the training notebook: fields of the model and of the training by their own
names, those of physics attention, of the scan and of the rates with a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aqnet.config import Config
from aqnet.errors import ParameterError, explain
from aqnet.model.config import ModelConfig, ScanConfig
from aqnet.model.physics_attention import PhysicsConfig
from aqnet.training.config import GROUPS, TrainingConfig
from aqnet.variables import TARGETS

if TYPE_CHECKING:
    from aqnet.training.experiment import Experiment

__all__ = ["FLAT_NAMES", "PATHS", "flat_name", "flat_values", "model_with", "training_with"]

# field by flat name, or fields that are their own flat names
PATHS = {"store": "store", "folder": "folder", "scan_cache": "scan", "terrain_cache": "terrain"}
_MODEL = [n for n in ModelConfig.model_fields if n not in ("physics", "scan")]
_PHYSICS = {f"physics_{name}": name for name in PhysicsConfig.model_fields}
_SCAN = {f"scan_{name}": name for name in ScanConfig.model_fields}
_TRAINING = [n for n in TrainingConfig.model_fields if n not in ("rates", "pollutant_weights")]
_RATES = {f"rate_{group}": group for group in GROUPS}
FLAT_NAMES = (
    *("manifest", *PATHS, *_MODEL, "physics", *_PHYSICS, *_SCAN),
    *(*_TRAINING, *_RATES, "pollutant_weights"),
)


def flat_values(chosen: Experiment) -> dict[str, object]:
    """All values of an experiment by flat name, as `experiment` takes them."""
    model, training = chosen.model, chosen.training
    values: dict[str, object] = {"manifest": chosen.manifest}
    values |= {name: getattr(chosen, field) for name, field in PATHS.items()}
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


def flat_name(place: tuple) -> str:
    """Flat name of a field that pydantic names by its place."""
    parts = [str(part) for part in place if not isinstance(part, int)]
    paths = {field: name for name, field in PATHS.items()}
    if len(parts) == 1:
        return paths.get(parts[0], parts[0])
    prefix = {"physics": "physics_", "scan": "scan_", "rates": "rate_"}.get(parts[1], "")
    return prefix + parts[2] if prefix and len(parts) > 2 else parts[1]


# ---- options in the place of a preset's fields


def _part(config: Config, given: Mapping[str, object], names: Mapping[str, str]) -> dict:
    """Fields of a configuration, with the flat names that are given in their place."""
    fields = {field: getattr(config, field) for field in type(config).model_fields}
    return fields | {field: given[name] for name, field in names.items() if name in given}


def _physics_of(preset: PhysicsConfig | None, given: Mapping[str, object]) -> object:
    asked = [name for name in _PHYSICS if name in given]
    wanted = given.get("physics", preset is not None)
    if not wanted and asked:
        message = explain(
            f"{', '.join(asked)} without physics attention",
            expected="physics=true",
            found="physics attention is off",
            remedy="switch it on, or leave these out",
        )
        raise ParameterError(message)
    return _part(preset or PhysicsConfig(), given, _PHYSICS) if wanted else None


def _blocks(text: object) -> object:
    """`all`, `first_block_only`, or indices such as `0,2`."""
    parts = str(text).replace(" ", "").split(",")
    return tuple(map(int, parts)) if all(p.isdecimal() for p in parts) else text


def model_with(preset: ModelConfig, given: dict[str, object]) -> dict:
    """Fields of a model's configuration: those of the preset, with the options in their place.

    Raises
    ------
    ParameterError
        Options of physics attention where it is off.
    """
    if "physics_blocks" in given:
        given = given | {"physics_blocks": _blocks(given["physics_blocks"])}
    fields = _part(preset, given, {name: name for name in _MODEL})
    fields["physics"] = _physics_of(preset.physics, given)
    if fields["physics"] is None and "physics_blocks" not in given:
        fields["physics_blocks"] = "all"  # which blocks: a question of physics attention alone
    return fields | {"scan": _part(preset.scan, given, _SCAN)}


def training_with(preset: TrainingConfig, given: Mapping[str, object]) -> dict:
    """Fields of a training's configuration: those of the preset, with the options in their place.

    Raises
    ------
    ParameterError
        Not one weight for each pollutant.
    """
    fields = _part(preset, given, {name: name for name in _TRAINING})
    rates = {group: given[name] for name, group in _RATES.items() if name in given}
    fields["rates"] = preset.rates | rates
    if "pollutant_weights" in given:
        weights = list(given["pollutant_weights"])
        if len(weights) != len(TARGETS):
            message = explain(
                "pollutant_weights is not complete",
                expected=f"{len(TARGETS)} numbers, for {', '.join(TARGETS)}",
                found=weights,
                remedy="give one weight for each pollutant",
            )
            raise ParameterError(message)
        fields["pollutant_weights"] = dict(zip(TARGETS, weights, strict=True))
    return fields
