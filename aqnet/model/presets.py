"""Configurations of the network that have a name."""

from __future__ import annotations

from pydantic import ValidationError

from aqnet.errors import explain
from aqnet.model.attention import ModelError
from aqnet.model.config import ModelConfig
from aqnet.model.physics_attention import PhysicsConfig

__all__ = ["MODEL_PRESETS", "model_preset"]

_BEIJING = ModelConfig(
    dropout=0.2,
    input_noise=1.0,
    trailing_means=True,
    correction=True,
    linear_part=True,
)

# The reference's size: 52.5 M parameters with its position embedding.
_FULL_SIZE = {
    "width": 768,
    "depth": 6,
    "heads": 8,
    "mlp_ratio": 4.0,
    "dropout": 0.1,
    "drop_path": 0.1,
    "decoder_depth": 2,
}

_CHINA = ModelConfig(
    **_FULL_SIZE,
    position="none",  # rotary in the physics: no weight is tied to a place of one grid
    physics=PhysicsConfig(ridge=True),
)

_CHINA_REFERENCE = ModelConfig(
    lead_mode="one",
    tokens="full",
    calendar=False,
    position="learned",
    **_FULL_SIZE,
    physics=PhysicsConfig(elevation="source_uphill", plume="off", position="none"),
    physics_blocks="first_block_only",
)

# The model as its authors published it, with the wind scan off: see `aqnet.model.published`.
_PUBLISHED = ModelConfig(
    lead_mode="one",
    tokens="full",
    calendar=False,
    patch_norm=True,
    position="learned",
    lead_embedding="raw_hours",
    **_FULL_SIZE,
    outputs="all_variables",
    physics=PhysicsConfig(
        elevation="source_uphill",
        elevation_start=(2.0,),
        elevation_unit="normalised",
        elevation_clamp=10.0,
        plume="off",
        position="bucketed",
        stretch=True,
    ),
    physics_blocks="first_block_only",
)

MODEL_PRESETS = {
    "beijing": _BEIJING,
    "china": _CHINA,
    "china_reference": _CHINA_REFERENCE,
    "published": _PUBLISHED,
}


def model_preset(name: str, **changes) -> ModelConfig:
    """A preset, with some of its fields changed.

    Parameters
    ----------
    name : str
        Key of `MODEL_PRESETS`.
    **changes
        Fields of `ModelConfig`; nested ones as a whole (`scan=ScanConfig(mode="lanes")`).

    Raises
    ------
    ModelError
        Unknown name, with the known ones; or the fields do not fit each other.
    """
    if name not in MODEL_PRESETS:
        raise ModelError(
            explain(
                f"no model preset {name!r}",
                expected=f"one of {', '.join(MODEL_PRESETS)}",
                found=name,
                remedy="correct the name of the preset",
            )
        )
    preset = MODEL_PRESETS[name]
    fields = {field: getattr(preset, field) for field in ModelConfig.model_fields}
    try:
        return ModelConfig(**(fields | changes))
    except ValidationError as problem:
        wrong = [
            (".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, "))
            for e in problem.errors()
        ]
        raise ModelError(
            explain(
                f"the preset {name!r} does not take these changes",
                expected="; ".join(f"{key}: {text}" if key else text for key, text in wrong),
                found=", ".join(f"{key} = {value!r}" for key, value in changes.items()),
                remedy="correct these fields",
            )
        ) from problem
