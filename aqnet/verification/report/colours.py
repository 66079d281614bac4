"""Colours of reports: perceptual maps, told apart with colour blindness and in grey print."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

__all__ = [
    "DEUTERANOPIA",
    "DIVERGING",
    "PROTANOPIA",
    "SEQUENTIAL",
    "heat",
    "lightness",
    "simulated",
]

# Concentrations and errors; differences and skill (blue: lower, or the better forecast).
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
# Machado, Oliveira and Fernandes (2009), IEEE Trans. Vis. Comp. Graph. 15, 1291-1298, table 1,
# severity 1.0; for linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
     [-0.011820, 0.042940, 0.968881]]
)  # fmt: skip
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
     [-0.003882, -0.048116, 1.051998]]
)  # fmt: skip
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB (IEC 61966-2-1)


def _linear(rgb: np.ndarray) -> np.ndarray:
    rgb = np.asarray(rgb, dtype=np.float64)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* (0 black to 100 white) of sRGB colours (..., 3) from 0 to 1."""
    y = _linear(rgb) @ _LUMINANCE
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


def simulated(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """sRGB colours (..., 3) as seen with `DEUTERANOPIA` or `PROTANOPIA`."""
    linear = np.clip(_linear(rgb) @ matrix.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def heat(value: float, limit: float) -> tuple[str, str]:
    """Background and ink, #rrggbb, of a signed number from -limit (red) to limit (blue).

    Only the inner 60 % of the map are used, so that black text has a contrast of at least 4.5
    (WCAG 2.1) everywhere; NaN has no colour.
    """
    if not np.isfinite(value):
        return "", ""
    share = 0.5 - 0.3 * float(np.clip(value / limit, -1, 1))
    return to_hex(colormaps[DIVERGING](share)), "#000000"
