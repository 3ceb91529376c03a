"""Knobs, grid, rule and proposal of the sensitivity study, on constructed tracks and a small invented panel."""
from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.config import PILConfig
from pil_research.research.data import synthetic_panel
from pil_research.research.ladder_inputs import record_trials
from pil_research.research.ladder_result import panel_facts
from pil_research.research.metrics import sharpe
from pil_research.research.paired_differences import paired_differences
from pil_research.research.panel import Panel
from pil_research.research.sensitivity import (
    BENCH,
    COSTS,
    KNOBS,
    SensitivityResult,
    benchmark_points,
    judge_change,
    make_plan,
    placebo_size,
    plan_tracks,
    sensitivity_checks,
    sensitivity_result,
    sensitivity_study,
    track_name,
)
from pil_research.research.sensitivity_grid import (
    base_index,
    base_percentile,
    block_size,
    flattest,
    grid_settings,
    roughness,
    walk_returns,
)
from pil_research.research.sensitivity_knobs import FACTORS, benchmark_of, knob_level, one_at_a_time
from pil_research.research.sensitivity_page import heat_table, write_sensitivity_run
from pil_research.research.sharpe_tests import block_length, sharpe_difference
from pil_research.research.trials import TrialLedger
from pil_research.research.walk_forward import Track, run_tracks
from pil_research.types import InputError

KNOB = {k.name: k for k in (*KNOBS, COSTS)}


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(7, n_sleeves=4, n_symbols=8, n_days=420)


@pytest.fixture(scope="module")
def result(panel: Panel) -> SensitivityResult:
    return sensitivity_study(panel, make_plan(PILConfig(), "reduced"), n_draws=300)


# --- knobs -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("knob", "low", "high"), [
    ("lookback", {"covariance.window": 126, "covariance.half_life": 31.5},
     {"covariance.window": 378, "covariance.half_life": 94.5}),
    ("shrinkage", {"covariance.intensity_scale": 0.5}, {"covariance.intensity_scale": 1.5}),
    ("vol target", {"vol_target.target": 0.05}, {"vol_target.target": 0.15}),
    ("smoothing", {"allocation.smoothing": 0.9}, {"allocation.smoothing": 0.7}),
    ("band", {"turnover.band": 0.00375}, {"turnover.band": 0.01125}),
    ("tilt bound", {"tilt.bound": 0.125}, {"tilt.bound": 0.375}), ("costs", {}, {})])
def test_factors_are_those_of_the_specification(knob: str, low: dict[str, float], high: dict[str, float]) -> None:
    found = [knob_level(PILConfig(), KNOB[knob], f) for f in FACTORS]
    assert [dict(found[0].changes), dict(found[2].changes)] == [low, high]
    assert [v.cost_scale for v in found] == ([0.5, 1.0, 1.5] if knob == "costs" else [1.0] * 3)
    assert not any(v.notes for v in found)
    assert PILConfig().replace(**found[1].changes) == PILConfig()


@pytest.mark.parametrize(("knob", "base", "factor", "value", "word"), [
    ("smoothing", {"allocation.smoothing": 0.2}, 1.5, 0.0, "clipped"), ("smoothing", {"allocation.smoothing": 0.0}, 0.5, 0.5, ""),
    ("shrinkage", {"covariance.intensity_scale": 1.6}, 1.5, 2.0, "clipped"),
    ("tilt bound", {"tilt.bound": 0.8}, 1.5, 0.9, "clipped"),
    ("lookback", {"covariance.window": 90}, 0.5, 60, "clipped"), ("lookback", {"covariance.window": 0}, 1.5, 0, "does not move"),
    ("tilt bound", {"tilt.bound": 0.0}, 1.5, 0.0, "does not move"),
    ("shrinkage", {"covariance.target": "none"}, 0.5, 0.5, "no intensity")])
def test_illegal_values_are_clipped_and_said(knob: str, base: dict[str, float], factor: float, value: float, word: str) -> None:
    config = PILConfig().replace(**base)
    level = knob_level(config, KNOB[knob], factor)
    assert next(iter(level.changes.values())) == value
    assert (word in " ".join(level.notes)) and bool(level.notes) == bool(word)
    config.replace(**level.changes)  # legal


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 0.99), st.floats(0.05, 3.0))
def test_smoothing_moves_the_speed(smoothing: float, factor: float) -> None:
    level = knob_level(PILConfig().replace(**{"allocation.smoothing": smoothing}), KNOB["smoothing"], factor)
    wanted = 1.0 - min(1.0, factor * (1.0 - smoothing)) if factor != 1.0 else smoothing
    assert level.changes["allocation.smoothing"] == pytest.approx(wanted, abs=1e-11)


def test_bad_factors_and_grids_are_refused() -> None:
    for factor in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="positive and finite"):
            knob_level(PILConfig(), KNOBS[0], factor)
    with pytest.raises(InputError, match="grid must be one of"):
        make_plan(PILConfig(), "huge")
    with pytest.raises(InputError, match="at least one and different"):
        grid_settings(PILConfig(), [KNOBS[0], KNOBS[0]])


def test_one_at_a_time_moves_one_thing() -> None:
    base = PILConfig()
    found = one_at_a_time(base)
    assert len(found) == 15 and found[0].config == base and len({s.name for s in found}) == 15
    for s in found[1:]:
        moved = [k for k, v in s.config.to_dict().items() if v != base.to_dict()[k]]
        assert len(moved) == (0 if s.levels[0].knob == "costs" else 1)
        assert (s.cost_scale != 1.0) == (s.levels[0].knob == "costs")


# --- grid ------------------------------------------------------------------------------------------------------------

def test_full_grid_holds_every_combination_once() -> None:
    plan = make_plan(PILConfig(), "full")
    assert len(plan.grid) == 3**6 == len({p.config.fingerprint() for p in plan.grid}) == len({p.name for p in plan.grid})
    middle = plan.grid[base_index(6)]
    assert middle.config == PILConfig() and all(v.factor == 1.0 for v in middle.levels)
    assert [tuple(v.factor for v in p.levels) for p in plan.grid] == list(itertools.product(FACTORS, repeat=6))
    assert len(make_plan(PILConfig(), "reduced").grid) == 27
    costs = grid_settings(PILConfig(), [KNOBS[0], COSTS])
    assert [p.cost_scale for p in costs] == [0.5, 1.0, 1.5] * 3 and len({p.config.fingerprint() for p in costs}) == 3


def test_names_of_tracks_differ_and_costs_need_no_configuration() -> None:
    plan = make_plan(PILConfig(), "reduced")
    tracks = plan_tracks(plan)
    assert len({t.name for t in tracks}) == len(tracks) == 2 * (15 + 15 + 12 + 1 + 27 + 3)
    costs = next(t for t in tracks if t.name == track_name("one", "HRP", "costs 0.5", 1))
    assert (costs.cost_scale, costs.lag, costs.config) == (0.5, 1, PILConfig())


def test_one_benchmark_stands_for_points_it_cannot_tell_apart(panel: Panel) -> None:
    plan = make_plan(PILConfig(), "reduced")
    assert set(benchmark_points(plan)) == {0, 3, 6}, "only smoothing can reach 1/N-risk; lookback and tilt bound cannot"
    points = [plan.grid[i].config for i in (0, 2, 26 - 6)]
    r, _ = walk_returns(panel, [Track(name=str(i), config=benchmark_of(c)) for i, c in enumerate(points)])
    assert np.abs(r["0"] - r["1"]).max() < 1e-14 and np.abs(r["0"] - r["2"]).max() < 1e-14


def test_blocks_do_not_change_numbers(panel: Panel) -> None:
    tracks = [Track(name=s.name, config=s.config) for s in one_at_a_time(PILConfig())[:4]]
    r, turnover = walk_returns(panel, tracks, memory=1.0)
    w = run_tracks(panel, tracks)
    assert block_size(9_000, 6) > 200 and block_size(10, 2, 1.0) == 1
    np.testing.assert_allclose(r, w.returns, atol=1e-13)
    np.testing.assert_allclose(turnover, w.turnover.sum() * 252 / len(w.dates), rtol=1e-9)


def test_percentile_counts_ties_half() -> None:
    assert base_percentile([1, 2, 3, 4, 5], 4) == 1.0 and base_percentile([1, 2, 3, 4, 5], 0) == 0.0
    assert base_percentile([1, 1, 1, 2, 0], 1) == (1 + 0.5 * 2) / 4
    assert np.isnan(base_percentile([1.0, np.nan, 2.0], 0)) and np.isnan(base_percentile([1.0], 0))


def test_roughness_by_hand() -> None:
    x = np.array([0.0, 1.0, 3.0, 0.0, 2.0, 0.0, 5.0, 0.0, 0.0])  # rows: first knob, columns: second
    rough = roughness(x, 2)
    assert rough[4] == pytest.approx(np.sqrt(((1 + 4) / 2 + (4 + 4) / 2) / 2))
    assert rough[0] == pytest.approx(np.sqrt((0 + 1) / 2)) and rough[8] == 0.0
    with pytest.raises(InputError, match=r"3\*\*2 = 9"):
        roughness(x[:8], 2)


def test_proposal_is_flat_near_and_never_the_base() -> None:
    spike = np.full(9, 0.50)
    spike[4] = 0.54
    assert flattest(spike, 2) == 0, "all corners are flat; the lowest index wins"
    spike[[0, 2, 6, 8]] = 0.2  # corners too far from the base
    near = flattest(spike, 2)
    assert near is None or near in (1, 3, 5, 7)
    assert flattest(np.full(9, 0.5), 2) is None, "a plain has nothing flatter than its base"
    far = np.full(9, 0.4)
    far[4] = 0.5
    assert flattest(far, 2) is None, "no point within 0.05"
    two = np.stack([np.full(9, 0.50), np.full(9, 0.50)])
    two[0, 4], two[1, 4] = 0.54, 0.56  # at the second lag the plain is 0.06 away
    assert flattest(two, 2) is None


# --- the rule --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("d", "se", "ok", "broken"), [
    (0.05, 0.06, True, ""), (-0.05, 0.06, True, ""), (0.05, 0.05, False, "above 1 SE"), (0.10, 0.2, True, ""),
    (0.101, 0.2, False, "above 0.10"), (-0.2, 0.1, False, "above 0.10, above 1 SE"), (0.0, 0.0, True, ""),
    (1e-11, 0.0, True, ""), (0.01, 0.0, False, "above 1 SE"), (float("nan"), 0.1, False, "no number"),
    (0.01, float("nan"), False, "no number")])
def test_rule_of_a_change(d: float, se: float, ok: bool, broken: str) -> None:
    found, severity, words = judge_change(d, se)
    assert (found, words) == (ok, broken) and (severity <= 1.0 if ok else severity >= 1.0)


def constructed(plan_grid: np.ndarray, moves: dict[str, float], noise: float = 0.0, n: int = 1500) -> SensitivityResult:
    """A study whose base earns Sharpe 1, whose settings are shifted by `moves` and whose grid has the given Sharpe ratios."""
    plan = make_plan(PILConfig(), "reduced")
    rng = np.random.default_rng(3)
    z = rng.standard_normal(n)
    z = (z - z.mean()) / z.std(ddof=1)
    columns: dict[str, np.ndarray] = {}

    def track(target: float, own: float = 0.0) -> np.ndarray:
        x = z + own * rng.standard_normal(n)
        x = (x - x.mean()) / x.std(ddof=1)
        return 0.01 * (x + target / np.sqrt(252.0))

    for lag in (0, 1):
        for s in plan.settings:
            own = 0.0 if s.name == "base" else noise
            columns[track_name("one", "HRP", s.name, lag)] = track(1.0 + moves.get(s.name, 0.0), own)
            columns[track_name("one", BENCH, s.name, lag)] = track(0.9)
        for p, value in zip(plan.grid, plan_grid, strict=True):
            columns[track_name("grid", "HRP", p.name, lag)] = track(value)
        for s in plan.placebo:
            columns[track_name("placebo", "HRP", s.name, lag)] = track(1.03)
        columns[track_name("alternatives", "HRP", "trade to edge", lag)] = track(0.8)
        for i in set(benchmark_points(plan)):
            columns[track_name("grid", BENCH, plan.grid[i].name, lag)] = track(0.9)
    returns = pd.DataFrame(columns, index=pd.bdate_range("2015-01-01", periods=n))
    return sensitivity_result(plan, returns, pd.Series(2.0, index=returns.columns), n_draws=400)


def test_a_flat_family_passes() -> None:
    r = constructed(np.full(27, 1.0), {}, noise=0.05)
    assert (r.status, r.stable, r.grid.passed, r.proposal) == ("PASS", True, True, None)
    assert [c["status"] for c in sensitivity_checks(r)] == ["pass", "pass"] and r.headline.startswith("Flat")
    assert r.grid.range[0] < 1e-9 and r.grid.percentile[0] == 0.5
    assert placebo_size(r.placebo) == pytest.approx(0.03, abs=1e-9) and len(r.placebo) == 12
    assert r.alternatives["difference_lag1"]["trade to edge"] == pytest.approx(-0.2, abs=1e-9), "reported, outside the rule"


def test_a_spike_fails_and_is_placed() -> None:
    grid = np.full(27, 0.96)
    grid[base_index(3)] = 1.0
    grid[0] = 0.5  # so that the range counts
    r = constructed(grid, {"smoothing 0.5": -0.15, "smoothing 1.5": -0.15}, noise=0.02)
    checks = {c["id"]: c for c in sensitivity_checks(r)}
    assert r.status == "FAIL" and not r.stable and not r.grid.passed and r.headline.startswith("Not flat: 1 of 7")
    assert checks["sensitivity.stable"]["unstable"] == ["smoothing"] == [checks["sensitivity.stable"]["worst_knob"]]
    assert checks["sensitivity.stable"]["value"] == pytest.approx(0.15, abs=1e-9)
    assert checks["sensitivity.percentile"]["value"] == 1.0 and checks["sensitivity.percentile"]["status"] == "fail"
    assert checks["sensitivity.percentile"]["range"] == pytest.approx(0.5, abs=1e-9)
    assert r.proposal is not None and abs(r.grid.table.loc[r.proposal.name, "sharpe_lag0"] - 1.0) <= 0.05 + 1e-9
    assert r.grid.table.loc[r.proposal.name, "roughness"] < r.grid.table["roughness"].iloc[r.grid.base]


def test_a_peak_of_a_narrow_grid_passes() -> None:
    grid = np.full(27, 0.95)
    grid[base_index(3)] = 1.0
    r = constructed(grid, {}, noise=0.05)
    assert r.status == "PASS" and r.grid.percentile[0] == 1.0 and not sensitivity_checks(r)[1]["counts"]
    assert "rank does not matter" in r.headline


def test_base_at_the_eightieth_percentile_passes_and_above_fails() -> None:
    order = np.delete(np.arange(27), base_index(3))
    for below, status in ((20, "PASS"), (21, "FAIL")):
        x = np.empty(27)
        x[base_index(3)] = 1.0
        x[order] = np.concatenate([np.linspace(0.5, 0.9, below), np.linspace(1.1, 1.2, 26 - below)])
        r = constructed(x, {}, noise=0.05)
        assert r.grid.percentile[0] == below / 26 and r.status == status


def test_winner_changes_are_counted() -> None:
    r = constructed(np.full(27, 1.0), {"band 0.5": -0.2})
    flipped = r.changes[0]["winner_changes"]
    assert list(flipped[flipped].index) == ["band 0.5"] and r.knobs["winner_kept"]["band"] == 2
    assert "kept in 26 of 28" in r.headline and r.grid.kept == {0: 1.0, 1: 1.0}


def test_a_missing_number_never_passes() -> None:
    assert not judge_change(float("nan"), float("nan"))[0]
    grid = np.full(27, 1.0)
    grid[5] = np.nan
    r = constructed(grid, {}, noise=0.05)
    assert r.status == "FAIL" and not r.grid.passed and sensitivity_checks(r)[1]["status"] == "fail"


def test_differences_are_the_pairwise_bootstrap() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(4e-4, 0.01, 800)
    frame = pd.DataFrame({"base": base, "a": base + rng.normal(0, 0.002, 800), "same": base})
    found = paired_differences(frame, "base", n_draws=500)
    block = block_length(frame["a"] / frame["a"].std() - frame["base"] / frame["base"].std())
    assert found["block"].iloc[0] == max(21.0, block)
    d = sharpe_difference(frame["a"], frame["base"], bars_per_year=252, block=found["block"].iloc[0], n_draws=500)
    assert found["difference"]["a"] == pytest.approx(d.difference, rel=1e-12)
    assert found["se"]["a"] == pytest.approx(d.se, rel=1e-9)
    assert found["difference"]["same"] == 0.0 and found["se"]["same"] == 0.0
    with pytest.raises(InputError, match="base must be one of"):
        paired_differences(frame, "b")


# --- on a panel ------------------------------------------------------------------------------------------------------

def test_study_is_the_walk_forward(panel: Panel, result: SensitivityResult) -> None:
    changed = PILConfig().replace(**{"allocation.smoothing": 0.7})
    w = run_tracks(panel, [Track(name="base", config=PILConfig()), Track(name="fast", config=changed),
                           Track(name="late", config=changed, lag=1), Track(name="cheap", config=PILConfig(), cost_scale=0.5)])
    s = sharpe(w.returns)
    assert result.changes[0]["sharpe"]["smoothing 1.5"] == pytest.approx(s["fast"], abs=1e-9)
    assert result.changes[1]["sharpe"]["smoothing 1.5"] == pytest.approx(s["late"], abs=1e-9)
    assert result.changes[0]["difference"]["costs 0.5"] == pytest.approx(s["cheap"] - s["base"], abs=1e-9)
    at = next(p.name for p in result.plan.grid if [v.factor for v in p.levels] == [1.0, 1.5, 1.0])
    assert result.grid.table["sharpe_lag0"][at] == pytest.approx(s["fast"], abs=1e-9)
    assert heat_table(result, 0).loc[1.0, 1.5] == pytest.approx(s["fast"], abs=1e-9)


def test_run_folder_and_ledger(panel: Panel, result: SensitivityResult, tmp_path: Path) -> None:
    ledger = TrialLedger(tmp_path / "trials.jsonl")
    tracks = plan_tracks(result.plan)
    assert record_trials(str(ledger.path), [t.config for t in tracks], panel, "report sensitivity") == 59
    if result.proposal is not None:
        assert record_trials(str(ledger.path), [result.proposal.config], panel, "proposal") == 59, "already counted"
    out = write_sensitivity_run(result, panel_facts(panel), tmp_path / "run", run_id="20260302T203000Z-3f9c1a")
    assert [c["id"] for c in out["checks"]] == ["sensitivity.stable", "sensitivity.percentile"]
    assert out["verdict"]["action"] == "none" and out["tables"]["grid"]["points"] == 27
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert len(page) < 500_000 and 'id="tornado-' in page and 'id="heat-' in page and "base" in page
    assert {f["path"] for f in out["files"]} >= {"data/changes.parquet", "data/grid.parquet", "data/net_returns.parquet"}
