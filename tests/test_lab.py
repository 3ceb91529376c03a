"""A stage notebook in JupyterLab, in a real browser: opened, run from top to bottom, looked at."""
from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import BROWSER, Tab, fetched, free_port, opened, process, until

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "15_stage5_drawdown.ipynb"
TOKEN = "lab-test"  # noqa: S105
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed")]


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


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with opened(tmp_path / "browser") as page:
        yield page


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
