"""A headless browser driven over its own protocol, and a JupyterLab for it to open."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from matplotlib.image import imread
from test_structure import ROOT

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NO_BROWSER = "no browser: apt-get install chromium, or put google-chrome in PATH"
PATIENCE_S = 240  # a machine that does other things as well


def wait(found: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> object:
    """What `found` gives as soon as it is true."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError(f"waited {patience_s} s for {what}")


def end(process: subprocess.Popen) -> None:
    """End a process; a JupyterLab that is asked while a kernel starts may never do so."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Browser:
    """One page of chromium, 1,400 x 1,300 pixels; Chrome DevTools Protocol."""

    def __init__(self, profile: Path) -> None:
        import websocket  # comes with jupyter_server

        self.process = subprocess.Popen(
            [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--no-first-run", "--disable-background-networking", "--disable-sync",
             "--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*",
             "--window-size=1400,1300", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port = profile / "DevToolsActivePort"
        wait(lambda: port.is_file() and port.read_text().count("\n"), "the browser")
        number = port.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{number}/json") as answer:
            page = next(t for t in json.load(answer) if t["type"] == "page")
        self.socket = websocket.create_connection(
            page["webSocketDebuggerUrl"], timeout=PATIENCE_S, max_size=None
        )
        self.count = 0
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self) -> None:
        self.socket.close()
        end(self.process)

    def call(self, method: str, **parameters: object) -> dict:
        """Result of a command of the protocol."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.count:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def js(self, expression: str) -> object:
        """Value of an expression in the page; promises are waited for."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                         returnByValue=True)  # fmt: skip
        assert "exceptionDetails" not in done, (expression, done["exceptionDetails"])
        return done["result"].get("value")

    def shot(self, box: tuple[float, float, float, float]) -> np.ndarray:
        """Pixels (h, w, 3), 0 to 1, of a box of left, top, width and height [pixels]."""
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
        done = self.call("Page.captureScreenshot", format="png", clip=clip)
        return imread(io.BytesIO(base64.b64decode(done["data"])), format="png")[..., :3]

    def click(self, x: float, y: float) -> None:
        """The mouse, at a place of the page."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


class Lab:
    """A JupyterLab on copies of notebooks, so that autosave does not touch the repository."""

    def __init__(self, folder: Path, notebooks: Path) -> None:
        self.folder = folder
        shutil.copytree(notebooks, folder / "work")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        own = {f"JUPYTER_{n}_DIR": str(folder / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.log = (folder / "lab.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0",
             "--IdentityProvider.token=secret", f"--ServerApp.root_dir={folder / 'work'}",
             "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
            env=os.environ | own | {"AQNET_ROOT": str(ROOT), "PYTHONPATH": paths,
                                    "AQNET_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"},
            stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        wait(self._answers, f"JupyterLab; see {folder / 'lab.log'}")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "lab.log").read_text()
        try:
            with urlopen(self.url("api/status"), timeout=5) as answer:
                return answer.status == 200
        except (URLError, ConnectionError, TimeoutError):
            return False

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token=secret"

    def close(self) -> None:
        end(self.process)
        self.log.close()
