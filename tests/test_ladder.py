"""The ladder's rule and tables on studies of random numbers."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.research.example_study import ExampleStudy, example_study
from pil_research.research.ladder import (
    compare,
    crisis_bars,
    ladder_verdict,
    mean_correlation,
    signed,
    uplift_facts,
    vol_table,
    weight_noise,
    year_table,
)
from pil_research.research.ladder_result import (
    STATUS,
    LadderResult,
    ladder_checks,
    ladder_json,
    ladder_result,
    ladder_text,
)
from pil_research.research.metrics import sharpe
from pil_research.research.sharpe_tests import sharpe_difference
from pil_research.types import InputError

DAYS = pd.bdate_range("2020-01-01", periods=600)


def table(p: float, n_obs: int = 600) -> pd.DataFrame:
    row = {"sharpe": 0.5, "difference": 0.1, "low": -0.1, "high": 0.3, "se": 0.1, "prob_better": p, "n_obs": float(n_obs),
           "block": 21.0}
    return pd.DataFrame([row], index=["HRP"])


@pytest.fixture(scope="module")
def study() -> ExampleStudy:
    return example_study(seed=3, n_days=900, edge=0.03, own_risk=0.15)


@pytest.fixture(scope="module")
def result(study: ExampleStudy) -> LadderResult:
    return ladder_result(study, kelly=0.5, n_draws=800)


@pytest.mark.parametrize(("p0", "p1", "status", "action", "lag"), [
    (0.95, 0.92, "PASS", "ship_hrp", 1), (0.90, 0.90, "PASS", "ship_hrp", 0), (0.95, 0.89, "INDIFFERENT", "ship_1n_risk", 1),
    (0.5, 0.6, "INDIFFERENT", "ship_1n_risk", 0), (0.95, 0.10, "FAIL", "ship_1n_risk", 1),
    (0.05, 0.99, "FAIL", "ship_1n_risk", 0), (0.101, 0.5, "INDIFFERENT", "ship_1n_risk", 0)])
def test_rule_takes_the_worse_lag(p0: float, p1: float, status: str, action: str, lag: int) -> None:
    v = ladder_verdict(table(p0), table(p1), DAYS)
    assert (v.status, v.action, v.lag, v.probability) == (status, action, lag, min(p0, p1))
    assert f"at lag {lag}" in v.headline and f"{min(p0, p1):.2f}" in v.headline
    assert ("1/N-risk ships" in v.headline) == (action == "ship_1n_risk")


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.51, 0.99))
def test_rule_is_total_and_monotone(p0: float, p1: float, gate: float) -> None:
    order = ["FAIL", "INDIFFERENT", "PASS"]
    now = ladder_verdict(table(p0), table(p1), DAYS, gate=gate)
    better = ladder_verdict(table(min(1.0, p0 + 0.1)), table(min(1.0, p1 + 0.1)), DAYS, gate=gate)
    assert order.index(better.status) >= order.index(now.status)
    assert (now.action == "ship_hrp") == (now.status == "PASS") == (min(p0, p1) >= gate)


@pytest.mark.parametrize("p", [0.0, 0.99, 1.0])
@pytest.mark.parametrize(("n_obs", "long"), [(2, False), (13, False), (251, False), (252, True)])
def test_a_short_record_proves_nothing(result: LadderResult, p: float, n_obs: int, long: bool) -> None:
    v = ladder_verdict(table(p, n_obs), table(p, n_obs), DAYS[:n_obs])
    assert v.status == (("FAIL" if p == 0.0 else "PASS") if long else "INDIFFERENT")
    assert (v.action == "ship_hrp") == (v.status == "PASS") and ("too few" in v.headline) is not long
    checks = ladder_checks(replace(result, verdict=v))
    assert {c["status"] for c in checks} == {STATUS[v.status]}


def test_a_probability_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="never moved"):
        ladder_verdict(table(0.9), table(float("nan")), DAYS)
    with pytest.raises(InputError, match="challenger"):
        ladder_verdict(table(0.9), table(0.9), DAYS, challenger="NCO")


def test_compare_is_the_pairwise_bootstrap(study: ExampleStudy) -> None:
    c = compare(study.base, n_draws=800)
    assert list(c.index) == list(study.rungs)
    np.testing.assert_allclose(c["sharpe"], sharpe(study.base.returns), rtol=1e-13)
    r = study.base.returns
    one = sharpe_difference(r["HRP"], r["1/N-risk"], bars_per_year=252, block=float(c["block"].iloc[0]), n_draws=800)
    assert c.loc["HRP", "prob_better"] == pytest.approx(one.prob_better, abs=1e-12)
    assert c.loc["HRP", "low"] == pytest.approx(one.interval[0], rel=1e-9)
    assert c.loc["1/N-risk", "prob_better"] == 0.5 and c.loc["1/N-risk", "difference"] == 0.0
    with pytest.raises(InputError, match="benchmark"):
        compare(study.base, benchmark="legacy")


def test_a_track_that_never_moves_gives_no_number_and_no_error(study: ExampleStudy) -> None:
    flat = study.base.returns.copy()
    flat["NCO"] = 0.0
    c = compare(replace(study.base, returns=flat), n_draws=300)
    assert np.isnan(c.loc["NCO", ["sharpe", "prob_better", "low"]].to_numpy(dtype=float)).all()
    assert np.isfinite(c.loc["HRP", "prob_better"])
    result = ladder_result(replace(study, cost2=replace(study.base, returns=0.0 * flat)), kelly=0.5, n_draws=300)
    assert result.prob_by_cost["2x"].isna().all()


def test_power_an_edge_is_found_and_a_tie_is_a_tie() -> None:
    statuses = {}
    for edge in (0.5, 0.0, -0.5):
        s = example_study(seed=5, n_days=2000, edge=edge, own_risk=0.08)
        statuses[edge] = ladder_verdict(compare(s.base, n_draws=800), compare(s.lag1, n_draws=800), s.base.dates).status
    assert statuses[0.5] == "PASS" and statuses[-0.5] == "FAIL"


def test_tables_carry_raw_numbers(study: ExampleStudy, result: LadderResult) -> None:
    t = result.rungs
    assert t.loc["HRP", "cost_bps"] == pytest.approx(study.base.costs["HRP"].mean() * 252e4)
    assert (result.costs["sharpe_0x"] > result.costs["sharpe_2x"]).all()
    assert result.costs["charged_bps"].iloc[0] == pytest.approx(4.0)  # 8 bp of one-way turnover
    v = vol_table(study.base, 0.5)
    assert v.loc["ERC", "executed_target"] == pytest.approx(0.05)
    assert v.loc["ERC", "book_vol"] == pytest.approx(2 * v.loc["ERC", "executed_vol"])
    years = year_table(study.base)
    assert (1 + years["HRP"]).prod() == pytest.approx((1 + study.base.returns["HRP"]).prod())
    assert weight_noise(pd.DataFrame([[0.5, 0.5], [0.6, 0.4]])) == pytest.approx(10.0)


def test_flat_rungs_are_said(study: ExampleStudy) -> None:
    gone = study.base.gross_exposure.copy()
    gone.iloc[:200, 0] = 0.0
    found = ladder_result(replace(study, base=replace(study.base, gross_exposure=gone)), kelly=0.5, n_draws=300).warnings
    assert len(found) == 1 and "HRP held nothing on 200 of 900" in found[0]


def test_uplift_measures_correlation_calm_and_crisis() -> None:
    rng = np.random.default_rng(0)
    crisis = np.arange(900) < 200
    common = np.where(crisis, 2.0, 0.0)[:, None] * rng.standard_normal((900, 1))
    s = example_study(seed=1, n_days=900)
    r = pd.DataFrame(0.01 * (common + rng.standard_normal((900, 4))), index=s.base.dates)
    label = pd.Series(np.where(crisis, "crisis", "risk_on"), index=s.base.dates)
    u = uplift_facts(r, s.base, label)
    assert u["rho_crisis"] == pytest.approx(0.8, abs=0.06) and abs(u["rho_calm"]) < 0.06
    assert u["k"] == 4 and u["n_crisis"] == 200
    assert u["realised"].loc["HRP", "uplift"] == pytest.approx(sharpe(s.base.returns["HRP"]) / u["mean_sharpe"]) or np.isnan(
        u["realised"].loc["HRP", "uplift"])
    mask, rule = crisis_bars(r, None)
    assert "no detector" in rule and 0.05 < mask.mean() < 0.15
    assert np.isnan(mean_correlation(r.iloc[:30]))


def test_json_and_text_views(result: LadderResult) -> None:
    checks = ladder_checks(result)
    assert [c["id"] for c in checks] == ["ladder.prob_hrp_better_lag0", "ladder.prob_hrp_better_lag1"]
    assert min(c["value"] for c in checks) == result.verdict.probability
    tables = ladder_json(result)
    assert tables["costs"]["1/N-risk"]["lead_lost_at"] is None  # NaN becomes null
    v = result.verdict
    text = ladder_text({"verdict": {"word": v.status, "headline": v.headline, "action": v.action}, "tables": tables,
                        "data": {"name": "x", "test_n_obs": 900, "test_start": "a", "test_end": "b"}})
    assert all(r in text for r in result.rungs.index)
    assert all(len(x) <= 100 for x in text.split("\n")[1:])
    low = {**tables, "rungs": {"HRP": {**tables["rungs"]["HRP"], "net_sharpe_lag0": -0.85, "low": -0.23}}}
    row = ladder_text({"verdict": {"word": "FAIL", "headline": "", "action": ""}, "tables": low,
                       "data": {"name": "x", "test_n_obs": 9, "test_start": "a", "test_end": "b"}}).split("\n")[3]
    assert row.split()[1] == "−0.85" and "[−0.23, " in row and "-" not in row


def test_signed() -> None:
    assert [signed(x) for x in (0.123, -0.123, 0.0, -0.001)] == ["+0.12", "\u22120.12", "0.00", "0.00"]
