"""The five seed sleeves: point in time, unit gross, each rule against a slow copy, and the figures in the notebooks."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.research import seed_sleeves as ss
from pil_research.research import sleeve_carry as carry
from pil_research.research import sleeve_macro as macro_rules
from pil_research.research import sleeve_pairs as pairs
from pil_research.research import sleeve_parts as parts
from pil_research.research import sleeve_trend as trend
from pil_research.research import sleeve_vol_premium as vol
from pil_research.research.panel_frames import panel_from_frames
from pil_research.research.sleeves import ewma_sigma, scaled_sleeve_returns
from pil_research.types import InputError

DAYS = 1300
FUTURES = {"GOLD": "metals", "SILVER": "metals", "PLAT": "metals", "CRUDE_W": "energy", "HEATOIL": "energy",
           "GAS_US": "energy", "CORN": "ags", "SOYBEAN": "ags", "COCOA": "ags", "SP500": "equity", "US10": "rates",
           "EUR": "fx", "VIX": "vol"}
FUNDS = {"GLD": "gold", "SLV": "silver", "IAU": "gold", "GDX": "miners", "CORN": "ags", "SPY": "equity", "TLT": "rates",
         "UUP": "fx", "VIXY": "vol", "DBMF": "managed_futures"}
NAMES = {"futures": {c: c for c in FUTURES}, "etf": {c: "CORN.ETF" if c == "CORN" else c for c in FUNDS}}


def tables(classes: dict[str, str], seed: int) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2012-01-02", periods=DAYS, name="date")
    n = len(classes)
    values = rng.normal(0.0, 0.01, (DAYS, n)) + rng.normal(0.0, 0.006, (DAYS, 1))
    values[:, [k == "vol" for k in classes.values()]] *= 4.0
    values[rng.random(values.shape) < 0.02] = np.nan
    values[: 200, 1] = np.nan  # a late start
    returns = pd.DataFrame(values, index=dates, columns=list(classes))
    quoted = returns.notna()
    tradable = (quoted.cumsum() >= 252) & (quoted.rolling(5, min_periods=1).sum() > 0)
    curve = np.repeat(rng.normal(0.0, 0.1, (DAYS // 50 + 1, n)), 50, axis=0)[:DAYS] + rng.normal(0, 0.02, (DAYS, n))
    curve[:, [k == "vol" for k in classes.values()]] -= 0.2
    info = pd.DataFrame({"asset_class": pd.Series(classes)})
    info["primary"] = ["GLD" if c == "IAU" else c for c in classes]
    return SimpleNamespace(returns=returns, tradable=tradable, info=info, carry=pd.DataFrame(
        np.where(rng.random(curve.shape) < 0.6, curve, np.nan), index=dates, columns=list(classes)))


def series(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0.0, 0.03, (DAYS, 4)), axis=0)
    return pd.DataFrame({"DGS2": 2.0 + walk[:, 0], "T10YIE": 2.0 + walk[:, 1], "TBILL13W": 1.5 + walk[:, 2],
                         "VIX": 24.0 + 3.0 * np.sin(np.arange(DAYS) / 30.0) + rng.normal(0.0, 0.3, DAYS)},
                        index=pd.bdate_range("2012-01-02", periods=DAYS, name="date"))


F, E, MACRO = tables(FUTURES, 1), tables(FUNDS, 2), series(3)
INDEX = pd.DatetimeIndex(F.returns.index)
KINDS = {"futures": (F, None), "etf": (None, E), "both": (F, E)}
CLEAN: dict[str, np.ndarray] = {}  # what each rule gives on the futures above, by name
MADE = {k: ss.seed_sleeves(f, e, MACRO, INDEX, names=NAMES) for k, (f, e) in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_which_sleeves_there_are(kind: str) -> None:
    targets, table = MADE[kind]
    assert list(table.index) == sorted(targets)
    assert set(targets) == set(ss.SEED_SLEEVES) - ({"carry"} if kind == "etf" else set())
    assert set(table["role"]) <= {"defensive", "cyclical", "neutral"}
    assert (table["capacity"] > 0.0).all() and table["description"].str.len().min() > 10


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_unit_gross_flat_or_absent(kind: str) -> None:
    for name, table in MADE[kind][0].items():
        gross = np.abs(table.to_numpy()).sum(axis=1)
        absent = np.isnan(gross)
        assert np.isnan(table.to_numpy()[absent]).all(), name
        assert np.isfinite(table.to_numpy()[~absent]).all(), name
        assert np.all(np.isclose(gross[~absent], 1.0, atol=1e-12) | (gross[~absent] == 0.0)), name
        assert not np.any(np.diff(absent.astype(int)) > 0), name  # once started, never absent again
        assert (gross[~absent] > 0.0).any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_they_make_a_panel(kind: str) -> None:
    targets, table = MADE[kind]
    f, e = KINDS[kind]
    parts_ = [m.returns.rename(columns=NAMES[k]) for k, m in (("futures", f), ("etf", e)) if m is not None]
    classes = pd.concat([m.info["asset_class"].rename(index=NAMES[k])
                         for k, m in (("futures", f), ("etf", e)) if m is not None])
    panel = panel_from_frames(pd.concat(parts_, axis=1), targets, classes.to_frame(), sleeves=table)
    assert panel.sleeve_ids == tuple(sorted(targets))


def spliced(a: pd.DataFrame, b: pd.DataFrame, cut: int) -> pd.DataFrame:
    return pd.concat([a.iloc[:cut], b.iloc[cut:]])


@pytest.mark.parametrize("what", ["returns", "tradable", "carry", "macro", "all"])
@pytest.mark.parametrize("cut", [500, 1001])
def test_nothing_dated_later_is_used(what: str, cut: int) -> None:
    def poisoned(market: SimpleNamespace, other: SimpleNamespace) -> SimpleNamespace:
        tables_ = {k: spliced(getattr(market, k), getattr(other, k), cut) if what in (k, "all") else getattr(market, k)
                   for k in ("returns", "tradable", "carry")}
        return SimpleNamespace(info=market.info, **tables_)

    other_f, other_e, other_macro = tables(FUTURES, 11), tables(FUNDS, 12), series(13)
    for o in (other_f, other_e):
        o.returns *= 30.0
        o.returns.iloc[:, 3] = np.nan
    known = spliced(MACRO, other_macro * 100.0 - 300.0, cut) if what in ("macro", "all") else MACRO
    for kind, (f, e) in KINDS.items():
        after, _ = ss.seed_sleeves(None if f is None else poisoned(f, other_f), None if e is None else poisoned(
            e, other_e), known, INDEX, names=NAMES)
        for name, table in MADE[kind][0].items():
            assert table.iloc[:cut].equals(after[name].iloc[:cut]), (kind, name)


@pytest.mark.parametrize("cut", [700, 1111])
def test_a_shorter_history_gives_the_same_rows(cut: int) -> None:
    def short(m: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(info=m.info, **{k: getattr(m, k).iloc[:cut] for k in ("returns", "tradable", "carry")})

    after, table = ss.seed_sleeves(short(F), short(E), MACRO.iloc[:cut], INDEX[:cut], names=NAMES)
    for name, target in after.items():
        assert target.equals(MADE["both"][0][name].iloc[:cut]), name
        whole = MADE["both"][1].loc[name, "promoted_on"]
        assert table.loc[name, "promoted_on"] == whole or min(table.loc[name, "promoted_on"], whole) > INDEX[cut - 1]


@settings(max_examples=6, deadline=None)
@given(st.integers(300, DAYS - 1), st.integers(0, len(FUTURES) - 1), st.sampled_from([np.nan, 0.0, -0.97, 3.0]))
def test_one_bad_print_changes_nothing_before_it(row: int, column: int, value: float) -> None:
    returns = F.returns.to_numpy().copy()
    returns[row, column] = value
    classes, labels = pd.Series(FUTURES), list(FUTURES)
    rules = {
        "trend": lambda r: trend.ewmac_trend(r, classes, INDEX),
        "carry": lambda r: carry.curve_carry(r, F.carry.to_numpy(), classes, INDEX),
        "pairs": lambda r: pairs.spread_pairs(r, labels),
        "vol": lambda r: vol.vol_premium(r, labels, INDEX, vix=MACRO["VIX"].to_numpy()),
        "macro": lambda r: macro_rules.macro_momentum(r, classes, labels, INDEX, MACRO)}
    for name, rule in rules.items():
        clean = CLEAN[name] if name in CLEAN else rule(F.returns.to_numpy())
        dirty = rule(returns)
        CLEAN[name] = clean
        assert np.array_equal(clean[:row], dirty[:row], equal_nan=True), name
        assert np.isfinite(dirty[row:]).all(), name


def test_events_are_not_known_the_day_before() -> None:
    """Cuts right after a sleeve trades: a rule that looked one bar ahead would move that row."""
    labels, clean, rng = list(FUTURES), F.returns.to_numpy(), np.random.default_rng(21)
    vix, curve = MACRO["VIX"].to_numpy(), F.carry["VIX"].to_numpy()
    noise = rng.normal(0.0, 0.2, clean.shape)
    for name in ("pairs", "vol"):
        def rule(r: np.ndarray, v: np.ndarray, c: np.ndarray, name: str = name) -> np.ndarray:
            return (pairs.spread_pairs(r, labels) if name == "pairs"
                    else vol.vol_premium(r, labels, INDEX, vix=v, curve=c))

        before = rule(clean, vix, curve)
        events = np.flatnonzero((np.diff(before, axis=0) != 0.0).any(axis=1)) + 1
        assert len(events) >= 10, name
        for e in events[:: len(events) // 5]:
            late = np.arange(DAYS) > e
            for level in (5.0, 90.0):
                after = rule(np.where(late[:, None], noise, clean), np.where(late, level, vix),
                             np.where(late, level - 50.0, curve))
                assert np.array_equal(before[: e + 1], after[: e + 1]), (name, e)


def test_a_market_without_a_single_quote_is_harmless() -> None:
    empty = F.returns.to_numpy().copy()
    empty[:, [0, 5, 12]] = np.nan
    classes, labels = pd.Series(FUTURES), list(FUTURES)
    weights = [trend.ewmac_trend(empty, classes, INDEX), pairs.spread_pairs(empty, labels),
               carry.curve_carry(empty, F.carry.to_numpy(), classes, INDEX),
               macro_rules.macro_momentum(empty, classes, labels, INDEX, MACRO)]
    for w in weights:
        assert np.isfinite(w).all() and (w[:, [0, 5, 12]] == 0.0).all() and np.abs(w).sum() > 0.0
    assert (vol.vol_premium(empty, labels, INDEX, vix=MACRO["VIX"].to_numpy()) == 0.0).all()


# --- parts -----------------------------------------------------------------------------------------------------------

def test_risk_weights_share_a_group_and_floor_the_volatility() -> None:
    sigma = np.array([[0.20, 0.10, 0.01]]) / np.sqrt(252.0)
    groups = pd.Series(["metals", "metals", "rates"])
    w = parts.risk_weights(np.array([[1.0, -2.0, 1.0]]), sigma, np.ones((1, 3), dtype=bool), groups)
    np.testing.assert_allclose(w, [[0.5 / 0.20, -2.0 * 0.5 / 0.10, 1.0 / 0.05]])
    alone = parts.risk_weights(np.ones((1, 3)), sigma, np.array([[True, False, True]]), groups)
    np.testing.assert_allclose(alone, [[1.0 / 0.20, 0.0, 1.0 / 0.05]])


def test_usable_drops_calm_markets_and_classes_without_a_group() -> None:
    sigma = np.array([[0.20, 0.012, 0.70, np.nan]]) / np.sqrt(252.0)
    groups = parts.groups_of(pd.Series(["gold", "rates", "vol", "fx"]))
    assert parts.usable(sigma, sigma, groups, np.ones((1, 4), dtype=bool)).tolist() == [[True, False, False, False]]


def test_buffer_against_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    wanted = np.cumsum(rng.normal(0.0, 0.05, (200, 3)), axis=0)
    typical = np.full((200, 3), 0.7)
    typical[120:, 2] = 0.0
    wanted[120:, 2] = 0.0
    weekly = np.arange(200) % 5 == 2
    got = parts.buffered(wanted, typical, weekly)
    held, expected = [0.0, 0.0, 0.0], np.full((200, 3), np.nan)
    for t in range(200):
        if weekly[t]:
            for i in range(3):
                if typical[t, i] == 0.0:
                    held[i] = 0.0
                elif held[i] > wanted[t, i] + 0.07:
                    held[i] = wanted[t, i] + 0.07
                elif held[i] < wanted[t, i] - 0.07:
                    held[i] = wanted[t, i] - 0.07
        if t >= 2:
            expected[t] = np.array(held) / sum(map(abs, held)) if any(held) else 0.0
    np.testing.assert_allclose(got, expected, atol=1e-14)


def test_a_return_of_minus_everything_does_not_poison_the_index() -> None:
    index = parts.safe_index(np.array([[0.1], [-1.5], [0.1]]))
    assert np.isfinite(index).all() and index[1, 0] < -4.0


# --- trend -----------------------------------------------------------------------------------------------------------

def test_crossover_against_a_slow_loop() -> None:
    index = np.cumsum(np.random.default_rng(1).normal(0.0, 0.01, (300, 1)), axis=0)
    fast = slow = index[0, 0]
    for x in index[1:, 0]:
        fast += 2.0 / 17.0 * (x - fast)
        slow += 2.0 / 65.0 * (x - slow)
    got = trend.crossover(index, np.full(index.shape, 0.01), 16)[-1, 0]
    assert got == pytest.approx(np.clip(4.10 * (fast - slow) / 0.01, -20.0, 20.0), abs=1e-12)


def test_trend_is_long_what_rose_and_forecasts_are_capped() -> None:
    rng = np.random.default_rng(2)
    returns = rng.normal(0.0, 0.01, (900, 2)) + np.array([0.002, -0.002])
    w = trend.ewmac_trend(returns, pd.Series(["metals", "fx"]), INDEX[:900])
    assert w[-1, 0] > 0.0 > w[-1, 1]
    assert np.nanmax(np.abs(trend.trend_forecast(np.cumsum(returns, axis=0), ewma_sigma(returns)))) <= 20.0


# --- carry -----------------------------------------------------------------------------------------------------------

def test_smooth_carry_against_a_slow_loop() -> None:
    prints = F.carry.to_numpy()[:400, :3].copy()
    prints[150:, 1] = np.nan
    got = carry.smooth_carry(prints)
    for t in (5, 11, 60, 180, 230, 399):
        for i in range(3):
            window, recent = prints[max(0, t - 251): t + 1, i], prints[max(0, t - 62): t + 1, i]
            ok = np.isfinite(window).sum() >= 12 and np.isfinite(recent).any()
            np.testing.assert_allclose(got[t, i], np.nanmean(window) if ok else np.nan, rtol=1e-9)


def test_carry_has_no_net_risk_in_a_group_and_skips_thin_groups() -> None:
    classes = pd.Series(FUTURES)
    w = carry.curve_carry(F.returns.to_numpy(), F.carry.to_numpy(), classes, INDEX)
    thin = classes.isin(["equity", "rates", "fx", "vol"]).to_numpy()
    assert (np.nan_to_num(w[:, thin]) == 0.0).all()
    risk = w * np.maximum(ewma_sigma(F.returns.to_numpy()) * np.sqrt(252.0), 0.05)
    for group in ("metals", "energy", "ags"):
        inside = risk[600:, (classes == group).to_numpy()]
        assert np.abs(inside.sum(axis=1)).mean() < 0.25 * np.abs(inside).sum(axis=1).mean()  # the buffer leaves a little


# --- volatility premium ----------------------------------------------------------------------------------------------

def test_flat_on_the_day_the_curve_inverts_and_back_after_five_good_sessions() -> None:
    n = 400
    returns = np.column_stack([np.full(n, 0.001), np.where(np.arange(n) % 2 == 0, 0.04, -0.04)])
    curve = np.full(n, -0.5)
    curve[330] = 0.1
    w = vol.vol_premium(returns, ["SP500", "VIX"], INDEX[:n], vix=np.full(n, 18.0), curve=curve)[:, 1]
    assert w[329] == -1.0 and (w[330:335] == 0.0).all() and w[335] == -1.0
    dear = vol.vol_premium(returns, ["SP500", "VIX"], INDEX[:n], vix=np.full(n, 1.0), curve=curve)
    assert (dear == 0.0).all()


@given(st.floats(0.05, 2.0), st.sampled_from([1.0, -1.0, -0.5]))
@settings(max_examples=25, deadline=None)
def test_the_stress_limit_holds_whatever_the_volatility(annual: float, exposure: float) -> None:
    n = 500
    own = np.where(np.arange(n) % 2 == 0, 1.0, -1.0) * annual / np.sqrt(252.0)
    loss = vol.stress_loss(own, np.ones(n), np.full(n, exposure))[-1]
    assert loss == pytest.approx(0.10 * abs(exposure) / annual, rel=1e-6)
    returns = np.column_stack([np.full(n, 0.0005), own])
    w = vol.vol_premium(returns, ["SPY", "VIXY"], INDEX[:n], vix=np.full(n, 20.0), curve=np.full(n, -0.4))
    if abs(0.10 / annual - 0.30) > 1e-6:
        assert (w[-1, 1] == -1.0) == (0.10 / annual <= 0.30)


def test_the_inverse_fund_is_held_long_and_only_one_instrument_at_a_time() -> None:
    rng = np.random.default_rng(5)
    returns = np.column_stack([np.full(600, 0.001), rng.normal(0.0, 0.04, (600, 2))])
    ok = np.ones(returns.shape, dtype=bool)
    ok[400:, 1] = False
    w = vol.vol_premium(returns, ["SPY", "SVXY", "VIXY"], INDEX[:600], vix=np.full(600, 20.0),
                        curve=np.full(600, -0.4), ok=ok)
    assert w[399].tolist() == [0.0, 1.0, 0.0] and w[500].tolist() == [0.0, 0.0, -1.0]
    assert (np.abs(w).sum(axis=1) <= 1.0).all()


# --- macro -----------------------------------------------------------------------------------------------------------

def test_a_view_against_its_formula_and_a_dead_series_is_forgotten() -> None:
    level = MACRO["DGS2"].to_numpy()
    t = 900
    expected = (level[t] - level[t - 252]) / (np.diff(level[: t + 1]).std(ddof=1) * np.sqrt(252.0))
    assert macro_rules.macro_view(level)[t] == pytest.approx(np.clip(expected, -1.0, 1.0), rel=1e-9)
    dead = np.where(np.arange(DAYS) < 700, level, np.nan)
    assert np.isfinite(macro_rules.macro_view(dead)[700 + 60]) and np.isnan(macro_rules.macro_view(dead)[700 + 70])


def test_a_theme_falls_back_and_two_themes_are_needed() -> None:
    late = MACRO.assign(DGS2=MACRO["DGS2"].where(np.arange(DAYS) >= 600))
    view = macro_rules.theme_view(macro_rules.THEMES["policy"], late)
    np.testing.assert_array_equal(view[500], macro_rules.macro_view(MACRO["TBILL13W"].to_numpy())[500])
    alone = macro_rules.theme_scores(MACRO[["DGS2"]], pd.Series(FUTURES), list(FUTURES))
    assert np.isnan(alone).all()


def test_every_class_has_a_view_somewhere_and_the_dollar_fund_is_reversed() -> None:
    classes, symbols = pd.Series(["metals", "gold", "energy", "ags", "equity", "rates", "fx", "fx", "vol"]), [
        "IRON", "GLD", "CRUDE_W", "CORN", "SP500", "US10", "EUR", "UUP", "VIX"]
    signs = np.stack([macro_rules.theme_sign(t, classes, symbols) for t in macro_rules.THEMES.values()])
    assert (np.abs(signs).sum(axis=0) > 0.0).tolist() == [True] * 8 + [False]
    policy = macro_rules.theme_sign(macro_rules.THEMES["policy"], classes, symbols)
    assert policy[6] == -policy[7] == -1.0 and policy[0] == 0.0 and policy[1] == -1.0


# --- pairs -----------------------------------------------------------------------------------------------------------

def slow_states(z: np.ndarray, may: np.ndarray, alive: np.ndarray) -> list[float]:
    side, age, locked, out = 0.0, 0, False, []
    for value, can, live in zip(z, may, alive, strict=True):
        stopped = False
        if side != 0.0:
            age += 1
            gap = -side * value
            if gap > 4.0 or age > 126:
                side, locked, stopped = 0.0, True, True
            elif gap < 0.5:
                side = 0.0
        if not live:
            side = 0.0
        if abs(value) < 0.5:
            locked = False
        if side == 0.0 and not locked and not stopped and live and can and 2.0 < abs(value) < 4.0:
            side, age = -float(np.sign(value)), 0
        out.append(side)
    return out


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pair_states_against_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = np.zeros(600)
    for t in range(1, 600):
        z[t] = 0.97 * z[t - 1] + rng.normal(0.0, 0.5)
    z[rng.random(600) < 0.03] = np.nan
    may, alive = rng.random(600) < 0.7, rng.random(600) < 0.99
    got = pairs.pair_states(z[:, None], may[:, None], alive[:, None])[:, 0]
    assert got.tolist() == slow_states(z, may, alive)


def test_half_life_of_a_known_process_and_of_one_that_runs_away() -> None:
    rng = np.random.default_rng(6)
    x = np.zeros((4000, 1))
    for t in range(1, 4000):
        x[t] = 0.9 * x[t - 1] + rng.normal(0.0, 1.0)
    assert np.nanmedian(pairs.half_life(x)) == pytest.approx(6.58, abs=1.0)  # -ln 2 / ln 0.9
    assert np.isinf(pairs.half_life(1.01 ** np.arange(300.0)[:, None])[-1, 0])


def test_leg_weights_are_frozen_and_a_fund_pair_waits_for_its_future() -> None:
    sigma = np.abs(np.random.default_rng(7).normal(0.01, 0.001, (6, 2)))
    legs = pairs.frozen_legs(np.array([[0.0], [1.0], [1.0], [1.0], [-1.0], [0.0]]), sigma, [0], [1])
    assert legs[0][1, 0] == legs[0][3, 0] == pytest.approx(1.0 / (sigma[1, 0] * np.sqrt(252.0)))
    assert legs[1][4, 0] == pytest.approx(1.0 / (sigma[4, 1] * np.sqrt(252.0))) and legs[1][5, 0] == 0.0
    w = MADE["both"][0]["pairs"]
    assert (w["SLV"].fillna(0.0) == 0.0).all()  # its only pair here is gold and silver, and the futures quote


# --- together --------------------------------------------------------------------------------------------------------

def test_wrappers_strategies_and_substitutes_are_not_held() -> None:
    for name, table in MADE["both"][0].items():
        assert (table[["IAU", "DBMF"]].fillna(0.0) == 0.0).all().all(), name
    both, funds = MADE["both"][0]["trend"], MADE["etf"][0]["trend"]
    assert (both[["GLD", "SLV", "CORN.ETF", "SPY"]].fillna(0.0).iloc[500:] == 0.0).all().all()
    assert (both[["GDX", "TLT"]].iloc[500:].abs().sum() > 0.0).all()
    assert (funds[["GLD", "CORN.ETF", "SPY"]].abs().sum() > 0.0).all()


def test_the_fund_takes_over_where_the_future_ends() -> None:
    ended = SimpleNamespace(returns=F.returns.iloc[:900], tradable=F.tradable.iloc[:900], carry=F.carry.iloc[:900],
                            info=F.info)
    targets, _ = ss.seed_sleeves(ended, E, MACRO, INDEX, names=NAMES)
    assert (targets["trend"]["GLD"].iloc[400:895] == 0.0).all() and (targets["trend"]["GLD"].iloc[910:] != 0.0).any()
    assert (targets["carry"].iloc[910:] == 0.0).all().all()


def test_promotion_needs_sixty_bars_with_a_position() -> None:
    table = pd.DataFrame(np.nan, index=INDEX[:200], columns=["A"])
    table.iloc[50:] = 0.0
    table.iloc[60:80] = 1.0
    table.iloc[100:140] = -1.0
    assert ss.promotion_date(table) == INDEX[140]
    assert ss.promotion_date(table.iloc[:120]) == INDEX[119] + pd.Timedelta(days=1)


def test_funds_are_taken_in_excess_of_the_bill_rate_known_before() -> None:
    universe = ss.universe_of(None, E, MACRO, INDEX, names=NAMES)
    bill = MACRO["TBILL13W"].iloc[99] / 100.0 / 252.0
    np.testing.assert_allclose(universe.returns[100], E.returns.iloc[100].to_numpy() - bill)
    np.testing.assert_array_equal(ss.universe_of(F, None, MACRO, INDEX, names=NAMES).returns, F.returns.to_numpy())


def test_without_macro_series_there_are_fewer_sleeves() -> None:
    targets, _ = ss.seed_sleeves(F, None, None, INDEX, names=NAMES)
    assert sorted(targets) == ["carry", "pairs", "trend"]


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(InputError, match="panel symbol for every code, got none for \\['VIX'\\]"):
        ss.seed_sleeves(F, None, MACRO, INDEX, names={"futures": {c: c for c in FUTURES if c != "VIX"}})
    with pytest.raises(InputError, match="futures or funds must be given"):
        ss.seed_sleeves(None, None, MACRO, INDEX, names=NAMES)
    with pytest.raises(InputError, match="a panel symbol of its own each"):
        ss.seed_sleeves(F, E, MACRO, INDEX, names={**NAMES, "etf": {c: c for c in FUNDS}})
    with pytest.raises(InputError, match="none on 100 sessions; start earlier"):
        ss.seed_sleeves(F, None, MACRO, INDEX[:100], names=NAMES)


@pytest.mark.slow
def test_fifty_years_of_fifty_seven_markets() -> None:
    rng = np.random.default_rng(9)
    returns = rng.normal(0.0, 0.01, (12_500, 57))
    dates = pd.bdate_range("1970-01-01", periods=12_500)
    names = [*FUTURES, *[f"M{i}" for i in range(57 - len(FUTURES))]]
    classes = pd.Series([*FUTURES.values(), *["ags"] * (57 - len(FUTURES))])
    level = pd.DataFrame({"VIX": 20.0 + rng.normal(0.0, 1.0, 12_500), "DGS2": rng.normal(0.0, 1.0, 12_500)}, index=dates)
    for rule in (lambda: trend.ewmac_trend(returns, classes, dates), lambda: pairs.spread_pairs(returns, names),
                 lambda: carry.curve_carry(returns, returns, classes, dates),
                 lambda: macro_rules.macro_momentum(returns, classes, names, dates, level),
                 lambda: vol.vol_premium(returns, names, dates, vix=level["VIX"].to_numpy())):
        got = rule()
        assert got.shape == returns.shape and np.isfinite(got).all()


# --- real markets ----------------------------------------------------------------------------------------------------

PUBLISHED = {  # gross Sharpe ratios stated in the notebooks
    "futures": {"trend": 1.08, "carry": 0.35, "macro": 0.15, "pairs": -0.13, "vol_premium": 0.95},
    "etf": {"trend": 0.63, "macro": 0.18, "pairs": 0.29, "vol_premium": 0.24}}


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("PIL_SHARED_DATA"), reason="PIL_SHARED_DATA is not set: no real market data")
@pytest.mark.parametrize("kind", ["futures", "etf"])
@pytest.mark.filterwarnings("ignore")
def test_the_figures_in_the_notebooks(kind: str) -> None:
    from pil_research.research.sources import read_etfs, read_futures, read_macro

    folder = os.environ["PIL_SHARED_DATA"]
    f = read_futures(folder, start="1970-01-01") if kind == "futures" else None
    e = read_etfs(folder, start="1990-01-01") if kind == "etf" else None
    market = f if f is not None else e
    assert market is not None
    index = pd.DatetimeIndex(market.returns.index)
    macro = read_macro(folder, index).values
    names = {kind: {c: c for c in market.returns}}
    targets, table = ss.seed_sleeves(f, e, macro, index, names=names)
    assert set(targets) == set(PUBLISHED[kind])
    universe = ss.universe_of(f, e, macro, index, names=names)
    scaled = scaled_sleeve_returns(targets, pd.DataFrame(universe.returns, index=index, columns=universe.columns))
    for name, figure in PUBLISHED[kind].items():
        r = scaled[name].loc[scaled[name].first_valid_index():].fillna(0.0)
        assert r.mean() / r.std() * np.sqrt(252.0) == pytest.approx(figure, abs=0.05), name
        gross = np.abs(targets[name].to_numpy()).sum(axis=1)
        assert np.all(np.isnan(gross) | np.isclose(gross, 1.0) | (gross == 0.0)), name
        assert table.loc[name, "promoted_on"] <= index[-1]
