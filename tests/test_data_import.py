"""Import: pysystemtrade directories, FRED and yfinance files, provenance, and the command."""
from __future__ import annotations

import hashlib
import json
import shutil
import sys
import types
from pathlib import Path

import market_files as mf
import numpy as np
import pandas as pd
import pytest

from pil_research import cli
from pil_research.research import data_import as di
from pil_research.research.data import check_panel, load_panel
from pil_research.research.macro_files import read_lags, read_macro_folder
from pil_research.research.macro_source import build_macro
from pil_research.research.prints import RULES, market_sessions
from pil_research.research.pysystemtrade_files import contract_month, find_root, last_of_day, read_pysystemtrade
from pil_research.research.sources import build_futures
from pil_research.research.yfinance_files import fetch_yfinance, from_yfinance
from pil_research.types import InputError

# ---------------------------------------------------------------- pysystemtrade

def pysystemtrade(root: Path, years: str = "2013") -> Path:
    """The public CSV layout with our own numbers: daily rows at first, hourly rows from mid-2014 on."""
    base = root / "data" / "futures"
    for name in ("adjusted_prices_csv", "multiple_prices_csv", "csvconfig", "fx_prices_csv"):
        (base / name).mkdir(parents=True)
    daily = mf.tables()["futures_daily"]
    for code in ("GOLD", "SILVER", "PLAT", "PALLAD", "CRUDE_W", "HEATOIL", "CORN", "US10", "NIKKEI"):
        rows = daily[daily["instrument"] == code]
        stamps = pd.DatetimeIndex(rows["date"]) + pd.Timedelta(hours=23)
        hourly = stamps >= "2014-07-01"
        early = pd.DatetimeIndex(rows["date"])[hourly] + pd.Timedelta(hours=15)
        level = rows["adj"].to_numpy()
        adj = pd.concat([pd.Series(level, stamps), pd.Series(level[hourly] - 0.1, early)]).sort_index()
        adj.rename("price").rename_axis("DATETIME").to_csv(base / "adjusted_prices_csv" / f"{code}.csv")
        many = pd.DataFrame({"CARRY": rows["carry"].to_numpy(), "CARRY_CONTRACT": rows["carry_contract"].to_numpy() * 100,
                             "PRICE": rows["price"].to_numpy(), "PRICE_CONTRACT": rows["price_contract"].to_numpy() * 100,
                             "FORWARD": rows["forward"].to_numpy(),
                             "FORWARD_CONTRACT": rows["forward_contract"].to_numpy() * 100}, index=stamps)
        extra = many[hourly].set_axis(early, axis=0)
        late = many.copy()
        late.loc[hourly, "CARRY"] = np.nan  # at the last moment only the held contract has a print
        pd.concat([late, extra]).sort_index().rename_axis("DATETIME").to_csv(base / "multiple_prices_csv" / f"{code}.csv")
    info = mf.tables()["futures_info"]
    words = {"metals": "Metals", "energy": "OilGas", "ags": "Ags", "rates": "Bond", "equity": "Equity", "fx": "FX", "vol": "Vol"}
    pd.DataFrame({"Instrument": info["instrument"], "Description": info["description"], "Pointsize": info["point_size"],
                  "Currency": info["currency"], "AssetClass": info["asset_class"].map(words), "PerBlock": 2.0, "Percentage": 0,
                  "PerTrade": 0, "Region": "US"}).to_csv(base / "csvconfig" / "instrumentconfig.csv", index=False)
    pd.DataFrame({"Instrument": ["GOLD", "SILVER"], "SpreadCost": [0.05, 0.0]}).to_csv(base / "csvconfig" / "spreadcosts.csv",
                                                                                      index=False)
    fx = mf.tables()["fx_usd"]
    pd.DataFrame({"DATETIME": fx["date"] + pd.Timedelta(hours=23), "PRICE": fx["rate"]}).to_csv(
        base / "fx_prices_csv" / "JPYUSD.csv", index=False)
    return root


def test_a_pysystemtrade_directory_is_the_long_table_it_was_made_of(tmp_path: Path) -> None:
    read = read_pysystemtrade(pysystemtrade(tmp_path))
    own = mf.tables()["futures_daily"]
    mine = build_futures(own[own["instrument"].isin(read.daily["instrument"].unique())],
                         mf.tables()["futures_info"], start=mf.START)
    theirs = build_futures(read.daily, read.info, start=mf.START)
    for code in theirs.symbols:
        np.testing.assert_allclose(theirs.returns[code], mine.returns[code], atol=1e-12)
        np.testing.assert_allclose(theirs.carry[code], mine.carry[code], atol=1e-12)
    assert read.fx is not None and set(read.fx["pair"]) == {"JPYUSD"}
    assert read.info.set_index("instrument")["asset_class"][["CRUDE_W", "US10"]].tolist() == ["energy", "rates"]


def test_a_zero_spread_was_never_measured(tmp_path: Path) -> None:
    read = read_pysystemtrade(pysystemtrade(tmp_path), ["GOLD", "SILVER"])
    spread = read.info.set_index("instrument")["half_spread_points"]
    assert spread["GOLD"] == 0.05 and np.isnan(spread["SILVER"])
    market = build_futures(read.daily, read.info, start=mf.START)
    assert market.spread["SILVER"].iloc[-1] == pytest.approx(6e-4)


def test_contracts_and_last_prints() -> None:
    assert contract_month(pd.Series([20180300, "201803", "x", np.nan])).tolist()[:2] == [201803.0, 201803.0]
    stamps = pd.DatetimeIndex(["2018-01-02 10:00", "2018-01-02 15:00", "2018-01-02 20:00", "2018-01-03 09:00"])
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, np.nan], "b": [1.0, 2.0, np.nan, 4.0]}, index=stamps)
    assert last_of_day(frame, ["a"])["a"].tolist() == [3.0] and last_of_day(frame, ["a", "b"])["a"].tolist() == [2.0]


def test_an_unreadable_market_is_left_out_and_one_asked_for_stops(tmp_path: Path) -> None:
    root = pysystemtrade(tmp_path)
    base = find_root(root)
    (base / "multiple_prices_csv" / "CORN.csv").unlink()
    (base / "multiple_prices_csv" / "US10.csv").write_text("DATETIME,SETTLE\n2018-01-02,1\n")
    (base / "adjusted_prices_csv" / "GHOST.csv").write_text("DATETIME,price\n2018-01-02,1\n")
    read = read_pysystemtrade(root)
    assert {d.column: d.code for d in read.findings} == {"CORN": "NO_QUOTES", "US10": "NO_QUOTES", "GHOST": "INCOMPLETE_INFO"}
    with pytest.raises(InputError, match="PRICE"):
        read_pysystemtrade(root, ["US10"])
    with pytest.raises(InputError, match="must hold the folders"):
        read_pysystemtrade(tmp_path / "nowhere")
    (base / "csvconfig" / "instrumentconfig.csv").unlink()
    with pytest.raises(InputError) as error:
        read_pysystemtrade(root)
    assert error.value.code == "MISSING_FILE"


# ---------------------------------------------------------------- macro files

def test_fred_files_with_dots_old_headers_and_own_lags(tmp_path: Path) -> None:
    (tmp_path / "DGS10.csv").write_text("observation_date,DGS10\n2018-05-24,2.98\n2018-05-25,.\n2018-05-29,2.77\n")
    (tmp_path / "two.csv").write_text("DATE,UNRATE,CPIAUCSL\n2018-03-01,4.0,249.5\n2018-04-01,3.9,\n")
    (tmp_path / "long.csv").write_text("date,series,value\n2018-05-24,VIX,12.5\n")
    (tmp_path / "lags.csv").write_text("series,days,max_age\nUNRATE,50,90\n")
    frame, lags = read_macro_folder(tmp_path)
    assert set(frame["series"]) == {"DGS10", "UNRATE", "CPIAUCSL", "VIX"} and lags["UNRATE"].days == 50
    table = build_macro(frame, market_sessions("2018-05-24", "2018-06-29"), lags=lags)
    assert table.values.loc["2018-05-24", ["DGS10", "VIX", "UNRATE"]].isna().tolist() == [True, False, False]
    assert table.values["DGS10"].loc["2018-05-25"] == 2.98 and table.values["DGS10"].loc["2018-05-29"] == 2.98
    assert table.values["DGS10"].loc["2018-05-30"] == 2.77 and table.values["UNRATE"].loc["2018-05-24"] == 3.9


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "DATE\n2018-01-01\n", "DATE,A B\n2018-01-01,3\n"])
def test_a_macro_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "X.csv").write_text(text)
    with pytest.raises(InputError):
        read_macro_folder(tmp_path)


def test_lags_must_be_whole_days(tmp_path: Path) -> None:
    (tmp_path / "lags.csv").write_text("series,days\nA,-3\n")
    with pytest.raises(InputError) as error:
        read_lags(tmp_path / "lags.csv")
    assert error.value.code == "BAD_NUMBER"
    with pytest.raises(InputError, match="CSV files"):
        read_macro_folder(tmp_path)


# ---------------------------------------------------------------- yfinance

def recording(swap: bool = False) -> pd.DataFrame:
    """Invented numbers in the column layout of yfinance.download(auto_adjust=False, actions=True)."""
    days = market_sessions("2012-01-03", "2014-12-31").rename("Date")
    fields = ["Adj Close", "Close", "Dividends", "High", "Low", "Open", "Stock Splits", "Volume"]
    frame = pd.DataFrame(1.0, index=days, columns=pd.MultiIndex.from_product([fields, list(mf.FUNDS)], names=["Price", "Ticker"]))
    funds = mf.tables()["etf_daily"].pivot(index="date", columns="ticker", values="close_tr").reindex(days)
    for name in mf.FUNDS:
        frame[("Adj Close", name)] = funds[name].to_numpy()
        frame[("Close", name)] = 1.1 * funds[name].to_numpy()
        frame[("Dividends", name)] = 0.0
    return frame.swaplevel(axis=1).sort_index(axis=1) if swap else frame


def test_both_orders_of_the_column_levels_are_read() -> None:
    a, b = from_yfinance(recording()), from_yfinance(recording(swap=True))
    by = ["ticker", "date"]
    pd.testing.assert_frame_equal(a.sort_values(by, ignore_index=True), b.sort_values(by, ignore_index=True))
    one = recording().xs("GLD", axis=1, level="Ticker")
    assert from_yfinance(one, "GLD")["close_tr"].tolist() == a[a["ticker"] == "GLD"]["close_tr"].tolist()
    with pytest.raises(InputError, match="ticker must be given"):
        from_yfinance(one)
    with pytest.raises(InputError, match="auto_adjust=False"):
        from_yfinance(recording().drop(columns="Adj Close"))


def test_fetching_asks_for_unadjusted_rows_with_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def download(tickers: list[str], **given: object) -> pd.DataFrame:
        asked.update(given, tickers=tickers)
        return recording() if tickers != ["NONE"] else pd.DataFrame()

    monkeypatch.setitem(sys.modules, "yfinance", types.SimpleNamespace(download=download))  # type: ignore[arg-type]
    assert set(fetch_yfinance(list(mf.FUNDS), "2012-01-01")["ticker"]) == set(mf.FUNDS)
    assert asked["auto_adjust"] is False and asked["actions"] is True and asked["multi_level_index"] is True
    with pytest.raises(InputError) as error:
        fetch_yfinance(["NONE"], "2012-01-01")
    assert error.value.code == "NO_DATA"
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(InputError) as error:
        fetch_yfinance(["GLD"], "2012-01-01")
    assert error.value.code == "MISSING_PACKAGE"


# ---------------------------------------------------------------- import and check

def sources(root: Path) -> dict[str, Path]:
    shared = mf.write(root / "shared")
    pst = pysystemtrade(root / "pst")
    shutil.copy(shared / "macro.parquet", pst / "macro.parquet")
    yahoo = root / "yahoo"
    yahoo.mkdir()
    recording().to_csv(yahoo / "download.csv")
    mf.tables()["etf_info"].to_csv(yahoo / "etf_info.csv", index=False)
    (yahoo / "macro").mkdir()
    macro = mf.tables()["macro"]
    for name, part in macro.groupby("series"):
        part[["date", "value"]].rename(columns={"date": "observation_date", "value": str(name)}).to_csv(
            yahoo / "macro" / f"{name}.csv", index=False)
    return {"shared": shared, "futures-long": shared, "etf": shared, "pysystemtrade": pst, "yfinance": yahoo}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize("source", list(di.SOURCES))
def test_every_source_becomes_a_panel_that_loads(source: str, folders: dict[str, Path], tmp_path: Path) -> None:
    made = di.import_source(source, folders[source], tmp_path / "panel", start=mf.START)
    assert not [d for d in check_panel(made.folder) if d.severity == "error"]
    assert load_panel(made.folder).fingerprint() == made.panel.fingerprint()
    record = json.loads((made.folder / "provenance.json").read_text())
    assert record["panel"]["fingerprint"] == made.panel.fingerprint() and record["source"] == source
    assert sum(r["findings"] for r in record["rules"].values()) == len(record["findings"]) == len(made.findings)
    assert all(r["rule"] == RULES[c] for c, r in record["rules"].items()) and record["thresholds"]["stale_run"] == 5
    assert record["lags"]["CPIAUCSL"]["days"] == 49 and str(tmp_path) not in json.dumps(record)
    assert {"macro", "pairs", "trend"} <= set(made.panel.sleeve_ids)
    assert set(record["panel"]["quotes"]) == set(made.panel.symbols)


def test_the_record_has_the_hash_of_each_file(folders: dict[str, Path], tmp_path: Path) -> None:
    files = {f["name"]: f for f in di.source_files("shared", folders["shared"])}
    assert set(files) == {f"{n}.parquet" for n in mf.tables()}
    raw = (folders["shared"] / "macro.parquet").read_bytes()
    assert files["macro.parquet"]["sha256"] == hashlib.sha256(raw).hexdigest() and files["macro.parquet"]["bytes"] == len(raw)
    one, two = (di.import_source("etf", folders["etf"], tmp_path / n, start=mf.START, fmt="csv") for n in ("a/x", "b/x"))
    assert (one.folder / "provenance.json").read_bytes() == (two.folder / "provenance.json").read_bytes()


def test_import_refuses_what_it_cannot_do(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="source must be one of"):
        di.import_source("bloomberg", folders["etf"], tmp_path / "x")
    with pytest.raises(InputError, match="outside the source"):
        di.import_source("etf", folders["etf"], folders["etf"] / "x")
    with pytest.raises(InputError, match="folder"):
        di.import_source("etf", tmp_path / "absent", tmp_path / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    with pytest.raises(InputError) as error:
        di.import_source("etf", folders["etf"], tmp_path / "full", start=mf.START)
    assert error.value.code == "FOLDER_NOT_EMPTY"


def test_kinds_of_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    assert di.source_kind(folders["shared"]) == "shared" and di.source_kind(folders["pysystemtrade"]) == "pysystemtrade"
    assert di.source_kind(folders["yfinance"]) == "yfinance" and di.source_kind(tmp_path) == "panel"


def test_a_source_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    info = mf.tables()["futures_info"].assign(point_size=-1.0)
    found = di.check_source(mf.write(tmp_path, {"futures_info": info}))
    assert len(found) == 1 and found[0].severity == "error" and found[0].column == "GOLD" and found[0].code == "MISSING_VALUE"


# ---------------------------------------------------------------- the command

def test_the_command_checks_and_imports(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daily = mf.tables()["etf_daily"].copy()
    daily.loc[daily["ticker"] == "GLD", "close_tr"] = daily["close_tr"].where(np.arange(len(daily)) != 300, 1.0)
    shutil.copytree(folders["etf"], tmp_path / "bad")
    daily.to_parquet(tmp_path / "bad" / "etf_daily.parquet")
    assert cli.main(["data", "check", str(tmp_path / "bad"), "--source", "etf"]) == 0
    said = capsys.readouterr().out
    assert "GLD 2013-03" in said and "rule: " + RULES["HELD_BACK"] in said and "0 errors" in said and "(source etf)" in said
    to = tmp_path / "panel"
    assert cli.main(["data", "import", "etf", str(folders["etf"]), "--to", str(to), "--start", mf.START, "--format", "csv"]) == 0
    assert "wrote" in capsys.readouterr().out and (to / "returns.csv").is_file() and (to / "provenance.json").is_file()
    assert cli.main(["data", "check", str(to)]) == 0
    if Path("/proc/self").exists():
        capsys.readouterr()
        assert cli.main(["data", "import", "etf", str(folders["etf"]), "--to", "/proc/x", "--start", mf.START]) == 2
        said = [x for x in capsys.readouterr().err.splitlines() if x.startswith(("pil: ", "fix: ", "Traceback"))]
        assert len(said) == 2 and said[0].startswith("pil: FileNotFoundError: /proc/x")
    for argv in (["data", "import", "etf"], ["data", "check", "a", "b"], ["data", "import", "nosuch", str(to)]):
        assert cli.main(argv) == 2
