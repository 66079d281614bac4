"""Configuration of the network and of the forecasters around it: one validated model."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aqnet.config import Config
from aqnet.model.physics_attention import COMPUTED_BY, PhysicsConfig
from aqnet.variables import DYNAMIC, MAX_LEAD_TIME_H, TARGETS

__all__ = ["ModelConfig", "ScanConfig"]

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
LeadTime = Annotated[int, Field(ge=1, le=MAX_LEAD_TIME_H)]
HourBack = Annotated[int, Field(ge=0)]
BlockIndex = Annotated[int, Field(ge=0)]


def _require(fits: bool, problem: str) -> None:
    if not fits:
        raise ValueError(problem)


class ScanConfig(Config):
    """Order of the tokens along the wind, and what uses it."""

    mode: Literal["none", "domain", "region", "lanes", "legacy"] = "none"
    regions: tuple[Count, Count] = (32, 32)  # bands of patch rows and of patch columns
    sectors: Annotated[int, Field(ge=4, multiple_of=4)] = 16  # wind directions
    lane_patches: Count = 3  # width of a lane across the wind
    calm_m_s: Annotated[float, Field(ge=0)] = 0.5  # slower regions follow the domain's wind
    rank_embedding: bool = False  # learned embedding of the place along the wind
    window: Annotated[int, Field(ge=0)] = 0  # tokens that attend to each other; 0: all

    @property
    def used(self) -> bool:
        """Whether anything depends on the order of the tokens."""
        return self.rank_embedding or self.window > 0

    @property
    def needs_orders(self) -> bool:
        """Whether the orders along the wind are read: windows along the rows do without them."""
        return self.mode == "legacy" or (self.mode != "none" and self.used)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _require(
            self.window == 0 or self.mode in ("lanes", "none"),
            f"window = {self.window} needs mode = 'lanes', or 'none' for windows along the rows "
            f"(over other orders they span the whole domain), not {self.mode!r}",
        )
        _require(self.window != 1, "window = 1: a token that attends to itself alone; use 0 or 2+")
        _require(
            not self.rank_embedding or self.mode not in ("none", "legacy"),
            f"rank_embedding needs mode 'domain', 'region' or 'lanes', not {self.mode!r}",
        )
        return self


class ModelConfig(Config):
    """Architecture of a forecaster; its training is `TrainingConfig`.

    The last four fields are those of the forecaster for stations; a forecaster of fields refuses
    them. `aqnet.model.presets` holds the configurations that have a name.
    """

    # What is forecast from what
    lead_mode: Literal["all", "one"] = "all"  # lead times of one encoder pass
    lead_times_h: Annotated[tuple[LeadTime, ...], Field(min_length=1)] = (12, 24, 48, 96)
    history_h: Annotated[tuple[HourBack, ...], Field(min_length=1)] = (0,)  # hours before the init
    optional_inputs: tuple[str, ...] = ()  # a sample may lack them; without u or v it is calm
    optional_dropout: Share = 0.1  # chance that a training sample goes without one of them
    calendar: bool = True  # hour and day of year of the valid time condition the decoder

    # Tokens
    patch: Count = 2  # cells along the side of a patch
    tokens: Literal["active", "full"] = "active"  # patches with data, or all
    active_margin: Annotated[int, Field(ge=0)] = 0  # patches around the active ones
    patch_norm: bool = False  # layer norm of each variable's token, as published
    position: Literal["none", "sincos", "learned"] = "sincos"  # absolute; rotary is in `physics`
    lead_embedding: Literal["scaled", "raw_hours"] = "scaled"  # of lead_mode "one"

    # Encoder and decoder
    width: Annotated[int, Field(ge=8)] = 64
    depth: Count = 2
    heads: Count = 4
    mlp_ratio: Annotated[float, Field(gt=0)] = 2.0
    dropout: Share = 0.0
    drop_path: Share = 0.0  # of the last block, rising linearly from 0 in the first
    physics: PhysicsConfig | None = None  # None: plain attention
    physics_blocks: Literal["all", "first_block_only"] | tuple[BlockIndex, ...] = "all"
    scan: ScanConfig = ScanConfig()  # order of the tokens along the wind
    decoder_depth: Annotated[int, Field(ge=0)] = 0  # Linear + GELU layers before the output
    persistence: bool = False  # forecast = learned share of the present + what is decoded
    outputs: Literal["targets", "all_variables"] = "targets"  # rows of the last layer

    # The forecaster for stations
    trailing_means: bool = False  # inputs: trailing 1-, 30- and 60-day means
    correction: bool = False  # forecast = statistical forecast + learned correction
    linear_part: bool = False  # an hourly regression in closed form stands beside the network
    input_noise: Annotated[float, Field(ge=0)] = 0.0  # [1], in training, common to the domain

    @property
    def physics_indices(self) -> tuple[int, ...]:
        """Blocks with physics attention."""
        if self.physics is None:
            return ()
        named = {"all": tuple(range(self.depth)), "first_block_only": (0,)}
        return named.get(self.physics_blocks, self.physics_blocks)

    def settings(self) -> dict[str, object]:
        """Settings that decide what the network computes, as plain values.

        Without those of how and on what device its attention is computed: two configurations with
        the same settings compute the same, to rounding.
        """
        plain = self.model_dump(mode="json")
        if self.physics is not None:
            plain["physics"] = {n: v for n, v in plain["physics"].items() if n not in COMPUTED_BY}
        return plain

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for check in (
            _check_depth, _check_hours, _check_names, _check_attention, _check_leads, _check_tokens,
        ):  # fmt: skip
            check(self)
        return self


def _increasing(values: tuple[int, ...]) -> bool:
    return all(a < b for a, b in pairwise(values))


def _check_depth(c: ModelConfig) -> None:
    _require(
        c.drop_path == 0 or c.depth > 1,
        f"drop_path = {c.drop_path} with depth = 1: it is 0 in the first block, and there is no "
        "other; set drop_path = 0",
    )


def _check_hours(c: ModelConfig) -> None:
    _require(
        _increasing(c.lead_times_h),
        f"lead_times_h must increase, found {list(c.lead_times_h)}",
    )
    _require(
        c.history_h[0] == 0 and _increasing(c.history_h),
        f"history_h must start at 0 and increase, found {list(c.history_h)}",
    )


def _check_names(c: ModelConfig) -> None:
    unknown = sorted(set(c.optional_inputs) - set(DYNAMIC))
    _require(
        not unknown,
        f"optional_inputs names {unknown}; known: {', '.join(DYNAMIC)} (fixed fields are always "
        "there)",
    )
    _require(
        len(set(c.optional_inputs)) == len(c.optional_inputs) < len(DYNAMIC),
        "optional_inputs must name variables once, and leave at least one required",
    )


def _check_attention(c: ModelConfig) -> None:
    _require(c.width % c.heads == 0, f"heads = {c.heads} does not divide width = {c.width}")
    rotary = c.physics is not None and c.physics.position == "rotary"
    _require(
        not rotary or c.width // c.heads >= 4,
        f"physics.position = 'rotary' needs 4 features a head, found width = {c.width} with "
        f"heads = {c.heads}",
    )
    named = c.physics_blocks if isinstance(c.physics_blocks, tuple) else ()
    _require(
        not named or (_increasing(named) and named[-1] < c.depth),
        f"physics_blocks = {list(named)} must increase and stay below depth = {c.depth}",
    )
    _require(named != () or isinstance(c.physics_blocks, str), "physics_blocks names no block")
    _require(
        c.physics is not None or c.physics_blocks == "all",
        f"physics_blocks = {c.physics_blocks!r}, but physics is off",
    )


def _check_leads(c: ModelConfig) -> None:
    _require(
        c.lead_mode == "one" or c.physics is None or c.physics.plume != "lead",
        "physics.plume = 'lead' needs lead_mode = 'one': a pass for all lead times has none",
    )
    _require(
        c.lead_mode == "one" or c.lead_embedding == "scaled",
        "lead_embedding = 'raw_hours' belongs to lead_mode = 'one'",
    )
    _require(
        c.lead_embedding == "scaled" or not c.calendar,
        "lead_embedding = 'raw_hours' is the published form, which knows no valid time: set "
        "calendar = False",
    )


def _check_tokens(c: ModelConfig) -> None:
    _require(
        c.scan.mode != "legacy" or c.tokens == "full",
        "scan.mode = 'legacy' needs tokens = 'full': its strips run over the whole grid",
    )
    _require(
        c.tokens == "active" or c.active_margin == 0,
        f"active_margin = {c.active_margin} belongs to tokens = 'active'",
    )
    _require(
        c.outputs == "targets" or not set(TARGETS) & set(c.optional_inputs),
        "outputs = 'all_variables' needs all targets among the required inputs",
    )
    _require(
        not c.persistence or not set(TARGETS) & set(c.optional_inputs),
        "persistence needs all targets among the required inputs",
    )
    _require(
        not c.persistence or c.lead_embedding == "scaled",
        "persistence is not of the published form: lead_embedding = 'raw_hours'",
    )
    _require(
        not c.persistence or not c.correction,
        "persistence and correction both start from something known: choose one",
    )
