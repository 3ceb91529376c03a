"""Who may import whom: the rings of the design, checked on the code and in fresh processes."""
from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pil_research
import pil_research.stages

ROOT = Path(pil_research.__file__).parent
RING = {"types": 0, "config": 1, "approval": 2, "estimators": 2, "allocators": 3, "extensions": 1,
        "market": 4, "stages": 4, "estimate": 5, "vehicles": 5, "base_weights": 6, "border": 6, "step_values": 6.5, "step": 7,
        "passport": 8, "book_state": 8, "reading": 8, "labels": 8.5, "integrator": 9, "live": 9.5, "research": 10, "commands": 11,
        "cli": 12, "__main__": 13, "accel": 10, "engine": 1}
HEAVY = {"riskfolio", "skfolio", "sklearn", "cvxpy", "matplotlib", "papermill", "IPython", "nbdev", "fastcore", "numba",
         "statsmodels", "arch", "tqdm", "joblib", "pypfopt", "nbconvert"}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name != "_modidx.py")


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Absolute names imported anywhere in a file, lazily too; relative ones resolved against the package."""
    package = ["pil_research", *path.relative_to(ROOT).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{a.name}" for a in node.names} | {module}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_a_ring_above_its_own(path: Path) -> None:
    own = name_of(path)
    ring = RING.get(own.split(".")[0], -1)
    for target in imports_of(path):
        if target.startswith("pil_research.") and ring >= 0:
            top = target.split(".")[1]
            assert RING.get(top, -1) <= ring, f"{own} imports {target}"


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith("stages.")], ids=name_of)
def test_no_stage_imports_another(path: Path) -> None:
    stages = {m.name for m in pkgutil.iter_modules(pil_research.stages.__path__)}
    own = name_of(path).split(".")[1]
    others = {t.split(".")[2] for t in imports_of(path) if t.startswith("pil_research.stages.") and len(t.split(".")) > 2}
    assert others & stages <= {own}


@pytest.mark.parametrize("path", [p for p in MODULES if RING.get(name_of(p).split(".")[0], 99) < 10], ids=name_of)
def test_the_live_path_imports_only_its_four_libraries(path: Path) -> None:
    third = {t.split(".")[0] for t in imports_of(path)} - set(sys.stdlib_module_names) - {"pil_research", "__future__"}
    assert third <= {"numpy", "pandas", "scipy", "exchange_calendars"}


@pytest.mark.parametrize("module", ["integrator", "step", "config", "allocators", "estimators.covariance", "live"])
def test_a_fresh_process_loads_nothing_heavy(module: str) -> None:
    code = (f"import sys, pandas; before = set(sys.modules); import pil_research.{module}; "
            "print(' '.join(sorted({m.split('.')[0] for m in set(sys.modules) - before})))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert "pil_research" in loaded
    assert not loaded & (HEAVY | {"pyarrow"})  # pandas itself may load pyarrow; the package adds nothing to that


@pytest.mark.parametrize("name", ["sleeves", "allocation", "assembly", "vol_target", "caps", "drawdown", "regime"])
def test_no_expected_return_enters_stages_0_to_6(name: str) -> None:
    module = importlib.import_module(f"pil_research.stages.{name}")
    banned = ("expected", "mu", "alpha", "forecast", "expected_return", "expected_gain", "means", "views")
    for label, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__:
            hit = [a for a in inspect.signature(function).parameters if a in banned or a.startswith("expected")]
            assert not hit, f"{name}.{label} takes {hit}"


@pytest.mark.parametrize("path", sorted((ROOT / "live").glob("*.py")), ids=name_of)
def test_the_shell_reads_no_clock_and_no_chance(path: Path) -> None:
    """Time comes with the snapshot, so that a replay, a paper run and a live day are the same code; nothing runs on reading."""
    assert not imports_of(path) & {"time", "datetime", "random", "pickle", "threading", "logging", "socket", "subprocess"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, (ast.Assert, ast.Global)), f"line {getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.ExceptHandler) or node.type is not None, f"line {node.lineno}: bare except"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            assert name not in {"now", "utcnow", "today", "default_rng", "eval", "exec", "print", "read_pickle"}, name


def test_names_of_the_live_contract() -> None:
    live = importlib.import_module("pil_research.live")
    for name in ("StateStore", "LiveSession", "replay", "slots", "SlotCalendar", "SessionLimits", "replay_command"):
        assert callable(getattr(live, name)) and name in live.__all__
