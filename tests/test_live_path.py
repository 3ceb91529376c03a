"""The decision path reads nothing but its arguments, loads nothing heavy, and keeps the names of the contract."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pil_research

ROOT = Path(pil_research.__file__).parent
LIVE = sorted(
    p
    for p in ROOT.rglob("*.py")
    if p.name != "_modidx.py"
    and p.relative_to(ROOT).parts[0].removesuffix(".py")
    in (
        "types",
        "config",
        "estimators",
        "allocators",
        "stages",
        "market",
        "vehicles",
        "estimate",
        "base_weights",
        "step",
        "passport",
        "integrator",
    )
)


@pytest.mark.parametrize("path", LIVE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_clock_file_randomness_or_printing(path: Path) -> None:
    """One pure step: nothing below research reads the world (the configuration file apart), asserts, or swallows errors."""
    modules = {
        "random",
        "time",
        "datetime",
        "os",
        "socket",
        "logging",
        "threading",
        "subprocess",
        "pickle",
        "io",
        "warnings",
    }
    calls = {"now", "utcnow", "today", "default_rng", "eval", "exec", "print", "input", "read_csv", "read_parquet"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & modules, where
        if isinstance(node, ast.ImportFrom):
            type_only = path.name == "integrator.py" and node.module == "datetime"  # now() is still forbidden below
            assert (node.module or "").split(".")[0] not in modules or node.level or type_only, where
            assert all(a.name != "*" for a in node.names), where
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            assert name not in calls and (name != "open" or path.name == "config.py"), f"{where}: {name}"
        assert not isinstance(node, (ast.Assert, ast.Global)), where
        assert not isinstance(node, ast.ExceptHandler) or node.type is not None, f"{where}: bare except"


HEAVY = {
    "riskfolio",
    "skfolio",
    "sklearn",
    "cvxpy",
    "matplotlib",
    "papermill",
    "IPython",
    "nbdev",
    "fastcore",
    "numba",
    "statsmodels",
    "arch",
    "tqdm",
    "joblib",
    "pypfopt",
    "nbformat",
    "execnb",
    "vectorbt",
    "plotly",
    "jsonschema",
}
DECISION = """
import numpy as np, pandas as pd
from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.types import Sleeve, Snapshot
rng, days, names = np.random.default_rng(0), pd.bdate_range("2020-01-01", periods=130), list("ABCDEF")
frame = pd.DataFrame(0.01 * rng.standard_normal((130, 6)), index=days, columns=names)
sleeves = tuple(Sleeve(id=i, weights=h.iloc[-1], history=h) for i in "xyz"
                for h in [pd.DataFrame(rng.standard_normal((130, 6)), index=days, columns=names)])
day = days[-1] + pd.Timedelta(days=1)
for info in (None, pd.DataFrame({"asset_class": "Equities"}, index=names)):
    d = PortfolioIntegrator(PILConfig()).build_target_book(Snapshot(
        session=day, slot="15:30", decided_at=day.tz_localize("America/New_York"), asset_returns=frame, sleeves=sleeves,
        equity=5e6, instruments=info))
d.explain("A"), d.to_dict()
"""


def loaded(code: str) -> set[str]:
    tail = "\nimport sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout))


def test_a_whole_decision_loads_nothing_beyond_the_core() -> None:
    """Nothing hides behind a lazy import; pandas itself loads pyarrow where it is installed, and we add nothing to that."""
    core = loaded("import numpy, pandas, scipy.linalg, scipy.special, scipy.cluster.hierarchy")
    got = loaded(DECISION)
    assert not got & HEAVY
    added = {m for m in got - core if m not in sys.stdlib_module_names and not m.startswith("_")}
    assert added <= {"pil_research"}, added


def test_a_decision_does_not_depend_on_the_process() -> None:
    """Invariant 32: hash seed, time zone, locale and working directory change no bit."""
    code = (
        DECISION
        + "\nimport hashlib; print(hashlib.sha256(d.exposures.to_numpy().tobytes() + d.input_hash.encode()).hexdigest())"
    )
    seen = set()
    for seed, zone, threads in (("0", "UTC", "1"), ("7", "Asia/Tokyo", "1"), ("11", "America/New_York", "2")):
        out = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
            env={"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C", "OPENBLAS_NUM_THREADS": threads, "PATH": ""},
        )
        seen.add(out.stdout.strip())
    assert len(seen) == 1


WORDS = {
    "mu",
    "expected_return",
    "expected_returns",
    "mean_return",
    "mean_returns",
    "forecast",
    "forecasts",
    "alpha",
    "alphas",
    "view",
    "views",
    "expected_gain",
}


def test_no_estimator_or_allocator_takes_an_expected_return() -> None:
    """SPEC section 1, beyond the stages: the functions that feed Stages 0-6 do not know one either."""
    names = [
        m.name
        for p in ("allocators", "estimators")
        for m in pkgutil.iter_modules([str(ROOT / p)], f"pil_research.{p}.")
    ]
    checked = 0
    for name in [*names, "pil_research.base_weights", "pil_research.estimate", "pil_research.stages.sizing"]:
        module = importlib.import_module(name)
        for label, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == name:
                checked += 1
                assert not set(inspect.signature(value).parameters) & WORDS, f"{name}.{label}"
    assert checked > 80


NAMES = {
    "types": "Snapshot Sleeve RegimeRead BookState Decision StageRecord Alarm Order "
    "PilError InputError ConfigError StateError InvariantError",
    "config": "PILConfig",
    "integrator": "PortfolioIntegrator",
    "step": "step",
    "stages.drawdown": "DrawdownState",
    "stages.ladder": "VehicleRouter",
    "estimators.sleeve_returns": "StrategyReturnTracker",
    "estimators.covariance": "ledoit_wolf pairwise_covariance nearest_psd nearest_correlation "
    "factor_covariance rolling_covariance",
    "estimators.ewma": "ewma_weights ewma_vol",
    "estimators.book_vol": "book_vol book_vol_dense",
    "allocators": "hrp quasi_diagonal_order erc inverse_vol inverse_variance equal_weight min_variance nco herc ALLOCATORS "
    "allocate_with_fallback",
    "research.metrics": "sharpe max_drawdown turnover effective_n ceq sharpe_difference diversification_uplift",
    "research.walk_forward": "walk_forward",
    "research.data": "Panel load_panel default_panel shared_panel synthetic_panel check_panel",
    "research.overfitting": "cscv CSCVResult probabilistic_sharpe deflated_sharpe expected_max_sharpe "
    "min_track_record_length cpcv_splits TrialLedger",
    "research.estimators_api": "HRP ERC InverseVol EqualWeight Ladder",
    "live": "StateStore LiveSession replay slots",
}


@pytest.mark.parametrize("module", sorted(NAMES))
def test_public_names_of_the_contract(module: str) -> None:
    found = importlib.import_module(f"pil_research.{module}")
    assert [n for n in NAMES[module].split() if not hasattr(found, n)] == []
    starred: dict[str, object] = {}
    exec(f"from pil_research.{module} import *", starred)  # what a notebook's first cell may say
    assert [n for n in NAMES[module].split() if n not in starred] == []
