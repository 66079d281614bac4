"""The notebooks of nbs/explore in a real JupyterLab and a real browser: run all, move a control.

Of the picture, one region must change and another must keep every pixel.
"""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
from browser import BROWSER, NO_BROWSER, Browser, Lab, wait
from matplotlib.image import imsave
from test_structure import ROOT

pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)

NOTEBOOKS = ROOT / "nbs" / "explore"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    server = Lab(folder, NOTEBOOKS)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def browser(lab, tmp_path_factory):
    page = Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield page
    finally:
        page.close()


class Page:
    """A notebook that has run in JupyterLab."""

    IMAGE = "document.querySelector('.jp-OutputArea-output img.widget-image')"

    def __init__(self, browser, lab, name):
        self.browser = browser
        browser.call("Page.navigate", url=lab.url(f"lab/tree/{name}.ipynb") + "&reset")
        ready = "!!(window.jupyterapp && document.querySelector('.jp-Cell'))"
        wait(lambda: browser.js(ready), "the notebook")
        browser.js("jupyterapp.restored.then(() => jupyterapp.shell.collapseLeft())")
        browser.js("(async () => { const [w] = jupyterapp.shell.widgets('main'); "
                   "jupyterapp.shell.activateById(w.id); await w.context.sessionContext.ready; "
                   "return 1; })()")  # fmt: skip
        browser.js("jupyterapp.commands.execute('notebook:run-all-cells').then(() => 1)")
        wait(lambda: browser.js(f"!!({self.IMAGE} && {self.IMAGE}.naturalWidth)"), "the picture")
        browser.js(f"{self.IMAGE}.closest('.jp-OutputArea').scrollIntoView(), 1")
        assert browser.js("document.querySelectorAll('[data-mime-type*=stderr]').length") == 0
        browser.js(f"window.loads = 0, {self.IMAGE}.addEventListener('load', () => "
                   "{ window.loads += 1; window.loadedAt = performance.now(); }), 1")  # fmt: skip

    def box(self):
        """Left, top, width and height of the picture [pixels]."""
        return self.browser.js(
            f"(r => [r.x, r.y, r.width, r.height])({self.IMAGE}.getBoundingClientRect())"
        )

    def region(self, share):
        """Pixels of a part of the picture."""
        x, y, w, h = self.box()
        left, top, right, bottom = share
        return self.browser.shot(
            (x + left * w, y + top * h, (right - left) * w, (bottom - top) * h)
        )

    def moved(self, move):
        """Milliseconds from a movement to the new picture."""
        before = self.browser.js("window.loads")
        self.browser.js("window.movedAt = performance.now(), 1")
        move()
        wait(lambda: self.browser.js("window.loads") > before, "another picture")
        self.browser.js("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        return self.browser.js("window.loadedAt - window.movedAt")

    def select(self, label, option):
        """Choose an option of the choice with this label, as its menu would."""
        found = self.browser.js(
            "(() => { for (const l of document.querySelectorAll('.widget-dropdown label')) "
            f"if (l.textContent === {label!r}) {{ const s = l.parentNode.querySelector('select'); "
            "const o = [...s.options].find(o => o.textContent.replaceAll('\u00a0', ' ').trim() "
            f"=== {option!r}); "  # widgets write the spaces of an option so that none is lost
            "s.value = o.value; s.dispatchEvent(new Event('change', {bubbles: true})); "
            "return true; } return false; })()"
        )
        assert found, label

    def button(self, text):
        """A click on a button or check box with this text."""
        place = self.browser.js(
            "(() => { for (const b of document.querySelectorAll('.jupyter-button, "
            f".widget-checkbox label')) if (b.textContent.trim() === {text!r}) {{ "
            "const r = (b.querySelector('input') || b).getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; } return null; })()"
        )
        assert place, text
        self.browser.click(*place)

    def close(self):
        """End the kernel: five of them would take a gigabyte and a half."""
        self.browser.js("(async () => { const [w] = jupyterapp.shell.widgets('main'); "
                        "await w.context.save(); await w.context.sessionContext.shutdown(); "
                        "return 1; })()")  # fmt: skip


def inside(axes):
    """Left, top, right and bottom of axes [share of the picture]; of a bar with its numbers."""
    box = axes.get_position()
    if axes.get_label() == "<colorbar>":
        box = axes.get_tightbbox().transformed(axes.figure.transFigure.inverted())
    return box.x0, 1 - box.y1, box.x1, 1 - box.y0


def same_explorer(name):
    """The explorer of a notebook, here: its layout is that of the one in the browser."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    space = {}
    for cell in cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
    return space["explorer"]


# Notebook: movements one after the other, each with the axes that must change and keep.
MOVES = {
    "map": [
        (lambda p: p.button("+24 h"), lambda v: v.map.axes, lambda v: v.map.bar.ax),
        (lambda p: p.button("colours from this hour alone"), lambda v: v.map.bar.ax,
         lambda v: v.series.axes),
    ],
    "runs": [
        (lambda p: p.select("lead [h]", "12"), lambda v: v.second.axes, lambda v: v.second.bar.ax),
        (lambda p: p.select("B", "persistence"), lambda v: v.second.axes, lambda v: v.first.axes),
    ],
    "scan": [
        (lambda p: p.select("order", "lanes"), lambda v: v.order.axes, lambda v: v.wind.axes),
    ],
    "footprint": [
        (lambda p: p.select("station", "Huairou"), lambda v: v.map.axes, lambda v: v.map.bar.ax),
        (lambda p: p.button("+24 h"), lambda v: v.map.axes, lambda v: v.map.bar.ax),
    ],
    "forecast": [
        (lambda p: p.select("lead [h]", "48"), lambda v: v.first.axes, lambda v: v.second.bar.ax),
        (lambda p: p.select("station", "Huairou"), lambda v: v.series.axes,
         lambda v: v.change.bar.ax),
    ],
}  # fmt: skip
QUICK = ("map", "runs")  # 25 s on an idle machine; the others do the same again
EACH = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MOVES]


@pytest.mark.parametrize("name", EACH)
def test_a_control_changes_what_it_is_for(name, browser, lab, tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_RUNS", str(lab.folder / "runs"))
    view = same_explorer(name).view
    page = Page(browser, lab, name)
    for number, (move, changes, keeps) in enumerate(MOVES[name]):
        boxes = [inside(part(view)) for part in (changes, keeps)]
        before = [page.region(box) for box in boxes]
        waited_ms = page.moved(lambda move=move: move(page))
        imsave(tmp_path / f"{name}_{number}.png", browser.shot((0, 0, 1400, 1300)))
        after = [page.region(box) for box in boxes]
        assert (np.abs(after[0] - before[0]) > 0.05).any(-1).mean() > 0.01
        np.testing.assert_array_equal(after[1], before[1])
        print(f"{name}, movement {number}: {waited_ms:.0f} ms to the new picture; see {tmp_path}")
    page.close()


def test_every_notebook_is_opened():
    assert sorted(MOVES) == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
