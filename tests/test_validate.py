"""All reports in one go: plan, reuse, processes, failures, Ctrl-C, conclusion, index, chapter."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import papermill
import pytest
from fake_runs import CODE, CORE, DATA, fake_job, fake_run, fill_ledger, passing_runs, run_id

from pil_research.config import PILConfig
from pil_research.research import approval, index, validate
from pil_research.research.report import code_version, read_runs, source_hash
from pil_research.research.templates import TEMPLATES, check_parameters, load_profile, parse_values, template_path
from pil_research.research.validation_chapter import FIRM, SIGNERS, pillar_rows
from pil_research.research.verdict import judge
from pil_research.types import InputError

ROOT = Path(__file__).resolve().parents[1]
TESTS = Path(__file__).parent
THERE = [r for r in TEMPLATES if (ROOT / "reports" / TEMPLATES[r]).is_file()]
NOW = datetime(2026, 3, 2, 20, 30, tzinfo=UTC)
@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Report -> python lines its process runs first; no panel is read."""
    lines: dict[str, str] = {}
    monkeypatch.setattr(validate, "source_hash", lambda: CODE["source"])
    monkeypatch.setattr(validate, "plan_job", lambda report, profile, given, runs: fake_job(
        Path(runs), report, lines.get(report, "")))
    monkeypatch.setattr(validate.Expected, "data", lambda self, params: DATA)
    return lines


@pytest.mark.parametrize("profile", ["smoke", "full"])
def test_profiles_ask_for_one_panel_and_for_known_parameters(profile: str) -> None:
    asked = [check_parameters(r, load_profile(r, profile)) for r in THERE]
    assert {(a["data"], a["markets"], a["start"], a["end"]) for a in asked} == {("default", "default", "1990-01-01", "")}
    assert all(load_profile(r, profile) for r in THERE)


def test_the_full_profile_is_the_whole_evidence() -> None:
    full = {r: check_parameters(r, load_profile(r, "full")) for r in THERE}
    assert full["ladder"]["draws"] == 10_000
    assert full["overfitting"]["members"] == "full" and full["overfitting"]["blocks"] == 16
    assert full["stress"]["paths"] == 10_000 and full["sensitivity"]["grid"].startswith("full")


def test_order_is_every_report() -> None:
    assert sorted(validate.ORDER) == sorted(TEMPLATES) and set(CORE) <= set(validate.ORDER)


def test_a_plan_overlays_what_was_given(tmp_path: Path) -> None:
    job = validate.plan_job("ladder", "smoke", {"data": str(tmp_path / "x"), "config": None}, "runs")
    assert job.params["data"] == str(tmp_path / "x") and job.params["draws"] == 10_000
    assert job.command[1:5] == ("-m", "pil_research", "report", "ladder")
    assert job.command[-2:] == ("--set", f"data={tmp_path / 'x'}")
    relative = validate.plan_job("ladder", "smoke", {"data": "somewhere"}, "runs")
    assert Path(relative.params["data"]).is_absolute()


def test_a_template_that_does_not_exist_is_a_typed_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pil_research.research.templates.TEMPLATES", {**TEMPLATES, "shadow": "06_shadow_absent.ipynb"})
    with pytest.raises(InputError, match="does not exist"):
        template_path("shadow")
    done = validate.validate(tmp_path, profile="smoke", reports=("shadow",))
    assert [(o.state, "NO_TEMPLATE" in o.headline) for o in done] == [("failed", True)]


@pytest.mark.parametrize(("given", "message"), [({"draws": "many"}, "a whole number"), ({"nosuch": "1"}, "unknown parameter")])
def test_text_values_become_the_templates_types(given: dict[str, str], message: str) -> None:
    assert parse_values("ladder", {"draws": "5", "data": "x"}) == {"draws": 5, "data": "x"}
    with pytest.raises(InputError, match=message):
        parse_values("ladder", given)


def test_runs_everything_then_nothing(tmp_path: Path, plans: dict[str, str]) -> None:
    said: list[str] = []
    done = validate.validate(tmp_path, profile="smoke", say=said.append)
    assert [(o.report, o.state) for o in done] == [(r, "done") for r in validate.ORDER]
    assert "ladder: started" in said and any(re.match(r"ladder: done in \d+ s\. PASS: ladder says pass", s) for s in said)
    again = validate.validate(tmp_path, profile="smoke", say=said.append)
    assert {o.state for o in again} == {"reused"} and len(read_runs(tmp_path)) == len(validate.ORDER)


def test_the_source_hash_is_in_every_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pil_research").mkdir()
    monkeypatch.setattr("pil_research.research.report.package_root", lambda: tmp_path)
    (tmp_path / "pil_research" / "a.py").write_text("x = 1\n")
    first = source_hash()
    assert code_version()["source"] == first == source_hash()
    (tmp_path / "pil_research" / "a.py").write_text("x = 2\n")
    assert source_hash() != first


@pytest.mark.parametrize("change", ["params", "config", "data", "source", "version", "error", "damage"])
def test_what_makes_a_report_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(validate.Expected, "data", lambda self, params: DATA)
    job = validate.Job(report="ladder", params={"data": "synthetic", "draws": 5, "run_id": "", "out_dir": ".", "ledger": ""},
                       command=())
    options: dict[str, Any] = {"params": {"data": "synthetic", "draws": 5}}
    expected = validate.Expected(str(CODE["source"]), {})
    fake_run(tmp_path, "ladder", **options)
    assert validate.can_reuse(read_runs(tmp_path)[0], job, expected)
    options |= {"params": {"params": {"data": "synthetic", "draws": 6}}, "data": {"data": "sha256:" + "ee" * 32},
                "config": {"config": PILConfig().replace(**{"sizing.kelly": 0.3})}, "error": {"status": "error"}}.get(change, {})
    folder = fake_run(tmp_path, "ladder", n=2, **options)
    body = json.loads((folder / "result.json").read_text())
    if change in ("source", "version"):
        body["code"][change] = "sha256:" + "0" * 64 if change == "source" else "9.0.0"
    (folder / "result.json").write_text("{" if change == "damage" else json.dumps(body))
    assert not validate.can_reuse(read_runs(tmp_path)[0], job, expected)
    assert not validate.can_reuse(None, job, expected)


def test_paths_are_compared_by_name_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate.Expected, "data", lambda self, params: DATA)
    folder = fake_run(tmp_path, "ladder", params={"data": str(tmp_path / "panel")})
    assert json.loads((folder / "result.json").read_text())["params"] == {"data": "panel"}
    assert str(tmp_path) not in (folder / "result.json").read_text()
    job = validate.Job(report="ladder", params={"data": str(tmp_path / "panel")}, command=())
    assert validate.can_reuse(read_runs(tmp_path)[0], job, validate.Expected(str(CODE["source"]), {}))


def test_another_file_under_the_same_name_makes_a_report_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate.Expected, "data", lambda self, params: DATA)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    family = tmp_path / "sub" / "family.toml"
    family.write_text("tilt = [0.0, 0.25]\n")
    fake_run(tmp_path, "overfitting", params={"family": str(family)})
    job = validate.Job(report="overfitting", params={"family": "sub/family.toml"}, command=())  # a profile's relative path
    expected = validate.Expected(str(CODE["source"]), {})
    assert validate.can_reuse(read_runs(tmp_path)[0], job, expected)
    family.write_text("tilt = [0.0]\n")
    assert not validate.can_reuse(read_runs(tmp_path)[0], job, expected)


def test_one_failing_report_does_not_stop_the_others(tmp_path: Path, plans: dict[str, str]) -> None:
    plans["stress"] = "sys.stderr.write('pil: BAD_DATA: no panel\\nfix: bring one\\n'); sys.exit(2)"
    plans["guards"] = "raise SystemExit(3)"
    done = {o.report: o for o in validate.validate(tmp_path, profile="smoke")}
    assert done["stress"].state == done["guards"].state == "failed"
    assert "exit code 2: pil: BAD_DATA: no panel" in done["stress"].headline and "exit code 3" in done["guards"].headline
    assert all(o.state == "done" for r, o in done.items() if r not in ("stress", "guards"))
    ended = validate.conclude(tmp_path)
    assert ended.verdict.status == "error" and ended.approval is None


def test_children_have_one_thread_and_run_side_by_side(tmp_path: Path, plans: dict[str, str]) -> None:
    for report in ("ladder", "stress"):
        plans[report] = ("import os\nassert os.environ['OPENBLAS_NUM_THREADS'] == os.environ['OMP_NUM_THREADS'] == '1'\n"
                         "time.sleep(1.0)")
    said: list[str] = []
    done = validate.validate(tmp_path, profile="smoke", reports=("ladder", "stress"), jobs=2, say=said.append, beat=0.3)
    assert {o.state for o in done} == {"done"}
    assert said[:2] == ["ladder: started", "stress: started"] and any(s.startswith("... ladder") for s in said)


def test_jobs_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jobs must be"):
        validate.validate(tmp_path, jobs=0)


SLOW = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits it ignored
sys.path.insert(0, {tests!r})
from pathlib import Path
from pil_research.research import validate
from fake_runs import DATA, fake_job
runs = Path({runs!r})
slow = "import os\\nPath({runs!r}, 'pid').write_text(str(os.getpid()))\\ntime.sleep(60)"
validate.plan_job = lambda report, *_: fake_job(runs, report, slow if report == "stress" else "")
validate.Expected.data = lambda self, params: DATA
validate.validate(runs, profile="smoke", reports=("ladder", "stress"), jobs=1, say=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_finished_runs_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SLOW.format(tests=str(TESTS), runs=str(tmp_path))],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pid, deadline = tmp_path / "pid", time.monotonic() + 90.0
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid.read_text())
    parent.send_signal(number)
    out, _ = parent.communicate(timeout=30)
    assert parent.returncode != 0 and "stress: started" in out
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert [r["report"] for r in read_runs(tmp_path)] == ["ladder"]


# conclusion

def test_conclude_writes_then_withdraws(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    ended = validate.conclude(tmp_path)
    assert ended.verdict.action == "ship_hrp" and ended.approval == tmp_path / "approval.json" and ended.withdrawn is None
    assert approval.read_approval(ended.approval, now=datetime.now(UTC)).config == PILConfig()
    fake_run(tmp_path, "stress", n=2, stress__hrp__2020={"value": 0.3, "status": "fail"},
             stress__1n_risk__1987={"value": 0.3, "status": "fail"})
    ended = validate.conclude(tmp_path)
    assert ended.verdict.action == "none" and ended.approval is None and not (tmp_path / "approval.json").exists()
    assert ended.withdrawn is not None and ended.withdrawn.exists()


def test_an_error_leaves_the_approval_alone(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    validate.conclude(tmp_path)
    fake_run(tmp_path, "stress", n=2, data="sha256:" + "ee" * 32)
    ended = validate.conclude(tmp_path)
    assert ended.verdict.status == "error" and ended.withdrawn is None and (tmp_path / "approval.json").exists()


# index

def test_an_index_of_nothing(tmp_path: Path) -> None:
    page = index.build_index(tmp_path / "runs", now=NOW).read_text()
    assert "ERROR" in page and all(f"pil report {r}" in page for r in TEMPLATES) and 'role="alert"' not in page
    assert json.loads((tmp_path / "runs" / "index.json").read_text())["runs"] == []


def test_the_page_says_verdict_gates_runs_and_evidence(tmp_path: Path) -> None:
    passing_runs(tmp_path, tuple(TEMPLATES))
    ended = validate.conclude(tmp_path)
    page = ended.index.read_text()
    assert "HRP ships" in page and "Action: ship HRP" in page and "valid until" in page and 'role="alert"' not in page
    for report in TEMPLATES:
        assert f'href="{report}/{run_id()}/report.html"' in page
    for words in ("Prohibited uses", "Known limitations", "When to validate again", "Sign-off", *SIGNERS, FIRM,
                  "Inventory and materiality", "Conceptual soundness", "Implementation verification", "Outcomes analysis",
                  "Sensitivity and stress", "Ongoing monitoring", "Effective challenge and governance"):
        assert words in page, words
    assert page.index('class="verdict') < page.index("Gates.") < page.index("<h2>Reports") < page.index("Model validation")
    assert len(page.encode()) < 100_000 and not list(tmp_path.glob(".*.part"))
    book = json.loads((tmp_path / "index.json").read_text())
    assert book["schema"] == "pil.index/2" and book["verdict"]["action"] == "ship_hrp" and book["alarms"] == []
    assert {e["pillar"] for e in book["evidence"]} >= {"Data", "Outcomes analysis"} and len(book["runs"]) == len(TEMPLATES)


@pytest.mark.parametrize("what", ["data", "config", "ledger", "damage"])
def test_the_red_banner(tmp_path: Path, what: str) -> None:
    passing_runs(tmp_path, trials=6)
    if what == "ledger":
        lines = (tmp_path / "trials.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "trials.jsonl").write_bytes(b"".join(lines[1:]))
    elif what == "damage":
        (next((tmp_path / "ladder").iterdir()) / "report.html").write_text("x")
    else:
        fake_run(tmp_path, "guards", **({"data": "sha256:" + "1" * 64} if what == "data" else {
            "config": PILConfig().replace(**{"sizing.kelly": 0.3})}))
    page = index.build_index(tmp_path).read_text()
    assert {"ledger": "ledger cannot be trusted", "damage": "is damaged"}.get(what, "do not share one data hash") in page
    assert 'class="banner" role="alert"' in page


def test_moved_numbers(tmp_path: Path) -> None:
    fake_run(tmp_path, "ladder")
    fake_run(tmp_path, "stress")
    assert index.moved_numbers(read_runs(tmp_path)).empty
    assert "<p>First runs: nothing to compare with yet.</p>" in index.build_index(tmp_path).read_text()
    fake_run(tmp_path, "ladder", n=2)
    assert index.moved_numbers(read_runs(tmp_path)).empty
    assert "<p>Nothing: no report has two runs that differ in a check.</p>" in index.build_index(tmp_path).read_text()
    fake_run(tmp_path, "ladder", n=3, params={"draws": 7}, data="sha256:" + "2" * 64,
             ladder__prob_hrp_better_lag0={"value": 0.5, "status": "inconclusive"}, ladder__prob_hrp_better_lag1={"value": None})
    moved = index.moved_numbers(read_runs(tmp_path)).set_index("check")
    row = moved.loc["ladder.prob_hrp_better_lag0"]
    assert (row["before"], row["now"], row["was"], row["is"]) == (0.97, 0.5, "pass", "inconclusive")
    assert row["differs"] == "other data, parameters" and row["change"] == pytest.approx(-0.47)
    page = index.build_index(tmp_path).read_text()
    assert "pass → inconclusive" in page and "−0.47" in page
    fake_run(tmp_path, "ladder", n=4)
    (tmp_path / "ladder" / run_id(4) / "result.json").write_text("{")
    assert len(index.moved_numbers(read_runs(tmp_path))) == 2


def test_an_approval_that_ran_out_is_said(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    validate.conclude(tmp_path)
    assert "APPROVAL_EXPIRED" in index.approval_state(tmp_path, datetime.now(UTC) + timedelta(days=400))
    (tmp_path / "approval.json").write_text("{}")
    assert "APPROVAL_MALFORMED" in index.build_index(tmp_path).read_text()


def test_hostile_text_cannot_become_markup(tmp_path: Path) -> None:
    fake_run(tmp_path, "ladder", source="<script>alert(1)</script>", params={"x": "<img src=x>"})
    page = index.build_index(tmp_path).read_text()
    assert "<script" not in page and "<img" not in page


def test_an_index_manages_a_result_with_nothing_but_nulls(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, "ladder")
    body = json.loads((folder / "result.json").read_text())
    body["data"] |= dict.fromkeys(("name", "source", "hash", "start", "end", "n_obs", "n_symbols"))
    body["checks"] = [{**c, "value": None, "limit": None} for c in body["checks"]]
    body["code"] |= {"git": None, "dirty": None}
    (folder / "result.json").write_text(json.dumps(body))
    fake_run(tmp_path, "ladder", n=0)
    assert "an unknown number of" in index.build_index(tmp_path).read_text()


def test_absent_evidence_names_its_command(tmp_path: Path) -> None:
    rows = pillar_rows(judge(tmp_path), {})
    assert sum("run `pil report" in r.finding for r in rows) >= 10
    passing_runs(tmp_path)
    found = {str(r["report"]): r for r in read_runs(tmp_path)}
    with_runs = {r.what: r.finding for r in pillar_rows(judge(tmp_path), found)}
    assert with_runs["Parameters ±50 %"] == "PASS: sensitivity says pass."
    assert with_runs["Largest drawdown"] == "not in this run's result"  # this ladder wrote no tables


def test_the_template_of_the_index_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    passing_runs(tmp_path / "runs")
    papermill.execute_notebook(str(ROOT / "reports" / "00_index.ipynb"), str(tmp_path / "out.ipynb"), kernel_name="python3",
                               parameters={"runs": str(tmp_path / "runs")}, progress_bar=False,
                               extra_arguments=["--IPKernelApp.log_level=40"])
    assert (tmp_path / "runs" / "index.html").exists() and "ship_hrp" in (tmp_path / "out.ipynb").read_text()


def test_a_larger_ledger_between_report_and_index_moves_the_gate(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    fill_ledger(tmp_path, 4000)
    assert "4,000 trials in the ledger now" in index.build_index(tmp_path).read_text()


def test_an_unknown_profile_stops_everything_once(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(InputError) as refused:
        validate.validate(tmp_path, profile="nope", say=lines.append)
    assert refused.value.code == "UNKNOWN_PROFILE" and lines == [] and not list(tmp_path.iterdir())
