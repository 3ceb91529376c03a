"""The path being replaced: every wart pinned, point in time, the bookkeeping of the other rungs, and W1 to W10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from books import FAST, small_panel
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.allocators.minvar import min_variance
from pil_research.config import PILConfig
from pil_research.estimators.covariance import ledoit_wolf
from pil_research.research.ladder import compare, rung_table
from pil_research.research.ladder_page import ladder_html
from pil_research.research.ladder_result import ladder_json, ladder_result, ladder_text, panel_facts
from pil_research.research.ladder_run import write_ladder_run
from pil_research.research.ladder_study import RUNGS, VARIANTS, LadderStudy, ladder_study, ladder_tracks
from pil_research.research.legacy import (
    LegacyAccount,
    LegacyHistory,
    LegacyTrack,
    plan_sessions,
    run_legacy,
)
from pil_research.research.legacy_book import (
    daily_min_variance,
    first_quotes,
    legacy_book,
    legacy_covariances,
    truncated_bars,
    usable_symbols,
)
from pil_research.research.legacy_orders import KillState, metadata_vol, plan_orders, read_kill_tier, throttle_of
from pil_research.research.legacy_signals import (
    LegacyParams,
    adaptive_leverage,
    blend_regime,
    combine_signals,
    correlation_discount,
    sector_table,
    strategy_signals,
    telemetry_vector,
)
from pil_research.research.metrics import sharpe
from pil_research.research.panel import Panel
from pil_research.research.panel_arrays import CarryCosts
from pil_research.research.walk_forward import Track, WalkForward, run_tracks
from pil_research.research.weaknesses import DEMONSTRATIONS, Weakness, example_panel, weakness_table
from pil_research.types import InputError

P = LegacyParams()
PANEL = small_panel(3, t=330, missing=0.002, regime=True)
NUMBERS = ("returns", "gross_returns", "equity", "costs", "turnover", "leverage", "throttle", "gross_exposure",
           "net_exposure", "ex_ante_vol", "vol_target")
FOUR = [LegacyTrack(), LegacyTrack(name="lag1", lag=1), LegacyTrack(name="cost0", cost_scale=0.0),
        LegacyTrack(name="cost2", cost_scale=2.0)]


@pytest.fixture(scope="module")
def walk() -> WalkForward:
    return run_legacy(PANEL, FOUR, keep_exposures=("legacy",))


# ---------------------------------------------------------------- signals


def test_signals_are_nominal_and_clipped() -> None:
    targets = np.array([[[3.0, -0.4], [0.2, -5.0]]])
    s = strategy_signals(targets, np.array([[True, False]]))
    np.testing.assert_array_equal(s, [[[1.0, -0.4], [0.0, 0.0]]])


def test_a_strategy_that_says_nothing_today_has_no_signal_and_no_memory() -> None:
    targets = {k: v.copy() for k, v in PANEL.targets.items()}
    targets["sleeve_b"].iloc[300] = np.nan
    history = LegacyHistory(replace(PANEL, targets=targets))
    plan = plan_sessions(history, np.array([299, 300, 301]))
    assert plan.signals.live[:, 1].tolist() == [True, False, True]
    assert (plan.signals.signals[1, 1] == 0.0).all() and (plan.signals.signals[0, 1] != 0.0).any()


def test_strategies_are_averaged_one_over_n_whatever_their_risk() -> None:
    rng = np.random.default_rng(0)
    s, live = rng.uniform(-1, 1, (3, 4, 5)), np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]], dtype=bool)
    s = s * live[..., None]
    out = combine_signals(s, np.full((3, 4), 0.5), np.ones((3, 4)), live)
    np.testing.assert_allclose(out[0], 0.5 * s[0].mean(axis=0))
    np.testing.assert_allclose(out[1], 0.5 * s[1].sum(axis=0) / 3)
    assert (out[2] == 0.0).all()


def test_discount_falls_with_correlation_and_never_below_half() -> None:
    rng = np.random.default_rng(1)
    r = 0.01 * rng.standard_normal((100, 3))
    r[:, 1] = r[:, 0]
    d = correlation_discount(r, np.array([99]), np.ones((1, 3), dtype=bool), P)[0]
    assert d[0] == pytest.approx(0.75, abs=0.06) and d[2] > 0.9
    same = np.repeat(r[:, :1], 3, axis=1)
    np.testing.assert_allclose(correlation_discount(same, np.array([99]), np.ones((1, 3), dtype=bool), P), 0.5)
    assert (correlation_discount(r, np.array([0]), np.ones((1, 3), dtype=bool), P) == 1.0).all()  # nothing to measure


def test_adaptive_leverage_stays_in_its_bounds() -> None:
    rng = np.random.default_rng(2)
    for scale, expected in ((1e-5, 2.0), (0.2, 0.5), (0.15 / np.sqrt(252), None)):
        x = adaptive_leverage(scale * rng.standard_normal((50, 1)), np.array([49]), np.ones((1, 1), dtype=bool), P)[0]
        assert x == expected if expected else 0.6 < x < 1.6


def test_regime_blend_moves_sizes_by_confidence_and_no_sign() -> None:
    table = sector_table(pd.Series(["Equities", "Metals", "unheard of"]))
    c = np.array([[0.2, -0.1, 0.3]])
    assert (blend_regime(c, table, np.array([2]), np.array([0.0])) == c).all()
    full = blend_regime(c, table, np.array([2]), np.array([1.0]))
    np.testing.assert_allclose(full, [[0.1, -0.12, 0.3]])
    assert (table > 0.0).all()


def test_telemetry_is_clipped_then_scaled_to_a_gross_of_two_with_wrappers_folded() -> None:
    s = np.array([[[1.0, 0.1, 0.5]]])
    args = (s, np.full((1, 1), 0.1), np.full((1, 1), 0.5), np.ones((1, 1), dtype=bool))
    plain = telemetry_vector(*args, None, np.ones(3), P)[0]
    np.testing.assert_allclose(plain, 2.0 * np.array([0.4, 0.1, 0.4]) / 0.9)
    folded = telemetry_vector(*args, np.array([0, 1, 1]), np.ones(3), P)[0]
    np.testing.assert_allclose(folded, 2.0 * np.array([0.4, 0.4, 0.0]) / 0.8)


def test_telemetry_is_not_executed(walk: WalkForward) -> None:
    other = run_legacy(PANEL, FOUR, params=LegacyParams(telemetry_clip=0.01, telemetry_gross=9.0))
    for name in NUMBERS:
        pd.testing.assert_frame_equal(getattr(walk, name), getattr(other, name))


# ---------------------------------------------------------------- optimiser


def test_every_series_is_cut_to_the_shortest_history() -> None:
    rng = np.random.default_rng(0)
    r = 0.01 * rng.standard_normal((200, 5))
    r[:170, 3] = np.nan
    rows, wanted = np.array([199]), np.ones((1, 5), dtype=bool)
    used = usable_symbols(r, wanted, rows, P)
    bars = truncated_bars(first_quotes(r), used, rows, 60)
    assert used.all() and bars.tolist() == [30]
    np.testing.assert_allclose(legacy_covariances(r, used, bars, rows)[0], ledoit_wolf(r[170:])[0], rtol=1e-12)
    wanted[0, 3] = False
    used = usable_symbols(r, wanted, rows, P)
    bars = truncated_bars(first_quotes(r), used, rows, 60)
    cov = legacy_covariances(r, used, bars, rows)[0]
    assert bars.tolist() == [60] and (cov[3] == 0.0).all()
    keep = [0, 1, 2, 4]
    np.testing.assert_allclose(cov[np.ix_(keep, keep)], ledoit_wolf(r[140:][:, keep])[0], rtol=1e-12)


def test_a_market_with_too_few_bars_or_none_is_left_out() -> None:
    r = 0.01 * np.random.default_rng(0).standard_normal((200, 4))
    r[:185, 0], r[140:, 1] = np.nan, np.nan
    used = usable_symbols(r, np.ones((1, 4), dtype=bool), np.array([199]), P)
    assert used[0].tolist() == [False, False, True, True]
    book = legacy_book(r, np.ones((1, 4)), np.array([199]), P)
    assert (book.book[0, :2] == 0.0).all() and book.bars.tolist() == [60]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.sampled_from([0.25, 0.4, 1.0]))
def test_daily_minimum_variance_is_the_optimum_of_each_day(seed: int, m: int, upper: float) -> None:
    rng = np.random.default_rng(seed)
    r = 0.01 * (rng.standard_normal((75, 1)) + rng.standard_normal((75, m)) * rng.uniform(0.3, 2.0, m))
    rows = np.arange(59, 75)
    used = rng.random((16, m)) < 0.85
    used[:, 0] = True
    covs = legacy_covariances(r, used, np.full(16, 60), rows)
    w = daily_min_variance(covs, used, upper)
    for day in range(16):
        on = np.flatnonzero(used[day])
        expected = min_variance(covs[day][np.ix_(on, on)], upper=max(upper, 1.0 / len(on)))
        np.testing.assert_allclose(w[day, on], expected, atol=1e-9)
        assert w[day, ~used[day]].sum() == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_only_the_sign_of_conviction_survives(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    r, c = 0.01 * rng.standard_normal((80, 6)), rng.standard_normal((3, 6))
    rows = np.array([70, 75, 79])
    a, b = legacy_book(r, c, rows, P), legacy_book(r, np.sign(c) * scale * rng.random((3, 6)), rows, P)
    np.testing.assert_array_equal(a.book, b.book)
    assert (np.sign(a.book) * np.sign(c) >= 0.0).all()


def test_leverage_aims_at_fifteen_per_cent_within_its_bounds() -> None:
    rng = np.random.default_rng(0)
    shocks, c, rows = rng.standard_normal((80, 5)), np.ones((1, 5)), np.array([79])
    for scale, expected in ((1e-4, 3.0), (0.2, 0.25)):
        assert legacy_book(scale * shocks, c, rows, P).leverage[0] == expected
    mid = legacy_book(0.02 * shocks, c, rows, P)
    assert 0.25 < mid.leverage[0] < 3.0
    assert np.sqrt(252 * mid.book[0] @ mid.cov[0] @ mid.book[0]) == pytest.approx(0.15)


# ---------------------------------------------------------------- orders


def test_one_missing_quote_makes_the_metadata_volatility_zero() -> None:
    r = 0.01 * np.random.default_rng(0).standard_normal((60, 3))
    r[50, 1] = np.nan
    vol = metadata_vol(r, np.array([5, 49, 59]), 21)
    assert (vol[0] == 0.0).all() and (vol[1] > 0.0).all() and vol[2].tolist()[1] == 0.0
    np.testing.assert_allclose(vol[1], r[29:50].std(axis=0) * np.sqrt(252), rtol=1e-9)


def test_a_zero_volatility_drops_the_order_silently_and_the_position_stays() -> None:
    held = np.array([[0.1, 0.1, 0.05]])
    got = plan_orders(np.array([-0.3, -0.3, 0.0]), np.array([0.2, 0.0, 0.0]), np.ones(1), held, P)
    assert got.dropped.tolist() == [False, True, False]
    assert got.target[0, 1] == 0.1  # a long against a short signal
    assert got.target[0, 0] == pytest.approx(-0.3 * 0.15 / 0.2 * 0.5)
    assert got.target[0, 2] == 0.0  # no signal: a stale position is closed


def test_size_is_scaled_again_by_volatility_kelly_and_throttle_then_capped() -> None:
    book, vol = np.array([0.2, 0.2, 3.0]), np.array([0.30, 0.15, 0.05])
    got = plan_orders(book, vol, np.array([1.0, 0.5]), np.zeros((2, 3)), P)
    np.testing.assert_allclose(got.target, [[0.05, 0.1, 0.15], [0.025, 0.05, 0.15]])
    assert got.capped.all() and not got.ceiling.any()  # the cap comes after the throttle and hides it


def test_gross_ceiling_serves_the_first_names_first() -> None:
    book = np.full(30, 3.0) * np.where(np.arange(30) % 2, -1.0, 1.0)
    got = plan_orders(book, np.full(30, 0.1), np.ones(1), np.zeros((1, 30)), P)
    assert got.ceiling.all() and np.abs(got.target).sum() == pytest.approx(3.0)
    np.testing.assert_allclose(np.abs(got.target[0, :20]), 0.15)
    np.testing.assert_allclose(got.target[0, 20:], 0.0, atol=1e-12)


def test_dust_is_closed_out() -> None:
    got = plan_orders(np.array([0.0015, 0.01]), np.array([0.15, 0.15]), np.ones(1), np.array([[0.0005, 0.0]]), P)
    assert got.target[0].tolist() == [0.0, 0.005]


def test_the_only_brake_is_a_cliff() -> None:
    dd = np.array([0.0, 0.05, 0.085, 0.1199, 0.12, 0.1499, 0.15, 0.5])
    assert throttle_of(dd, P).tolist() == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.0, 0.0]


def test_flat_until_an_operator_re_arms_from_a_new_mark() -> None:
    state = KillState(np.array([100.0]), np.array([-1]), np.zeros(1, dtype=np.int64))
    seen = []
    for t in range(40):
        throttle, state = read_kill_tier(state, np.array([84.0]), t, P)
        seen.append(float(throttle[0]))
    assert seen == [0.0] * 20 + [1.0] * 20
    assert state.mark.tolist() == [84.0] and state.rearmed.tolist() == [1]


def test_throttle_zero_closes_dropped_positions_too() -> None:
    got = plan_orders(np.array([0.3, 0.3]), np.array([0.2, 0.0]), np.zeros(1), np.array([[0.1, 0.1]]), P)
    assert (got.target == 0.0).all()


# ---------------------------------------------------------------- the walk


def test_columns_and_what_does_not_exist(walk: WalkForward) -> None:
    assert walk.names == ("legacy", "lag1", "cost0", "cost2")
    for name in NUMBERS:
        assert np.isfinite(getattr(walk, name).to_numpy()).all(), name
    assert walk.governor.isna().all().all() and walk.erc_divergence.isna().all().all()
    assert all(w.isna().all().all() for w in walk.sleeve_weights.values())
    assert walk.binding.loc["legacy", ["governor", "band", "gate", "net"]].isna().all()
    assert walk.binding.loc["legacy", "name"] > 0
    assert (walk.costs["cost0"] == 0.0).all() and (walk.costs["cost2"] > walk.costs["legacy"]).mean() > 0.9
    assert walk.meta["config_fingerprints"] == {} and walk.meta["legacy"]["dropped_share"] > 0.0
    picked = walk.select({"lag1": "x"})
    pd.testing.assert_series_equal(picked.returns["x"], walk.returns["lag1"], check_names=False)


@pytest.mark.parametrize("window", [(None, None), (270, 300)])
def test_sessions_are_those_of_run_tracks(window: tuple[int | None, int | None]) -> None:
    start, end = (None if i is None else PANEL.dates[i] for i in window)
    mine, theirs = run_legacy(PANEL, start=start, end=end), run_tracks(PANEL, [Track(name="x", config=PILConfig())],
                                                                       start=start, end=end)
    assert mine.dates.equals(theirs.dates)


def test_every_order_is_solved_again_every_session(walk: WalkForward) -> None:
    e, ret = walk.exposures["legacy"].to_numpy(), PANEL.returns.loc[walk.dates].fillna(0.0).to_numpy()
    held = e[:-1] * (1.0 + ret[:-1]) / (1.0 + walk.returns["legacy"].to_numpy()[:-1])[:, None]
    turn = 0.5 * np.abs(e[1:] - held).sum(axis=1)
    np.testing.assert_allclose(turn, walk.turnover["legacy"].to_numpy()[1:], atol=1e-14)
    assert (turn > 0.0).all()


def test_more_visits_trade_more_and_five_are_refused() -> None:
    one, four = (run_legacy(PANEL, params=LegacyParams(slots=n)) for n in (1, 4))
    assert four.turnover.to_numpy()[1:].sum() > one.turnover.to_numpy()[1:].sum()
    np.testing.assert_allclose(four.returns, four.gross_returns - four.costs, atol=1e-15)
    np.testing.assert_allclose((1.0 + four.returns).prod() * 5e6, four.equity.iloc[-1], rtol=1e-12)
    with pytest.raises(InputError, match="slots must be 1 to 4") as caught:
        LegacyParams(slots=5)
    assert caught.value.code == "BAD_SLOTS"


def test_the_executed_book_does_not_know_the_regime(walk: WalkForward) -> None:
    off = run_legacy(replace(PANEL, regime=None), FOUR)
    for name in NUMBERS:
        pd.testing.assert_frame_equal(getattr(walk, name), getattr(off, name))
    row = np.array([300])
    on, without = (plan_sessions(LegacyHistory(p), row).signals for p in (PANEL, replace(PANEL, regime=None)))
    assert (on.conviction != without.conviction).any()


def test_expanding_window_changes_nothing(walk: WalkForward) -> None:
    other = run_legacy(PANEL, FOUR, config=PILConfig().replace(**{"covariance.window": 0}))
    pd.testing.assert_frame_equal(walk.returns, other.returns)


def test_demoted_and_unpromoted_strategies_are_left_out() -> None:
    days = PANEL.dates
    facts = PANEL.sleeves.assign(promoted_on=[days[290], pd.NaT, pd.NaT, pd.NaT], demoted_on=[pd.NaT, days[300], pd.NaT, pd.NaT])
    history = LegacyHistory(replace(PANEL, sleeves=facts))
    live = plan_sessions(history, np.array([288, 289, 298, 299])).signals.live
    assert live[:, 0].tolist() == [False, True, True, True] and live[:, 1].tolist() == [True, True, True, False]


def test_flat_book_after_a_crash_and_back_again() -> None:
    crash = PANEL.returns.copy()
    w = run_legacy(PANEL, keep_exposures=("legacy",))
    at = PANEL.dates.get_loc(w.dates[20])
    signs = np.sign(w.exposures["legacy"].to_numpy()[20])
    crash.iloc[at] = np.where(np.abs(signs) > 0, -0.35 * signs, 0.0)
    hit = run_legacy(replace(PANEL, returns=crash))
    assert hit.returns["legacy"].iloc[20] < -0.15
    gross = hit.gross_exposure["legacy"].to_numpy()
    assert (gross[21:41] == 0.0).all() and gross[41] > 0.0
    assert hit.meta["legacy"]["rearmed"] == {"legacy": 1}
    assert (hit.throttle["legacy"].iloc[21:41] == 0.0).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_point_in_time(seed: int) -> None:
    """Data dated t or later do not touch the decision of session t."""
    rng = np.random.default_rng(seed)
    base = run_legacy(PANEL, keep_exposures=("legacy",))
    t = int(rng.integers(265, 320))
    returns, regime = PANEL.returns.copy(), PANEL.regime.copy()
    returns.iloc[t:] = np.where(rng.random(returns.iloc[t:].shape) < 0.2, np.nan, rng.normal(0, 0.05, returns.iloc[t:].shape))
    regime.iloc[t:] = ["crisis", 1.0]
    targets = {k: v.copy() for k, v in PANEL.targets.items()}
    for frame in targets.values():
        frame.iloc[t:] = rng.normal(0, 9.0, frame.iloc[t:].shape)
    poisoned = run_legacy(replace(PANEL, returns=returns, regime=regime, targets=targets), keep_exposures=("legacy",))
    n = base.dates.get_loc(PANEL.dates[t])
    np.testing.assert_array_equal(base.exposures["legacy"].to_numpy()[: n + 1], poisoned.exposures["legacy"].to_numpy()[: n + 1])
    np.testing.assert_array_equal(base.returns.to_numpy()[:n], poisoned.returns.to_numpy()[:n])
    assert (base.returns.to_numpy()[n:] != poisoned.returns.to_numpy()[n:]).any()


@pytest.mark.parametrize("cost_scale", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("lag", [0, 1])
def test_bookkeeping_is_that_of_run_tracks(lag: int, cost_scale: float) -> None:
    """The exposures of PIL through this account give PIL's returns, costs, turnover and equity."""
    info = PANEL.instruments.assign(kind=["future", "etf"] * 4, impact_bps=1.5)
    info.loc[info.index[:2], "adv_usd"] = np.nan
    panel, carry = replace(PANEL, instruments=info), CarryCosts(financing=0.03, borrow=0.02)
    w = run_tracks(panel, [Track(name="x", config=FAST, lag=lag, cost_scale=cost_scale)], keep_exposures=("x",), carry=carry)
    account = LegacyAccount(LegacyHistory(panel, P, FAST), [LegacyTrack(lag=lag, cost_scale=cost_scale)], 5e6, carry)
    first, rows = panel.dates.get_loc(w.dates[0]), []
    for j, e in enumerate(w.exposures["x"].to_numpy()):
        net, costs, turnover = account.settle(first + j, e[None])
        rows.append([net[0], costs[0], turnover[0], account.equity[0] / 5e6])
    want = np.stack([w.returns["x"], w.costs["x"], w.turnover["x"], w.equity["x"] / 5e6], axis=1)
    np.testing.assert_allclose(np.array(rows), want, rtol=0.0, atol=1e-13)
    assert (w.costs["x"].sum() > 0.0) == (cost_scale > 0.0)


@pytest.mark.parametrize(("bad", "code"), [({"lag": 2}, "BAD_LAG"), ({"cost_scale": float("nan")}, "BAD_COST")])
def test_bad_tracks_are_refused(bad: dict[str, float], code: str) -> None:
    with pytest.raises(InputError, match="must be") as caught:
        LegacyTrack(**bad)
    assert caught.value.code == code
    with pytest.raises(InputError, match="different names"):
        run_legacy(PANEL, [LegacyTrack(), LegacyTrack()])
    with pytest.raises(InputError, match="keep_exposures must name tracks"):
        run_legacy(PANEL, keep_exposures=("x",))


def test_blocks_of_sessions_leave_no_trace(walk: WalkForward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pil_research.research.legacy._NUMBERS_A_BLOCK", 7 * 64)
    small = run_legacy(PANEL, FOUR, keep_exposures=("legacy",))
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(small, name), getattr(walk, name), rtol=1e-9, atol=1e-12)


def test_one_track_does_not_know_its_neighbours(walk: WalkForward) -> None:
    alone = run_legacy(PANEL, [LegacyTrack(cost_scale=2.0)])
    np.testing.assert_allclose(alone.returns["legacy"], walk.returns["cost2"], rtol=0.0, atol=1e-15)


# ---------------------------------------------------------------- the ladder


@pytest.fixture(scope="module")
def study() -> LadderStudy:
    return ladder_study(PANEL, FAST, rungs=("legacy", "HRP", "1/N-risk"))


def test_legacy_is_the_last_rung_under_every_variant(study: LadderStudy) -> None:
    assert study.rungs == ("HRP", "1/N-risk", "legacy")
    for name in VARIANTS:
        w = getattr(study, name)
        assert tuple(w.names) == study.rungs and w.returns.notna().all().all() and w.dates.equals(study.base.dates)
    for same in ("expanding", "no_regime"):
        pd.testing.assert_series_equal(getattr(study, same).returns["legacy"], study.base.returns["legacy"])
    own = run_legacy(PANEL, FOUR, config=FAST)
    for name, track in (("base", "legacy"), ("lag1", "lag1"), ("cost0", "cost0"), ("cost2", "cost2")):
        np.testing.assert_array_equal(getattr(study, name).returns["legacy"], own.returns[track])


def test_legacy_changes_no_other_rung(study: LadderStudy) -> None:
    without = ladder_study(PANEL, FAST, rungs=("HRP", "1/N-risk"))
    assert without.rungs == ("HRP", "1/N-risk") and without.panel_facts["legacy"] is None
    pd.testing.assert_frame_equal(without.base.returns, study.base.returns[["HRP", "1/N-risk"]])


def test_legacy_is_no_trial() -> None:
    assert "legacy" not in RUNGS
    assert {t.name.split("|")[0] for t in ladder_tracks()} == set(RUNGS)
    assert [t.name for t in ladder_tracks(rungs=("legacy",))] == []
    with pytest.raises(InputError, match="rungs must be among") as caught:
        ladder_tracks(rungs=("HRP", "magic"))
    assert caught.value.code == "UNKNOWN_RUNG"


def test_the_whole_ladder_has_nine_rungs() -> None:
    w = ladder_study(PANEL, FAST, end=PANEL.dates[262])
    assert w.rungs == (*RUNGS, "legacy")
    assert [t.name for t in w.base.tracks][-1] == "base" and len(w.base.tracks) == 9
    pd.testing.assert_series_equal(w.base.select({"legacy": "x"}).returns["x"], w.base.returns["legacy"], check_names=False)


def test_the_page_and_the_result_take_what_does_not_exist(study: LadderStudy, tmp_path: Path) -> None:
    result = ladder_result(study, kelly=0.5, n_draws=300)
    rungs = result.rungs
    assert np.isnan(rungs.loc["legacy", "effective_n"]) and np.isnan(rungs.loc["legacy", "weight_noise"])
    assert np.isfinite(rungs.loc["HRP", ["effective_n", "weight_noise"]].astype(float)).all()
    assert rungs.loc["legacy", "net_sharpe_lag0"] == pytest.approx(sharpe(study.base.returns["legacy"]))
    assert result.vols.loc["legacy", "executed_target"] == pytest.approx(0.075)
    html = ladder_html(result, study, panel_facts(PANEL))
    assert "The replaced path" in html and "trial ledger does not count it" in html and ">nan<" not in html.lower()
    assert "Orders dropped because the realised volatility was 0" in html
    assert ladder_json(result)["rungs"]["legacy"]["effective_n"] is None
    out = write_ladder_run(result, study, panel_facts(PANEL), FAST, tmp_path, run_id="20260302T203000Z-3f9c1a")
    assert "legacy" in ladder_text(out)
    weights = pd.read_parquet(tmp_path / "data" / "weights.parquet")
    assert set(weights["rung"]) == {"HRP", "1/N-risk"}
    assert "legacy" in pd.read_parquet(tmp_path / "data" / "net_returns_lag0.parquet").columns


def test_a_study_without_it_has_no_such_section(study: LadderStudy) -> None:
    parts = {v: getattr(study, v).select({n: n for n in ("HRP", "1/N-risk")}) for v in VARIANTS}
    bare = LadderStudy(rungs=("HRP", "1/N-risk"), panel_facts=study.panel_facts, **parts)
    html = ladder_html(ladder_result(bare, kelly=0.5, n_draws=200), bare, panel_facts(PANEL))
    assert "The replaced path" not in html
    lag0 = compare(bare.base, n_draws=200)
    assert list(rung_table(bare, lag0, lag0).index) == ["HRP", "1/N-risk"]


# ---------------------------------------------------------------- W1 to W10


@pytest.fixture(scope="module")
def panel() -> Panel:
    return example_panel()


ROWS: dict[str, Callable[[float, float], bool]] = {
    "W1": lambda old, new: abs(old - 0.5) < 0.02 and abs(new - 1.0) < 0.05,
    "W2": lambda old, new: old == 1.0 and abs(new - 0.6) < 1e-9,
    "W3": lambda old, new: old > 0.7 and new < 0.3,
    "W4": lambda old, new: 1.45 < old < 1.7 and new < old - 0.1,  # mended in part only
    "W5": lambda old, new: old < 7.0 and new > 14.0,
    "W6a": lambda old, new: old > 0.15 and new < 1e-12,
    "W6b": lambda old, new: old == 1.0 and new == 0.0,
    "W7": lambda old, new: abs(old - 1.0) < 1e-12 and abs(new - 2 / 3) < 0.05,
    "W8": lambda old, new: old > 0.95 and new < 0.25,
    "W9": lambda old, new: abs(old - 1.0) < 1e-3 and new < 0.65,
    "W10": lambda old, new: abs(old - 1.0) < 1e-12 and new > 1.5}


@pytest.mark.parametrize("show", DEMONSTRATIONS, ids=lambda f: f.__name__)
def test_each_weakness_on_the_replaced_path_and_its_absence_on_pil(show: Callable[[Panel], Weakness], panel: Panel) -> None:
    w = show(panel)
    assert ROWS[w.id](w.legacy, w.pil), (w.id, w.legacy, w.pil)
    assert w.reading and w.measure


def test_the_table_has_every_weakness(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = tuple((lambda p, i=i: Weakness(id=i, weakness="w", measure="m", legacy=1.0, pil=0.0, reading="r")) for i in ROWS)
    monkeypatch.setattr("pil_research.research.weaknesses.DEMONSTRATIONS", quick)
    table = weakness_table(PANEL)
    assert list(table.index) == list(ROWS) and list(table.columns) == ["weakness", "measure", "legacy", "pil", "reading"]
    assert {f.__name__.split("_")[0].upper() for f in DEMONSTRATIONS} == {f"W{i}" for i in range(1, 11)}
