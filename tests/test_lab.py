"""A stage notebook in JupyterLab, in a real browser: opened, run from top to bottom, looked at."""
from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "15_stage5_drawdown.ipynb"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((p for n in BROWSERS if (p := shutil.which(n))), "")
TOKEN = "lab-test"  # noqa: S105
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed")]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.loads(answer.read())


def until(ready: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of `ready`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := ready():
                return found
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


@contextmanager
def process(*command: str, **options: Any) -> Iterator[None]:
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(20)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a JupyterLab with its own settings and a copy of the notebook."""
    pytest.importorskip("jupyterlab")
    pytest.importorskip("websocket")
    folder, port = tmp_path / "nbs", free_port()
    folder.mkdir()
    shutil.copy(ROOT / "nbs" / NOTEBOOK, folder)
    env = os.environ | {f"JUPYTER_{n}_DIR": str(tmp_path / n) for n in ("CONFIG", "RUNTIME")}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "s"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "w"),
            "IPYTHONDIR": str(tmp_path / "i"), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
               "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    address = f"http://127.0.0.1:{port}"
    with process(*command, env=env, cwd=folder):
        until(lambda: fetched(f"{address}/api/status?token={TOKEN}"), 60, "the start of JupyterLab")
        yield address, folder


class Tab:
    """A page of a headless browser, by the DevTools protocol."""

    def __init__(self, port: int) -> None:
        import websocket

        pages = until(lambda: [p for p in fetched(f"http://127.0.0.1:{port}/json") if p["type"] == "page"], 30, "a browser page")
        self.socket = websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
        self.count, self.asked = 0, list[str]()
        self.send("Network.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            got = json.loads(self.socket.recv())
            if got.get("method") == "Network.requestWillBeSent":
                self.asked.append(got["params"]["request"]["url"])
            if got.get("id") == self.count:
                assert "error" not in got, got
                return dict(got["result"])

    def value(self, script: str) -> Any:
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def click(self, words: str, selector: str) -> bool:
        """Click the first element under `selector` with this text, as a person would: at its centre."""
        place = self.value(
            f"(() => {{ for (const e of document.querySelectorAll({selector!r})) "
            f"if (e.textContent.trim() === {words!r}) {{"
            "const r = e.getBoundingClientRect(); if (r.width) return [r.x + r.width / 2, r.y + r.height / 2]; } "
            "return null; })()")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased") if place else ():
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
        return bool(place)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    port = free_port()
    with process(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--window-size=1280,1000", f"--remote-debugging-port={port}",
                 f"--user-data-dir={tmp_path / 'browser'}", "about:blank"):
        page = Tab(port)
        try:
            yield page
        finally:
            page.socket.close()


COUNTS = """(() => { const cells = [...document.querySelectorAll('.jp-CodeCell')];
return {cells: cells.length, errors: document.querySelectorAll('[data-mime-type="application/vnd.jupyter.error"], \
[data-mime-type="application/vnd.jupyter.stderr"]').length}; })()"""


def test_a_stage_notebook_runs_in_jupyterlab(lab: tuple[str, Path], tab: Tab, tmp_path: Path) -> None:
    address, folder = lab
    file = folder / NOTEBOOK
    made = json.loads(file.read_text(encoding="utf-8"))
    code = [c for c in made["cells"] if c["cell_type"] == "code"]
    for cell in code:
        cell["outputs"], cell["execution_count"] = [], None
    file.write_text(json.dumps(made), encoding="utf-8")

    tab.send("Page.navigate", url=f"{address}/lab/tree/{NOTEBOOK}?token={TOKEN}&reset")
    until(lambda: tab.value("document.querySelectorAll('.jp-Notebook .jp-Cell').length"), 90, "the opening of the notebook")
    until(lambda: [k for k in fetched(f"{address}/api/kernels?token={TOKEN}") if k["execution_state"] == "idle"], 90, "a kernel")
    until(lambda: tab.click("Run", ".lm-MenuBar-itemLabel"), 30, "the menu Run")
    until(lambda: tab.click("Run All Cells", ".lm-Menu-itemLabel"), 30, "Run All Cells")

    def saved() -> bool:
        """Whether every code cell that does something has run, as the saved file tells."""
        if not tab.click("File", ".lm-MenuBar-itemLabel"):
            return False
        until(lambda: tab.click("Save Notebook", ".lm-Menu-itemLabel"), 10, "Save Notebook")
        time.sleep(2.0)
        now = [c for c in json.loads(file.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        return all(c["execution_count"] for c in now if "".join(c["source"]).strip())
    until(saved, 120, "the run")

    ran = [c for c in json.loads(file.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert len(ran) == len(code) and not [o for c in ran for o in c["outputs"] if o["output_type"] == "error"]
    assert any("image/png" in o.get("data", {}) or "image/svg+xml" in o.get("data", {}) for c in ran for o in c["outputs"])
    tab.value("document.querySelector('.jp-OutputArea img, .jp-OutputArea svg')?.scrollIntoView({block: 'center'})")
    time.sleep(1.5)
    shown = tab.value(COUNTS)
    assert shown["cells"] and not shown["errors"]
    tab.picture(tmp_path / "lab.png")
    assert (tmp_path / "lab.png").stat().st_size > 30_000
    if kept := os.environ.get("PIL_LAB_PICTURE"):
        shutil.copy(tmp_path / "lab.png", kept)
    foreign = [u for u in tab.asked if u.startswith("http") and not u.startswith(address)]
    assert not foreign
