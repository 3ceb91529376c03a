"""The fault matrix of the decision path: every fault has a typed verdict, and nothing else ever comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from books import CAPPED, FAST, Live, codes, gross, same, small_panel, snapshot, without

from pil_research.estimate import History
from pil_research.integrator import PortfolioIntegrator
from pil_research.research.panel import Panel
from pil_research.types import BINDING, Decision, InputError, Kills, Operator, PilError, RegimeRead, Sleeve, Snapshot

PANEL = small_panel(21)
ROW = 150
Change = Callable[[Snapshot], Snapshot]


def with_returns(change: Callable[[pd.DataFrame], Any]) -> Change:
    return lambda s: replace(s, asset_returns=change(s.asset_returns.copy()))


def with_sleeve(change: Callable[[Sleeve], Sleeve]) -> Change:
    return lambda s: replace(s, sleeves=(change(s.sleeves[0]), *s.sleeves[1:]))  # type: ignore[index]


def cell(row: int, column: int, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(f: pd.DataFrame) -> pd.DataFrame:
        f.iloc[row, column] = value
        return f

    return change


# ---------------------------------------------------------------- R: refused, with code and field, nothing changed

REFUSED: list[tuple[str, str, str, Change]] = [
    ("duplicated date", "DUPLICATED_INDEX", "asset_returns", with_returns(lambda f: pd.concat([f, f.iloc[-1:]]))),
    ("unsorted dates", "UNSORTED_INDEX", "asset_returns", with_returns(lambda f: f.iloc[::-1])),
    ("aware dates", "BAD_INDEX", "asset_returns", with_returns(lambda f: f.tz_localize("UTC"))),
    ("no dates", "BAD_INDEX", "asset_returns", with_returns(lambda f: f.reset_index(drop=True))),
    (
        "NaT date",
        "BAD_INDEX",
        "asset_returns",
        with_returns(lambda f: f.set_axis(f.index.where(f.index != f.index[3], pd.NaT))),
    ),
    ("text column", "BAD_DTYPE", "asset_returns", with_returns(lambda f: f.assign(S01="x"))),
    ("object column", "BAD_DTYPE", "asset_returns", with_returns(lambda f: f.astype({"S01": object}))),
    ("boolean column", "BAD_DTYPE", "asset_returns", with_returns(lambda f: f.assign(S01=True))),
    ("infinite return", "NON_FINITE", "asset_returns", with_returns(cell(50, 3, np.inf))),
    ("column twice", "DUPLICATE_INDEX", "asset_returns", with_returns(lambda f: pd.concat([f, f[["S01"]]], axis=1))),
    ("bad symbol", "BAD_NAME", "symbol in asset_returns", with_returns(lambda f: f.rename(columns={"S01": "S 1"}))),
    ("number as symbol", "BAD_NAME", "symbol in asset_returns", with_returns(lambda f: f.rename(columns={"S01": 1}))),
    ("no rows", "NO_HISTORY", "asset_returns", with_returns(lambda f: f.iloc[:0])),
    ("one row", "NO_HISTORY", "asset_returns", with_returns(lambda f: f.iloc[:1])),
    ("not a table", "BAD_TYPE", "asset_returns", lambda s: replace(s, asset_returns=s.asset_returns.to_numpy())),
    ("no returns", "BAD_TYPE", "asset_returns", lambda s: replace(s, asset_returns=None)),
    ("sleeve twice", "DUPLICATE_SLEEVE", "sleeves", lambda s: replace(s, sleeves=(*s.sleeves, s.sleeves[0]))),
    (
        "symbol twice in a sleeve",
        "DUPLICATE_INDEX",
        "sleeves.weights",
        with_sleeve(lambda v: replace(v, weights=pd.concat([v.weights, v.weights.iloc[:1]]))),
    ),
    ("text weights", "BAD_TYPE", "sleeves.weights", with_sleeve(lambda v: replace(v, weights=v.weights.astype(str)))),
    ("weights of another type", "BAD_TYPE", "sleeves.weights", with_sleeve(lambda v: replace(v, weights={"S00": 1.0}))),
    (
        "history unsorted",
        "UNSORTED_INDEX",
        "sleeves.history of sleeve_a",
        with_sleeve(lambda v: replace(v, history=v.history.iloc[::-1])),
    ),
    (
        "history aware",
        "BAD_INDEX",
        "sleeves.history of sleeve_a",
        with_sleeve(lambda v: replace(v, history=v.history.tz_localize("UTC"))),
    ),
    (
        "history of text",
        "BAD_DTYPE",
        "sleeves.history of sleeve_a",
        with_sleeve(lambda v: replace(v, history=v.history.assign(S01="x"))),
    ),
    ("not a sleeve", "BAD_TYPE", "sleeves", lambda s: replace(s, sleeves=("carry",))),
    (
        "published later",
        "FUTURE_TIME",
        "published_at",
        with_sleeve(lambda v: replace(v, published_at=pd.Timestamp("2020-08-01 16:00", tz="America/New_York"))),
    ),
    (
        "published without a zone",
        "BAD_TIME",
        "published_at of sleeve_a",
        with_sleeve(lambda v: replace(v, published_at=pd.Timestamp("2020-01-02"))),
    ),
    (
        "promotion with a zone",
        "BAD_TIME",
        "promoted_on of sleeve_a",
        with_sleeve(lambda v: replace(v, promoted_on=pd.Timestamp("2020-01-02", tz="UTC"))),
    ),
    ("aware session", "BAD_TIME", "session", lambda s: replace(s, session=s.session.tz_localize("UTC"))),
    ("session at noon", "BAD_TIME", "session", lambda s: replace(s, session=s.session + pd.Timedelta(hours=12))),
    ("session NaT", "BAD_TIME", "session", lambda s: replace(s, session=pd.NaT)),
    ("session as text", "BAD_TIME", "session", lambda s: replace(s, session="2020-07-29")),
    (
        "naive decision time",
        "BAD_TIME",
        "decided_at",
        lambda s: replace(s, decided_at=pd.Timestamp("2020-07-29 15:30")),
    ),
    *[
        (f"slot {slot!r}", "BAD_SLOT", "slot", lambda s, v=slot: replace(s, slot=v))
        for slot in ("", "noon", "9:35", "25:00", "12:60", "ab:cd", "event-", "event-0", "event-x", 935, None, "15:30 ")  # type: ignore[misc]
    ],
    *[
        (f"flows {v!r}", "NON_FINITE", "flows", lambda s, v=v: replace(s, flows=v))
        for v in (np.nan, np.inf, None, "1", True)
    ],  # type: ignore[misc]
    *[
        (f"equity {v!r}", "NON_FINITE", "equity", lambda s, v=v: replace(s, equity=v))
        for v in (np.inf, -np.inf, True, "1e6", [1])
    ],  # type: ignore[misc]
    ("position NaN", "NON_FINITE", "positions", lambda s: replace(s, positions=pd.Series({"S00": np.nan}))),
    ("position infinite", "NON_FINITE", "positions", lambda s: replace(s, positions=pd.Series({"S00": -np.inf}))),
    (
        "position twice",
        "DUPLICATE_INDEX",
        "positions",
        lambda s: replace(s, positions=pd.Series([1.0, 2.0], index=["S00", "S00"])),
    ),
    ("positions of text", "BAD_TYPE", "positions", lambda s: replace(s, positions=pd.Series({"S00": "1"}))),
    ("positions as a dict", "BAD_TYPE", "positions", lambda s: replace(s, positions={"S00": 1.0})),
    (
        "price twice",
        "DUPLICATE_INDEX",
        "prices",
        lambda s: replace(s, prices=pd.Series([1.0, 2.0], index=["S00", "S00"])),
    ),
    (
        "instrument twice",
        "DUPLICATE_SYMBOL",
        "instruments",
        lambda s: replace(s, instruments=pd.concat([s.instruments, s.instruments.iloc[:1]])),
    ),
    (
        "negative spread",
        "BAD_NUMBER",
        "half_spread_bps",
        lambda s: replace(s, instruments=s.instruments.assign(half_spread_bps=-1.0)),
    ),
    (
        "wrapper of nothing",
        "BAD_PRIMARY",
        "instruments.primary",
        lambda s: replace(s, instruments=s.instruments.assign(primary="GONE")),
    ),
    ("restrictions as a list", "BAD_TYPE", "restricted", lambda s: replace(s, restricted=["S00"])),
    (
        "earlier session",
        "SESSION_ORDER",
        "session",
        lambda s: replace(s, session=PANEL.dates[100], asset_returns=PANEL.returns),
    ),
]


@pytest.mark.parametrize(("code", "field", "change"), [pytest.param(*r[1:], id=r[0]) for r in REFUSED])
def test_refused_with_code_and_field(code: str, field: str, change: Change) -> None:
    live = ready()
    state = live.integrator.state
    with pytest.raises(InputError, match=".{15}") as caught:
        live.integrator.build_target_book(change(snapshot(PANEL, ROW)))
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.as_dict()["code"] == code and json.dumps(caught.value.as_dict())
    assert live.integrator.state == state


_READY: list[tuple[Any, pd.Series, float]] = []


def ready() -> Live:
    """An account with a few days behind it (decided once, restored each time)."""
    live = Live(PANEL)
    if not _READY:
        live.days(ROW - 4, ROW - 1)
        _READY.append((live.integrator.state, live.positions, live.equity))
    state, live.positions, live.equity = _READY[0]
    live.integrator = PortfolioIntegrator(FAST, state)
    return live


# ---------------------------------------------------------------- Q, H, X, F: a decision with an alarm


def test_non_finite_sleeve_is_held() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        live = ready()
        held = float((live.positions / live.equity).abs().sum())
        d = live.day(
            ROW, change=with_sleeve(lambda v, b=bad: replace(v, weights=v.weights.where(v.weights.index != "S02", b)))
        )  # type: ignore[misc]
        assert "SLEEVE_HELD" in codes(d) and gross(d) <= held + 1e-12
        assert [a.subject for a in d.alarms if a.code == "SLEEVE_HELD"] == ["sleeve_a"]


def test_flat_sleeve_is_cash() -> None:
    base = PortfolioIntegrator(FAST).build_target_book(snapshot(PANEL, ROW))
    for zero in (0.0, 1e-300):
        flat = PortfolioIntegrator(FAST).build_target_book(
            with_sleeve(lambda v, z=zero: replace(v, weights=v.weights * z))(snapshot(PANEL, ROW))
        )  # type: ignore[misc]
        assert "SLEEVE_FLAT" in codes(flat)
        share = float(base.sleeve_weights["sleeve_a"])
        assert flat.numbers["goal"] == pytest.approx(
            0.10 * (1.0 - share), abs=1e-9
        )  # its share is cash, not levered back


def test_missing_returns_never_raise_a_sleeve() -> None:
    """Blanks in a sleeve's names: pairwise complete, never zeros; the sleeve must not look calmer."""
    base = PortfolioIntegrator(FAST.replace(**{"tilt.skill": False})).build_target_book(snapshot(PANEL, ROW))
    rng, rises = np.random.default_rng(0), []
    for _ in range(6):
        made = snapshot(PANEL, ROW)
        returns = made.asset_returns.mask(rng.random(made.asset_returns.shape) < 0.003)
        d = PortfolioIntegrator(FAST.replace(**{"tilt.skill": False})).build_target_book(
            replace(made, asset_returns=returns)
        )
        rises.append(
            float(d.passport.decision.scaled_unit.__abs__().sum() / base.passport.decision.scaled_unit.__abs__().sum())
        )
        assert gross(d) > 0.0
    assert max(rises) < 1.1  # leverage of the sleeves does not explode because of holes


@pytest.mark.parametrize("how", ["frozen", "flat prices", "tiny"])
def test_a_dead_feed_is_quarantined(how: str) -> None:
    """A dead feed must not look like the safest sleeve."""
    panel = PANEL
    returns = panel.returns.copy()
    if how == "flat prices":
        returns.iloc[ROW - 6 : ROW] = 0.0
        panel = replace(panel, returns=returns)
        d = PortfolioIntegrator(FAST).build_target_book(snapshot(panel, ROW))
        assert (d.sleeve_weights == 0.0).all() and gross(d) == 0.0
        return
    own = pd.Series(
        0.001 if how == "frozen" else 1e-9 * np.random.default_rng(0).standard_normal(ROW), index=returns.index[:ROW]
    )
    live = ready()
    d = live.day(ROW, change=with_sleeve(lambda v: replace(v, returns=own if how == "tiny" else own.iloc[-6:])))
    assert "SLEEVE_QUARANTINED" in codes(d) and d.sleeve_weights["sleeve_a"] == 0.0 and d.numbers["cash"] > 0.05


@pytest.mark.parametrize("bars", [0, 1, 2, 5, 10, 28, 29, 30, 31, 32, 45])
def test_young_sleeves_wait_and_do_not_truncate_the_others(bars: int) -> None:
    made = snapshot(PANEL, ROW)
    d = PortfolioIntegrator(FAST).build_target_book(
        with_sleeve(lambda v: replace(v, history=v.history.iloc[len(v.history) - bars :]))(made)
    )
    others = d.sleeve_weights.drop("sleeve_a")
    assert (others > 0.1).all() and others.sum() + d.sleeve_weights["sleeve_a"] + d.numbers["cash"] == pytest.approx(
        1.0
    )
    assert (d.sleeve_weights["sleeve_a"] > 0.0) == (bars > 30)  # the first row is a target without a return yet


@pytest.mark.parametrize("noise", [0.0, 1e-16, 1e-9, 1e-2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_clones_and_mirror_images_of_a_sleeve(noise: float, sign: float) -> None:
    made, rng = snapshot(PANEL, ROW), np.random.default_rng(0)
    first = made.sleeves[0]
    twin = replace(
        first,
        id="twin",
        weights=sign * first.weights,
        history=sign * first.history * (1.0 + noise * rng.standard_normal(first.history.shape)),
    )
    d = PortfolioIntegrator(FAST).build_target_book(replace(made, sleeves=(*made.sleeves, twin)))
    assert np.isfinite(d.exposures).all() and d.numbers["leverage"] <= 2.0
    assert ("CORRELATION_HIGH" in codes(d)) == (sign > 0)
    assert d.sleeve_weights.sum() == pytest.approx(1.0, abs=1e-9)
    alone = PortfolioIntegrator(FAST).build_target_book(
        replace(made, sleeves=(first, replace(first, id="twin", weights=-first.weights, history=-first.history)))
    )
    assert gross(alone) <= 1e-9  # a book that nets to nothing stays nothing: L is bounded


def test_no_variance_at_all_is_no_leverage() -> None:
    for value in (0.0, 1e-300, 1e-12):
        panel = replace(PANEL, returns=PANEL.returns * 0.0 + value)
        d = PortfolioIntegrator(FAST).build_target_book(snapshot(panel, ROW))
        assert np.isfinite(d.exposures).all() and gross(d) == 0.0 and d.numbers["leverage"] <= 2.0


def test_a_symbol_without_risk_is_dropped_and_only_shrinks() -> None:
    returns = PANEL.returns.copy()
    returns.iloc[: ROW - 20, 4] = np.nan
    panel = replace(PANEL, returns=returns)
    for held in (0.0, 0.08, -0.08):
        d = PortfolioIntegrator(FAST).build_target_book(snapshot(panel, ROW, positions=pd.Series({"S04": held * 5e6})))
        assert [a.subject for a in d.alarms if a.code == "SYMBOL_UNRISKED"] == ["S04"]
        assert abs(d.exposures["S04"]) <= abs(held) and d.exposures["S04"] * held >= 0.0


def test_a_symbol_nobody_knows() -> None:
    made = snapshot(PANEL, ROW)
    live = ready()
    d = live.integrator.build_target_book(
        with_sleeve(lambda v: replace(v, weights=pd.concat([v.weights, pd.Series({"XYZ": 1.0})])))(made)
    )
    assert "XYZ" not in d.exposures.index or d.exposures["XYZ"] == 0.0
    assert any(a.code == "SYMBOL_UNKNOWN" and a.subject == "XYZ" for a in d.alarms)
    d = PortfolioIntegrator(FAST).build_target_book(
        replace(made, instruments=made.instruments.drop("S03"), positions=pd.Series({"S03": 1e5}))
    )
    assert abs(d.exposures["S03"]) <= 0.02 + 1e-12
    d = PortfolioIntegrator(FAST).build_target_book(replace(made, positions=pd.Series({"GONE": 1e5})))
    assert d.exposures["GONE"] == 0.0 and "SYMBOL_UNRISKED" in codes(d)


@pytest.mark.parametrize("price", [-37.63, 0.0, np.nan, np.inf])
def test_unusable_prices(price: float) -> None:
    """Where the instrument does not allow it: kept, not traded, and said; where it does, used."""
    live = Live(PANEL)
    live.days(ROW - 4, ROW - 1)
    prices = pd.Series(100.0, index=list(PANEL.symbols))
    quantity = live.positions / 100.0
    before = live.decisions[-1].exposures["S02"]
    d = live.day(ROW, positions=quantity, prices=prices.where(prices.index != "S02", price), earn=False)
    assert d.exposures["S02"] == pytest.approx(before) and d.trades["S02"] == 0.0
    assert any(a.code == "SYMBOL_UNKNOWN" and a.subject == "S02" and a.severity == "critical" for a in d.alarms)
    fresh = PortfolioIntegrator(FAST).build_target_book(
        snapshot(PANEL, ROW, prices=prices.where(prices.index != "S02", price))
    )
    assert fresh.exposures["S02"] == 0.0 and all(np.isfinite(o.quantity) for o in fresh.orders)
    if price == -37.63:
        info = PANEL.instruments.assign(allows_nonpositive_price=True)
        d = PortfolioIntegrator(FAST).build_target_book(
            snapshot(PANEL, ROW, prices=prices.where(prices.index != "S02", price), instruments=info)
        )
        assert d.exposures["S02"] != 0.0 and "SYMBOL_UNKNOWN" not in codes(d)


def test_a_held_wrapper_without_a_price_freezes_its_primary() -> None:
    info = pd.concat([PANEL.instruments, PANEL.instruments.loc[["S02"]].set_axis(["S02x"])])
    panel_returns = PANEL.returns.assign(S02x=PANEL.returns["S02"])

    def made(row: int, **k: Any) -> Snapshot:
        s = snapshot(PANEL, row, instruments=info, **k)
        return replace(s, asset_returns=panel_returns.iloc[:row])

    integrator = PortfolioIntegrator(FAST)
    first = integrator.build_target_book(made(ROW))
    prices = pd.Series(100.0, index=[*PANEL.symbols, "S02x"])
    half = first.notionals["S02"] / 200.0
    held = (first.notionals / 100.0).drop("S02x")
    held["S02"], held["S02x"] = half, half
    d = integrator.build_target_book(made(ROW + 1, positions=held, prices=prices.drop("S02x")))
    assert d.exposures["S02"] == pytest.approx(first.exposures["S02"]) and d.trades["S02"] == 0.0


def test_equity_faults() -> None:
    for bad, code in (
        (None, "EQUITY_MISSING"),
        (np.nan, "EQUITY_MISSING"),
        (0.0, "EQUITY_NONPOSITIVE"),
        (-5.0, "EQUITY_NONPOSITIVE"),
    ):
        d = ready().day(ROW, equity=bad, earn=False)
        assert code in codes(d)
    for bad in (0.0, -1.0):
        d = PortfolioIntegrator(FAST).build_target_book(snapshot(PANEL, ROW, equity=bad))
        assert gross(d) == 0.0 and "EQUITY_NONPOSITIVE" in codes(d)
    for bad in (None, np.nan):  # nothing to start from
        with pytest.raises(InputError, match="equity must be positive") as caught:
            PortfolioIntegrator(FAST).build_target_book(snapshot(PANEL, ROW, equity=bad))
        assert caught.value.code == "BAD_EQUITY"


def test_unknown_sleeve_list_and_mismatched_history() -> None:
    made = snapshot(PANEL, ROW)
    history = History(
        PANEL.symbols,
        PANEL.sleeve_ids[:2],
        PANEL.returns.to_numpy()[:ROW],
        PANEL.target_array()[:ROW, :2],
        PANEL.dates.to_numpy()[:ROW],
    )
    with pytest.raises(InputError, match="rebuild it") as caught:
        PortfolioIntegrator(FAST).build_target_book(replace(made, asset_returns=history))
    assert caught.value.code == "SLEEVE_MISMATCH"
    full = History(
        PANEL.symbols,
        PANEL.sleeve_ids,
        PANEL.returns.to_numpy()[:ROW],
        PANEL.target_array()[:ROW],
        PANEL.dates.to_numpy()[:ROW],
    )
    with pytest.raises(InputError, match="held but not in the history") as caught:
        PortfolioIntegrator(FAST).build_target_book(
            replace(made, asset_returns=full, positions=pd.Series({"GONE": 5.0}))
        )
    assert caught.value.code == "UNKNOWN_SYMBOL" and caught.value.subject == "GONE"


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"symbols": ("B", "A")}, "UNSORTED_IDS"),
        ({"sleeve_ids": ("x", "x")}, "UNSORTED_IDS"),
        ({"returns": np.zeros((3, 3))}, "BAD_SHAPE"),
        ({"dates": np.array(["2020-01-02", "2020-01-01", "2020-01-03"], dtype="datetime64[D]")}, "UNSORTED_INDEX"),
        ({"returns": np.array([[0.0, np.inf]] * 3)}, "NON_FINITE"),
    ],
)
def test_bad_histories(arrays: dict[str, Any], code: str) -> None:
    good = {
        "symbols": ("A", "B"),
        "sleeve_ids": ("x", "y"),
        "returns": np.zeros((3, 2)),
        "targets": np.zeros((3, 2, 2)),
        "dates": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="datetime64[D]"),
    }
    with pytest.raises(InputError, match=".") as caught:
        History(**{**good, **arrays})
    assert caught.value.code == code
    history = History(**good)
    with pytest.raises(InputError, match="later than the last one"):
        history.append(np.datetime64("2020-01-03"), np.zeros(2), np.zeros((2, 2)))


def test_the_next_call_after_a_fault_is_clean() -> None:
    """A bad number must not poison the process: after each refused snapshot the good one gives the same book."""
    want = ready().day(ROW, earn=False)
    live = ready()
    for r in REFUSED[::4]:
        with pytest.raises(PilError):
            live.integrator.build_target_book(r[3](snapshot(PANEL, ROW)))
    assert same(live.day(ROW, earn=False), want)


# ---------------------------------------------------------------- anything at all

VALUES = np.array(
    [0.0, -0.0, 1e-300, 1e-12, -1e-9, 0.01, -0.3, 1.0, -1.0, 1.5, 50.0, 1e6, -1e9, np.nan, np.nan, np.inf]
)
FUZZ = small_panel(33, k=3, m=6, t=150)


def poke(rng: np.random.Generator, x: Any, share: float, values: np.ndarray = VALUES) -> Any:
    out = x.copy()
    hit = rng.random(out.shape) < share
    return out.mask(
        hit,
        pd.DataFrame(rng.choice(values, out.shape), index=out.index, columns=out.columns)
        if isinstance(out, pd.DataFrame)
        else pd.Series(rng.choice(values, out.shape), index=out.index),
    )


def fuzz_sleeve(rng: np.random.Generator, s: Sleeve) -> Sleeve:
    day = FUZZ.dates[int(rng.integers(len(FUZZ.dates)))]
    pick = int(rng.integers(12))
    changes: list[dict[str, Any]] = [
        {"weights": None},
        {"weights": poke(rng, s.weights, 0.4)},
        {"history": None},
        {"history": poke(rng, s.history, 0.1)},
        {"history": s.history.iloc[: int(rng.integers(len(s.history)))]},
        {"capacity": float(rng.choice([0.0, 1.0, 1e5, 1e12]))},
        {"promoted_on": day},
        {"demoted_on": day},
        {"weights": s.weights.iloc[: int(rng.integers(7))]},
        {"expected_gain": poke(rng, s.weights, 0.5)},
        {"role": str(rng.choice(["defensive", "cyclical"]))},
        {"weights": s.weights * float(rng.choice([0.0, 1e-300, 1e300, -1.0]))},
    ]
    return replace(s, **changes[pick])


def fuzz_snapshot(rng: np.random.Generator, panel: Panel, row: int, equity: float, positions: pd.Series) -> Snapshot:
    made = snapshot(panel, row, equity=equity, positions=positions)
    names, clean = list(panel.symbols), made
    for _ in range(int(rng.integers(1, 4))):
        some = [str(x) for x in rng.choice(names, int(rng.integers(1, 4)), replace=False)]
        made = replace(made, **fuzz_change(rng, made, clean, positions, some))
    return made


def fuzz_change(
    rng: np.random.Generator, made: Snapshot, clean: Snapshot, positions: pd.Series, some: list[str]
) -> dict[str, Any]:
    """One way in which a snapshot can be odd."""
    names = list(clean.asset_returns.columns)
    options: list[Callable[[], dict[str, Any]]] = [
        lambda: {"asset_returns": poke(rng, clean.asset_returns, 0.02)},
        lambda: {"asset_returns": poke(rng, clean.asset_returns, 0.3, VALUES[:-1])},
        lambda: {"asset_returns": clean.asset_returns.iloc[-int(rng.integers(1, 150)) :]},
        lambda: {"asset_returns": clean.asset_returns[sorted(some)]},
        lambda: {"sleeves": tuple(fuzz_sleeve(rng, s) if rng.random() < 0.6 else s for s in made.sleeves or ())},
        lambda: {"sleeves": tuple(s for s in made.sleeves or () if rng.random() < 0.6)},
        lambda: {"sleeves": None},
        lambda: {"sleeves": (), "sleeves_confirmed": bool(rng.random() < 0.5)},
        lambda: {"equity": float(rng.choice([np.nan, 0.0, -1.0, 1e-9, 1.0, 4e4, 2e5, 3e6, 5e7, 1e15, np.inf]))},
        lambda: {"flows": float(rng.choice([0.0, 1e6, -1e6, 1e12, -1e12, np.nan]))},
        lambda: {"positions": poke(rng, positions, 0.5, np.array([0.0, 1e-9, 1e5, -1e6, 1e9, np.nan]))},
        lambda: {
            "prices": poke(rng, pd.Series(100.0, index=names), 0.3, np.array([0.0, -5.0, np.nan, 1e-9, 1e9, np.inf]))
        },
        lambda: {"kills": Kills(book=bool(rng.random() < 0.2), symbols=tuple(some), sleeves=("sleeve_a",))},
        lambda: {"kills": "?"},
        lambda: {"operator": Operator(who="x", why="y", re_arm=True, release_kills=True)},
        lambda: {"restricted": {s: str(rng.choice(["no_trade", "no_short", "reduce_only", "?"])) for s in some}},
        lambda: {
            "regime": RegimeRead(
                label=str(rng.choice(["risk_on", "transition", "crisis"])), confidence=float(rng.random())
            )
        },
        lambda: {"instruments": None},
        lambda: {"instruments": clean.instruments.loc[sorted(some)]},
        lambda: {"instruments": clean.instruments.assign(cluster="one")},
        lambda: {"instruments": clean.instruments.assign(adv_usd=np.nan, multiplier=50.0)},
        lambda: {"slot": str(rng.choice(["09:35", "12:00", "event-1", "15:30", "00:00"]))},
        lambda: {"session": made.session + pd.Timedelta(days=int(rng.integers(-30, 400)))},
    ]
    return options[int(rng.integers(len(options)))]()


def check_decision(d: Decision, config: Any, asked: Snapshot) -> None:
    e = d.exposures
    assert np.isfinite(e).all() and e.index.is_unique and list(e.index) == sorted(e.index)
    assert (
        np.isfinite(d.sleeve_weights).all() and (d.sleeve_weights >= 0.0).all() and d.sleeve_weights.sum() <= 1.0 + 1e-9
    )
    assert 0.0 <= d.haircuts["product"] <= config.sizing.kelly and set(d.binding) <= set(BINDING)
    json.dumps(d.to_dict(), allow_nan=False)
    if d.stages and d.passport is not None:
        frozen = (d.trades == 0.0) & (e != 0.0)
        limit = min(config.caps.name, config.ladder.name[int(d.numbers["tier"])]) * config.caps.drift_tolerance
        assert (e[~frozen].abs() * 2.0 <= limit + 1e-9).all()
        for name in e.index[:2]:
            parts = d.explain(name).table
            assert abs(parts["part"].sum() - e[name]) <= 1e-12 * max(1.0, float(parts["after"].abs().max()))
    if "KILL_SET" in codes(d) and asked.kills is not None and (not isinstance(asked.kills, Kills) or asked.kills.book):
        unrestricted = [s for s in e.index if not asked.restricted or s not in asked.restricted]
        assert (e[unrestricted][d.trades[unrestricted] != 0.0] == 0.0).all()


@pytest.mark.parametrize("seed", range(24))
def test_any_input_gives_a_decision_or_a_typed_error(seed: int) -> None:
    """Invariant 34, over accounts that live through ten adversarial days each and restarts in between."""
    rng = np.random.default_rng(seed)
    config = CAPPED if seed % 2 else FAST
    integrator, positions, equity, good = PortfolioIntegrator(config), pd.Series(0.0, index=list(FUZZ.symbols)), 5e6, 0
    for row in range(100, 112):
        made = fuzz_snapshot(rng, FUZZ, row, equity, positions)
        state = integrator.state
        try:
            with np.errstate(all="ignore"):
                d = integrator.build_target_book(made)
        except PilError as error:
            assert error.code != "ERROR" and error.field and str(error), error
            assert integrator.state == state
        else:
            good += 1
            check_decision(d, config, made)
            positions = (d.exposures * equity).reindex(list(FUZZ.symbols)).fillna(0.0)
        if rng.random() < 0.3:
            from pil_research.types import BookState

            integrator = PortfolioIntegrator(
                config, BookState.from_dict(json.loads(json.dumps(integrator.state.to_dict(), allow_nan=False)))
            )
    assert good > 0


def test_fuzzing_is_not_vacuous() -> None:
    """The snapshots above are mostly decided, and often refused."""
    rng, decided, refused = np.random.default_rng(99), 0, 0
    for _ in range(60):
        try:
            with np.errstate(all="ignore"):
                PortfolioIntegrator(FAST).build_target_book(
                    fuzz_snapshot(rng, FUZZ, 110, 5e6, pd.Series(0.0, index=list(FUZZ.symbols)))
                )
            decided += 1
        except PilError:
            refused += 1
    assert decided >= 25 and refused >= 5


def test_missing_day_helper_is_a_missing_day() -> None:
    made = without(snapshot(PANEL, ROW), "sleeve_a", "sleeve_b")
    assert [s.weights is None for s in made.sleeves or ()] == [True, True, False, False]
