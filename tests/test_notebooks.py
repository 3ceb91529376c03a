"""The notebooks are the source: in step with the package, clean, readable, and every one runs."""
from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbdev.test import test_nb as run_notebook

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
REPORTS = sorted((ROOT / "reports").glob("*.ipynb"))
BIN = Path(sys.executable).parent


def cells(path: Path) -> list[dict[str, object]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


def source(cell: dict[str, object]) -> str:
    return "".join(cell["source"])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree in a scratch folder, so that a failing check changes nothing here."""
    to = tmp_path_factory.mktemp("tree")
    for name in ("nbs", "pil_research", "reports"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, to / name)
    return to


def run(copy: Path, *command: str) -> None:
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_what_the_notebooks_export(copy: Path) -> None:
    run(copy, "nbdev_export")
    for path in sorted((ROOT / "pil_research").rglob("*.py")):
        twin = copy / path.relative_to(ROOT)
        assert twin.read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), f"{path.name}: run `make export`"
    made = {p.relative_to(copy) for p in (copy / "pil_research").rglob("*.py")}
    assert made == {p.relative_to(ROOT) for p in (ROOT / "pil_research").rglob("*.py")}


def test_every_module_names_a_notebook_that_exists() -> None:
    for path in (ROOT / "pil_research").rglob("*.py"):
        named = re.search(r"File to edit: (\S+\.ipynb)", path.read_text(encoding="utf-8"))
        if named:
            assert (path.parent / named.group(1)).resolve().exists(), f"{path} comes from a notebook that is gone"


def test_notebooks_are_clean(copy: Path) -> None:
    run(copy, "nbdev_clean")
    run(copy, "nbdev_clean", "--fname", "reports")  # not --clear_all: it would take the `parameters` tag away
    for path in (*NOTEBOOKS, *REPORTS):
        twin = copy / path.relative_to(ROOT)
        assert json.loads(twin.read_text(encoding="utf-8")) == json.loads(path.read_text(encoding="utf-8")), \
            f"{path.name}: run `make export`"


@pytest.mark.parametrize("path", [*NOTEBOOKS, *REPORTS], ids=lambda p: p.stem)
def test_every_cell_has_an_id_of_its_own(path: Path) -> None:
    ids = [c["id"] for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_stays_readable(path: Path) -> None:
    in_a_row = 0
    found = cells(path)
    assert len(found) <= 60
    for i, cell in enumerate(found):
        text = source(cell)
        if cell["cell_type"] != "code":
            in_a_row = 0
            continue
        in_a_row += 1
        assert in_a_row <= 3, f"cell {i}: four code cells without prose"
        if re.search(r"#\|\s*export", text):
            lines, made = text.count("\n") + 1, [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            assert lines <= (60 if len(made) < 2 else 40), f"cell {i}: an export cell of {lines} lines, {len(made)} definitions"


@pytest.mark.parametrize("path", REPORTS, ids=lambda p: p.stem)
def test_a_report_keeps_its_parameters_and_no_outputs(path: Path) -> None:
    tagged = [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]  # type: ignore[attr-defined]
    assert len(tagged) == 1
    assert all(not c.get("outputs") for c in cells(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch,
                                            recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    ok, seconds = run_notebook(path, skip_flags=["notest", "slow"], basepath=ROOT)
    assert ok, f"{path.name} failed; run it in JupyterLab or with nbdev_test"
    assert seconds < 120
