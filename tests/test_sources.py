"""Sources: each defect that real markets have is survived by a rule, point in time, and is reported."""
from __future__ import annotations

from pathlib import Path

import market_files as mf
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.estimators.sleeve_returns import gap_bars_of
from pil_research.research import prints as pr
from pil_research.research import sources as so
from pil_research.research.etf_source import wrapper_columns
from pil_research.research.futures_source import annual_carry, month_number
from pil_research.research.macro_source import MACRO_LAGS, as_known, known_dates
from pil_research.types import InputError

DAYS = pr.market_sessions("2014-01-02", "2016-12-30")
real = pytest.mark.skipif(not mf.REAL, reason="PIL_SHARED_DATA is not set: no folder of real markets")


def walk(seed: int = 0, n: int = len(DAYS), level: float = 100.0) -> np.ndarray:
    return level * np.cumprod(1.0 + 0.01 * np.random.default_rng(seed).standard_normal(n))


def future(price: np.ndarray, name: str = "TIN", days: pd.DatetimeIndex = DAYS, shift: float = 0.0,
           **more: object) -> pd.DataFrame:
    return pd.DataFrame({"date": days, "instrument": name, "adj": price - shift, "price": price, **more})


def info(*names: str, **more: object) -> pd.DataFrame:
    return pd.DataFrame({"instrument": names, "asset_class": "metals", "point_size": 10.0, "currency": "USD",
                         "half_spread_points": 0.01, "commission_per_block": 1.0, **more})


def futures(daily: pd.DataFrame, table: pd.DataFrame | None = None, start: str = "2014-01-02") -> so.FuturesMarket:
    return so.build_futures(daily, info(*daily["instrument"].dropna().unique()) if table is None else table, start=start)


def funds(daily: pd.DataFrame, classes: str = "gold") -> so.EtfMarket:
    names = daily["ticker"].unique()
    return so.build_etfs(daily, pd.DataFrame({"ticker": names, "asset_class": classes}), start="2014-01-02")


def codes(found: object, column: str = "") -> set[str]:
    return {d.code for d in found.findings if not column or d.column == column}  # type: ignore[attr-defined]


def the(found: object, code: str, column: str) -> str:
    return next(str(d) for d in found.findings if d.code == code and d.column == column)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- returns and carry

def test_a_back_adjusted_price_below_zero_gives_the_same_returns_as_one_above() -> None:
    price = walk()
    high, low = futures(future(price)), futures(future(price, shift=float(np.median(price))))
    np.testing.assert_allclose(low.returns, high.returns, rtol=0, atol=1e-12)
    assert "NONPOSITIVE_ADJUSTED" in codes(low) and "NONPOSITIVE_ADJUSTED" not in codes(high)
    assert float(np.nanmax(np.abs(low.returns))) < 0.06


def test_a_roll_jump_of_the_unadjusted_price_is_no_return() -> None:
    price = walk()
    rolled = np.where(np.arange(len(price)) >= 300, price * 1.2, price)
    adjusted = np.concatenate([price[:300] * 1.0, price[299] + np.cumsum(np.diff(rolled)[299:]) - (rolled[300] - rolled[299])
                               + (price[300] - price[299])])
    market = futures(pd.DataFrame({"date": DAYS, "instrument": "TIN", "adj": adjusted, "price": rolled}))
    assert abs(market.returns["TIN"].iloc[300] - (price[300] / price[299] - 1.0)) < 1e-12


def test_the_sign_of_the_contract_distance_decides_the_sign_of_carry() -> None:
    later, nearer = annual_carry(np.array([100.0]), np.array([101.0]), np.array([3.0])), \
        annual_carry(np.array([101.0]), np.array([100.0]), np.array([-3.0]))
    assert later[0] == pytest.approx(-0.04) and nearer[0] == pytest.approx(-0.04 / 1.01)
    assert np.isnan(annual_carry(np.array([100.0, 0.0]), np.array([101.0, 1.0]), np.array([0.0, 1.0]))).all()


def test_months_are_months() -> None:
    values = np.array([201812.0, 201901.0, 201800.0, 201813.0, -1.0, 2018.0, np.nan, 201812.5])
    assert np.isnan(month_number(values)).tolist() == [False, False, True, True, True, True, True, True]
    assert month_number(values)[1] - month_number(values)[0] == 1.0


def test_carry_is_missing_where_the_curve_cannot_be_trusted() -> None:
    price = walk()
    curve = {"carry_ref": price.copy(), "carry": price * 1.01, "price_contract": np.full(len(DAYS), 201606),
             "carry_contract": np.full(len(DAYS), 201609), "forward": price, "forward_contract": np.full(len(DAYS), 201609)}
    curve["carry_contract"][10] = 201606  # the same month
    curve["carry_contract"][11] = 201699
    curve["carry_contract"][12] = 203009  # too far
    curve["carry"][13] = price[13] * 30.0
    curve["carry"][14] = np.nan
    curve["carry_ref"][15] = -price[15]
    market = futures(future(price, **curve))  # type: ignore[arg-type]
    assert np.flatnonzero(market.carry["TIN"].isna()).tolist() == [10, 11, 12, 13, 14, 15]
    assert market.carry["TIN"].iloc[0] == pytest.approx(-0.04)
    assert {"ZERO_DISTANCE", "BAD_CONTRACT", "LEVEL_MISMATCH", "CARRY_MISSING"} <= codes(market, "TIN")
    assert (market.carry_months["TIN"].dropna() == 3.0).all()


def test_a_level_proxy_has_returns_and_no_carry() -> None:
    price = walk()
    market = futures(future(price, carry_ref=price, carry=price, price_contract=201606, carry_contract=201609,
                            price_source="spot_fx"))
    assert market.carry["TIN"].isna().all() and market.returns["TIN"].notna().sum() == len(DAYS) - 1
    assert "LEVEL_PROXY" in codes(market, "TIN")


def test_a_missing_level_is_the_last_one_for_a_month_and_no_return_comes_before_the_first() -> None:
    price = walk()
    level = price.copy()
    level[:50] = np.nan
    level[200:210] = np.nan
    level[400:460] = np.nan
    market = futures(pd.DataFrame({"date": DAYS, "instrument": "TIN", "adj": price, "price": level}))
    r = market.returns["TIN"]
    assert r.iloc[:51].isna().all() and r.iloc[200:210].notna().all()
    assert r.iloc[205] == pytest.approx((price[205] - price[204]) / price[199])
    assert r.iloc[400:422].notna().all() and r.iloc[422:460].isna().all()
    assert r.iloc[460] == pytest.approx((price[460] - price[421]) / price[399])
    assert market.prices["TIN"].iloc[200:210].isna().all() and "LEVEL_MISSING" in codes(market)


# ---------------------------------------------------------------- calendars

def test_calendars_differ_and_no_market_is_cut_to_another() -> None:
    a, b = future(walk(1), "A"), future(walk(2), "B").iloc[100:]
    b = b[b["date"] != DAYS[300]].drop(b.index[(b["date"] >= DAYS[400]) & (b["date"] < DAYS[420])])
    market = futures(pd.concat([a, b[b["date"] < DAYS[600]]]))
    assert len(market.dates) == len(DAYS) and market.returns["A"].notna().sum() == len(DAYS) - 1
    assert market.returns["B"].iloc[:101].isna().all() and np.isnan(market.returns["B"].iloc[300])
    gap = gap_bars_of(market.returns)
    assert gap[301, 1] == 2.0 and gap[420, 1] == 21.0 and gap[301, 0] == 1.0
    whole = np.prod(1.0 + market.returns["B"].iloc[101:600].fillna(0.0))
    assert whole == pytest.approx(walk(2)[599] / walk(2)[100])
    assert {"LATE_START", "EARLY_END", "LONG_HOLE", "MULTI_DAY"} <= codes(market, "B")
    assert codes(market, "A") == set()


def test_an_outage_is_reported_and_the_next_return_spans_it() -> None:
    parts = [future(walk(i), f"M{i}") for i in range(6)]
    daily = pd.concat([p[~p["date"].isin(DAYS[500:503])] if i < 4 else p for i, p in enumerate(parts)])
    market = futures(daily)
    assert sum(d.code == "OUTAGE" for d in market.findings) == 3
    assert (gap_bars_of(market.returns)[503, :4] == 4.0).all()


def test_days_that_are_no_session_are_left_out_without_losing_their_move() -> None:
    days = pd.bdate_range("2014-01-02", "2016-12-30")
    price = walk(3, len(days))
    market = futures(future(price, days=days))
    assert market.dates.equals(DAYS) and "OFF_SESSION" in {d.code for d in market.findings}
    assert np.prod(1.0 + market.returns["TIN"].iloc[1:]) == pytest.approx(price[-1] / price[0])


# ---------------------------------------------------------------- prints

def test_a_stale_run_is_no_quote_from_the_fifth_repeat_on() -> None:
    price = walk()
    price[200:212] = price[200]
    price[300:304] = price[300]  # short enough to be true
    r = futures(future(price)).returns["TIN"]
    assert (r.iloc[201:205] == 0.0).all() and r.iloc[205:212].isna().all() and r.iloc[300:305].notna().all()
    assert gap_bars_of(r.to_frame())[212, 0] == 8.0
    assert DAYS[205].strftime("%Y-%m-%d") in the(futures(future(price)), "STALE_RUN", "TIN")


def test_a_print_that_comes_back_the_next_day_was_never_seen() -> None:
    price = walk()
    price[400] *= 0.67
    market = futures(pd.concat([future(price), future(walk(5), "LEAD")]))
    assert np.isnan(market.returns["TIN"].iloc[400])
    assert market.returns["TIN"].iloc[401] == pytest.approx(price[401] / price[399] - 1.0)
    assert "HELD_BACK" in codes(market, "TIN") and DAYS[400].strftime("%Y-%m-%d") in the(market, "HELD_BACK", "TIN")


def test_a_true_lonely_jump_arrives_one_quote_late_and_whole() -> None:
    price = walk()
    price[400:] *= 0.67
    r = futures(pd.concat([future(price), future(walk(5), "LEAD")])).returns["TIN"]
    assert np.isnan(r.iloc[400]) and r.iloc[401] == pytest.approx(price[401] / price[399] - 1.0)


def test_a_crash_that_another_market_confirms_stands_on_its_day() -> None:
    a, b = walk(1), walk(2)
    a[400:] *= 0.67
    b[400:] *= 0.9
    market = futures(pd.concat([future(a, "A"), future(b, "B")]))
    assert market.returns["A"].iloc[400] == pytest.approx(a[400] / a[399] - 1.0) and "HELD_BACK" not in codes(market)


def test_holding_back_a_print_uses_nothing_later() -> None:
    price = walk()
    price[400] *= 0.67
    cut = futures(future(price).iloc[:401])
    full = futures(future(price))
    pd.testing.assert_frame_equal(cut.returns, full.returns.iloc[:401])


def test_impossible_returns_are_never_accepted() -> None:
    price = walk()
    adjusted = price.copy()
    adjusted[500:] -= 300.0  # below -100 % of the price, for good
    market = futures(pd.DataFrame({"date": DAYS, "instrument": "TIN", "adj": adjusted, "price": price}))
    assert market.returns["TIN"].iloc[500:].isna().all() and "REJECTED" in codes(market, "TIN")


def test_an_unadjusted_price_that_leaves_the_adjusted_one_is_held_back() -> None:
    price = walk()
    level = price.copy()
    level[300] *= 1000.0
    market = futures(pd.DataFrame({"date": DAYS, "instrument": "TIN", "adj": price, "price": level}))
    assert np.isnan(market.returns["TIN"].iloc[300]) and "LEVEL_JUMP" in codes(market, "TIN")
    assert market.returns["TIN"].iloc[301] == pytest.approx((price[301] - price[299]) / price[299])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(80, 290), st.floats(0.05, 3.0))
def test_prints_never_look_ahead(seed: int, row: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    level = 50.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal((300, 3)), axis=0)
    level[rng.random(level.shape) < 0.05] = np.nan
    level[rng.integers(60, 300, 4), rng.integers(0, 3, 4)] *= 0.5
    changed = level.copy()
    changed[row:, seed % 3] *= factor
    changed[row + 3:, (seed + 1) % 3] = np.nan
    a, b = (pr.accept_prints(x, x, ["m", "m", "n"]) for x in (level, changed))
    for before, after in zip(a, b, strict=True):
        np.testing.assert_array_equal(before[:row], after[:row])


# ---------------------------------------------------------------- tables

def test_bad_rows_are_left_out_and_reported() -> None:
    daily = future(walk())
    daily["price"] = daily["price"].astype(object)
    daily.loc[10, "price"] = "n/a"
    daily.loc[11, "adj"] = np.inf
    daily.loc[12, "price"] = -5.0
    daily = pd.concat([daily, daily.iloc[[20]].assign(adj=1.0), daily.iloc[[0]].assign(instrument="GHOST"),
                       daily.iloc[[0]].assign(date=pd.NaT)])
    market = futures(daily, info("TIN"))
    assert {"NOT_NUMERIC", "NON_FINITE", "NONPOSITIVE_PRICE", "NOT_IN_ORDER"} <= codes(market, "TIN")
    assert "UNKNOWN_SYMBOL" in codes(market, "GHOST") and "BAD_DATE" in codes(market)
    assert market.returns["TIN"].iloc[[11, 12]].isna().all() and np.isfinite(market.returns["TIN"].iloc[20])
    assert market.returns["TIN"].iloc[10] == pytest.approx((walk()[10] - walk()[9]) / walk()[9])  # the level is the last one


def test_a_row_cannot_be_slipped_into_the_past() -> None:
    daily = future(walk())[lambda x: x["date"] != DAYS[50]]
    late = daily.iloc[[-1]].assign(date=DAYS[50])
    assert np.isnan(futures(pd.concat([daily, late])).returns["TIN"].iloc[50])


@pytest.mark.parametrize(("change", "code"), [
    ({"asset_class": None}, "MISSING_VALUE"), ({"point_size": 0.0}, "MISSING_VALUE"), ({"point_size": "x"}, "MISSING_VALUE"),
    ({"currency": ""}, "MISSING_VALUE"), ({"instrument": "A B"}, "BAD_NAME")])
def test_a_fact_that_no_rule_can_guess_stops_the_reading(change: dict[str, object], code: str) -> None:
    with pytest.raises(InputError) as error:
        futures(future(walk()), info("TIN").assign(**change))
    assert error.value.code == code


def test_missing_columns_files_and_orders_stop_the_reading(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must have the column adj"):
        futures(future(walk()).drop(columns="adj"))
    with pytest.raises(InputError, match="out of order") as error:
        futures(future(walk()).iloc[::-1])
    assert error.value.code == "UNSORTED"
    with pytest.raises(InputError, match="twice"):
        futures(future(walk()), info("TIN", "TIN"))
    with pytest.raises(InputError, match="must hold macro") as error:
        so.read_macro(tmp_path)
    assert error.value.code == "MISSING_FILE"
    (tmp_path / "macro.parquet").write_text("x")
    with pytest.raises(InputError) as error:
        so.read_macro(tmp_path)
    assert error.value.code == "UNREADABLE"


def test_no_folder_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIL_SHARED_DATA", raising=False)
    with pytest.raises(InputError, match="PIL_SHARED_DATA"):
        so.source_folder()
    monkeypatch.setenv("PIL_SHARED_DATA", str(tmp_path / "no"))
    with pytest.raises(InputError, match="must be a folder"):
        so.source_folder()


def test_costs_are_of_the_day_and_outliers_are_not_tradable() -> None:
    price = np.linspace(10.0, 200.0, len(DAYS)) * (1.0 + 0.001 * np.random.default_rng(0).standard_normal(len(DAYS)))
    market = futures(pd.concat([future(price, "A"), future(price, "B")]), info("A", "B", half_spread_points=[0.01, 0.5]))
    assert market.spread["A"].iloc[[0, -1]].to_numpy() == pytest.approx(0.01 / price[[0, -1]])
    assert market.cost["A"].iloc[5] == pytest.approx(0.01 / price[5] + 1.0 / (10.0 * price[5]))
    assert "COST_OUTLIER" in codes(market, "B")
    assert not market.tradable["B"].loc[market.spread["B"] > 0.003].any() and market.tradable["B"].iloc[-1]
    assert market.tradable["A"].to_numpy().argmax() == 252


def test_a_stale_market_is_not_tradable() -> None:
    price = np.round(walk() / 3.0) * 3.0
    market = futures(future(price))
    assert "STALE_SHARE" in codes(market, "TIN") and market.tradable["TIN"].mean() < 0.3


def test_missing_costs_come_from_the_class_table() -> None:
    market = futures(future(walk()), info("TIN").assign(half_spread_points=-1.0).drop(columns="commission_per_block"))
    assert market.cost["TIN"].iloc[0] == pytest.approx((6.0 + 0.4) / 1e4) and "NEGATIVE_COST" in codes(market, "TIN")


# ---------------------------------------------------------------- funds

def fund(total: np.ndarray, name: str = "GLD", **more: object) -> pd.DataFrame:
    return pd.DataFrame({"date": DAYS, "ticker": name, "close_tr": total, **more})


def test_a_rescaled_adjusted_close_gives_the_same_returns() -> None:
    total = walk()
    np.testing.assert_allclose(funds(fund(0.83 * total)).returns, funds(fund(total)).returns, atol=1e-14)


def test_the_level_is_carried_on_from_the_last_raw_close() -> None:
    total, raw = walk(), 3.0 * walk()
    market = funds(fund(total, close_raw=np.where(np.arange(len(DAYS)) < 100, raw, np.nan)))
    np.testing.assert_allclose(market.prices["GLD"].iloc[99:], raw[99] * total[99:] / total[99])
    assert "RAW_MISSING" in codes(market, "GLD")


def test_a_split_is_no_raw_jump_and_a_wrong_raw_close_is_left_out() -> None:
    total = walk()
    raw, split = 4.0 * total, np.ones(len(DAYS))
    raw[300:] /= 2.0
    split[300] = 2.0
    raw[400] *= 10.0
    market = funds(fund(total, close_raw=raw, split=split))
    assert "2015-08-05" in the(market, "RAW_JUMP", "GLD") and "2 rows" in the(market, "RAW_JUMP", "GLD")  # it and the next
    assert market.prices["GLD"].iloc[300] == pytest.approx(raw[300]) and market.prices["GLD"].iloc[400] < 2.5 * total[400]


def test_bad_side_columns_change_no_return() -> None:
    market = funds(fund(walk(), volume=-1.0, dividend=1e9, split=0.0))
    pd.testing.assert_frame_equal(market.returns, funds(fund(walk())).returns)
    assert "BAD_VOLUME" in codes(market, "GLD")


def test_wrappers_fold_by_exposure() -> None:
    table = wrapper_columns(["GLD", "GLL", "IAU", "SGOL", "VIXY", "SVXY", "UGL", "XYZ"])
    assert table.loc["GLL", "exposure_multiple"] == -2.0 and table.loc["SVXY", "exposure_multiple"] == -0.5
    assert table.loc[["IAU", "SGOL"], "primary"].tolist() == ["GLD", "GLD"] and table.loc["XYZ", "primary"] == "XYZ"
    assert table.loc["UGL", "future"] == "GOLD" and wrapper_columns(["IAU"]).loc["IAU", "primary"] == "IAU"


# ---------------------------------------------------------------- macro

def series(name: str, dates: pd.DatetimeIndex, values: object) -> pd.DataFrame:
    return pd.DataFrame({"date": dates, "series": name, "value": values})


@pytest.mark.parametrize(("name", "reference", "known"), [
    ("DGS10", "2016-03-04", "2016-03-07"), ("DFII10", "2016-03-03", "2016-03-04"), ("DTWEXBGS", "2016-03-04", "2016-03-11"),
    ("ICSA", "2016-03-05", "2016-03-14"), ("WALCL", "2016-03-02", "2016-03-09"), ("UNRATE", "2016-03-01", "2016-04-12"),
    ("CPIAUCSL", "2016-03-01", "2016-04-19"), ("VIX", "2016-03-04", "2016-03-04"), ("NEW_ONE", "2016-03-01", "2016-04-12")])
def test_a_value_is_seen_from_the_day_it_was_known(name: str, reference: str, known: str) -> None:
    table = so.build_macro(series(name, pd.DatetimeIndex([reference]), [2.0]), DAYS).values[name]
    assert f"{table.first_valid_index():%Y-%m-%d}" == known
    assert ("UNKNOWN_LAG" in codes(so.build_macro(series(name, DAYS, 2.0), DAYS))) == (name == "NEW_ONE")


def test_no_lag_rule_lets_a_value_be_known_before_its_date() -> None:
    dates = pd.date_range("2016-01-01", "2016-12-31")
    for lag in MACRO_LAGS.values():
        assert (known_dates(dates, lag) >= dates - pd.Timedelta(days=0 if lag.days or not lag.business_days else 0)).all()


def test_a_value_grows_too_old() -> None:
    table = as_known(pd.Series([1.0], index=pd.DatetimeIndex(["2014-02-03"])), DAYS, MACRO_LAGS["DGS10"])
    assert table.last_valid_index() <= pd.Timestamp("2014-02-04") + pd.Timedelta(days=15) and table.notna().sum() > 5


def test_a_negative_spot_price_is_kept_and_said() -> None:
    value = 60.0 + 0.1 * np.random.default_rng(0).standard_normal(len(DAYS))
    value[500] = -36.98
    table = so.build_macro(series("WTI_SPOT", DAYS, value), DAYS)
    assert table.values["WTI_SPOT"].min() == -36.98
    assert {"NEGATIVE_LEVEL", "MACRO_JUMP"} <= codes(table, "WTI_SPOT")


def test_values_outside_their_range_are_missing() -> None:
    value = np.full(len(DAYS), 15.0)
    value[[10, 20, 30]] = [-3.0, 1e9, np.nan]
    table = so.build_macro(series("VIX", DAYS, value), DAYS)
    assert (table.values["VIX"] == 15.0).all() and {"MACRO_RANGE", "EMPTY_CELLS"} <= codes(table, "VIX")


# ---------------------------------------------------------------- currencies

def test_contract_values_need_a_rate_and_returns_do_not() -> None:
    market = futures(pd.concat([future(walk(), "A"), future(walk(1), "B")]), info("A", "B", currency=["USD", "JPY"]))
    rate = pd.DataFrame({"date": DAYS[100:], "pair": "JPYUSD", "rate": 0.01})
    fx, found = so.build_fx(rate, DAYS)
    prices, lost = so.usd_prices(market, fx)
    assert prices["B"].iloc[100] == pytest.approx(0.01 * market.prices["B"].iloc[100]) and prices["B"].iloc[:100].isna().all()
    assert lost[0].code == "FX_MISSING" and lost[0].column == "B" and market.returns["B"].notna().sum() == len(DAYS) - 1
    assert prices["A"].equals(market.prices["A"]) and any(d.code == "LATE_START" for d in found)


# ---------------------------------------------------------------- the real folder

@pytest.fixture(scope="module")
def real_futures() -> so.FuturesMarket:
    return so.read_futures(mf.REAL, "1970-01-02")


@real
def test_real_futures(real_futures: so.FuturesMarket) -> None:
    m = real_futures
    nonpositive = {d.column for d in m.findings if d.code == "NONPOSITIVE_ADJUSTED"}
    assert len(m.symbols) == 57 and len(nonpositive) == 14 and {"SOYMEAL", "MSCISING", "MXP"} <= nonpositive
    r = m.returns.to_numpy()
    assert np.nanmin(r) > -1.0 and np.nanmax(r) < 1.5 and np.isfinite(r[~np.isnan(r)]).all()
    outages = {d.date for d in m.findings if d.code == "OUTAGE"}
    gap = pd.DataFrame(gap_bars_of(r), index=m.dates, columns=m.returns.columns)
    assert (gap.loc["2014-08-06"] >= 4.0).sum() >= 20 and outages
    holes = {(d.column, d.date[:4]) for d in m.findings if d.code == "LONG_HOLE"}
    assert {("BUND", "2013"), ("BOBL", "2013"), ("AEX", "2013"), ("GAS-LAST", "2014"), ("MILK", "1997"), ("BRE", "2001")} <= holes
    assert {d.column for d in m.findings if d.code == "EARLY_END"} == {"AEX", "BUND", "BOBL", "BTP"}
    assert {"STEEL", "FED", "MILK"} <= {d.column for d in m.findings if d.code == "STALE_RUN"}
    assert {d.column for d in m.findings if d.code == "LEVEL_PROXY"} == {"SILVER", "CAD", "CHF"}
    assert {"STEEL", "OATIES", "RICE", "CANOLA", "MILK"} <= {d.column for d in m.findings if d.code == "COST_OUTLIER"}
    assert m.returns["SILVER"].first_valid_index() >= pd.Timestamp("2000-08-01")
    assert abs(m.returns["CHF"].loc["2015-01-16"]) > 0.15 and m.carry[["SILVER", "CAD", "CHF"]].isna().all().all()
    assert m.carry["CRUDE_W"].loc["2008-12-01":"2009-02-01"].mean() < -0.05  # the contango of that winter
    assert sum(int(d.what.split("(")[1].split()[0]) for d in m.findings if d.code == "ZERO_DISTANCE") > 100


@real
def test_real_funds_and_macro() -> None:
    etfs, macro = so.read_etfs(mf.REAL), so.read_macro(mf.REAL)
    held = {(d.column, d.date) for d in etfs.findings if d.code == "HELD_BACK"}
    assert ("CPER", "2014-12-04") in held and abs(etfs.returns["CPER"].loc["2014-12-05"]) < 0.05
    assert abs(etfs.returns["CPER"].loc["2015-02-03"]) < 0.05 and np.isnan(etfs.returns["CPER"].loc["2015-02-02"])
    assert etfs.returns["SVXY"].loc["2018-02-06"] < -0.8  # true: two related funds moved
    assert "BIL" in {d.column for d in etfs.findings if d.code == "STALE_SHARE"}
    assert etfs.returns["VXX"].first_valid_index() >= pd.Timestamp("2018-01-25")
    assert macro.values["WTI_SPOT"].min() == -36.98 and macro.values["VIX"].loc["2018-02-05"] > 35.0
    assert macro.values["CPIAUCSL"].loc["2020-04-17"] == macro.values["CPIAUCSL"].loc["2020-03-25"]
    assert all(str(d) for d in (*etfs.findings, *macro.findings))
