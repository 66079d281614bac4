"""Numbers, names and units as reports print them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "LABELS",
    "PAIRS_TEXT",
    "UNIT",
    "VERDICTS",
    "best_of",
    "joined",
    "label",
    "number",
    "p_value",
    "unit_of",
]

LABELS = {"pm25": "PM2.5", "pm10": "PM10", "so2": "SO2", "no2": "NO2", "co": "CO", "o3": "O3"}
UNIT = "ug/m3"
PAIRS_TEXT = (
    "All forecasts are scored on the same pairs: a pair counts only if the truth and every "
    "forecast are known. The best of each row is bold with a dot; the column of the judged "
    "forecast is shaded."
)
VERDICTS = {"won": ("▲", "better"), "lost": ("▼", "worse"), "tie": ("=", "same")}


def label(pollutant: str) -> str:
    """PM2.5 for pm25; a product keeps its name."""
    return LABELS.get(pollutant, pollutant)


def unit_of(pollutant: str) -> str:
    """Unit of a pollutant or product: an index has none."""
    return "1" if pollutant.upper().startswith(("AQI", "IAQI")) else UNIT


def joined(words: Sequence[object]) -> str:
    """12, 24 and 48."""
    texts = [str(word) for word in words]
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def number(value: float, score: str = "rmse") -> str:
    """Three or so significant digits with a real minus sign; n/a for NaN."""
    if not np.isfinite(value):
        return "n/a"
    size = abs(value)
    small = score in ("correlation", "skill") or "correlation" in score
    digits = 2 if small or size < 10 else 1 if size < 100 else 0
    signed = score in ("percent", "skill") or "bias" in score
    sign = "+" if signed else "-"
    text = f"{value:{sign}z.{1 if score == 'percent' else digits}f}"  # z: no negative zero
    return text.replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """Two digits or so of a probability."""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def best_of(values: np.ndarray, rule: str) -> float:
    """The value to set in bold; NaN if all are missing."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.nan
    if rule == "closest to zero":
        return known[np.abs(known).argmin()]
    return known.min() if rule == "lowest" else known.max()
