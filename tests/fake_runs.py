"""Small complete runs of every report, for tests of what reads them."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

from pil_research import __version__
from pil_research.config import PILConfig
from pil_research.research import report as report_module
from pil_research.research.deflation import deflated_sharpe
from pil_research.research.page import page_html
from pil_research.research.report import write_run
from pil_research.research.trials import Trial, TrialLedger
from pil_research.research.validate import Job

CODE = {"version": __version__, "source": "sha256:" + "5" * 64, "git": None, "dirty": None}
DATA = "sha256:" + "ab" * 32
MOMENTS = {"sr": 0.06, "n_obs": 3000, "skew": -0.2, "kurtosis": 4.0, "n_trials": 5, "var_trials": 1e-4, "n_effective": 2.0,
           "dsr_effective": 0.9987}
DSR = float(deflated_sharpe(0.06, 3000, -0.2, 4.0, 5, 1e-4))
PASSING: dict[str, list[dict[str, Any]]] = {
    "ladder": [{"id": "ladder.prob_hrp_better_lag0", "value": 0.97, "op": ">=", "limit": 0.9, "status": "pass"},
               {"id": "ladder.prob_hrp_better_lag1", "value": 0.93, "op": ">=", "limit": 0.9, "status": "pass"}],
    "overfitting": [{"id": "overfitting.pbo", "value": 0.2, "op": "<", "limit": 0.5, "status": "pass"},
                    {"id": "overfitting.dsr", "value": DSR, "op": ">=", "limit": 0.95, "status": "pass", **MOMENTS}],
    "stress": [{"id": "stress.hrp.1987", "value": 0.08, "op": "<", "limit": 0.15, "status": "pass"},
               {"id": "stress.hrp.2020", "value": 0.11, "op": "<", "limit": 0.15, "status": "pass"},
               {"id": "stress.1n_risk.1987", "value": 0.09, "op": "<", "limit": 0.15, "status": "pass"}],
    "sensitivity": [{"id": "sensitivity.stable", "value": 0.04, "op": "<=", "limit": 0.1, "status": "pass"},
                    {"id": "sensitivity.percentile", "value": 0.6, "op": "<=", "limit": 0.8, "status": "pass"}],
    "guards": [], "explain": [], "sleeves": [], "shadow": [],
    "oracle": [{"id": "oracle.riskfolio", "value": 1e-13, "op": "<=", "limit": 1e-12, "status": "pass"}]}
CORE = ("ladder", "overfitting", "stress", "sensitivity")
STATUS = {"fail": "FAIL", "pass": "PASS", "inconclusive": "INDIFFERENT", "error": "ERROR"}


def run_id(n: int = 1) -> str:
    return f"20260301T{n:06d}Z-{n:06x}"


def fake_run(runs: Path, report: str, *, n: int = 1, config: PILConfig | None = None, data: str = DATA, status: str = "pass",
             source: str = "made up for a test", params: dict[str, Any] | None = None, **changes: dict[str, Any]) -> Path:
    """One complete run; `changes` maps a check id with dots as __ to fields that differ."""
    given = {k.replace("__", "."): v for k, v in changes.items()}
    checks = [{"source": "test", **c, **given.get(c["id"], {})} for c in PASSING[report]]
    folder = runs / report / run_id(n)
    facts = {"name": "made up", "source": source, "hash": data, "start": "2020-01-01", "end": "2021-12-31", "n_obs": 520,
             "n_symbols": 3, "seed": 1}
    verdict = {"status": status, "word": STATUS[status], "headline": f"{report} says {status}.", "action": "none"}
    with mock.patch.object(report_module, "code_version", lambda: CODE):
        write_run(report, folder, run_id=folder.name, page=lambda run: page_html(report), config=config or PILConfig(),
                  facts=facts, verdict=verdict, checks=checks, tables={}, frames={}, params=params or {})
    return folder


def fill_ledger(runs: Path, n: int) -> TrialLedger:
    """A ledger of `n` distinct trials."""
    ledger = TrialLedger(runs / "trials.jsonl")
    ledger.record_many([Trial(config=f"{i:064x}", data="0" * 64) for i in range(ledger.count(), n)])
    return ledger


def passing_runs(runs: Path, reports: tuple[str, ...] = CORE, trials: int = 5, **options: Any) -> Path:
    """A folder in which every gate passes; `options` go to every run."""
    for report in reports:
        fake_run(runs, report, **options)
    fill_ledger(runs, trials)
    return runs


CHILD = """
import shutil, sys, time
from pathlib import Path
print("working", flush=True)
{before}
shutil.copytree({made!r}, {final!r})
"""


def fake_job(runs: Path, report: str, before: str = "", n: int = 1) -> Job:
    """A job whose process puts a small run in place instead of executing a notebook."""
    made = fake_run(runs / ".made", report, n=n, params={"data": "synthetic"})
    final = runs / report / made.name
    body = CHILD.format(before=before, made=str(made), final=str(final))
    return Job(report=report, params={"data": "synthetic"}, command=(sys.executable, "-c", body))
