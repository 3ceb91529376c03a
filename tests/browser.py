"""A headless browser for tests: started, asked by the DevTools protocol, ended."""
from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((p for n in BROWSERS if (p := shutil.which(n))), "")


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


@contextmanager
def opened(folder: Path, width: int = 1280, height: int = 1000) -> Iterator[Tab]:
    """A page of a browser of its own, whose settings live in `folder`."""
    port = free_port()
    with process(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", f"--window-size={width},{height}", f"--remote-debugging-port={port}",
                 f"--user-data-dir={folder}", "about:blank"):
        page = Tab(port)
        try:
            yield page
        finally:
            page.socket.close()
