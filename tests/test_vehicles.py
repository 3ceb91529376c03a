"""Stage 8 through the live path: what is decided is what positions and orders are worth, in vehicles the account may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from desk import DAILY, DAYS, FOUR, INFO, NAMES, PRICES, Desk, codes
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.integrator import PortfolioIntegrator
from pil_research.live import SessionLimits, SlotDecision, replay
from pil_research.stages.ladder import Plan, VehicleRouter, plan_vehicles
from pil_research.types import Decision, Kills, Operator, Snapshot
from pil_research.vehicles import VehicleBook

ROW = 220
WIDE = SessionLimits(added_name=9.0, added_decision=9.0, added_session=90.0)
# S00 is GLD: IAU and SGOL beside it, GC the future, GLL inverse, an option; S06 a fund in fractions, S07 a fund, S05 a future
TABLE = INFO.assign(
    kind=["etf", "etf", "etf", "future", "etf", "future", "etf", "etf"],
    primary=["S00", "S00", "S00", "S00", "S00", "S05", "S06", "S07"],
    exposure_multiple=[1.0, 1.0, 1.0, 1.0, -2.0, 1.0, 1.0, 1.0],
    multiplier=[1.0, 1.0, 1.0, 100.0, 1.0, 50.0, 1.0, 1.0],
    margin=[np.nan, np.nan, np.nan, 800.0, np.nan, 500.0, np.nan, np.nan],
    fractional=[False] * 6 + [True, False])
OPTION = TABLE.assign(kind=[*TABLE["kind"][:2], "option", *TABLE["kind"][3:]],
                      multiplier=[1.0, 1.0, 100.0, 100.0, 1.0, 50.0, 1.0, 1.0],
                      exposure_multiple=[1.0, 1.0, 0.4, 1.0, -2.0, 1.0, 1.0, 1.0])


class Trader(Desk):
    """A desk whose instruments are vehicles."""

    table: pd.DataFrame = TABLE

    def snapshot(self, row: int, slot: str = "15:30", **changes: Any) -> Snapshot:
        return super().snapshot(row, slot, **{"instruments": self.table, **changes})


def trader(path: Path, equity: float, table: pd.DataFrame = TABLE, **keys: Any) -> Trader:
    made = Trader(path / "store" / "book.db", limits=WIDE, equity=equity, **keys)
    made.table = table
    return made


def worth(positions: pd.Series, prices: pd.Series, equity: float, table: pd.DataFrame) -> pd.Series:
    """Exposure of each primary, told once more and plainly."""
    quote = prices.where(table["kind"].ne("option"), prices[table["primary"]].to_numpy())
    multiple = table["exposure_multiple"].where(table["primary"].ne(table.index), 1.0)
    each = positions * quote.abs() * table["multiplier"] * multiple / equity
    return each.groupby(table["primary"]).sum().reindex(table.index).fillna(0.0)


def after(positions: pd.Series, d: Decision, share: float = 1.0) -> pd.Series:
    out = positions.copy()
    for o in d.orders:
        out[o.vehicle] += share * o.quantity * (1 if o.side == "buy" else -1)
    return out


def check(d: SlotDecision, made: Snapshot, table: pd.DataFrame) -> None:
    """What every decision with vehicles must keep."""
    assert made.prices is not None and made.positions is not None
    end = after(made.positions, d)
    np.testing.assert_allclose(worth(end, made.prices, d.equity, table), d.exposures, rtol=0, atol=1e-9)
    assert len({o.vehicle for o in d.orders}) == len(d.orders)  # netted: one order a vehicle
    for o in d.orders:
        assert table.loc[o.vehicle, "primary"] == o.symbol and table.loc[o.vehicle, "kind"] != "option"
        size = abs(made.prices[o.vehicle]) * table.loc[o.vehicle, "multiplier"]
        assert o.notional == pytest.approx(o.quantity * size) and o.quantity > 0.0
        if not table.loc[o.vehicle, "fractional"]:
            assert end[o.vehicle] == pytest.approx(round(end[o.vehicle]), abs=1e-6)
        assert not o.attribution or sum(o.attribution.values()) == pytest.approx(1.0, abs=1e-9)
    ladder = next(s for s in d.stages if s.name == "ladder")
    told = pd.Series(ladder.notes["dropped"], dtype=float).reindex(d.exposures.index).fillna(0.0)
    parts = pd.Series({s: d.explain(s).table.loc[["lot", "repair"], "part"].sum() for s in d.exposures.index})
    np.testing.assert_allclose(parts, -told, rtol=0, atol=1e-12)
    assert d.numbers["rounding_dropped"] == pytest.approx(told.abs().sum(), abs=1e-12)
    if d.numbers["margin"] > 0.0 and "MARGIN_SHORT" not in {a.code for a in d.alarms if a.severity == "critical"}:
        assert d.numbers["margin"] + d.numbers["funded_longs"] <= 1.0 + 1e-9
    tier = int(d.numbers["tier"])
    name = 0.5 * min(DAILY.caps.name, DAILY.ladder.name[tier]) * DAILY.caps.drift_tolerance + 1e-9
    grew = d.exposures.abs() > (d.exposures - d.trades).abs() + 1e-9
    assert (d.exposures.abs()[grew] <= name).all()


@pytest.mark.parametrize("table", [TABLE, OPTION], ids=["wrappers", "option"])
@pytest.mark.parametrize("equity", [5e4, 4e5, 4e6, 4e7])
def test_what_is_decided_is_what_is_ordered(tmp_path: Path, equity: float, table: pd.DataFrame) -> None:
    """Every tier, odd holdings in every wrapper, fills in part: positions plus orders are worth the decided exposures."""
    rng = np.random.default_rng(int(equity) % 97)
    desk = trader(tmp_path, equity, table)
    size = PRICES.iloc[ROW] * table["multiplier"]
    desk.positions = np.round(rng.normal(0.0, 0.02, 8) * equity / size).where(table["kind"] != "future", 0.0)
    traded = 0
    desk.session.acknowledge(who="ada", why="known positions")
    for row in range(ROW, ROW + 10):
        made = desk.snapshot(row)
        if row == ROW:
            desk.session._at = desk.session._at._replace(expected=None)
        d = desk.session.on_slot(made)
        assert d.status in ("ok", "reduce", "halt"), codes(d)
        if d.status == "halt":
            desk.session.acknowledge(who="ada", why="positions are ours")
        check(d, made, table)
        desk.positions = np.round(after(desk.positions, d, float(rng.choice([1.0, 1.0, 0.5]))), 6)
        traded += len(d.orders)
        whole = ~table["fractional"]
        desk.positions[whole] = np.trunc(desk.positions[whole])
    assert traded > 0 and replay(desk.store).ok


def test_the_vehicle_follows_the_size_of_the_account(tmp_path: Path) -> None:
    """Shares for a small account, contracts for a large one, and nothing in a future that tier 0 may not hold."""
    used = {}
    for equity in (5e4, 4e7):
        desk = trader(tmp_path / str(equity), equity)
        decided = [desk.run(row, row) for row in range(ROW, ROW + 3)]
        used[equity] = {o.vehicle for d in decided for o in d.orders}
        assert equity > 1e5 or all(d.exposures["S05"] == 0.0 for d in decided)
    assert "S03" in used[4e7] and not {"S03", "S05"} & used[5e4] and "S00" in used[5e4]
    assert not {"S01", "S02", "S04"} & (used[5e4] | used[4e7])  # plain vehicles, never a leveraged or inverse one


def test_the_tier_change_migrates_over_five_sessions(tmp_path: Path) -> None:
    """Once a session, both legs in one decision, never beyond the target; four slots a day are not four steps."""
    desk = trader(tmp_path, 9e6, config=FOUR)
    for row in range(ROW, ROW + 3):
        desk.run(row, row)
    desk.positions["S00"], desk.positions["S03"] = np.trunc(desk.positions["S00"] + 100.0 * desk.positions["S03"]), 0.0
    start = desk.positions["S00"]
    desk.session.acknowledge(who="ada", why="moved by hand")
    desk.session._at = desk.session._at._replace(expected=None)
    desk.equity, steps, pairs = 2e7, [], 0
    for row in range(ROW + 3, ROW + 9):
        for slot in ("09:35", "12:00", "15:30"):
            made = replace(desk.snapshot(row, slot), flows=1.1e7 if (row, slot) == (ROW + 3, "09:35") else 0.0)
            d = desk.session.on_slot(made)
            check(d, made, TABLE)
            legs = {o.vehicle for o in d.orders if o.symbol == "S00"}
            pairs += legs >= {"S00", "S03"}
            desk.fill(d)
        steps.append(desk.positions["S00"] / start)
    assert pairs and (np.diff([1.0, *steps]) <= 1e-9).all() and steps[-1] == 0.0
    told = [a["code"] for r in desk.store.rows() if r.kind == "decision" for a in r.payload["decision"]["alarms"]]
    assert "MIGRATING" in told


def test_margin_is_recorded_and_never_beyond_equity(tmp_path: Path) -> None:
    """At a margin equity cannot carry, the whole book is scaled; the alarm says so and nothing else changed sign."""
    rich, poor = trader(tmp_path / "a", 4e6), trader(tmp_path / "b", 4e6, TABLE.assign(
        kind="future", primary=NAMES, multiplier=10.0, margin=PRICES.iloc[ROW].to_numpy() * 10.0 * 8.0, fractional=False))
    a, b = rich.run(ROW, ROW), poor.run(ROW, ROW)
    assert 0.0 < a.numbers["margin"] < 1.0 and "MARGIN_SHORT" not in {x.code for x in a.alarms}
    alarm = next(x for x in b.alarms if x.code == "MARGIN_SHORT")
    assert alarm.severity == "warning" and float(alarm.value or 0.0) > 1.0
    assert 0.9 < b.numbers["margin"] <= 1.0 and b.numbers["rounding_dropped"] > 0.1 and "lot" in b.binding
    assert sum(o.quantity * 8.0 * 10.0 * PRICES.iloc[ROW][o.vehicle] for o in b.orders) <= 4e6 * 1.02
    assert replay(poor.store).ok
    unknown = trader(tmp_path / "c", 4e6, TABLE.assign(margin=np.nan))
    d = unknown.run(ROW, ROW)
    assert d.numbers["margin"] == 0.0 and d.numbers["margin_unknown"] >= (d.exposures["S05"] != 0.0)
    large = trader(tmp_path / "d", 4e7, TABLE.assign(margin=np.nan))
    last = [large.run(row, row) for row in range(ROW, ROW + 3)][-1]
    held = large.positions[["S03", "S05"]] != 0.0
    assert held["S03"] and last.numbers["margin_unknown"] == held.sum()  # GC too, which is one of a group


def test_another_table_of_vehicles_is_another_input(tmp_path: Path) -> None:
    """Asked again with another contract size: the first answer stands, and the alarm does not call it a duplicate."""
    made = trader(tmp_path, 4e7).snapshot(ROW)
    other = [1.0, 1.0, 1.0, 2000.0, 1.0, 50.0, 1.0, 1.0]
    for change, code in (({}, "DUPLICATE_DECISION"), ({"multiplier": other}, "INPUT_CHANGED"),
                         ({"margin": 900.0}, "INPUT_CHANGED")):
        integrator = PortfolioIntegrator(DAILY)
        first = integrator.build_target_book(made)
        again = integrator.build_target_book(replace(made, instruments=TABLE.assign(**change)))
        assert code in {a.code for a in again.alarms} and (again.exposures == first.exposures).all()


def test_a_margin_that_cannot_be_met_by_selling_is_critical(tmp_path: Path) -> None:
    table = TABLE.assign(kind="future", primary=NAMES, multiplier=10.0, margin=PRICES.iloc[ROW].to_numpy() * 100.0,
                         fractional=False)
    desk = trader(tmp_path, 4e6, table)
    desk.run(ROW, ROW)
    desk.positions["S01"] = 3000.0
    desk.session._at = desk.session._at._replace(expected=None)
    d = desk.session.on_slot(desk.snapshot(ROW + 1, restricted={"S01": "no_trade"}))
    alarm = [x for x in d.alarms if x.code == "MARGIN_SHORT"]
    assert d.trades["S01"] == 0.0 and alarm and alarm[0].severity == "critical"


def test_an_option_counts_at_its_delta_and_is_not_traded(tmp_path: Path) -> None:
    """100 calls at delta 0.4 are 4,000 shares; its own quote is not read, and the shares trade around it."""
    flat, held = trader(tmp_path / "a", 4e6, OPTION), trader(tmp_path / "b", 4e6, OPTION)
    held.positions["S02"] = 100.0
    held.session.acknowledge(who="ada", why="known positions")
    quotes = PRICES.iloc[ROW - 1].copy()
    quotes["S02"] = 3.2  # the premium
    a, b = flat.session.on_slot(flat.snapshot(ROW)), held.session.on_slot(held.snapshot(ROW, prices=quotes))
    held.session.acknowledge(who="ada", why="an old position")
    now = b.exposures["S00"] - b.trades["S00"]
    assert now == pytest.approx(4000.0 * quotes["S00"] / 4e6, abs=1e-12)
    assert all(o.vehicle != "S02" for o in (*a.orders, *b.orders))
    c = held.session.on_slot(held.snapshot(ROW + 1, prices=quotes, restricted={}))
    assert all(o.vehicle != "S02" for o in c.orders)


@pytest.mark.parametrize(("shares", "left"), [(0.0, 0.0), (3000.0, 0.0), (-2500.0, -2500.0), (-6000.0, -4000.0)])
@pytest.mark.parametrize("how", ["kill", "symbol", "unwanted", "reduce_only"])
def test_a_kill_beside_an_option_opens_nothing(tmp_path: Path, how: str, shares: float, left: float) -> None:
    """100 calls are 4,000 shares: shares are sold, none is sold short, a hedge stays as far as it hedges, and it is said."""
    desk = trader(tmp_path, 4e7, OPTION)
    desk.run(ROW, ROW)
    desk.positions["S00"], desk.positions["S02"], desk.positions["S03"] = shares, 100.0, 0.0
    desk.session._at = desk.session._at._replace(expected=None)
    gold = OPTION.index[OPTION["primary"] == "S00"]
    quiet = tuple(replace(s, weights=s.weights.where(~s.weights.index.isin(gold), 0.0))
                  for s in desk.snapshot(ROW + 1).sleeves or () if s.weights is not None)
    told: dict[str, Any] = {"kill": {"kills": Kills(book=True, who="ada", why="x")},
                            "symbol": {"kills": Kills(symbols=("S00",), who="ada", why="x")},
                            "unwanted": {"sleeves": quiet},
                            "reduce_only": {"restricted": {"S00": "reduce_only"}}}[how]
    for row in (ROW + 1, ROW + 2):
        made = desk.snapshot(row, **told)
        d = desk.session.on_slot(made)
        assert d.status == ("flat" if how == "kill" else "ok"), [(r.code, r.message) for r in d.reasons]
        check(d, made, OPTION)
        now = d.exposures - d.trades
        assert abs(d.exposures["S00"]) <= abs(now["S00"]) + 1e-9
        end = after(desk.positions, d)
        assert end["S00"] * max(shares, 0.0) >= 0.0 and min(shares, 0.0) <= end["S00"] <= max(shares, 0.0)
        if how != "reduce_only":
            alarm = [a for a in d.alarms if a.code == "OPTION_REMAINS"]
            assert end["S00"] == left and (not alarm) == (d.exposures["S00"] == pytest.approx(0.0, abs=1e-12))
            assert all(a.severity == "critical" and a.subject == "S00" for a in alarm)
        if how == "kill":
            assert (end.drop(["S00", "S02"]) == 0.0).all()
        desk.fill(d)
    assert replay(desk.store).ok


def test_options_beyond_a_cap_are_an_alarm_and_the_others_go_on(tmp_path: Path) -> None:
    """Calls worth 40 % of equity: nothing is sold short against them, the book stays within its caps otherwise."""
    desk = trader(tmp_path, 4e6, OPTION)
    desk.positions["S02"] = float(np.ceil(0.4 * 4e6 / (40.0 * PRICES.iloc[ROW - 1]["S00"])))
    desk.session.acknowledge(who="ada", why="known positions")
    desk.session._at = desk.session._at._replace(expected=None)
    for row in range(ROW, ROW + 4):
        made = desk.snapshot(row)
        d = desk.session.on_slot(made)
        assert d.status == "ok" and d.exposures["S00"] > 0.3, codes(d)
        assert {"OPTION_REMAINS", "CAP_UNCURABLE"} <= {str(a.code) for a in d.alarms if a.subject == "S00"}
        assert (after(desk.positions, d)[["S00", "S01", "S03", "S04"]] >= 0.0).all()
        desk.fill(d)
    assert d.exposures.drop("S00").abs().sum() > 0.1 and replay(desk.store).ok


def test_an_option_never_makes_shares_worth_more_than_the_target() -> None:
    """Long calls against a short target: the short is the target's, not the target's and the calls' together."""
    router = VehicleRouter(GROUP, 1)
    held = {"GLDC": 10.0}  # 500 shares
    plan = plan_vehicles(router, "GLD", -0.10, QUOTES, 1e6, held)
    shares = plan.held["GLD"]
    assert shares == -np.floor(0.10 * 1e6 / 185.0) and plan.missed == pytest.approx(plan.exposure + 0.10) and plan.missed > 0.09
    small = plan_vehicles(router, "GLD", 0.12, QUOTES, 1e6, held)
    assert small.missed == 0.0 and small.held["GLD"] == np.floor((0.12 * 1e6 - 500 * 185.0) / 185.0)


def test_a_negative_price_is_closed_in_the_right_direction(tmp_path: Path) -> None:
    """April 2020: a long contract at -37 is sold to close it, and its exposure has the sign of the position."""
    table = TABLE.assign(allows_nonpositive_price=True)
    desk = trader(tmp_path, 4e6, table)
    desk.run(ROW, ROW)
    desk.positions["S05"] = 5.0
    desk.session._at = desk.session._at._replace(expected=None)
    quotes = PRICES.iloc[ROW].copy()
    quotes["S05"] = -37.63
    d = desk.session.on_slot(desk.snapshot(ROW + 1, prices=quotes, operator=Operator(who="ada", why="close"), sleeves=(),
                                           sleeves_confirmed=True))
    order = next(o for o in d.orders if o.vehicle == "S05")
    assert (order.side, order.quantity, order.reason) == ("sell", 5.0, "exit") and d.exposures["S05"] == 0.0


def test_a_hold_trades_no_vehicle(tmp_path: Path) -> None:
    desk = trader(tmp_path, 4e6)
    desk.run(ROW, ROW + 1)
    old = desk.calendar.hours(DAYS[ROW + 1])[0]
    d = desk.session.on_slot(desk.snapshot(ROW + 2), times={"prices": old})
    assert d.status == "hold" and not d.orders


def test_dust_and_small_tickets_do_not_trade(tmp_path: Path) -> None:
    """No trade below the minimum ticket of the tier but exits, and nothing is left smaller than half of it."""
    desk = trader(tmp_path, 4e6)
    ticket = DAILY.ladder.min_ticket[2]
    for row in range(ROW, ROW + 8):
        d = desk.session.on_slot(desk.snapshot(row))
        left = d.exposures[(d.exposures != 0.0) & (d.trades.abs() > 1e-12)].abs()
        assert (left >= 0.5 * ticket - 1e-9 - 1e4 / 4e6).all()  # one lot of rounding
        desk.fill(d)


# ---------------------------------------------------------------- the plan of one exposure

GROUP = pd.DataFrame({"kind": ["etf", "etf", "future", "etf", "etf", "option"], "primary": "GLD",
                      "exposure_multiple": [1.0, 1.0, 1.0, 2.0, -2.0, 0.5], "multiplier": [1.0, 1.0, 100.0, 1.0, 1.0, 100.0],
                      "margin": [np.nan, np.nan, 1e4, np.nan, np.nan, np.nan]},
                     index=["GLD", "IAU", "GC", "UGL", "GLL", "GLDC"])
QUOTES = {"GLD": 185.0, "IAU": 38.0, "GC": 2000.0, "UGL": 60.0, "GLL": 20.0, "GLDC": 185.0}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**7))
def test_a_plan_ends_between_zero_and_its_target(seed: int) -> None:
    """Any holdings, tier, account and target: whole lots, options untouched, never beyond the target where it trades."""
    rng = np.random.default_rng(seed)
    equity, tier = float(10 ** rng.uniform(4.5, 8.0)), int(rng.integers(0, 4))
    held = {s: float(rng.integers(-3, 4)) * (rng.random() < 0.4) * (1.0 if s in ("GC", "GLDC") else 50.0) for s in QUOTES}
    target = float(rng.choice([0.0, 1.0]) * rng.normal(0.0, 0.2))
    router = VehicleRouter(GROUP, tier)
    left, must = int(rng.integers(0, 6)), bool(rng.random() < 0.5)
    plan = plan_vehicles(router, "GLD", target, QUOTES, equity, held, sessions_left=left, mandatory=must)
    size = {v.symbol: v.exposure(QUOTES[v.symbol], equity) for v in router.groups["GLD"]}
    start, end = (sum(q[s] * size[s] for s in QUOTES) for q in (held, plan.held))
    beside, after_ = (sum(q[s] * size[s] for s in QUOTES if s != "GLDC") for q in (held, plan.held))
    assert plan.exposure == pytest.approx(end, abs=1e-12) and plan.held["GLDC"] == held["GLDC"]
    assert all(float(q).is_integer() for q in plan.held.values())
    moved = {o.vehicle: o.quantity * (1 if o.side == "buy" else -1) for o in plan.orders}
    assert all(held[s] + moved.get(s, 0.0) == pytest.approx(plan.held[s]) for s in QUOTES)
    lot = max(abs(size[s]) for s in QUOTES if tier > 0 or s != "GC")
    assert abs(end - target) <= max(abs(start - target), lot) + 1e-9
    if must and plan.orders and held["GLDC"] == 0.0:
        assert end * target >= -1e-9 and abs(end) <= abs(target) + 1e-9
    low, high = min(0.0, target, beside), max(0.0, target, beside)
    assert held["GLDC"] == 0.0 or low - 1e-9 <= after_ <= high + 1e-9
    assert plan.missed == 0.0 or (held["GLDC"] != 0.0 and plan.missed == pytest.approx(end - target))
    goal = target if held["GLDC"] == 0.0 else float(np.clip(target - held["GLDC"] * size["GLDC"], low, high))
    if held["GLDC"] != 0.0:
        assert abs(end - target) <= abs(start - target) + 1e-9  # never further from the target than before
        if abs(goal - (target - held["GLDC"] * size["GLDC"])) > 1e-9:
            assert plan.missed != 0.0
    chosen = router.choose("GLD", goal, QUOTES, equity)
    for s in moved:  # off-vehicle holdings only come down
        if chosen is None or s != chosen.symbol:
            assert abs(plan.held[s]) <= abs(held[s]) and plan.held[s] * held[s] >= 0.0


def test_an_unpriced_holding_leaves_the_exposure_alone() -> None:
    plan = plan_vehicles(VehicleRouter(GROUP, 2), "GLD", 0.0, {**QUOTES, "IAU": float("nan")}, 1e6, {"IAU": 5.0, "GLD": 10.0})
    assert isinstance(plan, Plan) and not plan.orders and np.isnan(plan.exposure)


def test_an_inverse_fund_is_sold_before_more_is_bought() -> None:
    orders = plan_vehicles(VehicleRouter(GROUP, 1), "GLD", 0.10, QUOTES, 5e5, {"GLD": 100.0, "GLL": 200.0}).orders
    assert [(o.vehicle, o.side) for o in orders] == [("GLL", "sell"), ("GLD", "buy")]
    assert orders[0].quantity == 200.0


def test_the_book_knows_what_a_tier_may_hold() -> None:
    table = pd.concat([GROUP, pd.DataFrame({"kind": ["future", "option"], "primary": ["ES", "X"], "exposure_multiple": 1.0,
                                            "multiplier": 50.0, "margin": np.nan}, index=["ES", "X"])])
    small, large = VehicleBook(VehicleRouter(table, 0)), VehicleBook(VehicleRouter(table, 3))
    place = list(table.index).index
    assert small.barred[place("ES")] and not large.barred[place("ES")] and large.barred[place("X")]
    assert not small.barred[place("GLD")] and list(small.groups) == [place("GLD")]


@pytest.mark.parametrize("name", ["S05", "S03"])  # a future alone, and one of a group
@pytest.mark.parametrize("price", [5e-324, 1e-300, 1e-10, 1e10])
def test_a_price_no_quantity_can_be_worked_out_of(tmp_path: Path, name: str, price: float) -> None:
    """A held future is kept at its last exposure, and every number of the decision stays one."""
    desk, integrator = trader(tmp_path, 4e7), PortfolioIntegrator(DAILY)
    desk.positions[name] = 2.0
    for row in (ROW, ROW + 1):
        integrator.build_target_book(desk.snapshot(row))
    made = desk.snapshot(ROW + 2)
    d = integrator.build_target_book(replace(made, prices=made.prices.where(made.prices.index != name, price)))
    assert np.isfinite(d.exposures).all() and all(np.isfinite(o.quantity) and o.vehicle != name for o in d.orders)
    assert "SYMBOL_UNKNOWN" in {a.code for a in d.alarms}
    PortfolioIntegrator(integrator.config, integrator.state)  # the state can be read again
