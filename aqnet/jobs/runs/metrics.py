"""Metrics of a run as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from aqnet.errors import RunError, explain

__all__ = ["plain"]


def plain(value: object, where: str) -> object:
    """Numpy numbers and arrays as plain values.

    Raises
    ------
    RunError
        NaN (JSON has none, and it would hide a missing measurement), infinite or not plain.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    finite = not isinstance(value, float) or math.isfinite(value)
    if finite and (value is None or isinstance(value, (bool, int, float, str))):
        return value
    message = explain(
        f"cannot store {where}",
        expected="finite numbers, text, true/false, None, lists and mappings",
        found=f"{value!r:.80} ({type(value).__name__})",
        remedy="store None where nothing was measured",
    )
    raise RunError(message)
