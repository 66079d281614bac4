"""A film of forecast against truth: embedded pictures of one layout."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import QuadMesh

from aqnet.verification.report.fields import Fields
from aqnet.verification.report.maps import CREDIT, draw_beside
from aqnet.verification.report.page import Film, png
from aqnet.verification.report.wording import label, unit_of

__all__ = ["film_of"]

_DPI = 84  # of a frame: about 75 kB


def film_of(
    fields: Fields, times: np.ndarray, truth: np.ndarray, forecast: np.ndarray, shown: object,
    limits: tuple[float, float], still: int,
) -> Film:  # fmt: skip
    """Truth, forecast and difference at each of `times`, colours fixed.

    Parameters
    ----------
    fields : Fields
    times : (K,) datetime64[h], UTC
        Valid times.
    truth, forecast : (K, H, W)
    shown : episodes.Shown
        Pollutant, lead time and name.
    limits : float, float
        Ends of the colours of concentration and difference [unit of the pollutant].
    still : int
        The frame on paper.
    """
    name = f"{shown.name}, {shown.lead_h} h ahead"
    figure = draw_beside(fields, truth[still], {name: forecast[still]}, shown.pollutant, limits,
                         " ")  # fmt: skip
    meshes = [c for axes in figure.axes[:3] for c in axes.collections if isinstance(c, QuadMesh)]
    figure.draw_without_rendering()  # lays the panels out
    figure.set_layout_engine("none")  # all frames keep the layout of the first
    frames = []
    for k, time in enumerate(times):
        for mesh, values in zip(
            meshes, (truth[k], forecast[k], forecast[k] - truth[k]), strict=True
        ):
            mesh.set_array(values)
        words = _label(time)
        figure.suptitle(f"valid {words}", fontsize=10.5, x=0.01, ha="left")
        frames.append((words, png(figure, _DPI)))
    caption = (
        f"{label(shown.pollutant)} [{unit_of(shown.pollutant)}], forecast against truth, colours "
        f"fixed. On paper: the highest hour. {CREDIT}"
    )
    return Film(frames, f"Maps of {label(shown.pollutant)}", caption, "Film", still)


def _label(time: np.datetime64) -> str:
    local = time + np.timedelta64(8, "h")
    beijing = f"{str(local)[5:10]} {str(local)[11:13]}:00 Beijing"
    return f"{str(time)[:10]} {str(time)[11:13]}:00 UTC ({beijing})"
