"""Settings of the twin: the world, its switches and the constants of its physics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aqnet.config import Config

__all__ = [
    "ChemistryConfig",
    "ClimateConfig",
    "EmissionConfig",
    "MixingConfig",
    "SynopticConfig",
    "TerrainConfig",
    "TwinConfig",
]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class SynopticConfig(Config):
    """Travelling weather (`synoptic`), and how strong its winds are."""

    peak_wavelength_km: Positive = 2200.0
    spectral_slope: Positive = 2.0
    shortest_wavelength_km: Positive = 300.0
    thermal_wavelength_km: Positive = 1500.0
    memory_h: Positive = 9.5
    longest_memory_h: Positive = 40.0
    steering_m_s: Positive = 10.0
    steering_spread_m_s: NotNegative = 4.5
    standing_wavelength_km: Positive = 9000.0
    # rms speed of the layer that carries pollutants, at 40 N in winter and in summer, m/s
    winter_speed_m_s: NotNegative = 10.5
    summer_speed_m_s: NotNegative = 8.0
    # share of that speed at 20 N
    south_share: Share = 0.6
    # kink of the flow at fronts, in units of the streamfunction's standard deviation
    front_strength: NotNegative = 0.35
    # wind of the carrying layer over the climatological surface wind
    mean_wind_factor: NotNegative = 1.05


class TerrainConfig(Config):
    """Blocking of flow and mixing by terrain (`terrain_flow`, `weather`)."""

    resistance: NotNegative = 30.0
    step_scale_m: Positive = 500.0
    length_km: Positive = 60.0
    # Mixing depth below which the flow is fully blocked, and the share that stays above twice it.
    deep_mixing_m: Positive = 900.0
    least_blocking: Share = 0.4
    diffusivity_m2_s: NotNegative = 1.5e4
    slope_wind_m_s: NotNegative = 1.5
    surface_share_day: Share = 0.42
    surface_share_night: Share = 0.30
    surface_turning_deg: float = 12.0


class ClimateConfig(Config):
    """Temperature, pressure, humidity and rain (`climate`)."""

    lapse_rate_k_per_km: float = 5.5
    anomaly_winter_k: NotNegative = 5.0
    anomaly_summer_k: NotNegative = 2.5
    diurnal_k: NotNegative = 4.6
    pressure_factor: NotNegative = 1.9
    humidity_spread: NotNegative = 1.1
    rain_mm_h: NotNegative = 2.0


class MixingConfig(Config):
    """Boundary layer, a hidden driver, and what is measured at the surface (`mixing`)."""

    night_m: Positive = 180.0
    per_wind_s: NotNegative = 40.0
    convective_m: NotNegative = 1500.0
    stability: NotNegative = 1.3
    # Surface values see the depth of the day with this weight, the rest of the hour.
    day_weight: Share = 0.7
    floor_m: Positive = 150.0
    surface_resistance_s_m: NotNegative = 12.0


class EmissionConfig(Config):
    """Amounts per area, time and persons (`emissions`), at 1000 persons/km2, ug/m2/s."""

    pm25: NotNegative = 0.34
    coarse: NotNegative = 0.24
    so2: NotNegative = 0.16
    no2: NotNegative = 0.66
    co: NotNegative = 4.4
    population_power: Positive = 0.7
    industrial_share: Share = 0.5
    industrial_spread: NotNegative = 0.6
    industrial_length_km: Positive = 120.0
    heating_so2: NotNegative = 1.0
    heating_co: NotNegative = 1.4
    heating_pm: NotNegative = 0.3
    heating_no2: NotNegative = 0.4
    weekend: Share = 0.9
    dust: NotNegative = 0.8
    dust_threshold_m_s: NotNegative = 2.5


class ChemistryConfig(Config):
    """Reactions and removal (`chemistry`); rates per hour."""

    so2_oxidation: NotNegative = 0.010
    so2_oxidation_humid: NotNegative = 0.03
    no2_day: NotNegative = 0.25
    no2_night: NotNegative = 0.04
    nitrate_yield: Share = 0.35
    ozone_production: NotNegative = 64.0
    ozone_half_no2: Positive = 12.0
    ozone_loss: NotNegative = 0.05
    titration: NotNegative = 0.45
    co_loss: NotNegative = 0.0006
    deposition_pm_mm_s: NotNegative = 1.5
    deposition_coarse_mm_s: NotNegative = 6.0
    deposition_so2_mm_s: NotNegative = 5.0
    deposition_no2_mm_s: NotNegative = 2.0
    deposition_o3_mm_s: NotNegative = 3.0
    washout: NotNegative = 0.25
    venting: NotNegative = 0.012


class TwinConfig(Config):
    """A world of the twin: everything that decides its values, bit by bit.

    `transport` multiplies the wind and the diffusion that move pollutants, not the wind that is
    written: 0 is a world in which cells exchange nothing. `blocking` multiplies the resistance of
    terrain to flow and its suppression of diffusion. `terrain_seed` 0 is the real orography,
    others keep its plateaus, plains and roughness and rearrange the mountains (`world`).
    For negative controls, what is written can differ from what carries: `written_wind_seed` is the
    `weather_seed` whose u and v are written (None: its own), with `written_terrain` "flat" the
    written elevation is 0.
    The simulation starts `spin_up_days` before the first hour of `first_year`; a later year
    continues from the end of the one before it.
    """

    physics_version: Literal[1] = 1
    grid: str = "china"
    first_year: Annotated[int, Field(ge=1950, le=2100)] = 2013
    spin_up_days: Annotated[int, Field(ge=0, le=366)] = 20
    utc_offset_h: int = 8
    transport: Annotated[float, Field(ge=0, le=5)] = 1.0
    blocking: Share = 1.0
    terrain_seed: Seed = 0
    emission_seed: Seed = 0
    weather_seed: Seed = 0
    written_wind_seed: Seed | None = None
    written_terrain: Literal["own", "flat"] = "own"
    border: Literal["open", "closed"] = "open"
    sources: bool = True
    sinks: bool = True
    reactions: bool = True
    synoptic: SynopticConfig = Field(default_factory=SynopticConfig)
    terrain: TerrainConfig = Field(default_factory=TerrainConfig)
    climate: ClimateConfig = Field(default_factory=ClimateConfig)
    mixing: MixingConfig = Field(default_factory=MixingConfig)
    emission: EmissionConfig = Field(default_factory=EmissionConfig)
    chemistry: ChemistryConfig = Field(default_factory=ChemistryConfig)
