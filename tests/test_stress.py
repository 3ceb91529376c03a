"""Stress: published figures, hand-computed losses, Shapley sums, tail risk against closed forms, paths through the real step."""
from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from books import with_closure
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from pil_research.config import PILConfig
from pil_research.research import stress as S
from pil_research.research.ladder_study import RUNGS
from pil_research.research.plots import figure
from pil_research.research.report import check_envelope
from pil_research.research.stress_page import (
    DAILY_STOP,
    _who,
    lead_table,
    plot_drawdowns,
    stress_html,
    write_stress_run,
)
from pil_research.research.stress_walk import first_needed
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.research.walk_forward import Track, run_tracks
from pil_research.types import InputError

CONFIGS = {n: PILConfig().replace(**RUNGS[n]) for n in ("HRP", "1/N-risk")}
CLASSES = {"SP_500": "Equities", "DAX": "Equities", "GOLD": "Metals", "SILVER": "Metals", "PLATINUM": "Metals",
           "IRON": "Metals", "WTI": "Energy", "BRENT": "Energy", "NAT_GAS": "Energy", "GASOLINE": "Energy", "ETHANOL": "Energy",
           "EURUSD": "FX", "CORN": "Agriculture", "US_10Y": "Bonds", "SOFR": "STIR"}
TABLE = S.scenario_table(CLASSES)


@pytest.fixture(scope="module")
def panel():
    return synthetic_panel(7, n_sleeves=4, n_symbols=12, n_days=620)


@pytest.fixture(scope="module")
def base(panel):
    return S.base_walk(panel, CONFIGS)


@pytest.fixture(scope="module")
def study(panel):
    return S.stress_study(panel, n_paths=250, horizon=8, scenarios=("1987_black_monday", "2020_covid"))


# Published figures: re-derived from the named public series (closes, simple returns).

@pytest.mark.parametrize(("scenario", "symbol", "column", "value"), [
    ("1987_black_monday", "SP_500", "down", -0.2046693), ("1987_black_monday", "SP_500", "fall", -0.3350952),
    ("1987_black_monday", "WTI", "down", -0.0465672), ("2008_collapse", "SP_500", "fall", -0.5677539),
    ("2008_collapse", "SILVER", "down", -0.1799163), ("2008_collapse", "GOLD", "rebound", 0.1129053),
    ("2011_silver_squeeze", "SILVER", "fall", -0.3049090), ("2011_silver_squeeze", "SILVER", "down", -0.1188921),
    ("2011_sep_precious_crash", "GOLD", "down", -0.0547175), ("2020_covid", "SP_500", "down", -0.1198406),
    ("2020_covid", "BRENT", "down", -0.4746544), ("2020_covid", "PLATINUM", "fall", -0.4175),
    ("2022_energy", "NAT_GAS", "fall", -0.6487310), ("2022_energy", "SP_500", "fall", -0.2542510),
    ("2022_energy_spike", "NAT_GAS", "down", -0.1685393)])
def test_published_figures(scenario: str, symbol: str, column: str, value: float) -> None:
    assert TABLE.loc[(scenario, symbol), "basis"] == "sourced"
    assert TABLE.loc[(scenario, symbol), column] == pytest.approx(value, abs=5e-8)


def test_every_published_number_ships_unchanged() -> None:
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is not set")
    oracle = json.loads((Path(folder) / "scenarios.json").read_text(encoding="utf-8"))
    ours = S.scenario_facts().set_index(["scenario", "asset"])
    for cell in oracle["computed"]:
        row = ours.loc[(cell["scenario"], cell["asset"])]
        for key in ("worst_1d", "best_1d", "peak_to_trough", "trough_to_peak", "worst_1d_change"):
            if cell.get(key) is None:
                assert pd.isna(row[key])
            else:
                assert row[key] == pytest.approx(cell[key], rel=1e-9)
        assert row["source"] == cell["source"]
    assert len(ours) == len(oracle["computed"])
    assert S.scenario_file()["quoted"] == oracle["quoted"] and S.scenario_file()["unsourced"] == oracle["unsourced"]


def test_what_nobody_sourced_is_zero_and_says_so() -> None:
    vectors = S.shock_vectors(TABLE, list(CLASSES))
    for (scenario, symbol), row in TABLE.iterrows():
        moves = vectors.xs(scenario, level="scenario")[symbol]
        if row["basis"] == "not sourced":
            assert (moves == 0.0).all() and pd.isna(row["down"]) and pd.isna(row["fall"]) and row["asset"] == ""
        else:
            assert row["source"] and row["asset"]
    assert (TABLE.xs("CORN", level="symbol")["basis"] == "not sourced").all()
    assert (TABLE.xs("SOFR", level="symbol")["basis"] == "not sourced").all()
    for symbol in ("SILVER", "GOLD", "NAT_GAS"):  # daily series of 1987 are not sourced, and nothing stands in
        assert TABLE.loc[("1987_black_monday", symbol), "basis"] == "not sourced"
    for name in S.scenario_file()["not_covered"]:
        assert not ((S.scenario_facts()["scenario"] == name["scenario"]) & (S.scenario_facts()["asset"] == name["asset"])).any()


def test_the_traps() -> None:
    assert TABLE.loc[("2020_covid", "WTI"), "asset"] == "crude_uso"  # the front future's per cent is undefined
    assert TABLE.loc[("2020_negative_wti", "WTI"), "down"] == pytest.approx(-0.1838)  # June contract
    assert TABLE.loc[("2020_negative_wti", "BRENT"), "down"] == pytest.approx(-0.0894)
    assert TABLE.loc[("2022_energy", "NAT_GAS"), "down"] == pytest.approx(-0.1685393)  # not the -31.7 % spot print
    assert (np.abs(S.shock_vectors(TABLE, list(CLASSES))) < 1.0).all().all()
    assert S.expiry_trap() == (18.27, -55.90)
    assert S.price_change_loss(0.06, 18.27, -55.90) == pytest.approx(0.06 * 55.90 / 18.27)
    with pytest.raises(InputError):
        S.price_change_loss(0.06, -37.63, 1.0)
    dollar = TABLE.loc[("2020_covid", "EURUSD")]
    assert dollar["fall"] == pytest.approx(1.0 / 1.0913 - 1.0) and pd.isna(dollar["down"])
    assert not TABLE["asset"].eq("vix").any()


def test_a_proxy_says_so_and_can_be_left_out() -> None:
    assert TABLE.loc[("2008_collapse", "DAX"), "basis"] == "proxy"
    assert TABLE.loc[("2008_collapse", "PLATINUM"), ["basis", "asset"]].tolist() == ["proxy", "silver_slv"]
    own = S.shock_vectors(TABLE, list(CLASSES), ("sourced",))
    assert own.loc[("2008_collapse", "down"), "DAX"] == 0.0 and own.loc[("2008_collapse", "down"), "SP_500"] < 0.0


# Paths

@pytest.mark.parametrize("scenario", [s for s in S.SCENARIOS if s != "2020_negative_wti"])
def test_a_path_hits_the_published_totals_and_days(scenario: str) -> None:
    symbols = list(CLASSES)
    path = S.scenario_path(TABLE, scenario, symbols)
    recent = np.random.default_rng(0).normal(0.0, 0.02, (900, len(symbols)))
    recent[-3] = -0.3  # a crash in the recent past must not leak into markets that nobody sourced
    r = S.path_returns(path, recent)
    assert np.isfinite(r).all() and len(r) == len(path.dates) + 5
    for j, symbol in enumerate(symbols):
        cell = TABLE.loc[(scenario, symbol)]
        if not path.known[j]:
            assert np.prod(1.0 + r[:, j]) == pytest.approx(1.0, abs=1e-12) and np.abs(r[:, j]).max() < 0.12
            continue
        if len(cell["fall_dates"]) == 2 and None not in cell["fall_dates"] and np.isfinite(cell["fall"]):
            a, b = (pd.Timestamp(d) for d in cell["fall_dates"])
            leg = r[:len(path.dates)][(path.dates > a) & (path.dates <= b), j]
            assert np.prod(1.0 + leg) - 1.0 == pytest.approx(cell["fall"], abs=1e-9)
            if cell["down_date"] and a < pd.Timestamp(cell["down_date"]) <= b:
                assert r[:len(path.dates)][path.dates == pd.Timestamp(cell["down_date"]), j] == pytest.approx(cell["down"])
                assert leg.min() >= cell["down"] - 1e-12


def test_no_day_repeats_the_last_so_that_no_feed_looks_dead(base, study) -> None:
    table = study.cells
    path = S.scenario_path(table, "2020_covid", base.ground.symbols)
    r = S.path_returns(path, base.ground.returns)
    assert (np.abs(np.diff(r, axis=0)) > 0.0).any(axis=0).all()
    assert S.scenario_path(table, "2020_negative_wti", base.ground.symbols) is None  # one day only


# The walk

def test_the_walk_is_the_walk_forward(panel, base) -> None:
    w = run_tracks(panel, [Track(name=n, config=c) for n, c in CONFIGS.items()])
    np.testing.assert_array_equal(w.equity.to_numpy(), base.equity)
    np.testing.assert_array_equal(w.gross_exposure.to_numpy(), np.abs(base.exposures).sum(axis=-1))


def test_the_walk_is_the_walk_forward_with_promotions_and_a_cost_schedule(panel) -> None:
    dates = panel.dates
    sleeves = panel.sleeves.copy()
    sleeves["promoted_on"] = [pd.NaT, dates[450], pd.NaT, pd.NaT]
    sleeves["demoted_on"] = [pd.NaT, pd.NaT, dates[520], pd.NaT]
    schedule = pd.DataFrame(4e-4, index=panel.returns.index, columns=panel.returns.columns)
    schedule.iloc[:, 0] = np.nan
    changed = replace(panel, sleeves=sleeves, cost_schedule=schedule)
    config = {"HRP": CONFIGS["HRP"].replace(**{"allocation.cadence": "weekly"})}
    w = run_tracks(changed, [Track(name="HRP", config=config["HRP"])])
    base = S.base_walk(changed, config)
    np.testing.assert_array_equal(w.equity.to_numpy(), base.equity)
    event = S.play(base.ground, base.starts[-61], base.configs, 60)
    np.testing.assert_allclose(event.at("equity")[1:], base.equity[-60:], rtol=1e-12)


def test_the_walk_is_the_walk_forward_over_a_long_closure(panel, base) -> None:
    traded = np.abs(np.diff(base.exposures[:, 0], axis=0)).sum(axis=-1)
    closed = with_closure(panel, base.dates[100 + int(traded[99:].argmax())])  # closed before the busiest session
    w = run_tracks(closed, [Track(name=n, config=c) for n, c in CONFIGS.items()])
    np.testing.assert_array_equal(w.equity.to_numpy(), S.base_walk(closed, CONFIGS).equity)
    assert (w.equity.to_numpy()[-1] != base.equity[-1]).any()


def test_going_on_from_a_start_is_the_walk_itself(base) -> None:
    at = base.starts[-31]
    event = S.play(base.ground, at, base.configs, 30)
    np.testing.assert_allclose(event.at("equity")[1:], base.equity[-30:], rtol=1e-12)
    np.testing.assert_array_equal(event.at("equity")[0], at.equity)


def test_a_shortened_history_gives_the_same_decisions(panel) -> None:
    short = {"covariance.window": 120, "covariance.min_overlap": 30, "sleeves.vol_window": 120, "sleeves.min_observations": 30,
             "tilt.window": 126, "risk.window": 60}
    base = S.base_walk(panel, {n: c.replace(**short) for n, c in CONFIGS.items()})
    assert first_needed(base.configs, base.starts[-31].row) > 0
    event = S.play(base.ground, base.starts[-31], base.configs, 30)
    np.testing.assert_allclose(event.at("equity")[1:], base.equity[-30:], rtol=1e-12)


def test_a_path_is_point_in_time(base, study) -> None:
    path = S.scenario_path(study.cells, "2020_covid", base.ground.symbols)
    r = S.path_returns(path, base.ground.returns)
    bad = r.copy()
    bad[20:] *= -1.0
    events = [S.play(S.extend(base.ground, x), base.starts[-1], base.configs, len(r)) for x in (r, bad)]
    for name in ("gross", "leverage", "governor"):
        np.testing.assert_array_equal(*(e.at(name)[:21] for e in events))
    read = [S.read_path(base.ground, len(base.ground.dates), x) for x in (r, bad)]
    if read[0] is not None:
        np.testing.assert_array_equal(read[0][0][:20], read[1][0][:20])


def test_mixed_estimates_are_refused(base) -> None:
    with pytest.raises(InputError):
        S.Walk(base.ground, [PILConfig(), PILConfig().replace(**{"risk.window": 60})])


# Losses by hand

def test_one_day_losses_by_hand(base, study) -> None:
    v = S.vector_of(S.shock_vectors(study.cells, base.ground.symbols), "2020_covid")
    row = study.one_day.loc[("HRP", "2020_covid", "down")]
    losses = [-float(sum(e * m for e, m in zip(book, v, strict=True))) for book in base.exposures[:, 0]]
    assert row["worst"] == pytest.approx(max(losses), abs=1e-15)
    assert row["date"] == base.dates[int(np.argmax(losses))]
    assert row["today"] == pytest.approx(-float(base.starts[-1].held[0] @ v), abs=1e-15)
    both = S.shock_vectors(study.cells, base.ground.symbols).loc["2020_covid"].to_numpy()
    book = base.exposures[0, 0]
    hand = sum(max(-e * m for m in (*both[:, i], 0.0)) for i, e in enumerate(book))
    assert row["adverse"] >= hand - 1e-12 and row["adverse"] >= row["worst"]


def test_the_invested_start_is_uncut_and_at_its_target(base, study) -> None:
    v = S.vector_of(S.shock_vectors(study.cells, base.ground.symbols), "2020_covid")
    for i in range(2):
        d = S.worst_start(base, v, i).row - base.first - 1
        assert base.governor[d, i] >= 1.0
        assert np.abs(base.exposures[d, i]).sum() >= 0.95 * base.wanted[d, i]


# Channels

@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=16, max_size=16))
def test_shapley_adds_up_and_treats_equals_alike(values: list[float]) -> None:
    v = np.array(values)
    phi = S.shapley(v)
    assert phi.sum() == pytest.approx(v[15] - v[0], abs=1e-10)
    swapped = v[[(s & 12) | ((s & 1) << 1) | ((s & 2) >> 1) for s in range(16)]]
    np.testing.assert_allclose(S.shapley(swapped), phi[[1, 0, 2, 3]], atol=1e-12)


def test_shapley_by_hand() -> None:
    glove = np.array([1.0 if (s & 1) and (s & 6) else 0.0 for s in range(16)])  # one left glove, two right ones, a bystander
    np.testing.assert_allclose(S.shapley(glove), [2 / 3, 1 / 6, 1 / 6, 0.0], atol=1e-15)


def test_shares_add_up_to_the_cut(study) -> None:
    t = study.shares
    np.testing.assert_allclose(t[[*S.CHANNELS, "other"]].sum(axis=1), t["total"], atol=1e-12)


def test_the_governor_only_ever_lowers_the_deepest_loss_here(study) -> None:
    deep = study.events[(study.events["seen"] & (study.events["least_m"] < 0.95)).to_numpy(dtype=bool)]
    assert len(deep)
    assert (deep["loss_on"] <= deep["loss_off"] + 1e-12).all()
    assert (deep["gross_after"] <= deep["gross_off"]).all() and (deep["gross_after"] < deep["gross_off"]).any()
    s = study.series
    assert (s.loc[s["depth"] <= 0.05, "m"] == 1.0).all() and (s.loc[s["depth"] > 0.0501, "m"] < 1.0).all()


# Monte Carlo

def test_tail_risk_against_the_normal_law() -> None:
    x = np.random.default_rng(5).standard_normal(200_000)
    got, q = S.tail_risk(x), norm.ppf(0.99)
    assert got["var"] == pytest.approx(q, abs=4 * got["var_se"])
    assert got["cvar"] == pytest.approx(norm.pdf(q) / 0.01, abs=4 * got["cvar_se"])
    draws = np.random.default_rng(6).standard_normal((400, 2_000))
    each = pd.DataFrame([S.tail_risk(d) for d in draws])
    assert each["cvar"].std() == pytest.approx(each["cvar_se"].mean(), rel=0.25)
    assert each["var"].std() == pytest.approx(each["var_se"].mean(), rel=0.25)
    with pytest.raises(InputError):
        S.tail_risk(np.append(x, np.nan))
    with pytest.raises(InputError):
        S.tail_risk(x[:50])


def test_frequency_and_its_error() -> None:
    assert S.frequency(np.array([True] * 20 + [False] * 80)) == (0.2, pytest.approx(0.04))


def test_stationary_rows_run_in_blocks() -> None:
    rows = S.stationary_rows(500, 300, 80, 10.0, np.random.default_rng(1))
    runs_on = (np.diff(rows, axis=1) % 500) == 1
    assert rows.min() >= 0 and rows.max() < 500
    assert runs_on.mean() == pytest.approx(0.9, abs=0.01)
    with pytest.raises(InputError):
        S.stationary_rows(0, 1, 1, 5.0, np.random.default_rng(1))


def test_the_correlation_stress_keeps_vols_and_raises_correlations() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((60_000, 4)) * [0.01, 0.02, 0.005, 0.01]
    book = np.array([0.3, -0.2, 0.1, -0.4])
    out = S.correlate(rows, rows[rng.permutation(len(rows))], book, 0.8, S.row_stats(rows, book))
    np.testing.assert_allclose(out.std(axis=0), rows.std(axis=0), rtol=0.02)
    signed = np.corrcoef(out * np.sign(book), rowvar=False)
    np.testing.assert_allclose(signed[np.triu_indices(4, 1)], 0.8, atol=0.02)


@pytest.mark.parametrize("market", [0.9, 0.5, 0.0, -0.6])
def test_every_pair_of_positions_reaches_the_least_correlation(market: float) -> None:
    """Also a long and a short in markets that move together, which hedged each other."""
    rng = np.random.default_rng(3)
    common = rng.standard_normal((60_000, 1)) * np.sqrt(abs(market)) * [1.0, np.sign(market) or 1.0, 0.0]
    rows = 0.01 * (common + rng.standard_normal((60_000, 3)) * np.sqrt([1 - abs(market), 1 - abs(market), 1.0]))
    book = np.array([0.3, -0.2, 0.1])
    share = S.factor_share(rows, book, 0.8)
    assert 0.8 <= share < 1.0
    out = S.correlate(rows, rows[rng.permutation(len(rows))], book, share, S.row_stats(rows, book))
    signed = np.corrcoef(out * np.sign(book), rowvar=False)[np.triu_indices(3, 1)]
    assert signed.min() == pytest.approx(0.8, abs=0.01)
    np.testing.assert_allclose(out.std(axis=0), rows.std(axis=0), rtol=0.02)
    assert S.factor_share(rows, np.array([0.3, 0.0, 0.0]), 0.8) == 0.8  # no pair
    assert S.factor_share(np.column_stack([rows, np.zeros(len(rows))]), np.append(book, 0.1), 0.8) == pytest.approx(share)


def test_monte_carlo_repeats_whatever_the_chunk(base) -> None:
    a, b = (S.monte_carlo(base, n_paths=220, horizon=6, chunk=c, seed=3) for c in (220, 64))
    for key, values in a.losses.items():
        np.testing.assert_allclose(values, b.losses[key], rtol=0, atol=1e-13)
    c = S.monte_carlo(base, n_paths=220, horizon=6, seed=4)
    assert not np.array_equal(a.losses["HRP", "history", "on"], c.losses["HRP", "history", "on"])


def test_paths_without_the_governor_are_really_without(base) -> None:
    mc = S.monte_carlo(base, n_paths=210, horizon=12, seed=3, rho=0.95)
    off = replace(base, configs=tuple(c.replace(**{"governor.enabled": False}) for c in base.configs))
    plain = S.monte_carlo(off, n_paths=210, horizon=12, seed=3, rho=0.95)
    for name in base.names:
        np.testing.assert_allclose(mc.losses[name, "correlated", "off"], plain.losses[name, "correlated", "on"], atol=1e-13)
        assert mc.table.loc[(name, "correlated", "on"), "worst_dd"] <= mc.table.loc[(name, "correlated", "off"), "worst_dd"]


def test_a_row_must_quote_half_of_the_book(base) -> None:
    r = base.ground.returns.copy()
    r[400] = np.nan
    book = base.starts[-1].held
    got, all_rows = (S.eligible_rows(replace(base.ground, returns=x), len(r), book) for x in (r, base.ground.returns))
    assert len(got) == len(all_rows) - 1 and np.isfinite(got).all()


def test_gaps_take_the_class_move_at_the_markets_own_size() -> None:
    rng = np.random.default_rng(3)
    common = rng.standard_normal((4_000, 1))
    x = (0.7 * common + 0.7 * rng.standard_normal((4_000, 5))) * [0.01, 0.02, 0.03, 0.01, 0.02]
    young = x.copy()
    young[:2_000, 2] = np.nan
    got = S.fill_by_class(young, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_array_equal(got[:, [0, 1, 3, 4]], x[:, [0, 1, 3, 4]])
    np.testing.assert_array_equal(got[2_000:], x[2_000:])
    assert got[:2_000, 2].std() == pytest.approx(x[:, 2].std(), rel=0.08)
    assert np.corrcoef(got[:2_000, 2], x[:2_000, 0] + x[:2_000, 1] / 2)[0, 1] > 0.99


# Reverse stress and correlations

def test_reverse_stress_brackets(base, study) -> None:
    book = base.starts[-1]
    rows = study.reverse.xs(("today", "HRP", "uniform adverse move"), level=("start", "track", "scenario"))
    stop = rows.xs("daily stop", level="limit").iloc[0]
    assert stop["below"] < stop["scale"] and stop["scale"] - stop["below"] < 0.01
    assert stop["loss"] == pytest.approx(0.03, abs=2e-4)  # the day's costs make the rest
    flat, floor = (rows.xs(k, level="limit").iloc[0] for k in ("flatten", "floor"))
    assert floor["scale"] < flat["scale"]
    dd = 1.0 - float(book.equity[0] / max(book.state.drawdown.mark[0], book.equity[0]))
    assert 1.0 - (1.0 - dd) * (1.0 - flat["loss"]) == pytest.approx(0.15, abs=1e-3)


def test_smallest_scale() -> None:
    flags = np.array([False, False, True, True, False, False, False, False])
    low, high = S.smallest({"x": flags}, np.tile(np.arange(4.0), (2, 1)), 2)["x"]
    assert low.tolist() == [1.0, 3.0] and high.tolist() == [2.0, np.inf]


def test_a_path_needs_more_of_itself_to_flatten_than_to_reach_the_floor(study) -> None:
    wide = study.reverse_paths["scale"].unstack("limit")
    assert (wide["floor"] <= wide["flatten"]).all()


def test_all_correlations_at_099(study) -> None:
    c = study.correlation
    assert c["finite"].all() and (c["l1"] < 0.25).all()
    for n in study.names:
        t = c.loc[n]
        assert t["share"].iloc[5] == 1.0 and t["L"].iloc[5] < t["L"].iloc[0]
        weights = t[[k for k in t if str(k).startswith("a.")]]
        assert (weights >= 0.0).all().all() and (weights.sum(axis=1) <= 1.0 + 1e-9).all()


# Checks, verdict, page

def test_checks_have_the_shape_the_verdict_reads(study) -> None:
    checks = S.stress_checks(study)
    ids = [c["id"] for c in checks]
    assert len(ids) == len(set(ids))
    for prefix in ("stress.hrp.", "stress.1n_risk."):
        mine = [i.removeprefix(prefix) for i in ids if i.startswith(prefix)]
        assert {"one_day.1987_black_monday", "path.2020_covid", "governor", "correlation"} <= set(mine)
    assert {c["status"] for c in checks} <= {"pass", "fail", "inconclusive"}
    assert all(isinstance(c["value"], (int, float)) or c["value"] is None for c in checks)


def test_a_loss_beyond_the_cap_fails_and_a_missing_one_never_passes(study) -> None:
    for value, status in ((0.16, "fail"), (0.15, "fail"), (0.1499, "pass"), (np.nan, "fail")):
        day = study.one_day.copy()
        day.loc[("HRP", "2020_covid", "down"), ["worst", "today"]] = value
        day.loc[("HRP", "2020_covid", "rebound"), ["worst", "today"]] = value
        got = {c["id"]: c for c in S.stress_checks(replace(study, one_day=day))}
        assert got["stress.hrp.one_day.2020_covid"]["status"] == status
        assert got["stress.1n_risk.one_day.2020_covid"]["status"] == "pass"


@pytest.mark.parametrize(("start", "check"), [("today", "governor_today"), ("invested", "governor")])
def test_a_path_whose_gross_rose_fails_its_own_check_only(study, start: str, check: str) -> None:
    events = study.events.copy()
    events.loc[("1/N-risk", "2020 COVID", start), ["seen", "cut_ok"]] = [True, False]
    checks = S.stress_checks(replace(study, events=events))
    got = {c["id"]: c for c in checks}
    assert got[f"stress.1n_risk.{check}"]["status"] == "fail" and got[f"stress.1n_risk.{check}"]["which"] == ["2020 COVID"]
    assert all(c["status"] != "fail" for i, c in got.items() if i.startswith("stress.hrp."))
    assert f"({check})" in S.stress_verdict(study, checks)["headline"]
    moved = replace(study, events=events)
    shown = {t: lead_table(moved, checks, t)["status"]["2020 COVID"] for t in ("HRP", "1/N-risk")}
    assert shown["1/N-risk"] == "fail" and shown["HRP"] != "fail"  # the first screen shows what decided


def test_a_governor_that_no_path_reaches_is_not_a_pass(study) -> None:
    got = {c["id"]: c["status"] for c in S.stress_checks(replace(study, events=study.events.assign(seen=False)))}
    assert got["stress.hrp.governor"] == "inconclusive" and "stress.hrp.governor_today" not in got


def test_a_panel_outside_the_published_figures_has_no_vector_and_no_path(panel) -> None:
    cells = S.scenario_table(dict.fromkeys(panel.symbols, "Agriculture"))
    assert (cells["basis"] == "not sourced").all() and S.scenario_path(cells, "2020_covid", panel.symbols) is None
    assert (S.shock_vectors(cells, panel.symbols) == 0.0).all().all()


def test_a_panel_to_which_nothing_applies_is_refused(panel) -> None:
    farm = replace(panel, instruments=panel.instruments.assign(asset_class="Agriculture"))
    with pytest.raises(InputError, match="no scenario"):
        S.stress_study(farm, n_paths=200, horizon=2)


def test_no_published_figure_means_no_pass(study) -> None:
    cells = study.cells.assign(basis="not sourced")
    got = {c["id"]: c["status"] for c in S.stress_checks(replace(study, cells=cells))}
    assert got["stress.hrp.one_day"] == "inconclusive"


def test_page_and_run_folder(study, panel, tmp_path: Path) -> None:
    from pil_research.research.ladder_result import panel_facts

    envelope = write_stress_run(study, panel_facts(panel), PILConfig(), tmp_path, run_id="20260302T203000Z-3f9c1a")
    check_envelope(envelope)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 500_000 and "stylised" in page and "not sourced" in page
    assert (tmp_path / "data" / "events.parquet").is_file()
    checks = S.stress_checks(study)
    again = stress_html(study, checks, S.stress_verdict(study, checks), panel_facts(panel))
    assert again.count("<h1") == 1 and not re.search(r">\s*(nan|None|NaT)\s*<", again)
    assert envelope["verdict"]["action"] == "none"


@pytest.mark.parametrize(("cuts", "said"), [
    ({"governor": 46.2, "other": 7.0, "vol target": -15.0, "allocation": -6.0, "regime": 0.4},
     "cut by governor 46, other 7; raised by vol target 15, allocation 6"),
    ({"regime": 3.0}, "cut by regime 3"), ({"vol target": -2.0}, "raised by vol target 2"),
    ({"other": -0.4}, "no channel moved it by a point")])
def test_the_caption_says_who_cut_and_who_raised(cuts: dict[str, float], said: str) -> None:
    assert _who({**dict.fromkeys((*S.CHANNELS, "other"), 0.0), **cuts}) == said


@pytest.mark.parametrize(("least_m", "tier", "stopped"), [(0.0, "WARN", True), (0.0, "FLATTEN", False), (0.2, "WARN", False)])
def test_a_multiplier_of_zero_below_flatten_is_explained(study, least_m: float, tier: str, stopped: bool) -> None:
    found = replace(study, events=study.events.assign(least_m=least_m, tier=tier))
    checks = S.stress_checks(found)
    assert (DAILY_STOP in stress_html(found, checks, S.stress_verdict(found, checks), {})) == stopped


@pytest.mark.parametrize("deepest", [0.16, 0.4, 0.85])
def test_levels_of_the_drawdown_picture_stand_apart_and_off_the_curves(study, deepest: float) -> None:
    m = study.simulation
    scaled = {k: v * deepest / v.max() for k, v in m.drawdowns.items()}
    fig, ax = figure(5.8, 3.0)
    plot_drawdowns(replace(study, simulation=replace(m, drawdowns=scaled)), "HRP", ax=ax)
    fig.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts]
    assert [t.get_text() for t in ax.texts] == ["5 %", "12 %", "15 %"]
    assert all(b.y0 > ax.bbox.y1 and b.y1 <= fig.bbox.y1 for b in boxes)
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
