"""The panel of a folder of markets: what it holds, and that no later datum of any column of any file reaches back."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import market_files as mf
import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.research import shared_panel as sp
from pil_research.research import sources as so
from pil_research.research.panel import Panel
from pil_research.research.walk_forward import walk_forward
from pil_research.types import InputError

Tables = dict[str, pd.DataFrame]
KEY = {"futures_daily": "instrument", "etf_daily": "ticker", "macro": "series", "fx_usd": "pair"}
STATIC = ("futures_info", "etf_info")
real = pytest.mark.skipif(not mf.REAL, reason="PIL_SHARED_DATA is not set: no folder of real markets")


# ---------------------------------------------------------------- building from frames, part by part

@cache
def part(name: str) -> object:
    return build(name, mf.tables())


def build(name: str, t: Tables) -> object:
    if name == "futures":
        return so.build_futures(t["futures_daily"], t["futures_info"], start=mf.START)
    if name == "etfs":
        return so.build_etfs(t["etf_daily"], t["etf_info"], start=mf.START)
    sessions = so.market_sessions(mf.START, mf.END)
    return so.build_macro(t["macro"], sessions) if name == "macro" else so.build_fx(t["fx_usd"], sessions)


PART = {"futures_daily": "futures", "futures_info": "futures", "etf_daily": "etfs", "etf_info": "etfs", "macro": "macro",
        "fx_usd": "fx"}


def source_of(changed: Tables | None = None) -> sp.SourceData:
    t = {**mf.tables(), **(changed or {})}
    touched = {PART[k] for k in changed or {}}
    parts = {k: build(k, t) if k in touched else part(k) for k in ("futures", "etfs", "macro", "fx")}
    fx, found = parts["fx"]  # type: ignore[misc]
    return sp.join_sources(parts["futures"], parts["etfs"], parts["macro"], fx, tuple(found))  # type: ignore[arg-type]


@cache
def base() -> tuple[sp.SourceData, Panel]:
    data = source_of()
    return data, sp.panel_of(data)


# ---------------------------------------------------------------- what the panel holds

def test_the_panel_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIL_SHARED_DATA", str(mf.write(tmp_path)))
    panel = sp.shared_panel("both", start=mf.START)
    assert panel.fingerprint() == base()[1].fingerprint() and panel.name == "shared-both"
    assert len(panel.symbols) == len(mf.FUTURES) + len(mf.FUNDS) and {"CORN", "CORN.ETF"} <= set(panel.symbols)
    assert {"carry", "macro", "pairs", "trend"} <= set(panel.sleeve_ids) and panel.calendar == "XNYS"
    assert panel.notes == sp.NOTES and str(tmp_path) not in panel.source
    futures = sp.shared_panel("futures", start=mf.START)
    assert set(futures.symbols) == set(mf.FUTURES) and (futures.instruments["kind"] == "future").all()
    etf = sp.shared_panel("etf", start=mf.START)
    assert set(etf.symbols) == set(mf.FUNDS) and "carry" not in etf.sleeve_ids
    with pytest.raises(InputError, match="kind must be one of"):
        sp.shared_panel("bonds")


def test_instruments_costs_and_wrappers() -> None:
    data, panel = base()
    table = panel.instruments
    assert table.loc["IAU", "primary"] == "GLD" and table.loc["SVXY", "exposure_multiple"] == -0.5
    assert table.loc["CORN.ETF", ["kind", "primary", "future"]].tolist() == ["etf", "CORN.ETF", "CORN"]
    assert table["assumed"].all() and table["adv_usd"].isna().all() and table.loc["GOLD", "multiplier"] == 100.0
    assert table.loc["GDX", "cluster"] == table.loc["GOLD", "cluster"] == "metals"
    price = data.futures.prices["GOLD"].ffill()  # type: ignore[union-attr]
    np.testing.assert_allclose(panel.cost_schedule["GOLD"].iloc[5:], (0.02 / price + 2.0 / (100.0 * price)).iloc[5:])  # type: ignore[index]
    assert panel.cost_schedule is not None and (panel.cost_schedule.iloc[5:] > 0.0).all().all()


def test_funds_are_in_excess_of_the_bill_rate_of_the_day_before() -> None:
    data, panel = base()
    rate = data.macro.values["TBILL13W"].shift(1).fillna(0.0) / 100.0 / 252.0  # type: ignore[union-attr]
    np.testing.assert_allclose(panel.returns["SPY"], data.etfs.returns["SPY"] - rate)  # type: ignore[union-attr]
    np.testing.assert_array_equal(panel.returns["GOLD"], data.futures.returns["GOLD"])  # type: ignore[union-attr]


def test_contract_prices_are_dollars() -> None:
    data, panel = base()
    local = data.futures.prices["NIKKEI"] * data.fx["JPY"]  # type: ignore[union-attr,index]
    pd.testing.assert_series_equal(panel.prices["NIKKEI"], local, check_names=False, check_freq=False)  # type: ignore[index]


def test_vehicles_of_a_date() -> None:
    table = sp.vehicle_table(base()[1], "2014-06-30")
    assert table.loc[["GLD", "IAU", "GOLD", "CORN.ETF", "SPY"], "primary"].tolist() == ["GOLD", "GOLD", "GOLD", "CORN", "SP500"]
    value = base()[1].prices["GOLD"].loc[:"2014-06-30"].ffill().iloc[-1] * 100.0  # type: ignore[index]
    assert table.loc["GOLD", "margin"] == pytest.approx(0.08 * value) and np.isnan(table.loc["GLD", "margin"])
    assert sp.vehicle_table(base()[1], fold=False)["primary"].equals(base()[1].instruments["primary"])
    with pytest.raises(InputError):
        sp.vehicle_table(base()[1], "1999-01-01")


def test_no_wrapper_is_held() -> None:
    panel = base()[1]
    wrapped = panel.instruments.index[panel.instruments["primary"] != panel.instruments.index]
    assert len(wrapped) >= 2 and all((t[list(wrapped)].fillna(0.0) == 0.0).all().all() for t in panel.targets.values())


def test_without_macro_there_is_no_cash_and_it_is_said(tmp_path: Path) -> None:
    (mf.write(tmp_path) / "macro.parquet").unlink()
    data = sp.read_sources("etf", tmp_path, start=mf.START)
    assert data.macro is None and "NO_MACRO" in sp.finding_counts(data.findings)
    assert sp.cash_returns(None, data.dates) == (None, "")


# ---------------------------------------------------------------- nothing reaches back

def poison_nan(x: pd.Series) -> pd.Series:
    return pd.Series([None] * len(x), index=x.index, dtype=object) if x.dtype == object else x.where(x.isna(), np.nan)


def poison_wild(x: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(x.dtype):
        return pd.Series(-1e9, index=x.index)
    if pd.api.types.is_datetime64_any_dtype(x.dtype):
        return x - pd.Timedelta(days=800)
    return pd.Series("?!", index=x.index, dtype=object)


def poison_text(x: pd.Series) -> pd.Series:
    return pd.Series("junk", index=x.index, dtype=object)


POISONS: dict[str, Callable[[pd.Series], pd.Series]] = {"empty": poison_nan, "wild": poison_wild, "text": poison_text}
FREE = {("macro", "source")}  # a comment: read by nobody


def poisoned(file: str, column: str, how: str, day: pd.Timestamp) -> pd.DataFrame:
    frame = mf.tables()[file].copy()
    late = (frame["date"] >= day).to_numpy()
    bad = POISONS[how](frame.loc[late, column])
    frame[column] = pd.concat([frame.loc[~late, column].astype(object), bad.astype(object)]).reindex(frame.index)
    return frame if how == "text" or column == "date" else frame.infer_objects()


def dropped(file: str, day: pd.Timestamp, name: str | None) -> pd.DataFrame:
    frame = mf.tables()[file]
    mine = True if name is None else frame[KEY[file]] == name
    return frame[~((frame["date"] >= day) & mine)]


def tables_of(data: sp.SourceData) -> dict[str, pd.DataFrame]:
    out: dict[str, pd.DataFrame] = {}
    for kind, market in (("futures", data.futures), ("etf", data.etfs)):
        if market is not None:
            out |= {f"{kind}.{k}": v for k, v in vars(market).items() if isinstance(v, pd.DataFrame) and k != "info"}
    if data.macro is not None:
        out["macro"] = data.macro.values
    return out | ({} if data.fx is None else {"fx": data.fx})


def same_before(a: pd.DataFrame, b: pd.DataFrame, day: pd.Timestamp, name: str) -> None:
    left, right = a.loc[a.index < day], b.loc[b.index < day]
    assert left.index.equals(right.index), name
    columns = [c for c in left.columns if c in right.columns]
    for c in set(left.columns) ^ set(right.columns):  # a column that has no datum any more had none before either
        rest = (left if c in left.columns else right)[c]
        assert (rest.isna() | (rest == 0.0)).all(), (name, c)
    x, y = left[columns].to_numpy(dtype=np.float64), right[columns].to_numpy(dtype=np.float64)
    np.testing.assert_array_equal(x.view(np.int64)[~np.isnan(x)], y.view(np.int64)[~np.isnan(x)], err_msg=name)
    np.testing.assert_array_equal(np.isnan(x), np.isnan(y), err_msg=name)


def changed_panel(changed: Tables) -> tuple[sp.SourceData, Panel] | InputError:
    try:
        data = source_of(changed)
        return data, sp.panel_of(data)
    except InputError as error:
        return error


def check_panel_before(panel: Panel, day: pd.Timestamp) -> None:
    ours = base()[1]
    for name in ("returns", "prices", "cost_schedule"):
        same_before(getattr(ours, name), getattr(panel, name), day, name)
    for sleeve in ours.targets:
        if sleeve in panel.targets:
            same_before(ours.targets[sleeve], panel.targets[sleeve], day, sleeve)
        else:
            assert ours.targets[sleeve].loc[ours.dates < day].isna().all().all(), sleeve
    assert ours.cash is not None and panel.cash is not None
    same_before(ours.cash.to_frame(), panel.cash.to_frame(), day, "cash")


DATED = [(f, c) for f in KEY for c in mf.tables()[f].columns if (f, c) not in FREE]
DAYS_OF = ("2013-05-07", "2014-09-17")


@pytest.mark.parametrize(("file", "column"), DATED, ids=lambda v: str(v))
def test_poison_in_any_column_leaves_the_past_alone_and_is_reported(file: str, column: str) -> None:
    data = base()[0]
    for how, text in zip(("empty", "wild"), DAYS_OF, strict=True):  # text: the slow tier
        day = pd.Timestamp(text)
        try:
            bad = source_of({file: poisoned(file, column, how, day)})
        except InputError as error:
            assert error.code and error.field
            continue
        assert set(bad.findings) - set(data.findings), (file, column, how)
        for name, table in tables_of(data).items():
            same_before(table, tables_of(bad)[name], day, f"{name} after {file}.{column} {how}")


@pytest.mark.parametrize("file", list(KEY))
def test_removing_or_truncating_leaves_the_past_alone_and_is_reported(file: str) -> None:
    data, day = base()[0], pd.Timestamp(DAYS_OF[0])
    names = sorted(mf.tables()[file][KEY[file]].unique())
    for name in (None, names[0], names[len(names) // 2], names[-1]):
        try:
            bad = source_of({file: dropped(file, day, name)})
        except InputError as error:
            assert error.code
            continue
        assert set(bad.findings) - set(data.findings), (file, name)
        for key, table in tables_of(data).items():
            same_before(table, tables_of(bad)[key], day, f"{key} without {name}")


@pytest.mark.parametrize(("file", "column"), [(f, c) for f in STATIC for c in mf.tables()[f].columns], ids=lambda v: str(v))
@pytest.mark.parametrize("value", [None, "?!", -1e9])
def test_a_fault_in_a_static_table_is_an_error_or_a_finding_and_moves_no_return(file: str, column: str, value: object) -> None:
    frame = mf.tables()[file].astype(object)
    frame.loc[2, column] = value
    try:
        bad = source_of({file: frame})
    except InputError as error:
        assert error.code and error.field
        return
    if column not in ("description", "region") or value is None:
        assert set(bad.findings) - set(base()[0].findings)
    if column not in ("instrument", "ticker", "asset_class"):
        for name in ("futures.returns", "etf.returns", "futures.carry", "macro"):
            pd.testing.assert_frame_equal(tables_of(bad)[name], tables_of(base()[0])[name])


@pytest.mark.parametrize(("file", "column", "how"), [("futures_daily", "adj", "wild"), ("futures_daily", "carry", "empty"),
                                                     ("etf_daily", "close_tr", "text"), ("macro", "value", "wild")])
def test_targets_before_the_poison_are_the_same_bits(file: str, column: str, how: str) -> None:
    day = pd.Timestamp(DAYS_OF[1])
    result = changed_panel({file: poisoned(file, column, how, day)})
    assert not isinstance(result, InputError)
    check_panel_before(result[1], day)


def decisions(panel: Panel, last: str) -> pd.DataFrame:
    w = walk_forward(panel, {"hrp": PILConfig()}, start="2013-09-03", end=last, keep_exposures=("hrp",))
    return w.exposures["hrp"]


def test_decisions_before_the_poison_are_the_same_bits() -> None:
    day = pd.Timestamp("2014-08-13")
    bad = changed_panel({"futures_daily": poisoned("futures_daily", "adj", "wild", day)})
    assert not isinstance(bad, InputError)
    ours, theirs = decisions(base()[1], "2014-09-12"), decisions(bad[1], "2014-09-12")
    same_before(pd.DataFrame(ours), pd.DataFrame(theirs), day, "exposures")
    assert (ours.index < day).sum() > 80 and np.abs(np.asarray(ours)).sum() > 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("file", "column"), DATED, ids=lambda v: str(v))
def test_every_poison_leaves_the_panel_before_it_alone(file: str, column: str) -> None:
    for how, text in zip(POISONS, ("2013-02-20", "2014-06-18", "2014-11-05"), strict=True):
        day = pd.Timestamp(text)
        result = changed_panel({file: poisoned(file, column, how, day)})
        if not isinstance(result, InputError):
            check_panel_before(result[1], day)


# ---------------------------------------------------------------- the real folder

@pytest.fixture(scope="module")
def real_tables() -> Tables:
    names = (*KEY, *STATIC)
    return {n: so.read_long(mf.REAL, n) for n in names}


@real
@pytest.mark.slow
@pytest.mark.parametrize(("file", "column"), [(f, c) for f in KEY for c in (
    {"futures_daily": ("adj", "price", "carry", "carry_contract", "price_contract", "carry_ref", "forward", "forward_contract",
                       "price_source", "instrument", "date"),
     "etf_daily": ("close_tr", "close_raw", "volume", "dividend", "split", "ticker", "date"),
     "macro": ("value", "series", "date"), "fx_usd": ("rate", "pair", "date")}[f])], ids=lambda v: str(v))
def test_real_columns_never_reach_back(real_tables: Tables, file: str, column: str) -> None:
    day, start, end = pd.Timestamp("2010-06-16"), "2007-01-03", "2011-06-30"
    def cut(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["date"] >= start) & (frame["date"] <= end)]

    table = cut(real_tables[file]).reset_index(drop=True)
    late = (table["date"] >= day).to_numpy()
    broken = table.copy()
    broken[column] = pd.concat([table.loc[~late, column].astype(object),
                                poison_wild(table.loc[late, column]).astype(object)])
    sessions = so.market_sessions(start, end)

    def made(frame: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], set[object]]:
        if file == "futures_daily":
            m = so.build_futures(frame, real_tables["futures_info"], start=start, end=end)
            return {k: v for k, v in vars(m).items() if isinstance(v, pd.DataFrame) and k != "info"}, set(m.findings)
        if file == "etf_daily":
            e = so.build_etfs(frame, real_tables["etf_info"], start=start, end=end)
            return {k: v for k, v in vars(e).items() if isinstance(v, pd.DataFrame) and k != "info"}, set(e.findings)
        if file == "macro":
            x = so.build_macro(frame, sessions)
            return {"macro": x.values}, set(x.findings)
        rates, found = so.build_fx(frame, sessions)
        return {"fx": rates}, set(found)

    good, known = made(table)
    try:
        bad, found = made(broken)
    except InputError as error:
        assert error.code
        return
    assert found - known
    for name in good:
        same_before(good[name], bad[name], day, name)


@real
@pytest.mark.slow
def test_the_real_panels() -> None:
    for kind, symbols in (("futures", 57), ("etf", 52), ("both", 109)):
        panel = sp.shared_panel(kind, mf.REAL)
        assert len(panel.symbols) == symbols and {"trend", "macro", "pairs", "vol_premium"} <= set(panel.sleeve_ids)
        assert np.nanmin(panel.returns.to_numpy()) > -1.0 and ("carry" in panel.sleeve_ids) == (kind != "etf")
