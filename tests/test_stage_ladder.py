"""Stage 8: tiers with hysteresis, whole lots, repair, and vehicles."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.stages.ladder import (
    TIERS,
    CapLimits,
    VehicleRouter,
    capital_tier,
    close_dust,
    keep_largest,
    plan_vehicles,
    repair_caps,
    round_to_lots,
    tier_caps,
)
from pil_research.types import InputError

GOLD = pd.DataFrame({"kind": ["etf", "etf", "future", "future"], "primary": ["GLD", "GLD", "GLD", None],
                     "multiplier": [1.0, 1.0, 100.0, 50.0], "margin": [np.nan, np.nan, 1e4, 1.2e4]},
                    index=["GLD", "IAU", "GC", "ES"])
PRICES = pd.Series({"GLD": 185.0, "IAU": 38.0, "GC": 2000.0, "ES": 5000.0})


# ---------------------------------------------------------------- tiers
@pytest.mark.parametrize("equity,tier", [(0, 0), (99_999.99, 0), (1e5, 1), (999_999, 1), (1e6, 2), (1e7, 3), (1e12, 3)])
def test_first_tier_by_lower_bound(equity, tier):
    assert int(capital_tier(equity, -1, TIERS.thresholds)) == tier


@pytest.mark.parametrize("equity,previous,tier", [
    (1.04e6, 1, 1), (1.05e6, 1, 2), (1.0e6, 2, 2), (0.9999e6, 2, 1), (5e4, 3, 0), (1.2e7, 0, 3), (1.02e7, 0, 2),
    (1.02e7, 3, 3), (np.nan, 2, 2), (np.nan, -1, 0), (-1.0, 2, 0)])
def test_later_tiers_climb_late_and_fall_at_once(equity, previous, tier):
    assert int(capital_tier(equity, previous, TIERS.thresholds)) == tier


def test_tiers_per_configuration_and_their_terms():
    tier = capital_tier([9e4, 2e5, 2e6, 2e7], [-1, -1, -1, -1], TIERS.thresholds)
    caps = tier_caps(tier)
    assert caps.gross.tolist() == [1.0, 1.5, 2.0, 3.0] and caps.name.tolist() == [0.20, 0.15, 0.12, 0.10]
    assert caps.min_ticket.tolist() == [0.02, 0.005, 0.0025, 0.001] and caps.max_names[0] == 15
    assert np.isinf(caps.max_names[1:]).all()
    assert capital_tier(1.02e6, 1, TIERS.thresholds, first=True) == 2
    with pytest.raises(ValueError, match="read-only"):
        TIERS.gross[0] = 9.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(9e5, 1.1e6), min_size=3, max_size=30))
def test_a_tier_never_flaps_inside_the_margin(path):
    tier = -1
    for equity in path:
        new = int(capital_tier(equity, tier, TIERS.thresholds))
        if tier >= 0 and new != tier:
            assert equity >= 1.05e6 - 1e-3 if new > tier else equity < 1e6
        tier = new


# ---------------------------------------------------------------- names and dust
def test_keep_largest():
    book = np.array([[0.05, -0.2, 0.1, 0.1], [0.3, 0.0, 0.0, -0.1]])
    np.testing.assert_array_equal(keep_largest(book, 2), [[0, -0.2, 0.1, 0], [0.3, 0, 0, -0.1]])
    np.testing.assert_array_equal(keep_largest(book, np.array([1, np.inf])), [[0, -0.2, 0, 0], book[1]])
    assert keep_largest(book, np.inf) is book


def test_dust():
    e = np.array([0.0012, 0.00125, -0.001, 0.0])
    np.testing.assert_array_equal(close_dust(e, 0.0025), [0, 0.00125, 0, 0])
    np.testing.assert_array_equal(close_dust(e, 0.0025, held=[True, True, False, True]), [0, 0.00125, -0.001, 0])
    np.testing.assert_array_equal(close_dust([e, e], np.array([0.0025, 0.0]))[1], e)


# ---------------------------------------------------------------- lots
def test_lots_keep_round_and_report():
    e, dropped = round_to_lots([0.079, 0.08, 0.05, 0.05, -0.079], [0.06, 0.06, 0.06, 0.06, 0.0], 0.02 * np.ones(5),
                               mandatory=[0, 0, 0, 1, 0])
    np.testing.assert_allclose(e, [0.06, 0.08, 0.06, 0.04, -0.06], atol=1e-15)
    np.testing.assert_allclose(dropped, [0.019, 0, -0.01, 0.01, -0.019], atol=1e-15)
    mixed, _ = round_to_lots([0.05, 0.05, 0.0], [0.0, 0.031, 0.02], [0.0, np.nan, 0.02])
    np.testing.assert_array_equal(mixed, [0.05, 0.031, 0.0])
    three_lots = 3 * 0.1  # 0.30000000000000004
    assert round_to_lots([0.3], [three_lots], [0.1], mandatory=True)[0][0] == three_lots  # a last bit is no trade


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_lots_properties(seed):
    rng = np.random.default_rng(seed)
    lot = rng.choice([0.0, 0.003, 0.02, 0.1], (3, 6))
    held = np.trunc(rng.normal(0, 5, (3, 6))) * lot
    goal = rng.normal(0, 0.1, (3, 6)) * (rng.random((3, 6)) < 0.8)
    must = rng.random((3, 6)) < 0.3
    e, dropped = round_to_lots(goal, held, lot, mandatory=must)
    np.testing.assert_allclose(e + dropped, goal, atol=1e-15)
    whole = lot > 0
    lots = e[whole] / lot[whole]
    np.testing.assert_allclose(lots, np.round(lots), atol=1e-9)
    moved = whole & (e != held)
    assert (np.abs(e[moved]) <= np.abs(goal[moved]) + 1e-9).all() and (e[moved] * goal[moved] >= 0).all()
    assert (np.abs(dropped[whole]) < lot[whole] + 1e-9).all()
    assert (np.abs(e[must & whole]) <= np.abs(goal[must & whole]) + 1e-9).all()
    flip = round_to_lots(-goal, -held, lot, mandatory=must)[0]
    np.testing.assert_array_equal(flip, -e)


# ---------------------------------------------------------------- repair
def holds(e, caps, factor, tolerance=1.1):
    w = e * factor
    groups = [np.abs(w[caps.clusters == g]).sum() for g in np.unique(caps.clusters[caps.clusters >= 0])]
    return (np.abs(w).max() <= caps.name * tolerance + 2e-9 and max(groups, default=0) <= caps.cluster * tolerance + 2e-9
            and abs(w.sum()) <= caps.net * tolerance + 2e-9 and np.abs(w).sum() <= caps.gross * tolerance + 2e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_repair_ends_inside_every_cap_on_the_lattice(seed):
    rng = np.random.default_rng(seed)
    lot = rng.choice([0.0, 0.005, 0.03], 7)
    e = np.where(lot > 0, np.round(rng.normal(0.01, 0.06, 7) / np.where(lot > 0, lot, 1)) * lot, rng.normal(0, 0.05, 7))
    caps = CapLimits(name=0.15, cluster=0.3, net=0.2, gross=0.6, clusters=rng.integers(-1, 2, 7))
    out, steps = repair_caps(e, lot, caps, 2.0)
    assert holds(out, caps, 2.0)
    assert (np.abs(out) <= np.abs(e)).all() and (out * e >= 0).all()
    q = out[lot > 0] / lot[lot > 0]
    np.testing.assert_allclose(q, np.round(q), atol=1e-6)
    assert (int(steps) == 0) == bool((out == e).all())
    both, _ = repair_caps(np.array([e, -e]), lot, caps, 2.0)
    np.testing.assert_allclose(both, [out, -out], atol=1e-14)


def test_repair_takes_the_largest_of_the_heavy_side_and_leaves_frozen_names():
    free = CapLimits(name=9.0, cluster=9.0, net=1.0, gross=9.0, clusters=np.full(3, -1))
    out, steps = repair_caps([0.7, 0.65, -0.15], [0.05] * 3, free, 1.0)
    np.testing.assert_allclose(out, [0.6, 0.65, -0.15], atol=1e-15)
    assert int(steps) == 2
    out, _ = repair_caps([0.7, 0.65, -0.15], [0.05] * 3, free, 1.0, frozen=[True, False, False])
    np.testing.assert_allclose(out, [0.7, 0.55, -0.15], atol=1e-15)
    stuck, steps = repair_caps([2.0, 0.1, 0.0], [0.05] * 3, free, 1.0, frozen=[True, True, True])
    np.testing.assert_array_equal(stuck, [2.0, 0.1, 0.0])
    unpriced, _ = repair_caps([2.0, 0.1, 0.0], [np.nan, 0.05, 0.05], free, 1.0)
    np.testing.assert_array_equal(unpriced, [2.0, 0.0, 0.0])


def test_repair_respects_the_cluster_switch():
    caps = CapLimits(name=9.0, cluster=0.5, net=9.0, gross=9.0, clusters=np.zeros(2, int), cluster_on=np.array([True, False]))
    out, steps = repair_caps(np.full((2, 2), 0.4), [0.1, 0.1], caps, 1.0)
    assert steps.tolist() == [3, 0] and np.abs(out[0]).sum() == pytest.approx(0.5)


# ---------------------------------------------------------------- vehicles
@pytest.mark.parametrize("tier,target,equity,vehicle", [
    (0, 0.10, 5e4, "GLD"), (1, 0.10, 5e6, "GLD"), (2, 0.10, 5e5, "GLD"), (2, 0.10, 4e6, "GC"), (2, 0.10, 3e6, "GLD"),
    (3, 0.10, 3e6, "GC"), (3, 0.10, 1e6, "GLD"), (3, 0.0, 1e9, "GLD")])
def test_vehicle_by_tier(tier, target, equity, vehicle):
    assert VehicleRouter(GOLD, tier).choose("GLD", target, PRICES, equity).symbol == vehicle


def test_exposures_without_a_vehicle():
    small = VehicleRouter(GOLD, 0)
    assert small.choose("ES", 0.5, PRICES, 1e6) is None
    assert small.allowed().tolist() == [True, True, True, False] and VehicleRouter(GOLD, 1).allowed().all()
    assert small.choose("GLD", 0.5, {"IAU": 38.0}, 1e6).symbol == "IAU"  # the primary has no price


def test_lots():
    lots = VehicleRouter(GOLD, 1).lots(PRICES, 1e6)
    np.testing.assert_allclose(lots, [185e-6, 38e-6, 0.2, 0.25])
    np.testing.assert_allclose(VehicleRouter(GOLD, 3).lots(PRICES, 1e6), [0.2, 38e-6, 0.2, 0.25])
    np.testing.assert_allclose(VehicleRouter(GOLD, 3).lots(PRICES, 1e6, {"GLD": 0.1})[0], 185e-6)
    some = VehicleRouter(GOLD, 1, fractional_shares=True).lots({"GLD": 185.0, "ES": -37.0}, np.array([1e6, 2e6]))
    np.testing.assert_allclose(some, [[0, np.nan, np.nan, 1850e-6], [0, np.nan, np.nan, 925e-6]])


def test_orders_open_reduce_flip_and_exit():
    router = VehicleRouter(GOLD, 1)
    buy, = router.route({"GLD": 0.10}, PRICES, 5e5, {})
    assert (buy.side, buy.vehicle, buy.quantity, buy.reason) == ("buy", "GLD", 270.0, "target")
    assert buy.notional == pytest.approx(270 * 185)
    assert router.route({"GLD": 0.10}, PRICES, 5e5, {"GLD": 270}) == []  # less than a share away
    sell, = router.route({"GLD": 0.0}, PRICES, 5e5, {"GLD": 270})
    assert (sell.side, sell.quantity, sell.reason) == ("sell", 270.0, "exit")
    flip, = router.route({"GLD": -0.10}, PRICES, 5e5, {"GLD": 270})
    assert (flip.side, flip.quantity) == ("sell", 540.0)
    assert {o.vehicle for o in router.route({"GLD": 0.0}, PRICES, 5e5, {"GLD": 5, "IAU": 7, "GC": 1})} == {"GLD", "IAU", "GC"}


def test_other_wrappers_are_sold_first_and_only_as_far_as_needed():
    router = VehicleRouter(GOLD, 1)
    held = {"GLD": 162, "IAU": 789}  # 0.0599 + 0.0600
    orders = router.route({"GLD": 0.08}, PRICES, 5e5, held)
    assert [(o.vehicle, o.side, o.reason) for o in orders] == [("IAU", "sell", "wrapper")]
    deep = router.route({"GLD": 0.03}, PRICES, 5e5, held)
    assert [(o.vehicle, o.side) for o in deep] == [("IAU", "sell"), ("GLD", "sell")] and deep[0].quantity == 789
    more = router.route({"GLD": 0.15}, PRICES, 5e5, held)
    assert [(o.vehicle, o.side) for o in more] == [("GLD", "buy")]


def test_migration_takes_five_sessions_or_one_trade():
    router = VehicleRouter(GOLD, 3)
    target, held = {"GLD": 0.10}, {"GLD": 2e7 * 0.10 / 185.0 // 1}
    for left in (5, 4, 3, 2, 1):
        orders = router.route(target, PRICES, 2e7, held, sessions_left=left)
        assert orders[0].reason == "migrate" and orders[0].vehicle == "GLD"
        for o in orders:
            held[o.vehicle] = held.get(o.vehicle, 0.0) + (o.quantity if o.side == "buy" else -o.quantity)
        exposure = (held["GLD"] * 185 + held.get("GC", 0) * 2e5) / 2e7
        assert 0.09 - 1e-9 <= exposure <= 0.10 + 1e-9  # both legs, never above target
    assert held["GLD"] == 0 and held["GC"] >= 9
    at_once = router.route({"GLD": 0.15}, PRICES, 2e7, {"GLD": 10_000}, sessions_left=5)
    assert [(o.vehicle, o.side, o.quantity) for o in at_once] == [("GLD", "sell", 10_000), ("GC", "buy", 15.0)]


def test_inverse_wrapper_counts_with_its_sign():
    table = pd.DataFrame({"kind": "etf", "primary": ["SPY", "SPY"], "exposure_multiple": [1.0, -2.0]}, index=["SPY", "SDS"])
    router = VehicleRouter(table, 1)
    orders = router.route({"SPY": 0.0}, {"SPY": 500.0, "SDS": 20.0}, 1e6, {"SPY": 100, "SDS": 500})
    assert {(o.vehicle, o.side, o.quantity) for o in orders} == {("SPY", "sell", 100), ("SDS", "sell", 500)}
    short = router.route({"SPY": -0.01}, {"SPY": 500.0, "SDS": 20.0}, 1e6, {"SDS": 500})  # holds -2 %
    assert [(o.vehicle, o.side, o.quantity) for o in short] == [("SDS", "sell", 250)]


def test_unpriced_holding_blocks_its_exposure_only():
    router = VehicleRouter(GOLD, 1)
    orders = router.route({"ES": 0.5, "GLD": 0.0}, PRICES.drop("IAU"), 1e6, {"IAU": 10, "GLD": 5})
    assert [o.vehicle for o in orders] == ["ES"]


def test_router_refusals():
    with pytest.raises(InputError, match="tier must be"):
        VehicleRouter(GOLD, -1)
    with pytest.raises(InputError, match="instruments must list GLD once"):
        VehicleRouter(pd.concat([GOLD, GOLD.loc[["GLD"]]]), 1)
    for bad in (0.0, np.nan, -1.0):
        with pytest.raises(InputError, match="equity must be positive"):
            VehicleRouter(GOLD, 1).route({"GLD": 0.1}, PRICES, bad, {})
    with pytest.raises(InputError, match="target of GLD must be finite"):
        VehicleRouter(GOLD, 1).route({"GLD": np.nan}, PRICES, 1e6, {})


# ---------------------------------------------------------------- whatever moves, the exposure never ends beyond both ends
FAMILY = pd.DataFrame({"kind": ["etf", "etf", "future", "etf", "etf"], "primary": "A", "multiplier": [1.0, 1.0, 10.0, 1.0, 1.0],
                       "exposure_multiple": [1.0, 1.0, 1.0, -1.0, 2.0]}, index=["A", "B", "F", "I", "L"])


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 10**9))
def test_wrappers_given_up_never_raise_an_exposure_beyond_what_it_was_and_its_target(seed):
    rng = np.random.default_rng(seed)
    router, equity = VehicleRouter(FAMILY, int(rng.integers(0, 4))), float(10 ** rng.uniform(4, 8))
    prices = {s: float(rng.uniform(5, 300)) for s in FAMILY.index}
    held = {s: float(np.round(rng.normal() * 0.1 * equity / prices[s]) * (rng.random() < 0.5)) for s in FAMILY.index}
    held["F"] = float(rng.integers(-3, 4))
    size = {v.symbol: v.exposure(prices[v.symbol], equity) for v in router.groups["A"]}
    now = sum(q * size[s] for s, q in held.items())
    near = float(now * rng.choice([0.0, 0.5, 0.9, 1.0, 1.01, 1.1, 2.0, -1.0]))
    target = near if rng.random() < 0.7 else float(rng.normal() * 0.15)
    cut = bool(rng.random() < 0.3)
    plan = plan_vehicles(router, "A", target, prices, equity, held, sessions_left=int(rng.integers(0, 6)), mandatory=cut)
    assert abs(plan.exposure) <= max(abs(target), abs(now)) + 1e-9
    assert plan.exposure == pytest.approx(sum(q * size[s] for s, q in plan.held.items()), abs=1e-12)
    assert target != 0.0 or plan.exposure == 0.0


def test_the_end_of_a_migration_does_not_leave_the_futures_a_hedge_had_offset():
    prices, equity = {"A": 95.0, "B": 100.0, "F": 175.0, "I": 218.0, "L": 16.0}, 10_000.0
    held = {"A": 8.0, "B": -25.0, "F": 3.0, "I": 0.0, "L": 0.0}  # 0.35 of equity: three contracts, hedged by a short fund
    plan = plan_vehicles(VehicleRouter(FAMILY, 3), "A", 0.355, prices, equity, held, sessions_left=1)
    assert plan.held == {"A": 0.0, "B": 0.0, "F": 2.0, "I": 0.0, "L": 0.0} and plan.exposure == pytest.approx(0.35)
