"""Stage 7: risk cuts and exits always trade, optional trades pay for themselves, restrictions override."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.stages.turnover import (
    RESTRICTIONS,
    band_trades,
    control_turnover,
    cost_of,
    cost_terms,
    mandatory_trades,
    passes_gate,
    restrict_trades,
    set_risk_level,
    trade_costs,
)

M = 8


def market(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 0.01, (M, M))
    cov = root @ root.T / M + 1e-5 * np.eye(M)
    return rng, lambda e: np.einsum("...i,ij,...j->...", e, cov, e)


def stage(now, goal, variance, *, price=2e-4, **kw):
    base = {"forced": False, "reduce_only": False, "haircut": 0.5, "vol_base": 0.10, "min_ticket": 0.0025}
    return control_turnover(now, goal, variance=variance, costs=lambda d: price * np.abs(d), **{**base, **kw})


# ---------------------------------------------------------------- costs
def test_published_square_root_cost():
    # case "halfspread-sqrt": half-spread 2 bp, Y 0.5, sigma 1.2 %, ADV 100M
    for notional, fraction in [(1e4, 0.00026000000000000003), (1e5, 0.00038973665961010277), (1e6, 0.0008)]:
        cost = trade_costs([notional / 1e7], half_spread=[0.0002], fee=[0.0], impact=[0.5], daily_vol=[0.012], equity=1e7,
                           adv=[1e8])
        assert cost[0] / (notional / 1e7) == pytest.approx(fraction, abs=1e-15)


@pytest.mark.skipif("PIL_ORACLES" not in os.environ, reason="PIL_ORACLES does not name a folder of published cases")
def test_oracle_folder():
    cases = json.loads((Path(os.environ["PIL_ORACLES"]) / "costs.json").read_text())["cases"]
    x = next(c for c in cases if c["id"] == "halfspread-sqrt")
    size = np.array(x["input"]["notional"]) / 1e7
    cost = trade_costs(size, half_spread=x["input"]["half_spread"], fee=0.0, impact=x["input"]["Y"],
                       daily_vol=x["input"]["sigma_daily"], equity=1e7, adv=x["input"]["adv"])
    np.testing.assert_allclose(cost / size, x["expected"]["cost_frac"], rtol=1e-9)
    np.testing.assert_allclose(cost * 1e7, x["expected"]["cost_usd"], rtol=1e-9)


def test_unknown_volume_or_volatility_takes_the_assumed_impact():
    cost = trade_costs([-0.01] * 4, half_spread=1e-4, fee=2e-4, impact=1.0, daily_vol=[0.01, 0.01, np.nan, 0.01],
                       equity=5e6, adv=[np.nan, 0.0, 1e8, 1e8], assumed_impact=5e-4)
    np.testing.assert_allclose(cost[:3], 0.01 * 8e-4)
    assert cost[3] != cost[0]
    terms = cost_terms(half_spread=[1e-4] * 2, fee=0.0, impact=1.0, daily_vol=[np.nan, 0.01], adv=[1e8, 1e8])
    np.testing.assert_array_equal(cost_of(np.zeros((3, 2)), np.array([5e6, 0.0, -1.0]), terms), 0.0)


# ---------------------------------------------------------------- rule 1
def test_risk_level_cases():
    now = np.array([0.1, -0.1])
    one = set_risk_level(now, now, 0.10, 0.0951, False, False)
    assert not one.cut and float(one.k) == pytest.approx(0.951)
    cut = set_risk_level(now, now, 0.10, 0.0949, False, False)
    assert cut.cut
    np.testing.assert_allclose(cut.e1, 0.949 * now)
    forced = set_risk_level(now, now, 0.10, 0.0999, True, False)
    assert forced.cut
    at = set_risk_level(now, now, 0.10, 0.095, False, False)
    assert not at.cut  # exactly at the threshold
    up = set_risk_level(now, now, 0.10, 0.12, False, False)
    np.testing.assert_allclose(up.raise_list, 0.2 * now)
    np.testing.assert_array_equal(up.e1, now)
    assert not set_risk_level(now, now, 0.10, 0.12, True, True).raise_list.any()


@pytest.mark.parametrize("vols", [(np.nan, 0.1), (0.1, np.nan), (np.inf, 0.1), (0.0, 0.1), (0.1, 0.0)])
def test_gross_ratio_where_volatility_is_unavailable(vols):
    level = set_risk_level([0.2, -0.2], [0.1, -0.1], *vols, False, False)
    assert float(level.k) == pytest.approx(0.5) and level.cut


def test_empty_book_skips_the_risk_level_and_empty_target_exits():
    level = set_risk_level([0.0, 0.0], [0.1, 0.1], 0.0, 0.1, True, False)
    assert float(level.k) == 1.0 and not level.cut and not level.raise_list.any()
    out = set_risk_level([0.1, 0.1], [0.0, 0.0], 0.1, 0.0, False, False)
    assert float(out.k) == 0.0 and not out.e1.any()


def test_broad_book_survives_neither_flatten_nor_a_taper():
    broad = np.full(200, 0.0075)
    var = lambda e: (e ** 2).sum(-1) * 1e-4
    for m in (0.0, 0.2, 0.6):
        out = stage(broad, m * broad, var, price=1.0, forced=True)
        assert np.abs(out.e_gate).sum() <= m * 1.5 + 1e-12


# ---------------------------------------------------------------- rule 2
def test_band_edges_are_compared_to_ten_decimals():
    kw = {"band": 0.0075, "relative": 0.5, "min_ticket": 0.0025}
    trade, held, small = band_trades([0.03, 0.03, 0.03], [0.0375, 0.0375 + 4e-11, 0.0375 + 1e-9], **kw)
    assert trade[0] == 0 and trade[1] == 0 and trade[2] > 0 and held.tolist() == [True, True, False] and not small.any()
    trade, held, small = band_trades([0.0, 0.0, 0.0], [0.0025, 0.0026, 0.0], **kw)
    assert trade.tolist() == [0.0, 0.0026, 0.0] and small.tolist() == [True, False, False] and not held.any()
    for now, goal in (([0.010], [0.006]), ([0.006], [0.010])):  # half of the larger of the two, 0.005, not of the smaller
        assert band_trades(now, goal, **kw)[1].tolist() == [True]
    assert band_trades([0.010], [0.0049], **kw)[0] == pytest.approx(-0.0051)
    trade, _, _ = band_trades([0.03, -0.03], [0.05, -0.05], **kw, trade_to_edge=True)
    np.testing.assert_allclose(trade, [0.0125, -0.0125])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_band_mirror_and_completeness(seed, edge):
    rng = np.random.default_rng(seed)
    now, goal = rng.normal(0, 0.02, (2, 3, M))
    kw = {"band": rng.uniform(0, 0.02, 3), "relative": 0.5, "min_ticket": 0.002, "trade_to_edge": edge}
    trade, held, small = band_trades(now, goal, **kw)
    mirror = band_trades(-now, -goal, **kw)
    np.testing.assert_array_equal(mirror[0], -trade)
    assert ((trade != 0).astype(int) + held + small == 1).all()
    assert (np.abs(now + trade - goal) <= np.abs(now - goal)).all()


# ---------------------------------------------------------------- rules 3 and 4
def test_gate_formula_and_its_limits():
    delta, var = np.array([0.02, -0.02]), 8e-8
    gain = 0.5 * (0.5 / (0.5 * 0.10)) * var * 20
    kw = {"haircut": 0.5, "vol_base": 0.10, "gate_sharpe": 0.5, "horizon": 20}
    assert passes_gate(delta, var, gain * 0.999, **kw) and not passes_gate(delta, var, gain, **kw)
    assert passes_gate(delta, var, gain * 4.9, **{**kw, "haircut": 0.1})  # a small book may be adjusted too
    assert not passes_gate(delta, var, 0.0, **{**kw, "haircut": 0.0})
    assert not passes_gate(delta, np.nan, 0.0, **kw) and not passes_gate(delta, var, np.nan, **kw)
    assert not passes_gate(np.zeros(2), 1.0, 0.0, **kw)
    assert passes_gate(delta, np.nan, 9.0, **kw, enabled=False)
    assert not passes_gate(delta, var, 0.0, **{**kw, "haircut": 0.0}, enabled=False)


def test_exits_and_exit_halves():
    np.testing.assert_array_equal(mandatory_trades([0.1, 0.1, 0.1, 0.0, -0.1], [0.0, -0.05, 0.05, 0.1, 1e-12]),
                                  [-0.1, -0.1, 0.0, 0.0, 0.1])


def test_dear_markets_block_only_what_is_optional():
    _, var = market(0)
    now = np.array([0.1, 0.05, -0.04, 0.03, 0, 0, 0, 0])
    goal = np.array([0.1, 0.0, 0.05, 0.06, 0.01, 0, 0, 0])
    out = stage(now, goal, var, price=1.0)
    np.testing.assert_array_equal(out.e_gate, [0.1, 0, 0, 0.03, 0, 0, 0, 0])
    assert out.binding["gate"] and out.n_variance_calls == 2
    free = stage(now, goal, var, price=0.0)
    np.testing.assert_array_equal(free.e_gate[[0, 1, 2, 3]], goal[[0, 1, 2, 3]])
    np.testing.assert_allclose(free.carried, free.e_gate - goal)
    assert float(out.cost) == pytest.approx(np.abs(out.e_gate - now).sum())


def test_raise_goes_through_the_gate_alone():
    var = lambda e: (e ** 2).sum(-1) * 1e-4
    now = np.full(M, 0.007)
    out = stage(now, 1.5 * now, var, price=0.0)
    assert out.raised and float(out.k) == pytest.approx(1.5)
    np.testing.assert_allclose(out.e_gate, 1.5 * now)
    dear = stage(now, 1.5 * now, var, price=0.5)
    assert not dear.raised and dear.binding["gate"]
    np.testing.assert_array_equal(dear.e_gate, now)
    stuck = stage(now, 1.5 * now, var, price=0.0, reduce_only=True)
    np.testing.assert_array_equal(stuck.e_gate, now)
    gain = 0.5 * (0.5 / (0.5 * 0.10)) * 20 * 0.5**2 * float(var(now))  # of the deviation (k - 1) x the held book
    even = gain / (0.5 * now).sum()  # price at which it just pays
    assert stage(now, 1.5 * now, var, price=0.99 * even).raised and not stage(now, 1.5 * now, var, price=1.01 * even).raised


def test_a_gate_that_had_nothing_to_judge_does_not_bind():
    now = np.array([0.1, 0.05, -0.04])
    for gain in (None, [0.01, np.nan, np.nan]):
        out = stage(now, now, lambda e: (e ** 2).sum(-1) * 1e-4, price=1.0, expected_gain=gain)
        assert not any(out.binding.values()) and np.array_equal(out.e_gate, now)


def test_expected_gain_is_tested_per_name():
    var = lambda e: (e ** 2).sum(-1) * 1e-4
    now, goal = np.zeros(4), np.array([0.05, 0.05, 0.05, 0.0])
    gain = np.array([0.02, 0.005, np.nan, np.nan])
    out = stage(now, goal, var, price=0.01, expected_gain=gain)
    np.testing.assert_array_equal(out.e_gate, [0.05, 0, 0, 0])
    assert out.binding["gate"]
    every = stage(now, goal, var, price=0.01, expected_gain=[0.02, 0.02, 0.02, np.nan])  # nothing dropped: it did not bind
    np.testing.assert_array_equal(every.e_gate, goal)
    assert not every.binding["gate"]
    zero = stage(now, goal, var, price=0.01, expected_gain=gain, haircut=0.0)
    assert not zero.e_gate.any()
    np.testing.assert_array_equal(stage(now, goal, var, price=0.01, expected_gain=gain, haircut=0.02).e_gate[:2], [0.05, 0])


def test_missing_risk_means_no_optional_trade_but_cuts_go_on():
    nan = lambda e: np.full(e.shape[:-1], np.nan)
    now = np.full(4, 0.10)
    out = stage(now, np.array([0.2, 0.10, 0.0, 0.10]), nan, price=0.0)
    np.testing.assert_array_equal(out.e_gate, [0.10, 0.10, 0.0, 0.10])
    cut = stage(now, 0.5 * now, nan, price=0.0)
    np.testing.assert_allclose(cut.e_gate, 0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_stage_properties(seed):
    rng, var = market(seed)
    now, goal = rng.normal(0, 0.03, (2, 4, M)) * (rng.random((2, 4, M)) < 0.7)
    kw = {"forced": rng.random(4) < 0.3, "reduce_only": rng.random(4) < 0.3, "haircut": rng.choice([0.0, 0.1, 0.5], 4),
              "price": rng.choice([0.0, 1e-4, 1e-2])}
    out = stage(now, goal, var, **kw)
    mirror = stage(-now, -goal, var, **kw)
    np.testing.assert_array_equal(mirror.e_gate, -out.e_gate)
    for i in range(4):
        one = stage(now[i], goal[i], var, **{k: v[i] if np.ndim(v) else v for k, v in kw.items()})
        np.testing.assert_allclose(one.e_gate, out.e_gate[i], atol=1e-14)
    assert (out.e_gate[np.abs(goal) == 0] == 0).all()
    flip = now * goal < 0
    assert (out.e_gate[flip] * now[flip] <= 0).all()
    held = kw["reduce_only"]
    assert (np.abs(out.e_gate[held]) <= np.abs(now[held]) + 1e-15).all()
    assert (out.e_gate[held] * now[held] >= 0).all()
    asleep = (kw["haircut"] == 0) & ~out.cut
    assert (np.abs(out.e_gate[asleep]) <= np.abs(now[asleep])).all()
    settled = stage(out.e_gate, out.e_gate, var, **{**kw, "forced": False})
    np.testing.assert_array_equal(settled.e_gate, out.e_gate)


# ---------------------------------------------------------------- rule 5
@pytest.mark.parametrize("code,goal,held,expected", [
    ("none", -0.05, 0.02, -0.05), ("no_trade", -0.05, 0.02, 0.02),
    ("no_short", -0.05, 0.02, 0.0), ("no_short", -0.05, -0.02, -0.02), ("no_short", -0.01, -0.02, -0.01),
    ("no_short", 0.05, -0.02, 0.05), ("reduce_only", 0.05, 0.02, 0.02), ("reduce_only", 0.01, 0.02, 0.01),
    ("reduce_only", -0.05, 0.02, 0.0), ("reduce_only", -0.05, -0.02, -0.02), ("reduce_only", 0.05, 0.0, 0.0)])
def test_each_restriction(code, goal, held, expected):
    e, bound = restrict_trades([goal], [held], [RESTRICTIONS[code]])
    assert e[0] == expected and bool(bound[0]) == (expected != goal)


@pytest.mark.parametrize("code", [-1, 4, 99])
def test_unknown_restriction_does_not_trade(code):
    assert restrict_trades([0.5], [0.1], [code])[0][0] == 0.1


def test_reduce_only_book_per_configuration():
    e, bound = restrict_trades([[0.5, -0.5], [0.5, -0.5]], [[0.1, 0.1], [0.1, 0.1]], [0, 0], reduce_only=[True, False])
    np.testing.assert_array_equal(e, [[0.1, 0.0], [0.5, -0.5]])
    np.testing.assert_array_equal(bound, [[True, True], [False, False]])
