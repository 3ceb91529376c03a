"""Guards switched off one at a time: differences by hand, readings, deflation, and the split of Stages 0 and 3."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.research.data import synthetic_panel
from pil_research.research.deflation import deflated_sharpe, sharpe_moments
from pil_research.research.guards import (
    BASE,
    GUARDS,
    GuardResult,
    deflation_table,
    difference_table,
    guard_checks,
    guard_result,
    guard_tracks,
    reading,
)
from pil_research.research.guards_page import write_guards_run
from pil_research.research.ladder_inputs import record_trials
from pil_research.research.ladder_result import panel_facts
from pil_research.research.metrics import annual_vol, max_drawdown, sharpe
from pil_research.research.panel import Panel
from pil_research.research.sharpe_tests import sharpe_difference
from pil_research.research.trend_split import STAGES, group_panel, split_panels, trend_sleeves, trend_split
from pil_research.research.trials import TrialLedger
from pil_research.research.walk_forward import Track, WalkForward, run_tracks
from pil_research.types import InputError

GUARD = {g.name: g for g in GUARDS}
FEW = tuple(GUARD[n] for n in ("HRP", "caps", "governor", "half Kelly", "band and gate"))


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(7, n_sleeves=5, n_symbols=8, n_days=460)


@pytest.fixture(scope="module")
def walked(panel: Panel) -> WalkForward:
    return run_tracks(panel, guard_tracks(PILConfig(), FEW))


@pytest.fixture(scope="module")
def result(walked: WalkForward) -> GuardResult:
    return guard_result(walked, PILConfig(), 40, guards=FEW, n_draws=300)


# --- switches --------------------------------------------------------------------------------------------------------

def test_every_switch_changes_the_default_and_only_its_keys() -> None:
    base = PILConfig()
    assert len({g.name for g in GUARDS}) == len(GUARDS) >= 18
    for g in GUARDS:
        off = g.without(base)
        changed = {f"{s}.{k}" for s, t in off.to_dict().items() for k, v in t.items() if v != base.to_dict()[s][k]}
        assert changed and changed <= set(g.off), g.name
    assert len({g.without(base).fingerprint() for g in GUARDS} | {base.fingerprint()}) == len(GUARDS) + 1


def test_stages_of_the_specification_are_all_there() -> None:
    assert {g.stage for g in GUARDS} == {"0", "1", "3", "4", "5", "6", "7", "sizing"}
    off = {k for g in GUARDS for k in g.off}
    assert off >= {"sleeves.normalise", "allocation.method", "tilt.skill", "regime.enabled", "allocation.smoothing",
                   "allocation.apply_threshold", "vol_target.enabled", "caps.enabled", "governor.enabled", "turnover.gate",
                   "turnover.band", "sizing.kelly", "covariance.target", "allocation.sleeve_cap"}


def test_tracks_hold_the_base_at_both_lags_and_names_must_differ() -> None:
    tracks = guard_tracks(PILConfig())
    assert [t.name for t in tracks if t.config == PILConfig()] == [f"{BASE}|lag0", f"{BASE}|lag1"]
    assert len(tracks) == 2 * (len(GUARDS) + 1) and {t.lag for t in tracks} == {0, 1}
    with pytest.raises(InputError, match="different names"):
        guard_tracks(PILConfig(), [GUARDS[0], GUARDS[0]])


# --- with minus without ----------------------------------------------------------------------------------------------

def test_differences_are_with_minus_without() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(0, 0.01, 1000)
    z -= z.mean()
    frame = pd.DataFrame({BASE: z + 6e-4, "earner": z + 3e-4, "coster": z + 9e-4, "idle": z + 6e-4})
    found = difference_table(frame, n_draws=400)
    s = sharpe(frame)
    for name in found.index:
        assert found["difference"][name] == pytest.approx(s[BASE] - s[name], abs=1e-12)
        assert found["low"][name] <= found["difference"][name] <= found["high"][name]
    assert found["low"]["earner"] > 0 and found["high"]["coster"] < 0
    assert found["prob_earns"]["earner"] == 1.0 and found["prob_earns"]["coster"] == 0.0
    assert (found.loc["idle", ["difference", "low", "high"]] == 0.0).all()


def test_interval_is_the_mirrored_pairwise_bootstrap() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(4e-4, 0.01, 700)
    frame = pd.DataFrame({BASE: base, "x": base + rng.normal(0, 0.003, 700)})
    found = difference_table(frame, n_draws=500).loc["x"]
    d = sharpe_difference(frame[BASE], frame["x"], bars_per_year=252, n_draws=500)
    assert found["difference"] == pytest.approx(d.difference, rel=1e-9)
    assert (found["low"], found["high"]) == (pytest.approx(d.interval[0], abs=1e-9), pytest.approx(d.interval[1], abs=1e-9))


@pytest.mark.parametrize(("low", "high", "word"), [
    ([0.1, 0.1], [0.2, 0.2], "earns"), ([0.1, -0.1], [0.2, 0.2], "undecided"), ([-0.2, -0.2], [-0.1, -0.1], "costs"),
    ([-0.2, -0.2], [-0.1, 0.1], "undecided"), ([0.0, 0.0], [0.0, 0.0], "no effect"), ([0.0], [0.1], "undecided"),
    ([float("nan")], [float("nan")], "undecided")])
def test_reading_needs_both_lags(low: list[float], high: list[float], word: str) -> None:
    assert reading(low, high) == word


def test_levels_and_effects_equal_a_hand_computation(walked: WalkForward, result: GuardResult) -> None:
    r, years = walked.returns, len(walked.dates) / 252
    for name in (g.name for g in FEW):
        a, b = r[f"{BASE}|lag0"], r[f"{name}|lag0"]
        row = result.effects.loc[name]
        assert row["difference"] == pytest.approx(sharpe(a) - sharpe(b), abs=1e-10)
        assert row["vol"] == pytest.approx(annual_vol(a) - annual_vol(b), abs=1e-12)
        assert row["max_drawdown"] == pytest.approx(max_drawdown(a) - max_drawdown(b), abs=1e-12)
        turn = walked.turnover[f"{BASE}|lag0"].sum() - walked.turnover[f"{name}|lag0"].sum()
        cost = walked.costs[f"{BASE}|lag0"].sum() - walked.costs[f"{name}|lag0"].sum()
        assert (row["turnover"], row["cost_drag"]) == (pytest.approx(turn / years), pytest.approx(cost / years))
        late = sharpe(r[f"{BASE}|lag1"]) - sharpe(r[f"{name}|lag1"])
        assert row["difference_lag1"] == pytest.approx(late, abs=1e-10)


def test_walk_without_a_guard_is_the_walk_of_that_configuration(panel: Panel, walked: WalkForward) -> None:
    off = run_tracks(panel, [Track(name="x", config=PILConfig().replace(**{"sizing.kelly": 1.0}))])
    np.testing.assert_allclose(walked.returns["half Kelly|lag0"], off.returns["x"], atol=1e-13)
    assert walked.table()["vol"]["half Kelly|lag0"] > 1.3 * walked.table()["vol"][f"{BASE}|lag0"]
    gate = walked.table()["turnover"]
    assert gate["band and gate|lag0"] > gate[f"{BASE}|lag0"], "without band and gate more is traded"


# --- deflation, ledger, page -----------------------------------------------------------------------------------------

def test_deflation_uses_the_count_it_is_given(walked: WalkForward) -> None:
    r = walked.returns[[n for n in walked.names if n.endswith("lag0")]]
    found, more = deflation_table(r, 40), deflation_table(r, 4000)
    m = sharpe_moments(r.to_numpy())
    want = deflated_sharpe(*m, 40, float(np.var(m.sr, ddof=1)))
    np.testing.assert_allclose(found["dsr"], want)
    assert (more["dsr"] < found["dsr"]).all()
    with pytest.raises(InputError, match="trial ledger"):
        deflation_table(r, 3)


def test_checks_page_and_ledger(panel: Panel, result: GuardResult, tmp_path: Path) -> None:
    ledger = str(tmp_path / "trials.jsonl")
    count = record_trials(ledger, [t.config for t in guard_tracks(PILConfig())], panel, "report guards")
    assert count == len(GUARDS) + 1 == TrialLedger(ledger).count(), "one trial a guard and the base, lags counted once"
    checks = guard_checks(result)
    names = ("hrp", "caps", "governor", "half_kelly", "band_and_gate")
    assert [c["id"] for c in checks] == [f"guards.{n}" for n in names]
    assert {c["status"] for c in checks} <= {"pass", "fail", "inconclusive"} and all("informative" in c["source"] for c in checks)
    out = write_guards_run(result, panel_facts(panel), tmp_path / "run", run_id="20260302T203000Z-3f9c1a")
    assert out["verdict"]["action"] == "none" and "No gate" in out["verdict"]["headline"]
    told = f"DSR of the base {result.levels['dsr'][BASE]:.2f} at lag 0 after {result.n_trials} trials (no gate; the gate is on "
    assert told in out["verdict"]["headline"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert len(page) < 500_000 and "Not run" in page and 'id="effects-' in page and "before Kelly" in page


def test_status_says_only_whether_a_guard_costs(walked: WalkForward) -> None:
    shifted = walked.returns.copy()
    for lag in (0, 1):
        shifted[f"caps|lag{lag}"] = shifted[f"{BASE}|lag{lag}"] + 1e-3
    worse = guard_result(WalkForward(**{**vars(walked), "returns": shifted}), PILConfig(), 40, guards=FEW, n_draws=200)
    assert worse.effects["reading"]["caps"] == "costs" and worse.status == "INDIFFERENT" and "caps cost" in worse.warnings[0]


# --- Stages 0 and 3 on trend and others ------------------------------------------------------------------------------

def named(panel: Panel, ids: dict[str, str]) -> Panel:
    from dataclasses import replace

    sleeves = panel.sleeves.rename(index=ids).sort_index()
    return replace(panel, sleeves=sleeves, targets={ids.get(k, k): v for k, v in panel.targets.items()})


def test_trend_is_found_by_word(panel: Panel) -> None:
    a, b, c = panel.sleeve_ids[:3]
    p = named(panel, {a: "fx_trend", b: "trendy", c: "zz"})
    p.sleeves.loc["zz", "description"] = "Time-series momentum, twelve months"
    p.sleeves.loc["trendy", "description"] = "cross-sectional momentum"
    assert trend_sleeves(p) == ("fx_trend", "zz")
    assert trend_sleeves(p, ["trendy"]) == ("trendy",)
    with pytest.raises(InputError, match="must name sleeves"):
        trend_sleeves(p, ["nosuch"])


def test_groups_split_the_sleeves_and_a_lone_one_is_doubled(panel: Panel) -> None:
    ids = panel.sleeve_ids
    groups = split_panels(panel, [ids[0]])
    assert groups["trend"].sleeve_ids == (ids[0], f"{ids[0]}.twin") and groups["others"].sleeve_ids == ids[1:]
    assert list(split_panels(panel, list(ids))) == ["trend"]
    w = run_tracks(groups["trend"], [Track(name="hrp", config=PILConfig()), Track(
        name="equal", config=PILConfig().replace(**{"allocation.method": "equal"}))])
    np.testing.assert_allclose(w.returns["hrp"], w.returns["equal"], atol=1e-12)
    assert group_panel(panel, ids[:2]).sleeve_ids == ids[:2]


def test_split_is_with_minus_without_in_each_group(panel: Panel) -> None:
    groups = split_panels(panel, [panel.sleeve_ids[0]])
    table = trend_split({"others": groups["others"]}, PILConfig(), n_draws=200).set_index("stage")
    assert list(table.index) == [g.name for g in STAGES] and set(table["group"]) == {"others"}
    off = PILConfig().replace(**{"vol_target.enabled": False, "sleeves.normalise": False})
    w = run_tracks(groups["others"], [Track(name="on", config=PILConfig()), Track(name="off", config=off)])
    s = sharpe(w.returns)
    assert table["difference"]["Stages 0 and 3"] == pytest.approx(s["on"] - s["off"], abs=1e-9)
    assert table["sharpe"]["Stage 0"] == pytest.approx(s["on"], abs=1e-9)
