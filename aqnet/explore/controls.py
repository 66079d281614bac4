"""Controls for JupyterLab, and the picture that follows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets
import numpy as np
import traitlets

from aqnet.errors import AqnetError
from aqnet.explore.panels import View
from aqnet.explore.world import World, clock
from aqnet.variables import TARGETS
from aqnet.verification.report.wording import label

__all__ = [
    "Explorer",
    "TimeControl",
    "choice",
    "own_scale",
    "place_choice",
    "pollutant_choice",
    "slider",
]

_WIDE = {"description_width": "initial"}
_WRAP = {"flex_flow": "row wrap"}


class Explorer(widgets.VBox):
    """Rows of controls, a line of messages and a picture that follows the controls.

    Parameters
    ----------
    view : View
    rows : sequence of sequences of widgets
        The picture follows the `value` of each.
    update : callable
        Makes the view show what the controls say. May change other controls: that does not draw
        again.

    Attributes
    ----------
    picture : Image
    message : HTML
    """

    def __init__(
        self, view: View, rows: Sequence[Sequence[widgets.Widget]], update: Callable[[], None]
    ) -> None:
        self.view, self._update, self._busy = view, update, False
        self.message = widgets.HTML()
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        for control in (control for row in rows for control in row):
            control.observe(lambda change: self.redraw(), names="value")
        boxes = [widgets.HBox(list(row), layout=_WRAP) for row in rows]
        super().__init__([*boxes, self.message, self.picture])
        self._draw()  # an error ends the notebook: there is no picture to fall back on

    def redraw(self) -> None:
        """Show what the controls say; if that cannot be, say why above the last picture."""
        if self._busy:
            return
        try:
            self._draw()
        except AqnetError as problem:
            text = escape(str(problem)).replace("\n", "<br>")
            self.message.value = (
                '<div style="color:#b00020;line-height:1.3"><b>Not shown; the picture is that of '
                f"the last choice that could be.</b><br>{text}</div>"
            )

    def _draw(self) -> None:
        self._busy = True
        try:
            self._update()
            self.picture.value, self.message.value = self.view.png(), ""
        finally:
            self._busy = False


class TimeControl(widgets.HBox):
    """An hour of a world: a field for its UTC time, steps, and a slider over all hours.

    Parameters
    ----------
    world : World
    time : str
        UTC, such as "2016-12-20T12"; CoverageError if the world does not have it.
    name : str
        What the time is.

    Attributes
    ----------
    value : str
        UTC, as `time`.
    """

    value = traitlets.Unicode()

    def __init__(self, world: World, time: str, name: str) -> None:
        start = world.row(np.datetime64(time, "h"))
        self._world = world
        self.slider = widgets.IntSlider(
            start, 0, len(world.times) - 1, readout=False, continuous_update=False,
            layout={"width": "300px"},
        )  # fmt: skip
        self.field = widgets.Text(description=f"{name} [UTC]", continuous_update=False,
                                  layout={"width": "240px"}, style=_WIDE)  # fmt: skip
        steps = [widgets.Button(description=f"{step:+d} h", layout={"width": "72px"})
                 for step in (-24, -1, 1, 24)]  # fmt: skip
        self.local = widgets.HTML()
        super().__init__([self.field, self.local, *steps, self.slider], layout=_WRAP)
        self._show(start)
        for button in steps:
            button.on_click(self._step)
        self.slider.observe(lambda change: self._show(change.new), names="value")
        self.field.observe(lambda change: self._typed(change.new), names="value")

    @property
    def hour(self) -> np.datetime64:
        """The chosen hour, UTC."""
        return np.datetime64(self.value, "h")

    def _step(self, button: widgets.Button) -> None:
        row = self.slider.value + int(button.description.split()[0])
        self.slider.value = min(max(row, 0), self.slider.max)

    def _typed(self, text: str) -> None:
        try:
            row = self._world.row(np.datetime64(text.strip().replace(" ", "T"), "h"))
        except (ValueError, AqnetError):  # numpy: not a time; ours: not in the store
            times = self._world.times
            self.local.value = (f'<span style="color:#b00020">there is no such hour; from '
                                f"{times[0]} to {times[-1]} UTC</span>")  # fmt: skip
            return
        self.slider.value = row
        self._show(row)

    def _show(self, row: int) -> None:
        time = self._world.times[row]
        self.local.value = f"= {clock(time, self._world.utc_offset_h).split('= ')[1]}"
        self.field.value = self.value = str(time)


# ---- single controls


def choice(
    name: str, options: Sequence, value: object = None, width: str = "230px"
) -> widgets.Dropdown:
    """A choice of one of the options (values, or pairs of text and value); default the first."""
    options = list(options)
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    return widgets.Dropdown(options=options, value=first if value is None else value,
                            description=name, style=_WIDE, layout={"width": width})  # fmt: skip


def pollutant_choice(value: str) -> widgets.Dropdown:
    """Choice of one of TARGETS."""
    return choice("pollutant", [(label(name), name) for name in TARGETS], value, "170px")


def place_choice(world: World) -> widgets.Dropdown:
    """Choice of one of the places of a world: its position."""
    kinds = {"withheld station": ", withheld"}
    options = [(p.name + kinds.get(p.kind, ""), i) for i, p in enumerate(world.places)]
    return choice("station" if world.has_stations else "place", options)


def own_scale() -> widgets.Checkbox:
    """Whether colours come from the hour that is shown."""
    return widgets.Checkbox(False, description="colours from this hour alone", indent=False,
                            layout={"width": "220px"})  # fmt: skip


def slider(name: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
    """A number; the picture follows when it is let go."""
    return widgets.FloatSlider(value, min=low, max=high, step=step, description=name,
                               continuous_update=False, style=_WIDE, readout_format=".2f"
                               if step < 1 else ".0f")  # fmt: skip
