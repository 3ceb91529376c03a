"""Whole decisions: point in time, symmetries, sleeve states, kills, restrictions, state, idempotence."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from books import CAPPED, FAST, Live, codes, gross, same, small_panel, snapshot, without
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research import integrator as integrator_module
from pil_research.estimate import History
from pil_research.integrator import PortfolioIntegrator, decision_from_dict, history_from_frames
from pil_research.research.panel import Panel
from pil_research.step import step
from pil_research.types import (
    BookState,
    Decision,
    InputError,
    Kills,
    Operator,
    RegimeRead,
    Sleeve,
    Snapshot,
    StateError,
)

PANEL = small_panel()
ROW = 150


def decide(made: Snapshot, config: Any = FAST) -> Decision:
    return PortfolioIntegrator(config).build_target_book(made)


# ---------------------------------------------------------------- point in time


def spoil_returns(f: pd.DataFrame, session: pd.Timestamp, how: str, rng: np.random.Generator) -> pd.DataFrame:
    """A table whose rows dated on or after the session were changed, removed or added."""
    out, late = f.copy(), f.index >= session
    if how == "nan":
        out.loc[late] = np.nan
    elif how == "x10":
        out.loc[late] *= 10.0
    elif how == "noise":
        out.loc[late] = rng.standard_normal((int(late.sum()), f.shape[1]))
    elif how == "delete":
        out = out.loc[~late]
    elif how == "append":
        more = pd.DataFrame(
            rng.standard_normal((5, f.shape[1])), index=pd.bdate_range("2031-01-01", periods=5), columns=f.columns
        )
        out = pd.concat([out, more])
    elif how == "same_session":
        out = pd.concat([out.loc[~late], pd.DataFrame(9.0, index=[session], columns=f.columns)])
    return out


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["nan", "x10", "noise", "delete", "append", "same_session"]),
    st.sampled_from(["returns", "history", "both"]),
    st.integers(95, 199),
    st.integers(0, 10**6),
)
def test_nothing_dated_on_or_after_the_session_matters(how: str, what: str, row: int, seed: int) -> None:
    """SPEC section 2: the decision for t is bitwise a function of data through t-1."""
    rng, session = np.random.default_rng(seed), PANEL.dates[row]
    full = replace(
        snapshot(PANEL, row),
        asset_returns=PANEL.returns,
        sleeves=tuple(replace(s, history=PANEL.targets[s.id]) for s in snapshot(PANEL, row).sleeves or ()),
    )
    changed = full
    if what in ("returns", "both"):
        changed = replace(changed, asset_returns=spoil_returns(PANEL.returns, session, how, rng))
    if what in ("history", "both"):
        changed = replace(
            changed,
            sleeves=tuple(
                replace(s, history=spoil_returns(PANEL.targets[s.id], session, how, rng)) for s in full.sleeves or ()
            ),
        )
    a, b = decide(full), decide(changed)
    assert a.input_hash == b.input_hash
    assert same(replace(a, alarms=()), replace(b, alarms=()))
    assert "SAME_SESSION_PURGED" in codes(a)


def test_a_datum_of_yesterday_does_matter() -> None:
    """The mutation test above can fail: the same change one row earlier moves the book."""
    made = snapshot(PANEL, ROW)
    changed = made.asset_returns.copy()
    changed.iloc[-1] *= 10.0
    assert not same(decide(made), decide(replace(made, asset_returns=changed)))


def test_future_rows_of_an_aligned_history_do_not_matter() -> None:
    panel = small_panel(t=220)

    def history(n: int, spoiled: bool) -> History:
        returns, targets = panel.returns.to_numpy(copy=True), panel.target_array()
        if spoiled:
            returns[ROW:], targets[ROW:] = 5.0, 1e6
        return History(panel.symbols, panel.sleeve_ids, returns[:n], targets[:n], panel.dates.to_numpy()[:n])

    clean, spoiled, short = (
        decide(snapshot(panel, ROW, history=h)) for h in (history(220, False), history(220, True), history(ROW, False))
    )
    assert same(clean, spoiled) and clean.input_hash == short.input_hash
    np.testing.assert_allclose(clean.exposures, short.exposures, rtol=0, atol=1e-14)


def test_no_input_is_changed() -> None:
    made = snapshot(PANEL, ROW, positions=pd.Series(1e4, index=list(PANEL.symbols)))
    before = [
        made.asset_returns.copy(),
        made.positions.copy(),
        made.instruments.copy(),
        *(s.history.copy() for s in made.sleeves),
    ]
    decide(made)
    for old, new in zip(
        before, [made.asset_returns, made.positions, made.instruments, *(s.history for s in made.sleeves)], strict=True
    ):
        assert old.equals(new)


# ---------------------------------------------------------------- symmetries


@settings(max_examples=12, deadline=None)
@given(st.permutations(range(8)), st.permutations(range(4)))
def test_order_of_sleeves_and_symbols_is_irrelevant(columns: list[int], order: list[int]) -> None:
    made = snapshot(PANEL, ROW)
    names = [PANEL.symbols[i] for i in columns]
    sleeves = tuple(
        replace(s, weights=s.weights[names], history=s.history[names]) for s in (made.sleeves[i] for i in order)
    )
    mixed = replace(
        made, asset_returns=made.asset_returns[names], sleeves=sleeves, instruments=made.instruments.loc[names]
    )
    assert same(decide(made), decide(mixed))


def test_names_are_only_names() -> None:
    """Renaming with the order kept changes no number."""
    a, b = decide(snapshot(PANEL, ROW)), decide(renamed(snapshot(PANEL, ROW)))
    assert (a.exposures.to_numpy() == b.exposures.to_numpy()).all()
    assert (a.sleeve_weights.to_numpy() == b.sleeve_weights.to_numpy()).all()


def renamed(made: Snapshot) -> Snapshot:
    names = {s: f"X{s}" for s in PANEL.symbols}
    sleeves = tuple(
        replace(s, id=f"z_{s.id}", weights=s.weights.rename(names), history=s.history.rename(columns=names))
        for s in made.sleeves or ()
    )
    return replace(
        made,
        asset_returns=made.asset_returns.rename(columns=names),
        sleeves=sleeves,
        instruments=made.instruments.rename(index=names).drop(columns="primary"),
    )


@settings(max_examples=12, deadline=None)
@given(st.floats(1e-6, 1e6), st.integers(0, 3))
def test_scale_of_a_signal_is_irrelevant(factor: float, which: int) -> None:
    made = snapshot(PANEL, ROW)
    sleeves = tuple(
        s if i != which else replace(s, weights=s.weights * factor, history=s.history * factor)
        for i, s in enumerate(made.sleeves or ())
    )
    a, b = decide(made), decide(replace(made, sleeves=sleeves))
    np.testing.assert_allclose(a.exposures, b.exposures, rtol=0, atol=1e-12)
    np.testing.assert_allclose(a.sleeve_weights, b.sleeve_weights, rtol=0, atol=1e-12)


def test_mirrored_signals_give_the_mirrored_book() -> None:
    """All w -> -w and returns -> -returns: the same sleeve returns, so W -> -W and a unchanged (IC is invariant)."""
    live, mirror = Live(PANEL), Live(mirrored(PANEL))
    for row in range(120, 150):
        mirror.positions = -live.positions
        a, b = live.day(row, equity=5e6), mirror.day(row, equity=5e6)
        np.testing.assert_allclose(a.exposures, -b.exposures, rtol=0, atol=1e-14)
        np.testing.assert_allclose(a.sleeve_weights, b.sleeve_weights, rtol=0, atol=1e-14)


def mirrored(panel: Panel) -> Panel:
    return replace(panel, returns=-panel.returns, targets={k: -v for k, v in panel.targets.items()})


def test_mirrored_signals_on_the_same_returns() -> None:
    """Sleeve returns change sign together: vols, correlations and (without skill tilt) weights stay."""
    config = FAST.replace(**{"tilt.skill": False})
    a = decide(snapshot(PANEL, ROW), config)
    b = decide(snapshot(replace(PANEL, targets={k: -v for k, v in PANEL.targets.items()}), ROW), config)
    np.testing.assert_allclose(a.exposures, -b.exposures, rtol=0, atol=1e-14)
    np.testing.assert_allclose(a.sleeve_weights, b.sleeve_weights, rtol=0, atol=1e-14)


def test_a_symbol_without_quotes_and_weight_changes_nothing() -> None:
    made = snapshot(PANEL, ROW)
    more = replace(
        made,
        asset_returns=made.asset_returns.assign(ZZ=np.nan),
        instruments=pd.concat([made.instruments, made.instruments.iloc[:1].set_axis(["ZZ"]).assign(primary="ZZ")]),
    )
    a, b = decide(made), decide(more)
    np.testing.assert_allclose(a.exposures, b.exposures.drop("ZZ"), rtol=0, atol=1e-14)
    assert b.exposures["ZZ"] == 0.0


@pytest.mark.parametrize(
    "out", [{"demoted_on": pd.Timestamp("2020-02-03")}, {"promoted_on": pd.Timestamp("2031-01-02")}]
)
def test_a_sleeve_that_is_out_changes_nothing(out: dict[str, Any]) -> None:
    """Demoted, or not yet promoted: its returns are known and must not move the members' covariance."""
    full = small_panel(k=5)
    four = replace(
        full, targets={k: v for k, v in full.targets.items() if k != "sleeve_e"}, sleeves=full.sleeves.iloc[:4]
    )
    a, b = Live(four), Live(full)
    for row in range(110, 130):
        x = a.day(row, equity=5e6)
        y = b.day(
            row,
            equity=5e6,
            change=lambda s: replace(
                s, sleeves=tuple(replace(v, **out) if v.id == "sleeve_e" else v for v in s.sleeves or ())
            ),
        )
        np.testing.assert_allclose(x.exposures, y.exposures, rtol=0, atol=1e-14)
        np.testing.assert_allclose(x.sleeve_weights, y.sleeve_weights.iloc[:4], rtol=0, atol=1e-14)
        assert y.sleeve_weights["sleeve_e"] == 0.0


def test_wrappers_net_back() -> None:
    """Half of every S00 target moved to an equal wrapper: the same book on the primary, nothing on the wrapper."""
    made = snapshot(PANEL, ROW, positions=pd.Series({"S00": 1e5, "S01": -5e4}))
    split = with_wrapper(made, 1.0)
    split = replace(split, positions=pd.Series({"S00": 4e4, "S00x": 6e4, "S01": -5e4}))
    config = FAST.replace(**{"tilt.skill": False})  # the IC counts names, and a wrapper is one more
    a, b = decide(made, config), decide(split, config)
    np.testing.assert_allclose(a.exposures, b.exposures.drop("S00x"), rtol=0, atol=2e-3)
    np.testing.assert_allclose(a.trades.sum(), b.trades.sum(), rtol=0, atol=2e-2)
    assert b.exposures["S00x"] == 0.0
    assert b.exposures["S00"] - b.trades["S00"] == pytest.approx(1e5 / 5e6)  # holdings folded likewise


def with_wrapper(made: Snapshot, multiple: float) -> Snapshot:
    def moved(x: Any) -> Any:
        x = x.copy()
        x["S00x"] = 0.5 * x["S00"] / multiple
        x["S00"] = 0.5 * x["S00"]
        return x.sort_index() if isinstance(x, pd.Series) else x.sort_index(axis=1)

    info = made.instruments
    info = pd.concat([info, info.loc[["S00"]].set_axis(["S00x"]).assign(exposure_multiple=multiple)])
    return replace(
        made,
        asset_returns=made.asset_returns.assign(S00x=multiple * made.asset_returns["S00"]),
        instruments=info,
        sleeves=tuple(replace(s, weights=moved(s.weights), history=moved(s.history)) for s in made.sleeves or ()),
    )


def test_an_inverse_wrapper_offsets_its_primary() -> None:
    made = with_wrapper(snapshot(PANEL, ROW), -1.0)
    held = decide(replace(made, positions=pd.Series({"S00": 1e5, "S00x": 1e5})))
    assert held.exposures["S00"] - held.trades["S00"] == pytest.approx(0.0, abs=1e-15)


# ---------------------------------------------------------------- caps on the final book


def check_book(d: Decision, config: Any = CAPPED, tolerance: float = 1.0) -> None:
    """Reliability guide, invariants 1-6 on the finished book, in units before Kelly."""
    w = d.exposures / (config.sizing.kelly * config.sizing.fraction)
    tier, slack = int(d.numbers["tier"]), 1e-9
    assert np.isfinite(w).all() and w.index.is_unique and list(w.index) == sorted(w.index)
    assert w.abs().max() <= min(config.caps.name, config.ladder.name[tier]) * tolerance + slack
    assert w.abs().sum() <= min(config.caps.gross, config.ladder.gross[tier]) * tolerance + slack
    assert abs(w.sum()) <= config.caps.net * tolerance + slack
    for group in (w.iloc[::2], w.iloc[1::2]):  # asset classes of the small panel alternate
        assert group.abs().sum() <= config.caps.cluster * tolerance + slack


@pytest.mark.parametrize("equity", [5e4, 5e5, 5e6, 5e7])
def test_caps_hold_on_the_final_book_every_day(equity: float) -> None:
    config = CAPPED.replace(**{"caps.net": 0.3, "caps.cluster": 0.4, "vol_target.target": 0.3})
    live = Live(PANEL, config, equity=equity)
    for row in range(100, 160):
        d = live.day(row)
        check_book(d, config, config.caps.drift_tolerance)
        assert abs(d.sleeve_weights.sum() + d.numbers["cash"] - 1.0) <= 1e-12 and (d.sleeve_weights >= 0.0).all()
        assert (d.sleeve_weights <= max(config.allocation.sleeve_cap, 0.25) + 1e-12).all()
        assert (set(d.binding) & {"name", "cluster", "net", "gross", "tier"}) or gross(d) < 0.1


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([5e4, 5e5, 5e6, 5e7]),
    st.floats(0.0, 3.0),
    st.sampled_from(["none", "no_trade", "no_short", "reduce_only", "halted"]),
)
def test_caps_hold_from_any_holdings(seed: int, equity: float, size: float, rule: str) -> None:
    """Drifted, restricted and oversized holdings: cured, or the frozen name alone is above and said so."""
    rng = np.random.default_rng(seed)
    held = pd.Series(size * rng.standard_normal(8) / 4.0, index=list(PANEL.symbols))
    d = decide(
        snapshot(
            PANEL, ROW, equity=equity, positions=held * equity, restricted={"S03": rule} if rule != "none" else None
        ),
        CAPPED,
    )
    frozen = rule in ("no_trade", "halted")
    if frozen:
        assert d.exposures["S03"] == pytest.approx(held["S03"], abs=2e-12)
    else:
        check_book(d, CAPPED, CAPPED.caps.drift_tolerance)
    if rule == "reduce_only":
        assert abs(d.exposures["S03"]) <= abs(held["S03"]) + 1e-12 and d.exposures["S03"] * held["S03"] >= 0.0
    if rule == "no_short":
        assert d.exposures["S03"] >= min(held["S03"], 0.0) - 2e-12
    limit = min(0.15, CAPPED.ladder.name[int(d.numbers["tier"])]) * 1.1
    if frozen and abs(held["S03"]) > 0.5 * limit + 1e-9:
        assert "CAP_UNCURABLE" in codes(d)


def test_turnover_is_zero_or_beyond_the_band() -> None:
    """Invariant 38: an optional trade is at least its band; only exits, cuts and cures may be smaller."""
    live = Live(PANEL)
    live.days(100, 130)
    for row in range(131, 150):
        d = live.day(row)
        if 0.95 <= d.numbers["risk_ratio"] <= 1.10 and not set(d.binding) & {
            "governor",
            "throttle",
            "name",
            "cluster",
            "net",
            "gross",
        }:
            now = d.exposures - d.trades
            moved = (d.trades.abs() > 1e-12) & (d.exposures.abs() > 1e-12) & (now.abs() > 1e-12)
            band = np.minimum(0.0075, 0.5 * np.maximum(d.exposures.abs(), now.abs()))
            assert (d.trades.abs()[moved] > band[moved] - 1e-10).all()


# ---------------------------------------------------------------- kills and restrictions


def test_book_kill_flattens_and_latches() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    d = live.day(111, kills=Kills(book=True, who="ann", why="drill"))
    assert (d.exposures == 0.0).all() and "KILL_SET" in codes(d) and "throttle" in d.binding
    assert (live.day(112).exposures == 0.0).all()  # the next snapshot does not mention it
    stored = BookState.from_dict(json.loads(json.dumps(live.integrator.state.to_dict())))
    live.integrator = PortfolioIntegrator(FAST, stored)
    assert (live.day(113).exposures == 0.0).all()  # nor does a restart forget it
    d = live.day(114, operator=Operator(who="bob", why="done", release_kills=True))
    assert gross(d) > 0.0 and "KILL_SET" not in codes(d)
    assert gross(live.day(115)) > 0.0


def test_sleeve_and_symbol_kills_latch() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    first = live.day(111, kills=Kills(sleeves=("sleeve_b",), symbols=("S02",)))
    for d in (first, live.day(112), live.day(113)):
        assert d.sleeve_weights["sleeve_b"] == 0.0 and d.exposures["S02"] == 0.0 and gross(d) > 0.0
    d = live.day(114, operator=Operator(who="bob", why="done", release_kills=True))
    assert d.sleeve_weights["sleeve_b"] > 0.0


def test_a_symbol_kill_leaves_the_other_names_alone() -> None:
    """Kills come after the stages (SPEC section 4): no volatility target makes up for what a person stopped."""
    free, killed = decide(snapshot(PANEL, ROW)), decide(snapshot(PANEL, ROW, kills=Kills(symbols=("S02",), who="a", why="b")))
    assert free.exposures["S02"] != 0.0 == killed.exposures["S02"]
    assert killed.exposures.drop("S02").equals(free.exposures.drop("S02"))
    assert killed.numbers["leverage"] == free.numbers["leverage"]


def test_a_kill_that_names_nothing_is_said() -> None:
    d = decide(snapshot(PANEL, ROW, kills=Kills(symbols=("s02", "S02"), sleeves=("sleeve_z",), who="a", why="b")))
    assert [(a.subject, a.severity) for a in d.alarms if a.code == "KILL_SET" and a.value == "unknown"] == [
        ("s02", "critical"), ("sleeve_z", "critical")]


@pytest.mark.parametrize("what", ["positions", "prices"])
def test_a_missing_account_or_quotes_hold_the_book(what: str) -> None:
    """Positions that are missing are not zero, and quantities without their prices are not amounts: nothing is traded."""
    live = Live(PANEL)
    before = live.days(100, 110)
    prices = pd.Series(20.0, index=list(PANEL.symbols))
    made = snapshot(PANEL, 111, positions=before.exposures * 5e6 / 20.0)
    live.integrator.build_target_book(replace(made, prices=prices))
    last = live.integrator.state
    later = snapshot(PANEL, 112, positions=live.positions)
    d = PortfolioIntegrator(FAST, last).build_target_book(replace(later, positions=None, prices=prices)) if what == "positions" \
        else live.integrator.build_target_book(replace(later, prices=None))
    assert not d.orders and (d.trades == 0.0).all() and gross(d) > 0.0
    assert [(a.subject, a.severity) for a in d.alarms if a.code == "STALE_INPUT"] == [(what, "critical")]
    flat = PortfolioIntegrator(FAST, last).build_target_book(
        replace(later, positions=None, kills=Kills(book=True, who="a", why="b")))
    assert (flat.exposures == 0.0).all()
    empty = decide(replace(later, positions=None))  # nothing was ever held: none is what there is
    assert gross(empty) > 0.0 and "STALE_INPUT" not in codes(empty)


@pytest.mark.parametrize(
    "kills",
    [
        "on",
        1,
        {"book": False},
        Kills(book="no"),
        Kills(book=None),
        Kills(sleeves="sleeve_a"),  # type: ignore[arg-type]
        Kills(symbols=(3,)),
        object(),
    ],
)  # type: ignore[arg-type]
def test_an_unreadable_kill_state_counts_as_set(kills: Any) -> None:
    live = Live(PANEL)
    live.days(100, 105)
    d = live.day(106, kills=kills)
    assert (d.exposures == 0.0).all() and "KILL_SET" in codes(d)


@pytest.mark.parametrize(
    "change",
    [
        {"asset_returns": None},
        {"flows": np.nan},
        {"equity": np.inf},
        {"equity": "much"},
        {"slot": "noon"},
        {"sleeves": (1,)},
        {"instruments": pd.DataFrame({"asset_class": ["x"], "fee_bps": [-1.0]}, index=["S00"])},
        {"positions": pd.Series({"S00": np.nan})},
        {"regime": "calm"},
        {"restricted": 5},
    ],
)
def test_a_book_kill_works_when_the_inputs_do_not(change: dict[str, Any]) -> None:
    """Kill read before any validation: a flat book, close-out orders, and the reason."""
    live = Live(PANEL)
    live.days(100, 105)
    bad = lambda s: replace(s, kills=Kills(book=True, who="ann", why="fire"), **change)
    d = live.day(106, change=bad, earn=False)
    assert (d.exposures == 0.0).all() and (d.notionals == 0.0).all() and codes(d) == {"KILL_SET"}
    if "positions" not in change:
        held = live.positions[live.positions != 0.0]
        assert {o.symbol: o.quantity for o in d.orders} == {s: abs(q) for s, q in held.items()}
        assert all((o.side == "sell") == (held[o.symbol] > 0.0) for o in d.orders)
    assert (live.day(107).exposures == 0.0).all()
    BookState.from_dict(json.loads(json.dumps(live.integrator.state.to_dict(), allow_nan=False)))
    with pytest.raises(Exception) as caught:  # without the kill the same inputs are an error
        Live(PANEL).day(106, change=lambda s: replace(s, **change))
    assert isinstance(caught.value, InputError)


def test_kill_beats_a_restriction_of_the_symbol_and_an_absent_list() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    d = live.day(111, kills=Kills(symbols=("S01",)), restricted={"S01": "no_trade"})
    assert d.exposures["S01"] == 0.0
    d = live.day(112, sleeves=None, kills=Kills(book=True))
    assert (d.exposures == 0.0).all()


def test_restrictions_over_days() -> None:
    for rule in ("no_trade", "no_short", "reduce_only", "suspended"):
        live = Live(PANEL)
        live.days(100, 110)
        for row in range(111, 131):
            now = {s: live.positions[s] / live.equity for s in PANEL.symbols}
            d = live.day(row, restricted={"S01": rule, "S04": rule})
            for s in ("S01", "S04"):
                e, before = float(d.exposures[s]), now[s]
                if rule in ("no_trade", "suspended"):
                    assert e == pytest.approx(before, abs=1e-15)
                elif rule == "reduce_only":
                    assert abs(e) <= abs(before) + 1e-15 and e * before >= 0.0
                else:
                    assert e >= min(before, 0.0) - 1e-15


# ---------------------------------------------------------------- sleeve states


def share(d: Decision, name: str) -> float:
    return float(d.sleeve_weights[name])


def test_held_then_quarantined_then_back() -> None:
    live = Live(PANEL)
    before = live.days(100, 120)
    for i, row in enumerate((121, 122, 123)):
        d = live.day(row, change=lambda s: without(s, "sleeve_a"))
        assert "SLEEVE_HELD" in codes(d), i
        assert 0.0 < share(d, "sleeve_a") <= share(before, "sleeve_a") + 1e-12
    d = live.day(124, change=lambda s: without(s, "sleeve_a"))
    assert "SLEEVE_QUARANTINED" in codes(d) and share(d, "sleeve_a") == 0.0
    cash = d.numbers["cash"]
    assert cash == pytest.approx(1.0 - d.sleeve_weights.sum(), abs=1e-12) and cash > 0.05
    d = live.day(125, change=lambda s: without(s, "sleeve_a"))
    assert d.numbers["cash"] >= cash - 1e-9  # its share stays cash, the others do not get it
    d = live.day(126)
    assert share(d, "sleeve_a") > 0.0 and d.numbers["cash"] < 1e-9 and "SLEEVE_QUARANTINED" not in codes(d)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["missing", "dead", "nan", "inf", "nothing"]), st.sampled_from(list("abcd")))
def test_a_lost_sleeve_never_adds_risk(seed: int, how: str, letter: str) -> None:
    """Invariant 18: while held, and at entry to quarantine, gross and vol stay within the held book's."""
    panel, name = small_panel(seed, memory=0.8), f"sleeve_{letter}"
    live = Live(panel)
    live.days(100, 104)
    for row in range(105, 110):
        held = float((live.positions / live.equity).abs().sum())
        d = live.day(row, change=lambda s: spoil_sleeve(s, name, how))
        state_ok = codes(d) & {"SLEEVE_HELD", "SLEEVE_QUARANTINED"}
        assert state_ok
        if "SLEEVE_HELD" in state_ok or row == 105:
            assert gross(d) <= held + 1e-12
            assert d.numbers["ex_ante_vol"] <= vol_of(live, d) * (1.0 + 1e-9)


def vol_of(live: Live, d: Decision) -> float:
    """Volatility of what was held, under the risk model of the decision."""
    now = (d.exposures - d.trades).to_numpy()
    risk = live.integrator._estimator._risk[1]  # type: ignore[union-attr,index]
    return float(np.sqrt(252.0 * risk.variance(now)))


def spoil_sleeve(made: Snapshot, name: str, how: str) -> Snapshot:
    if how == "missing":
        return without(made, name)
    if how == "nothing":  # listed, but neither a target nor a past
        return replace(made, sleeves=tuple(
            replace(s, weights=None, history=None) if s.id == name else s for s in made.sleeves or ()))

    def spoil(s: Sleeve) -> Sleeve:
        if s.id != name:
            return s
        if how == "dead":  # a feed that repeats itself: the caller's own returns
            tail = pd.Series(0.001, index=made.asset_returns.index[-6:])
            return replace(s, returns=tail)
        return replace(s, weights=s.weights.where(s.weights.index != "S03", np.nan if how == "nan" else np.inf))

    return replace(made, sleeves=tuple(spoil(s) for s in made.sleeves or ()))


def test_demotion_is_immediate_and_repromotion_is_on_probation() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    out = PANEL.dates[111]

    def demoted(s: Snapshot) -> Snapshot:
        return replace(
            s, sleeves=tuple(replace(v, demoted_on=out) if v.id == "sleeve_c" else v for v in s.sleeves or ())
        )

    d = live.day(111, change=demoted)
    assert share(d, "sleeve_c") == 0.0 and "SLEEVE_DEMOTED" in codes(d) and d.numbers["cash"] < 1e-9
    assert (d.sleeve_weights <= 1.0 / 3.0 + 1e-12).all()
    live.day(112, change=demoted)
    again = PANEL.dates[113]

    def back(s: Snapshot) -> Snapshot:
        return replace(
            s,
            sleeves=tuple(
                replace(v, demoted_on=out, promoted_on=again) if v.id == "sleeve_c" else v for v in s.sleeves or ()
            ),
        )

    ratios = []
    for row in range(113, 136):
        d = live.day(row, change=back)
        path = d.passport.sleeve_path()[:, 2]
        ratios.append(path[5] / path[4])
    np.testing.assert_allclose(ratios[:21], 0.5 + 0.5 * np.arange(21) / 20.0, atol=1e-12)
    assert ratios[21] == ratios[22] == 1.0


def test_repromotion_without_a_date_is_on_probation_too() -> None:
    live = Live(PANEL)
    live.days(100, 105)
    live.day(
        106,
        change=lambda s: replace(
            s,
            sleeves=tuple(
                replace(v, demoted_on=PANEL.dates[106]) if v.id == "sleeve_c" else v for v in s.sleeves or ()
            ),
        ),
    )
    path = live.day(107).passport.sleeve_path()[:, 2]
    assert path[5] == pytest.approx(0.5 * path[4], abs=1e-15) and path[4] > 0.0


def test_sleeves_of_the_first_session_are_seasoned_and_later_ones_are_not() -> None:
    late = small_panel(k=5)
    live = Live(late)
    cut = lambda s: replace(s, sleeves=tuple(v for v in s.sleeves or () if v.id != "sleeve_e"))
    d = live.day(100, change=cut)
    assert (d.passport.sleeve_path()[5] == d.passport.sleeve_path()[4]).all()
    d = live.day(101)
    path = d.passport.sleeve_path()[:, 4]
    assert path[4] > 0.0 and path[5] == pytest.approx(0.5 * path[4], abs=1e-15)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_sleeve_that_leaves_the_list_is_not_forgotten(aligned: bool) -> None:
    """Missing from the list without a demotion is a loss of data: held while its past is known, else quarantined."""
    live = Live(PANEL)
    history = (
        history_from_frames(PANEL.returns, snapshot(PANEL, 199).sleeves or (), PANEL.dates[199]) if aligned else None
    )
    for row in range(100, 111):
        live.day(row, history=history)
    held = float((live.positions / live.equity).abs().sum())
    d = live.day(
        111,
        change=lambda s: replace(s, sleeves=tuple(v for v in s.sleeves or () if v.id != "sleeve_a")),
        history=history,
    )
    assert codes(d) & ({"SLEEVE_HELD"} if aligned else {"SLEEVE_QUARANTINED"})
    assert gross(d) <= held + 1e-12 and "sleeve_a" in d.sleeve_weights.index
    d = live.day(112, history=history)
    assert share(d, "sleeve_a") > 0.0


@pytest.mark.parametrize("own", [False, True])
def test_a_listed_sleeve_without_target_and_past_keeps_its_share_in_cash(own: bool) -> None:
    """There is nothing to hold it at, so it is quarantined; its capital does not go to the others."""
    live = Live(PANEL)
    returns = pd.Series(0.004 * np.random.default_rng(5).standard_normal(len(PANEL.dates)), index=PANEL.dates)

    def caller_tracks(s: Snapshot, silent: bool = False) -> Snapshot:
        first, *rest = s.sleeves or ()
        mine = replace(first, history=None, returns=returns[returns.index < s.session] if own else None)
        return replace(s, sleeves=(replace(mine, weights=None) if silent else mine if own else first, *rest))

    for row in range(100, 106):
        before = live.day(row, change=caller_tracks)
    had = share(before, "sleeve_a")
    d = live.day(106, change=lambda s: caller_tracks(s, silent=True))
    assert had > 0.0 and share(d, "sleeve_a") == 0.0 and "SLEEVE_QUARANTINED" in codes(d)
    assert d.sleeve_weights.sum() <= 1.0 - had + 1e-9 and d.numbers["cash"] == pytest.approx(had, abs=0.02)
    assert share(live.day(107, change=caller_tracks), "sleeve_a") > 0.0  # it is live again the day it speaks


def test_a_sleeve_with_its_own_returns_needs_no_history() -> None:
    """`Sleeve.returns` instead of `history`: the caller tracks the sleeve."""
    made = snapshot(PANEL, ROW)
    rng = np.random.default_rng(5)
    own = pd.Series(0.004 * rng.standard_normal(ROW), index=made.asset_returns.index)
    first = made.sleeves[0]
    d = decide(replace(made, sleeves=(replace(first, history=None, returns=own), *made.sleeves[1:])))
    assert share(d, first.id) > 0.0


def test_absent_list_holds_and_reduces_only() -> None:
    live = Live(PANEL)
    live.days(100, 115)
    for change in ({"sleeves": None}, {"sleeves": ()}, {"sleeves": None}):
        now = live.positions / live.equity
        d = live.day(116 + len(live.decisions) - 16, **change)
        assert "SLEEVES_ABSENT" in codes(d)
        assert (d.exposures.abs() <= now.abs() + 1e-15).all() and (d.exposures * now >= 0.0).all()
        assert gross(d) > 0.5 * float(now.abs().sum())
    assert "SLEEVES_ABSENT" not in codes(live.day(119)) and gross(live.decisions[-1]) > 0.0
    path = live.decisions[-1].passport.sleeve_path()
    np.testing.assert_array_equal(path[5], path[4])  # an absence is no demotion: nobody is on probation


def test_confirmed_empty_list_closes_out() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    d = live.day(111, sleeves=(), sleeves_confirmed=True)
    assert (d.exposures == 0.0).all() and gross(live.decisions[-2]) > 0.0
    d = live.day(112)
    path = d.passport.sleeve_path()
    np.testing.assert_allclose(path[5], 0.5 * path[4], atol=1e-15)  # promoted anew: on probation


def test_confirmed_empty_list_at_the_very_start() -> None:
    d = decide(snapshot(PANEL, ROW, sleeves=(), sleeves_confirmed=True, positions=pd.Series({"S00": 1e5})))
    assert (d.exposures == 0.0).all()


def test_before_the_first_allocation_it_holds() -> None:
    live = Live(PANEL)
    live.positions["S00"] = 1e5
    d = live.day(100, slot="09:35")
    assert d.exposures["S00"] == pytest.approx(1e5 / 5e6) and gross(d) == pytest.approx(1e5 / 5e6)
    assert gross(live.day(100, slot="15:30")) > 0.1


def test_other_slots_never_re_estimate_weights() -> None:
    live = Live(PANEL)
    first = live.days(100, 110)
    for row, slot in ((111, "09:35"), (111, "12:00"), (111, "event-1"), (111, "14:00")):
        d = live.day(row, slot=slot, earn=False)
        assert (d.sleeve_weights.to_numpy() == first.sleeve_weights.to_numpy()).all()
    assert not (live.day(111).passport.sleeve_path()[3] == first.passport.sleeve_path()[3]).all()
    live = Live(PANEL)
    live.days(100, 110)
    d = live.day(
        111,
        slot="09:35",
        change=lambda s: replace(
            s,
            sleeves=tuple(
                replace(v, demoted_on=PANEL.dates[111]) if v.id == "sleeve_a" else v for v in s.sleeves or ()
            ),
        ),
    )
    assert share(d, "sleeve_a") == 0.0  # but a demotion acts at any slot


def test_weekly_cadence_allocates_in_the_first_session_of_a_week() -> None:
    live = Live(PANEL, FAST.replace(**{"allocation.cadence": "weekly"}))
    weights, days = [], []
    for row in range(100, 125):
        weights.append(live.day(row).passport.sleeve_path()[3])
        days.append(PANEL.dates[row].dayofweek)
    moved = [not (a == b).all() for a, b in zip(weights[1:], weights[:-1], strict=True)]
    assert moved == [d == 0 for d in days[1:]]


def test_weekly_cadence_with_every_slot_and_a_missed_monday() -> None:
    """Earlier slots of the day take nothing away, a missed first session is made up for, and a restart forgets nothing."""
    config = FAST.replace(**{"allocation.cadence": "weekly"})
    live, moved = Live(PANEL, config), {}
    away = next(row for row in range(105, 112) if PANEL.dates[row].dayofweek == 0)
    for row in range(100, 125):
        live.integrator = PortfolioIntegrator(config, live.integrator.state)
        for slot in ("09:35", "12:00", "14:00", "15:30"):
            if row == away and slot == "15:30":
                live.day(row, slot="event-1")  # the slot itself was missed
                continue
            before = live.integrator.state.values.get("allocated_session")
            live.day(row, slot=slot, earn=slot == "15:30")
            if live.integrator.state.values["allocated_session"] != before:
                moved[row] = slot
    weeks = [PANEL.dates[row].isocalendar()[:2] for row in moved]
    assert set(moved.values()) == {"15:30"} and len(set(weeks)) == len(weeks) == len(
        {PANEL.dates[row].isocalendar()[:2] for row in range(100, 125)})
    assert away + 1 in moved and all(PANEL.dates[row].dayofweek == 0 for row in moved if row not in (100, away + 1))
    stored = live.integrator.state
    broken = replace(stored, values={**stored.values, "allocated_on": "some day"})
    with pytest.raises(StateError):
        PortfolioIntegrator(config, broken)
    assert "allocated_on" not in PortfolioIntegrator(FAST).state.values


def test_an_earlier_slot_asked_again_is_refused() -> None:
    live = Live(PANEL)
    live.days(100, 105)
    first, second = live.day(106, slot="09:35", earn=False), live.day(106, slot="12:00", earn=False)
    state = live.integrator.state
    with pytest.raises(InputError) as caught:
        live.day(106, slot="09:35")
    assert caught.value.code == "SLOT_ORDER" and caught.value.field == "slot" and live.integrator.state == state
    assert first.id != second.id == live.day(106, slot="12:00").id
    live.day(107, slot="09:35")  # the same name on another day


def test_gains_of_sleeves_on_different_names_are_added_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that one sleeve knows nothing of keeps the other's gain; a name nobody knows has none."""
    given = []
    for gains in (({"S00": 0.01, "S01": 0.02}, {}), ({"S00": 0.01, "S01": 0.02}, {"S02": 0.03, "S01": 0.01})):
        live, caught = Live(PANEL), []
        live.days(100, 103)
        own = {f"sleeve_{k}": pd.Series(g, dtype=float) for k, g in zip("ab", gains, strict=True)}
        made = snapshot(PANEL, 104)
        made = replace(made, sleeves=tuple(replace(v, expected_gain=own.get(v.id)) for v in made.sleeves or ()))
        with monkeypatch.context() as patch:
            patch.setattr(integrator_module, "step", lambda p, s, x, caught=caught: (caught.append(x), step(p, s, x))[1])
            live.integrator.build_target_book(made)
        given.append(caught[0].expected_gain)
    nan = np.nan
    np.testing.assert_allclose(given[0][:4], [0.01, 0.02, nan, nan])
    np.testing.assert_allclose(given[1][:4], [0.01, 0.03, 0.03, nan])


def test_a_kill_does_not_relax_the_cap_of_the_others() -> None:
    """Four sleeves, a cap of 20 % relaxed to a quarter: with one killed the others stay at a quarter."""
    live = Live(PANEL, FAST.replace(**{"allocation.sleeve_cap": 0.2, "tilt.skill": False, "allocation.smoothing": 0.01}))
    live.days(100, 110)
    for row in range(111, 116):
        d = live.day(row, kills=Kills(sleeves=("sleeve_b",)))
    weights = dict(zip(d.passport.sleeve_ids, d.passport.sleeve_path()[4], strict=True))
    assert weights["sleeve_b"] == 0.0 and max(weights.values()) == pytest.approx(0.25, abs=1e-6)


# ---------------------------------------------------------------- equity


def test_missing_equity_reduces_only_on_the_last_one() -> None:
    for missing in (None, float("nan")):
        live = Live(PANEL)
        live.days(100, 110)
        now = live.positions / live.equity
        d = live.day(111, equity=missing)
        assert "EQUITY_MISSING" in codes(d) and (d.exposures.abs() <= now.abs() * (1.0 + 1e-2) + 1e-15).all()


@pytest.mark.parametrize("equity", [0.0, -1.0, -1e9])
def test_no_equity_is_flat(equity: float) -> None:
    live = Live(PANEL)
    live.days(100, 110)
    d = live.day(111, equity=equity)
    assert (d.exposures == 0.0).all() and "EQUITY_NONPOSITIVE" in codes(d) and "GOVERNOR_FLAT" not in codes(d)
    assert next(a.value for a in d.alarms if a.code == "EQUITY_NONPOSITIVE") == equity


def test_flows_leave_the_drawdown_alone() -> None:
    base, other = Live(PANEL), Live(PANEL)
    base.days(100, 110), other.days(100, 110)
    a = base.day(111)
    b = other.day(
        111, equity=other.equity + 2e6, flows=2e6, positions=other.positions * (other.equity + 2e6) / other.equity
    )
    assert a.numbers["drawdown"] == pytest.approx(b.numbers["drawdown"], abs=1e-15)
    np.testing.assert_allclose(a.exposures, b.exposures, atol=1e-3)


def test_governor_is_monotone_in_drawdown_and_survives_a_restart() -> None:
    gross_by_loss, m = [], []
    for loss in (0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.13, 0.14, 0.16):
        live = Live(PANEL, FAST.replace(**{"kill_tiers.daily_loss": 0.5}))
        live.days(100, 110)
        live.integrator = PortfolioIntegrator(
            live.config, BookState.from_dict(json.loads(json.dumps(live.integrator.state.to_dict())))
        )
        peak = max(5e6, *(d.equity for d in live.decisions))
        d = live.day(111, equity=peak * (1.0 - loss), positions=live.positions * 0.0)
        gross_by_loss.append(gross(d))
        m.append(d.haircuts["product"])
    assert m == sorted(m, reverse=True) and m[0] == 0.5 and m[-1] == 0.0
    assert (
        all(a >= b - 1e-12 for a, b in zip(gross_by_loss, gross_by_loss[1:], strict=False)) and gross_by_loss[-1] == 0.0
    )


def test_daily_loss_is_flat_today_and_tomorrow() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    live.equity *= 0.965
    for row, flat in ((111, True), (112, True), (113, False)):
        d = live.day(row)
        assert (gross(d) == 0.0) == flat == ("DAILY_LOSS" in codes(d)) and "GOVERNOR_FLAT" not in codes(d)


# ---------------------------------------------------------------- monotone safety


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("caps.gross", (1.0, 0.6, 0.4)),
        ("caps.name", (0.15, 0.1, 0.05)),
        ("vol_target.target", (0.10, 0.07, 0.04)),
        ("sizing.kelly", (0.5, 0.3, 0.1)),
        ("caps.net", (1.0, 0.2, 0.05)),
        ("caps.cluster", (0.5, 0.3, 0.1)),
    ],
)
def test_tighter_limits_never_add_gross(key: str, values: tuple[float, ...]) -> None:
    extra = {"caps.net": 0.4, "caps.name": 0.4} if key == "caps.gross" else {}
    books = [gross(decide(snapshot(PANEL, ROW), FAST.replace(**{**extra, key: v}))) for v in values]
    assert books[0] >= books[1] >= books[2] > 0.0


def test_crisis_lowers_the_target_and_favours_defensive_sleeves() -> None:
    base = decide(snapshot(PANEL, ROW))
    crisis = decide(snapshot(PANEL, ROW, regime=RegimeRead(label="crisis", confidence=1.0)))
    assert crisis.numbers["vol_target"] == pytest.approx(0.08) and base.numbers["vol_target"] == pytest.approx(0.10)
    a, b = base.passport.sleeve_path()[1], crisis.passport.sleeve_path()[1]
    assert b[0] / b[1] > a[0] / a[1] and (np.abs(b / base.passport.sleeve_path()[0] - 1.0) <= 0.25 + 1e-12).all()


# ---------------------------------------------------------------- identity, state


def test_asking_twice_gives_the_first_answer_and_one_step() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    first = live.day(111, earn=False)
    state = live.integrator.state
    for _ in range(3):
        again = live.day(111, earn=False)
        assert (
            again.id == first.id and (again.exposures == first.exposures).all() and "DUPLICATE_DECISION" in codes(again)
        )
        assert live.integrator.state == state
    other = live.day(111, earn=False, equity=live.equity * 1.01)
    assert "INPUT_CHANGED" in codes(other) and (other.exposures == first.exposures).all()
    assert live.integrator.state == state and state.seq == 12
    restored = PortfolioIntegrator(FAST, BookState.from_dict(json.loads(json.dumps(state.to_dict()))))
    live.integrator = restored
    again = live.day(111, earn=False)
    assert "DUPLICATE_DECISION" in codes(again)
    np.testing.assert_array_equal(again.exposures, first.exposures)
    with pytest.raises(InputError, match="passport") as caught:
        again.explain("S00")
    assert caught.value.code == "NO_PASSPORT"


CHANGES: list[Callable[[Snapshot], Snapshot]] = [
    lambda s: replace(s, flows=1.0),
    lambda s: replace(s, equity=4.9e6),
    lambda s: replace(s, restricted={"S01": "no_trade"}),
    lambda s: replace(s, kills=Kills(symbols=("S01",))),
    lambda s: replace(s, regime=RegimeRead(label="crisis", confidence=0.3)),
    lambda s: replace(s, positions=pd.Series({"S00": 1.0})),
    lambda s: replace(s, asset_returns=s.asset_returns * (1.0 + 1e-12)),
    lambda s: replace(s, instruments=s.instruments.assign(half_spread_bps=3.0)),
    lambda s: replace(s, sleeves=s.sleeves[:-1]),
    lambda s: replace(s, prices=pd.Series(2.0, index=list(PANEL.symbols))),
    lambda s: replace(s, sleeves=(replace(s.sleeves[0], capacity=1e5), *s.sleeves[1:])),
    lambda s: replace(s, sleeves=(replace(s.sleeves[0], expected_gain=pd.Series({"S00": 0.1})), *s.sleeves[1:])),
    lambda s: replace(s, sleeves=(replace(s.sleeves[0], weights=-s.sleeves[0].weights), *s.sleeves[1:])),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_input_is_in_the_hash(change: Callable[[Snapshot], Snapshot]) -> None:
    integrator = PortfolioIntegrator(FAST)
    first = integrator.build_target_book(snapshot(PANEL, ROW))
    other = integrator.build_target_book(change(snapshot(PANEL, ROW)))
    assert "INPUT_CHANGED" in codes(other) and same(replace(other, alarms=()), replace(first, alarms=()))


def test_ids_differ_by_session_slot_and_configuration() -> None:
    ids = [
        decide(snapshot(PANEL, ROW)).id,
        decide(snapshot(PANEL, ROW + 1)).id,
        decide(snapshot(PANEL, ROW, slot="12:00")).id,
        decide(snapshot(PANEL, ROW), FAST.replace(**{"caps.name": 0.14})).id,
    ]
    assert len(set(ids)) == 4 and ids[0] == decide(snapshot(PANEL, ROW)).id


def canonical(state: BookState) -> str:
    return json.dumps(state.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)


def test_state_round_trip_every_day() -> None:
    """Invariants 29-31: a new integrator from the stored state decides bitwise the same; JSON is a fixed point."""
    a, b = Live(PANEL), Live(PANEL)
    for row in range(100, 125):
        x, y = a.day(row), b.day(row)
        assert same(x, y), row
        state = a.integrator.state
        text = canonical(state)
        back = BookState.from_dict(json.loads(text))
        assert back == state and canonical(back) == text and hash(back) == hash(state) and len({back, state}) == 1
        b.integrator = PortfolioIntegrator(FAST, back)
        assert b.integrator.state == state
    assert a.integrator.state.seq == 25
    assert a.integrator.state != Live(PANEL).integrator.state


def test_a_state_before_any_decision_is_a_state() -> None:
    fresh = PortfolioIntegrator(FAST).state
    a = PortfolioIntegrator(FAST, BookState.from_dict(json.loads(canonical(fresh))))
    assert a.state == fresh and same(a.build_target_book(snapshot(PANEL, ROW)), decide(snapshot(PANEL, ROW)))


def test_bad_states_are_refused() -> None:
    live = Live(PANEL)
    live.days(100, 101)
    state = live.integrator.state
    for change, code in (
        ({"schema": 2}, "SCHEMA"),
        ({"config_fingerprint": "sha256:0"}, "CONFIG_MISMATCH"),
        ({"values": {}}, "BAD_STATE"),
        ({"values": {**state.values, "applied": "x"}}, "BAD_STATE"),
        *(({"values": {**state.values, "drawdown": {**state.values["drawdown"], name: (0.0,)}}}, "BAD_STATE")
          for name in ("equity", "close")),
        ({"values": {k: v for k, v in state.values.items() if k != "drawdown"}}, "BAD_STATE"),
    ):
        with pytest.raises(StateError, match="state|configuration") as caught:
            PortfolioIntegrator(FAST, replace(state, **change))
        assert caught.value.code == code and caught.value.field.startswith("state")
    with pytest.raises(StateError, match="exactly the fields"):
        BookState.from_dict({"schema": 1})
    integrator = PortfolioIntegrator(FAST)  # a kill before the first good input is remembered too
    integrator.build_target_book(snapshot(PANEL, ROW, kills=Kills(book=True), asset_returns=None))
    back = PortfolioIntegrator(FAST, BookState.from_dict(json.loads(canonical(integrator.state))))
    assert back.state == integrator.state and (back.build_target_book(snapshot(PANEL, ROW + 1)).exposures == 0.0).all()
    damaged = replace(state, values={k: v for k, v in state.values.items() if k != "kills"})
    assert (PortfolioIntegrator(FAST, damaged).build_target_book(snapshot(PANEL, 102)).exposures == 0.0).all()


def test_an_error_leaves_the_state_alone() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    state = live.integrator.state
    for change in (
        {"flows": np.nan},
        {"slot": "9:35"},
        {"asset_returns": PANEL.returns.iloc[::-1]},
        {"session": PANEL.dates[90]},
        {"positions": pd.Series({"S00": np.inf})},
    ):
        with pytest.raises(InputError, match="."):
            live.day(111, **change)
        assert live.integrator.state == state
    other = Live(PANEL)
    other.days(100, 110)
    assert same(live.day(111), other.day(111))  # and the next call is clean


def test_symbols_and_sleeves_come_and_go() -> None:
    live = Live(PANEL)
    live.days(100, 105)
    names = list(PANEL.symbols)[:6]

    def fewer(s: Snapshot) -> Snapshot:
        return replace(
            s,
            asset_returns=s.asset_returns[names],
            sleeves=tuple(replace(v, weights=v.weights[names], history=v.history[names]) for v in s.sleeves or ()),
        )

    d = live.day(106, change=fewer)  # two symbols lose their quotes: dropped from risk, closed
    assert (d.exposures[["S06", "S07"]] == 0.0).all() and gross(d) > 0.0
    assert set(live.day(107).exposures.index) == set(PANEL.symbols)


def test_decisions_are_values() -> None:
    live = Live(PANEL)
    live.days(100, 105)
    d, state = live.decisions[-1], live.integrator.state
    with pytest.raises(FrozenInstanceError):
        d.equity = 1.0  # type: ignore[misc]
    for series in (d.exposures, d.book_weights, d.sleeve_weights, d.notionals, d.trades):
        try:
            series.iloc[0] = 9.0
        except ValueError:
            continue
    assert live.integrator.state == state  # nothing a reader does to a decision reaches the memory
    back = decision_from_dict(json.loads(json.dumps(d.to_dict(), allow_nan=False)))
    assert back.id == d.id and back.binding == d.binding and len(back.alarms) == len(d.alarms)


def test_haircuts_and_orders_add_up() -> None:
    live = Live(PANEL)
    for row in range(100, 115):
        d = live.day(row)
        h = d.haircuts
        assert h["product"] == pytest.approx(h["governor"] * h["throttle"] * h["kelly"], abs=1e-15)
        np.testing.assert_allclose(d.notionals, d.exposures * d.equity, rtol=0, atol=1e-6)
        signed = pd.Series({o.symbol: o.notional if o.side == "buy" else -o.notional for o in d.orders}, dtype=float)
        np.testing.assert_allclose(signed.reindex(d.trades.index).fillna(0.0), d.trades * d.equity, rtol=0, atol=1e-6)
        for o in d.orders:
            assert o.quantity >= 0.0 and (not o.attribution or sum(o.attribution.values()) <= 1.0 + 1e-9)
        assert {s.name for s in d.stages} >= {
            "regime",
            "sleeves",
            "allocation",
            "assembly",
            "vol_target",
            "caps",
            "drawdown",
            "turnover",
            "limits",
            "ladder",
        }


# ---------------------------------------------------------------- labels made when read


def grown_history(panel: Panel, rows: int) -> History:
    return History(panel.symbols, panel.sleeve_ids, panel.returns.to_numpy()[:rows], panel.target_array()[:rows],
                   panel.dates.to_numpy()[:rows])


@pytest.mark.parametrize("priced", [False, True])
def test_labels_read_late_are_labels_read_at_once(priced: bool) -> None:
    """The history grows, prices and positions change under it, the integrator decides on: the first decision stays."""

    def first(made: Snapshot) -> tuple[PortfolioIntegrator, Decision]:
        integrator = PortfolioIntegrator(CAPPED)
        return integrator, integrator.build_target_book(made)

    def asked() -> Snapshot:
        price = pd.Series(50.0, index=list(PANEL.symbols)) if priced else None
        held = pd.Series(0.0, index=list(PANEL.symbols))
        held.iloc[0] = 1000.0
        return replace(snapshot(PANEL, ROW), asset_returns=grown_history(PANEL, ROW), prices=price, positions=held)

    at_once = first(asked())[1].to_dict()
    made = asked()
    integrator, late = first(made)
    for row in (ROW, ROW + 1):
        made.asset_returns.append(PANEL.dates[row].to_numpy(), PANEL.returns.to_numpy()[row], PANEL.target_array()[row])
        integrator.build_target_book(replace(snapshot(PANEL, row + 1), asset_returns=made.asset_returns))
    if made.prices is not None:
        made.prices.iloc[:] = 99.0
    assert made.positions is not None
    made.positions.iloc[:] = -7.0
    assert late.to_dict() == at_once and late.orders and late.alarms


def test_a_live_decision_copies_pickles_and_refuses_changes() -> None:
    d = decide(snapshot(PANEL, ROW))
    assert pickle.loads(pickle.dumps(d)).to_dict() == d.to_dict() == copy.copy(d).to_dict()
    assert replace(d, realised={"pnl": 1.0}).to_dict() == {**d.to_dict(), "realised": {"pnl": 1.0}}
    with pytest.raises(FrozenInstanceError):
        d.exposures = d.trades  # type: ignore[misc]
    with pytest.raises(AttributeError):
        d.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert isinstance(d, Decision) and d.exposures is d.exposures


def test_tier_alarms_come_on_the_day_of_a_change_and_on_no_other() -> None:
    live, seen = Live(PANEL), []
    equity = [5e6] * 4 + [4.65e6] * 3 + [9e5] * 2 + [5e6] * 2  # a warning 7 % down; then money out, a lower tier; and back
    for i, value in enumerate(equity):
        arrays = live.integrator._arrays
        flow = value - equity[i - 1] if i >= 7 else 0.0
        d, after = live.day(100 + i, earn=False, equity=value, flows=flow), live.integrator._arrays
        assert after is not None
        if arrays is None:
            continue
        moved = (bool((arrays.tier != after.tier)[0]), bool((arrays.drawdown.tier != after.drawdown.tier)[0]))
        assert ("TIER_CHANGED" in codes(d), "KILL_TIER" in codes(d)) == moved
        seen.append(moved)
    assert any(t for t, _ in seen) and any(k for _, k in seen) and (False, False) in seen
