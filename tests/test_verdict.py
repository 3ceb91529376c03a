"""The verdict: gates, the rule, evidence that does not belong together, the DSR at today's count, exit codes."""
from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_runs import CORE, DSR, PASSING, fake_run, fill_ledger, passing_runs

from pil_research.approval import GATES, HRP_GATES, action_of
from pil_research.config import PILConfig
from pil_research.research.gates import GATE_RULES, gate_from, status_of
from pil_research.research.trials import TrialLedger
from pil_research.research.verdict import STATUS_CODES, judge, verdict_text

FAIL_DSR = {"value": 0.5, "status": "fail"}


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of a result.json, keeping it valid."""
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def pil(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pil_research", *words], capture_output=True, text=True, check=False)


def test_all_pass_ships_hrp(tmp_path: Path) -> None:
    v = judge(passing_runs(tmp_path))
    assert (v.status, v.action, v.word, v.exit_code, v.problems) == ("pass", "ship_hrp", "PASS", 0, ())
    assert [g.id for g in v.gates] == list(GATES) == list(GATE_RULES)
    assert v.config == PILConfig() and v.ledger["count"] == 5
    assert set(v.runs) == set(CORE) and all(r["sha256"].startswith("sha256:") for r in v.runs.values())


def test_the_rule_for_every_combination() -> None:
    for states in itertools.product(("PASS", "INDIFFERENT", "FAIL"), repeat=6):
        gates = dict(zip(GATES, states, strict=True))
        want = "ship_hrp" if set(states[:5]) == {"PASS"} else "ship_1n_risk" if states[5] == "PASS" else "none"
        assert action_of(gates) == want
        for broken in GATES:
            assert action_of({**gates, broken: "ERROR"}) == "none"
    assert action_of(dict.fromkeys(HRP_GATES, "PASS")) == "none"


@pytest.mark.parametrize(("changes", "status", "action"), [
    ({"ladder__prob_hrp_better_lag1": {"value": 0.6, "status": "inconclusive"}}, "inconclusive", "ship_1n_risk"),
    ({"ladder__prob_hrp_better_lag0": {"value": 0.05, "status": "fail"}}, "fail", "ship_1n_risk"),
    ({"overfitting__pbo": {"value": 0.7, "status": "fail"}}, "fail", "ship_1n_risk"),
    ({"overfitting__pbo": {"value": 0.7, "status": "inconclusive"}}, "inconclusive", "ship_1n_risk"),
    ({"sensitivity__percentile": {"value": 0.95, "status": "fail"}}, "fail", "ship_1n_risk"),
    ({"stress__hrp__2020": {"value": 0.2, "status": "fail"}}, "fail", "ship_1n_risk"),
    ({"stress__1n_risk__1987": {"value": 0.2, "status": "fail"}}, "pass", "ship_hrp"),
    ({"stress__1n_risk__1987": {"value": 0.2, "status": "fail"},
      "ladder__prob_hrp_better_lag1": {"value": 0.6, "status": "inconclusive"}}, "fail", "none"),
    ({"stress__1n_risk__1987": {"value": None, "status": "inconclusive"},
      "ladder__prob_hrp_better_lag1": {"value": 0.6, "status": "inconclusive"}}, "inconclusive", "none")])
def test_status_and_action(tmp_path: Path, changes: dict[str, Any], status: str, action: str) -> None:
    v = judge(passing_runs(tmp_path, **changes))
    assert (v.status, v.action, v.problems) == (status, action, ())
    assert v.exit_code == STATUS_CODES[status]


@pytest.mark.parametrize("check", [
    {"value": None}, {"value": float("nan")}, {"value": True}, {"value": 0.5, "status": "passed"}, {"value": 0.5, "op": "=~"},
    {"value": 0.5}, {"value": 0.4999999, "op": ">"}])
def test_a_pass_that_its_own_number_does_not_support_is_an_error(check: dict[str, Any]) -> None:
    word, why = status_of({"id": "overfitting.pbo", "op": "<", "limit": 0.5, "status": "pass", **check})
    assert word == "ERROR" and (why or check.get("status"))


def test_a_contradicting_check_gives_no_verdict(tmp_path: Path) -> None:
    v = judge(passing_runs(tmp_path, overfitting__pbo={"value": 0.8}))
    assert (v.status, v.action) == ("error", "none") and "does not hold" in v.headline


@pytest.mark.parametrize("gate", GATES)
def test_a_missing_check_is_an_error(tmp_path: Path, gate: str) -> None:
    rule = GATE_RULES[gate]
    passing_runs(tmp_path)
    folder = next((tmp_path / rule.report).iterdir())
    kept = [c for c in json.loads((folder / "result.json").read_text())["checks"] if not c["id"].startswith(
        rule.patterns[-1].replace("\\", "").split("+")[0].rstrip("."))]
    edit(folder, checks=kept)
    v = judge(tmp_path)
    assert v.status == "error" and f"pil report {rule.report}" in v.headline


def test_the_worst_check_decides_and_shows() -> None:
    run = {"report": "stress", "run_id": "x", "checks": [{**c, "source": "s"} for c in PASSING["stress"]]}
    assert (gate_from("stress", run).check, gate_from("stress_1n_risk", run).check) == ("stress.hrp.2020", "stress.1n_risk.1987")


@pytest.mark.parametrize("report", CORE)
def test_a_missing_report_says_what_to_run(tmp_path: Path, report: str) -> None:
    v = judge(passing_runs(tmp_path, tuple(r for r in CORE if r != report)))
    assert (v.status, v.action) == ("error", "none") and any(f"`pil report {report}`" in p for p in v.problems)


@pytest.mark.parametrize("damage", ["cut", "gone", "page", "page gone", "not json", "wrong name"])
def test_a_damaged_newest_run_is_not_passed_over(tmp_path: Path, damage: str) -> None:
    passing_runs(tmp_path)
    folder = fake_run(tmp_path, "stress", n=9)
    result = folder / "result.json"
    if damage == "cut":
        result.write_bytes(result.read_bytes()[:-40])
    elif damage == "gone":
        result.unlink()
    elif damage == "page":
        (folder / "report.html").write_text("all is well")
    elif damage == "page gone":
        (folder / "report.html").unlink()
    elif damage == "not json":
        result.write_text("[]")
    else:
        edit(folder, report="ladder")
    v = judge(tmp_path)
    assert (v.status, v.action) == ("error", "none") and "stress" in v.headline and "damaged" in v.headline


def test_folders_that_are_no_runs_are_ignored(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    (tmp_path / "stress" / ".20260301T000099Z-00aa11.partial").mkdir()
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "latest.json").write_text("{}")
    assert judge(tmp_path).status == "pass"


@pytest.mark.parametrize("what", ["data", "config"])
def test_reports_on_other_data_or_configuration_make_no_verdict(tmp_path: Path, what: str) -> None:
    passing_runs(tmp_path)
    fake_run(tmp_path, "sensitivity", n=2, **({"data": "sha256:" + "cd" * 32} if what == "data" else {
        "config": PILConfig().replace(**{"sizing.kelly": 0.4})}))
    v = judge(tmp_path)
    word = "data" if what == "data" else "configuration"
    assert v.status == "error" and f"one {word} hash" in v.headline and "pil validate" in v.headline


@pytest.mark.parametrize(("params", "status"), [({"cost_bps": 0.0}, "error"), ({"cost_bps": 5}, "error"),
                                                ({"cost_bps": -1.0}, "pass"), ({}, "pass")])
def test_wished_costs_make_no_verdict(tmp_path: Path, params: dict[str, Any], status: str) -> None:
    passing_runs(tmp_path)
    edit(next((tmp_path / "ladder").iterdir()), params=params)
    v = judge(tmp_path)
    assert v.status == status and (status == "pass" or ("not the panel's own" in v.headline and v.action == "none"))


def test_config_file_must_be_the_one_of_the_result(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    folder = next((tmp_path / "ladder").iterdir())
    (folder / "config.toml").write_text(PILConfig().replace(**{"caps.name": 0.5}).to_toml())
    v = judge(tmp_path)
    assert v.status == "error" and v.config is None


def test_runs_of_another_version_make_no_verdict(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    edit(next((tmp_path / "ladder").iterdir()), code={"version": "0.0.9", "git": None, "dirty": None})
    v = judge(tmp_path)
    assert v.status == "error" and "0.0.9" in v.headline


def test_a_report_that_ended_in_error(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    fake_run(tmp_path, "ladder", n=3, status="error")
    assert judge(tmp_path).status == "error"


def test_the_dsr_pays_for_trials_made_since(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    first = next(g for g in judge(tmp_path).gates if g.id == "dsr")
    assert first.value == pytest.approx(DSR) and first.status == "PASS"
    fill_ledger(tmp_path, 2000)
    v = judge(tmp_path)
    dsr = next(g for g in v.gates if g.id == "dsr")
    assert dsr.value < 0.95 and dsr.status == "FAIL" and (v.status, v.action) == ("fail", "ship_1n_risk")
    assert "2,000 trials" in dsr.detail and "at 5 when reported" in dsr.detail
    assert dsr.detail.endswith("0.999 at 2 effective trials, as reported")  # over the clusters, as the page shows it


def test_a_smaller_count_is_an_error(tmp_path: Path) -> None:
    v = judge(passing_runs(tmp_path, trials=4))
    assert v.status == "error" and "counts 4 trials, fewer than the 5" in v.headline
    (tmp_path / "trials.jsonl").unlink()
    assert judge(tmp_path).status == "error"


def test_a_broken_ledger_is_an_error(tmp_path: Path) -> None:
    passing_runs(tmp_path, trials=8)
    lines = (tmp_path / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_bytes(b"".join(lines[:3] + lines[4:]))
    v = judge(tmp_path)
    assert v.status == "error" and any("ledger cannot be trusted" in p for p in v.problems) and v.ledger["count"] is None


@pytest.mark.parametrize("change", [{"sr": None}, {"var_trials": float("nan")}, {"kurtosis": "3"}, {"sr": 0.07}, {"n_trials": 4}])
def test_moments_must_give_the_reported_value(tmp_path: Path, change: dict[str, Any]) -> None:
    passing_runs(tmp_path)
    folder = next((tmp_path / "overfitting").iterdir())
    checks = json.loads((folder / "result.json").read_text())["checks"]
    edit(folder, checks=[{**c, **(change if "dsr" in c["id"] else {})} for c in checks])
    assert judge(tmp_path).status == "error"


def test_another_ledger_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passing_runs(tmp_path / "runs", trials=5)
    (tmp_path / "other").mkdir()
    other = fill_ledger(tmp_path / "other", 3000)
    assert judge(tmp_path / "runs", ledger=other).status == "fail"
    monkeypatch.setenv("PIL_LEDGER", str(other.path))
    assert judge(tmp_path / "runs").status == "fail"


def test_a_failing_oracle_is_shown_and_does_not_decide(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    fake_run(tmp_path, "oracle", status="fail", oracle__riskfolio={"value": 0.1, "status": "fail"})
    v = judge(tmp_path)
    assert (v.status, v.action) == ("fail", "ship_hrp") and any("oracle" in n for n in v.notes)


def test_an_erc_configuration_is_not_what_the_ladder_judged(tmp_path: Path) -> None:
    v = judge(passing_runs(tmp_path, config=PILConfig().replace(**{"allocation.method": "erc"})))
    assert (v.status, v.action) == ("error", "none") and "allocation.method" in v.headline


def test_short_cuts_and_synthetic_data_are_said(tmp_path: Path) -> None:
    v = judge(passing_runs(tmp_path, source="synthetic, known truth", params={"draws": 10}))
    assert any("ladder did not run the full profile: draws 10 (full: 10000)" in n for n in v.notes)
    assert any("synthetic" in n for n in v.notes)


def test_lines_that_an_approval_saw_must_still_be_there(tmp_path: Path) -> None:
    passing_runs(tmp_path, trials=9)
    lines, head = TrialLedger(tmp_path / "trials.jsonl").head()
    (tmp_path / "approval.json").write_text(json.dumps({"ledger": {"lines": lines, "head": head}}))
    assert judge(tmp_path).status == "pass"
    kept = (tmp_path / "trials.jsonl").read_bytes().splitlines(keepends=True)[:-2]
    (tmp_path / "trials.jsonl").write_bytes(b"".join(kept))
    v = judge(tmp_path)
    assert v.status == "error" and "lines that the last approval saw" in v.headline


def test_the_value_is_plain_and_frozen(tmp_path: Path) -> None:
    v = judge(passing_runs(tmp_path, ladder__prob_hrp_better_lag0={"source": "<b>seed</b>"},
                           ladder__prob_hrp_better_lag1={"source": "<b>seed</b>"}))
    json.dumps(v.to_dict(), allow_nan=False)
    assert list(v.table().index) == list(GATES) and v.table().loc["ladder", "limit"] == 0.9
    assert "<b>" not in v._repr_html_() and "✓" in v._repr_html_()
    assert "action: ship_hrp" in verdict_text(v) and repr(v) == verdict_text(v)
    with pytest.raises(dataclasses.FrozenInstanceError):
        v.action = "none"  # type: ignore[misc]


@pytest.mark.parametrize(("changes", "code"), [
    ({}, 0), ({"overfitting__pbo": {"value": 0.7, "status": "fail"}}, 1), ({"overfitting__pbo": {"value": None}}, 2),
    ({"overfitting__pbo": {"value": 0.7, "status": "inconclusive"}}, 3)])
def test_exit_codes_of_the_command(tmp_path: Path, changes: dict[str, Any], code: int) -> None:
    done = pil("verdict", str(passing_runs(tmp_path, **changes)))
    assert done.returncode == code, done.stderr
    assert "stress_1n_risk" in done.stdout and "action: " in done.stdout
    assert (tmp_path / "approval.json").exists() == (code != 2) and (tmp_path / "index.html").exists()


def test_the_command_without_runs(tmp_path: Path) -> None:
    done = pil("verdict", str(tmp_path / "nothing"))
    assert done.returncode == 2 and "NO_RUNS" in done.stderr and "pil validate" in done.stderr
    done = pil("verdict", str(tmp_path), "--json")
    assert done.returncode == 2 and json.loads(done.stdout)["status"] == "error"
