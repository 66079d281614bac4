"""Lines and axes of figures, the same for a forecast in all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aqnet.errors import explain
from aqnet.metrics import VerificationError

__all__ = ["edges", "plain", "require", "style_of", "upper_limit"]

# Okabe and Ito (2008): told apart with every common form of colour blindness. Markers and
# dashes say the same again for a print in grey. Grey is ours.
_STYLES = (
    ("#0072B2", "s", (0, (5, 2))),
    ("#D55E00", "^", (0, (2, 1.5))),
    ("#009E73", "D", (0, (6, 2, 1, 2))),
    ("#CC79A7", "v", (0, (1, 1))),
    ("#E69F00", "P", (0, (4, 1, 1, 1, 1, 1))),
    ("#56B4E9", "X", (0, (8, 2))),
    ("#7F7F7F", "h", (0, (3, 1, 1, 1))),
)
_LIMITS_PERCENTILE = 99.5  # one capped hour must not flatten all other colours


def style_of(name: str, names: Sequence[str], model: str = "model") -> dict:
    """Line style of a forecast, the same in every figure: the model black and solid."""
    if name == model:
        return {"color": "black", "marker": "o", "linestyle": "-", "linewidth": 2.0, "zorder": 5}
    others = [other for other in names if other != model]
    color, marker, dash = _STYLES[others.index(name) % len(_STYLES)]
    return {"color": color, "marker": marker, "linestyle": dash, "linewidth": 1.4}


def plain(axes: object) -> None:
    """Two spines and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def upper_limit(*arrays: np.ndarray) -> float:
    """Where a colour scale ends: the 99.5th percentile of the sizes, at least 1."""
    values = np.concatenate([np.ravel(a) for a in arrays])
    values = np.abs(values[np.isfinite(values)])
    return max(float(np.percentile(values, _LIMITS_PERCENTILE)), 1.0) if values.size else 1.0


def edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells from their centres, for pcolormesh."""
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([2 * centres[:1] - middle[:1], middle, 2 * centres[-1:] - middle[-1:]])


def require(owner: str, **arrays: tuple[np.ndarray, tuple[int, ...]]) -> None:
    """Raise VerificationError for the first array that has another shape than stated."""
    for name, (array, shape) in arrays.items():
        if np.shape(array) != shape:
            raise VerificationError(
                explain(f"{owner}.{name} has the wrong shape", expected=shape,
                        found=np.shape(array), remedy=f"see the shapes in the docstring of {owner}")
            )  # fmt: skip
