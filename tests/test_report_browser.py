"""Reports in a real browser, where one is installed: they show, and their films run."""

from __future__ import annotations

import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from aqnet.verification.report.page import Film, Page, Section, Text, png, render_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser: apt-get install chromium, or put google-chrome in PATH"
)


def frame(number):
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.4, f"frame {number}", color="#c00000")
    return f"hour {number}", png(figure, 100)


@pytest.fixture(scope="module")
def page():
    film = Film([frame(n) for n in range(4)], "Numbers", "Four frames.", "Film", 2)
    return render_page(
        Page("Title", "Subtitle", [Section("x", "X", [Text(["Text."]), film])], False)
    )


def browse(folder, text, *options):
    (folder / "r.html").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", *options,
         (folder / "r.html").as_uri()], capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.decode()


def shown(dom):
    """Labels of the frames that are not hidden."""
    frames = re.findall(r'<img[^>]*data-label="([^"]*)"([^>]*)>', dom)
    return [label for label, rest in frames if "hidden" not in rest]


def test_controls_appear_and_the_still_is_shown(page, tmp_path):
    dom = browse(tmp_path, page, "--dump-dom")
    assert shown(dom) == ["hour 2"] and "hour 2</output>" in dom
    assert re.search(r'<div class="keys">', dom)


def test_the_film_runs_until_it_is_stopped(page, tmp_path):
    click = (
        "<script>var b = document.querySelector('button'); b.click(); "
        "document.body.dataset.said = b.textContent; "
        "setTimeout(function () { b.click(); }, 900);</script></body>"
    )
    dom = browse(tmp_path, page.replace("</body>", click), "--dump-dom")
    assert 'data-said="Stop"' in dom and ">Play</button>" in dom
    assert shown(dom) == ["hour 0"]  # two steps of 350 ms after hour 2 of 0 to 3


def test_the_slider_chooses_a_frame(page, tmp_path):
    move = ("<script>var s = document.querySelector('input'); s.value = 0; "
            "s.dispatchEvent(new Event('input'));</script></body>")  # fmt: skip
    assert shown(browse(tmp_path, page.replace("</body>", move), "--dump-dom")) == ["hour 0"]


def test_the_page_can_be_seen(page, tmp_path):
    target = tmp_path / "shot.png"
    browse(tmp_path, page, f"--screenshot={target}", "--window-size=1200,700")
    pixels = imread(io.BytesIO(target.read_bytes()), format="png")[..., :3]
    assert pixels.shape[:2] == (700, 1200) and 0.9 < pixels.mean() < 1
    red = (pixels[..., 0] > 0.6) & (pixels[..., 1] < 0.3)
    assert red.sum() > 50  # the words of one frame
    assert np.ptp(np.flatnonzero(red.any(1))) < 120


def test_nothing_is_hidden_without_script(page):
    assert re.findall(r'data-label="hour 2">', page) and page.count(" hidden>") == 3 + 1
