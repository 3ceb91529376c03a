"""The panel: building, files, every defect, the default futures and the synthetic market."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.research import data as d
from pil_research.research.check_tables import run_lengths
from pil_research.research.default_panel import safe_symbol, session_returns
from pil_research.research.panel_files import toml_value
from pil_research.research.synthetic_panel import punch_holes
from pil_research.types import InputError, check_name

DAYS = pd.bdate_range("2024-01-01", periods=6, name="date")


def frames() -> tuple[pd.DataFrame, dict[str, pd.DataFrame], pd.DataFrame]:
    returns = pd.DataFrame({"GOLD": [0.01, np.nan, 0.02, -0.01, 0.0, 0.01], "SP": [0.0, 0.01, 0.01, 0.02, -0.01, 0.0]},
                           index=DAYS)
    target = pd.DataFrame({"SP": [0.5, -0.5], "GOLD": [0.5, 0.5]}, index=DAYS[[1, 3]])
    return returns, {"trend": target}, pd.DataFrame({"asset_class": ["Metals", "Equities"]}, index=["GOLD", "SP"])


# ---------------------------------------------------------------- building

def test_frames_are_aligned_and_targets_held() -> None:
    panel = d.panel_from_frames(*frames())
    assert panel.symbols == ("GOLD", "SP") and panel.sleeve_ids == ("trend",)
    assert panel.targets["trend"]["SP"].tolist()[1:] == [0.5, 0.5, -0.5, -0.5, -0.5]
    assert np.isnan(panel.targets["trend"]["SP"].iloc[0])
    assert panel.target_array().shape == (6, 1, 2) and np.isnan(panel.target_array()[0]).all()
    assert (panel.target_array(0.0)[0] == 0.0).all()


def test_targets_expire() -> None:
    returns, targets, info = frames()
    panel = d.panel_from_frames(returns, targets, info, target_max_age=1)
    assert panel.targets["trend"]["SP"].isna().tolist() == [True, False, False, False, False, True]


def test_unlisted_symbol_is_zero_in_published_rows() -> None:
    returns, targets, info = frames()
    panel = d.panel_from_frames(returns, {"t": targets["trend"][["SP"]]}, info)
    assert panel.targets["t"]["GOLD"].dropna().tolist() == [0.0] * 5


def test_cash_is_taken_off_funded_names_only() -> None:
    returns, targets, info = frames()
    info = info.assign(kind=["future", "etf"])
    panel = d.panel_from_frames(returns, targets, info, cash=pd.Series(0.001, index=DAYS), subtract_cash=True)
    np.testing.assert_allclose(panel.returns["SP"], returns["SP"] - 0.001)
    np.testing.assert_array_equal(panel.returns["GOLD"], returns["GOLD"])


def test_costs_are_assumed_and_marked() -> None:
    info = d.complete_instruments(pd.DataFrame({"asset_class": ["Metals", "New"], "half_spread_bps": [2.0, np.nan],
                                                "adv_usd": [1e9, 1e9]}, index=["A", "B"]))
    assert tuple(info.columns) == d.INSTRUMENT_COLUMNS
    assert info["half_spread_bps"].tolist() == [2.0, 10.0] and info["assumed"].tolist() == [False, True]
    assert info["cluster"].tolist() == ["Metals", "New"] and (info["kind"] == "future").all()


BAD: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    ("UNSORTED", lambda r: r.iloc[::-1], "sorted"),
    ("DUPLICATE_DATE", lambda r: pd.concat([r, r.iloc[-1:]]), "unique"),
    ("TZ_AWARE", lambda r: r.tz_localize("UTC"), "tz-naive"),
    ("BAD_INDEX", lambda r: r.set_axis(r.index + pd.Timedelta(hours=3)), "whole days"),
    ("BAD_INDEX", lambda r: r.reset_index(drop=True), "must be dates"),
    ("NOT_NUMERIC", lambda r: r.assign(SP="x"), "numeric"),
    ("NON_FINITE", lambda r: r.assign(SP=np.inf), "finite"),
    ("DUPLICATE_SYMBOL", lambda r: pd.concat([r, r[["SP"]]], axis=1), "twice"),
    ("BAD_NAME", lambda r: r.rename(columns={"SP": "S P"}), "A-Za-z0-9"),
]


@pytest.mark.parametrize(("code", "spoil", "words"), BAD)
def test_bad_returns_are_refused(code: str, spoil: Callable[[pd.DataFrame], pd.DataFrame], words: str) -> None:
    returns, targets, info = frames()
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        d.panel_from_frames(spoil(returns), targets, info)
    assert caught.value.code == code and caught.value.field.startswith("returns")


def test_other_refusals() -> None:
    returns, targets, info = frames()
    for code, call in (
            ("UNKNOWN_SYMBOL", lambda: d.panel_from_frames(returns, {"t": targets["trend"].assign(X=1.0)}, info)),
            ("UNKNOWN_DATE", lambda: d.panel_from_frames(returns.iloc[:2], targets, info)),
            ("NON_FINITE", lambda: d.panel_from_frames(returns, {"t": targets["trend"].mask(targets["trend"] > 0)},
                                                       info)),
            ("UNKNOWN_SYMBOL", lambda: d.panel_from_frames(returns, targets, info.drop("GOLD"))),
            ("MISSING_COLUMN", lambda: d.panel_from_frames(returns, targets, info.drop(columns="asset_class"))),
            ("UNKNOWN_SLEEVE", lambda: d.panel_from_frames(returns, targets, info, sleeves=pd.DataFrame(
                {"role": ["neutral"]}, index=["ghost"]))),
            ("BAD_NUMBER", lambda: d.complete_instruments(info.assign(half_spread_bps=-1.0))),
            ("BAD_NUMBER", lambda: d.complete_instruments(info.assign(multiplier="big"))),
            ("BAD_KIND", lambda: d.panel_from_frames(returns, targets, info.assign(kind="swap"))),
            ("BAD_ROLE", lambda: d.panel_from_frames(returns, targets, info, sleeves=pd.DataFrame(
                {"role": ["aggressive"]}, index=["trend"]))),
            ("BAD_REGIME", lambda: d.panel_from_frames(returns, targets, info, regime=pd.DataFrame(
                {"label": "panic", "confidence": 0.5}, index=DAYS))),
            ("BAD_REGIME", lambda: d.panel_from_frames(returns, targets, info, regime=pd.DataFrame(
                {"label": "crisis", "confidence": np.nan}, index=DAYS))),
            ("UNKNOWN_NAME", lambda: d.panel_from_frames(*frames()).select(symbols=["NOPE"])),
            ("BAD_NAME", lambda: d.panel_from_frames(returns, {"../x": targets["trend"]}, info))):
        with pytest.raises(InputError, match="must") as caught:
            call()
        assert caught.value.code == code


def test_inputs_are_not_changed() -> None:
    returns, targets, info = frames()
    copies = returns.copy(), targets["trend"].copy(), info.copy()
    d.panel_from_frames(returns, targets, info)
    for before, after in zip(copies, (returns, targets["trend"], info), strict=True):
        pd.testing.assert_frame_equal(before, after)


def test_fingerprint_sees_every_table_and_no_name() -> None:
    panel = d.synthetic_panel(3, n_sleeves=2, n_symbols=6, n_days=120)
    import dataclasses
    base = panel.fingerprint()
    assert len(base) == 64 and dataclasses.replace(panel, name="other", notes=("x",)).fingerprint() == base
    changed = [{"returns": panel.returns + 1e-15}, {"prices": None}, {"regime": None}, {"bars_per_year": 260.0},
               {"instruments": panel.instruments.assign(fee_bps=9.0)},
               {"sleeves": panel.sleeves.assign(role="neutral")},
               {"targets": {k: v * (1 + 1e-15) for k, v in panel.targets.items()}},
               {"cost_schedule": panel.returns * 0.0}, {"cash": panel.returns.iloc[:, 0] * 0.0}]
    prints = [dataclasses.replace(panel, **c).fingerprint() for c in changed]
    assert len({base, *prints}) == len(changed) + 1


def test_select_is_inclusive_and_sorted() -> None:
    panel = d.panel_from_frames(*frames()).select(symbols=["SP", "GOLD"], start="2024-01-02", end="2024-01-04")
    assert panel.symbols == ("GOLD", "SP") and len(panel.dates) == 3


# ---------------------------------------------------------------- files

@pytest.mark.parametrize("fmt", ["csv", "parquet"])
def test_round_trip_to_the_last_bit(tmp_path: Path, fmt: str) -> None:
    import dataclasses
    panel = d.synthetic_panel(5, n_sleeves=3, n_symbols=7, n_days=200)
    cash = pd.Series(1e-4 / 3.0, index=panel.returns.index, name="cash")
    sleeves = panel.sleeves.assign(promoted_on=pd.Timestamp("2015-03-02"), capacity=1e6,
                                   description='quoted "text"\nover lines, ümlaut')
    panel = dataclasses.replace(panel, cash=cash, sleeves=sleeves, cost_schedule=panel.returns.abs().fillna(0.0) / 7.0,
                                other_book=panel.returns * 0.5, notes=("one", "two"), calendar="XNYS")
    folder = d.write_panel(panel, tmp_path / "p", fmt=fmt)
    back = d.load_panel(folder)
    assert back.fingerprint() == panel.fingerprint()
    assert (back.name, back.source, back.notes, back.calendar) == (panel.name, panel.source, panel.notes, panel.calendar)
    assert back.sleeves["description"].iloc[0] == sleeves["description"].iloc[0]
    assert [x for x in d.check_panel(folder) if x.severity == "error"] == []


def test_write_refuses_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    panel = d.panel_from_frames(*frames())
    with pytest.raises(InputError, match="empty or absent"):
        d.write_panel(panel, tmp_path)
    with pytest.raises(InputError, match="fmt must be"):
        d.write_panel(panel, tmp_path / "new", fmt="xlsx")


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9**9),
                 st.booleans(), st.lists(st.text(max_size=5), max_size=3)))
def test_toml_values_read_back(value: object) -> None:
    import tomllib
    assert tomllib.loads(f"x = {toml_value(value)}\n")["x"] == value


def test_toml_text_may_hold_any_control_character() -> None:
    import tomllib
    text = "".join(map(chr, (*range(32), 0x22, 0x5C, 0x7F, 0x85, 0x2028)))
    assert tomllib.loads(f"x = {toml_value([text])}\n")["x"] == [text]


# ---------------------------------------------------------------- defects

@pytest.fixture
def folder(tmp_path: Path) -> Path:
    panel = d.synthetic_panel(1, n_sleeves=2, n_symbols=6, n_days=400, staggered=False)
    return d.write_panel(panel, tmp_path / "mine", fmt="csv")


def edit(folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / name
    change(pd.read_csv(path, index_col=0, keep_default_na=False, na_values=[""])).to_csv(path)


def put(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.iloc[row, frame.columns.get_loc(column)] = value
        return frame
    return change


def fill(rows: slice, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        frame.iloc[rows, frame.columns.get_loc(column)] = value
        return frame
    return change


def swap(frame: pd.DataFrame) -> pd.DataFrame:
    order = list(range(len(frame)))
    order[50], order[51] = order[51], order[50]
    return frame.iloc[order]


def redate(row: int, text: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        labels = list(frame.index)
        labels[row] = text
        return frame.set_axis(pd.Index(labels, name="date"))
    return change


R, S, I, G = "returns.csv", "sleeves/sleeve_a.csv", "instruments.csv", "regime.csv"
CASES = [  # name of the file, the fault, code, severity, column, date
    (R, swap, "UNSORTED", "error", "date", "2015-03-12"),
    (R, lambda f: f.iloc[[*range(10), *range(9, len(f))]], "DUPLICATE_DATE", "error", "date", "2015-01-14"),
    (R, redate(20, "2015-01-29T15:30:00"), "TIME_OF_DAY", "error", "date", "2015-01-29"),
    (R, lambda f: f.set_axis([f"{x}T00:00:00+00:00" for x in f.index]).rename_axis("date"), "TZ_AWARE", "error", "date",
     "2015-01-01"),
    (R, redate(20, "29/01/2015"), "BAD_DATE", "error", "date", ""),
    (R, redate(20, "2015-01-31"), "WEEKEND", "warning", "date", "2015-01-31"),
    (R, put(30, "S001", "n/a"), "NOT_NUMERIC", "error", "S001", "2015-02-12"),
    (R, put(30, "S001", "inf"), "INF", "error", "S001", "2015-02-12"),
    (R, put(30, "S001", -1.0), "TOTAL_LOSS", "error", "S001", "2015-02-12"),
    (R, put(30, "S001", 0.9), "RETURN_OUTLIER", "warning", "S001", "2015-02-12"),
    (R, lambda f: put(31, "S001", 0.5)(put(30, "S001", -0.33)(f)), "BOUNCE", "warning", "S001", "2015-02-12"),
    (R, fill(slice(100, 108), "S002", 0.00123), "FROZEN", "warning", "S002", "2015-05-21"),
    (R, fill(slice(100, 115), "S002", 0.0), "FROZEN", "warning", "S002", "2015-05-21"),
    (R, fill(slice(0, 80), "S002", 0.0), "STALE_SHARE", "warning", "S002", ""),
    (R, fill(slice(200, 215), "S003", np.nan), "LONG_HOLE", "warning", "S003", "2015-10-07"),
    (R, fill(slice(0, 40), "S003", np.nan), "LATE_START", "info", "S003", "2015-02-26"),
    (R, fill(slice(350, 400), "S003", np.nan), "EARLY_END", "warning", "S003", "2016-05-04"),
    (R, fill(slice(0, 400), "S003", np.nan), "EMPTY", "error", "S003", ""),
    (R, fill(slice(0, 350), "S003", np.nan), "SHORT", "warning", "S003", "2016-05-05"),
    (R, lambda f: f * 100.0, "UNIT", "warning", "S001", ""),
    (R, lambda f: f.drop(f.index[77]).reindex(f.index), "OUTAGE", "warning", "", "2015-04-20"),
    (R, lambda f: f.rename(columns={"S000": "S 0"}), "BAD_NAME", "error", "S 0", ""),
    (S, put(40, "S001", "nan"), "NONFINITE_WEIGHT", "error", "S001", "2015-02-26"),
    (S, put(40, "S001", "inf"), "INF", "error", "S001", "2015-02-26"),
    (S, lambda f: f * 0.0, "ZERO_GROSS", "error", "sleeve_a", "2015-01-01"),
    (S, lambda f: f.rename(columns={"S001": "ZZZ"}), "UNKNOWN_SYMBOL", "error", "ZZZ", ""),
    (S, redate(399, "2031-01-02"), "UNKNOWN_DATE", "error", "date", "2031-01-02"),
    (S, lambda f: f.iloc[60:], "LATE_START", "info", "sleeve_a", "2015-03-26"),
    (S, lambda f: f.iloc[:300], "EARLY_END", "warning", "sleeve_a", "2016-02-24"),
    (S, fill(slice(0, 10), "S001", 0.0), None, "", "", ""),
    (I, lambda f: f.drop(columns="asset_class"), "MISSING_COLUMN", "error", "asset_class", ""),
    (I, lambda f: put(0, "asset_class", "")(f), "MISSING_VALUE", "error", "asset_class", ""),
    (I, lambda f: f.drop("S001"), "UNKNOWN_SYMBOL", "error", "S001", ""),
    (I, lambda f: pd.concat([f, f.iloc[:1]]), "DUPLICATE_SYMBOL", "error", "S000", ""),
    (I, put(0, "half_spread_bps", -1.0), "BAD_NUMBER", "error", "half_spread_bps", ""),
    (I, put(0, "adv_usd", "lots"), "BAD_NUMBER", "error", "adv_usd", ""),
    (I, put(0, "half_spread_bps", 76.0), "COST_OUTLIER", "warning", "half_spread_bps", ""),
    (I, put(0, "kind", "swap"), "BAD_KIND", "error", "kind", ""),
    (I, put(0, "primary", "GONE"), "UNKNOWN_SYMBOL", "error", "primary", ""),
    (I, lambda f: put(1, "primary", "S002")(put(0, "primary", "S001")(f)), "BAD_PRIMARY", "error", "primary", ""),
    (I, lambda f: put(1, "primary", "S000")(put(0, "primary", "S001")(f)), "BAD_PRIMARY", "error", "primary", ""),
    (I, put(0, "allows_nonpositive_price", "maybe"), "BAD_VALUE", "error", "allows_nonpositive_price", ""),
    (I, lambda f: f.rename(columns={"half_spread_bps": "half_sprd_bps"}), "UNKNOWN_COLUMN", "warning", "half_sprd_bps", ""),
    (I, lambda f: f.assign(cluster="one"), "ONE_CLUSTER", "warning", "cluster", ""),
    (I, lambda f: f.drop(columns="adv_usd"), "ASSUMED_COST", "info", "adv_usd", ""),
    (G, put(5, "label", "panic"), "BAD_REGIME", "error", "label", "2015-01-08"),
    (G, put(5, "confidence", 1.2), "BAD_REGIME", "error", "confidence", "2015-01-08"),
    (G, put(5, "confidence", ""), "BAD_REGIME", "error", "confidence", "2015-01-08"),
    (G, put(5, "label", None), "NO_READING", "warning", "label", "2015-01-08"),
    (G, lambda f: put(5, "label", None)(put(5, "confidence", None)(f)), "NO_READING", "warning", "label", "2015-01-08"),
    (G, lambda f: f.drop(columns="label"), "MISSING_COLUMN", "error", "label", ""),
    ("prices.csv", put(7, "S001", -36.98), "NONPOSITIVE_PRICE", "error", "S001", "2015-01-12"),
    ("prices.csv", fill(slice(100, 108), "S002", 55.5), "FROZEN", "warning", "S002", "2015-05-21"),
]


@pytest.mark.parametrize(("name", "change", "code", "severity", "column", "date"), CASES)
def test_each_defect_is_named(folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], code: str | None,
                              severity: str, column: str, date: str) -> None:
    before = set(d.check_panel(folder))
    edit(folder, name, change)
    new = [x for x in d.check_panel(folder) if x not in before]
    if code is None:
        assert new == []
        return
    hits = [x for x in new if x.code == code and x.column == column and x.date == date]
    assert hits and hits[0].severity == severity, [str(x) for x in new]
    assert hits[0].fix and hits[0].what and str(hits[0]).startswith(severity.upper())
    if severity == "error":
        with pytest.raises(InputError, match="no errors"):
            d.load_panel(folder)
    elif not any(x.severity == "error" for x in new):
        d.load_panel(folder)


def test_a_primary_names_symbol_and_fix_and_any_that_loads_can_be_walked(folder: Path) -> None:
    edit(folder, I, lambda f: put(1, "primary", "S002")(put(0, "primary", "S001")(f)))
    hits = [x for x in d.check_panel(folder) if x.code == "BAD_PRIMARY"]
    assert len(hits) == 1 and "S000: the primary 'S001' must be its own primary, got 'S002'" in hits[0].what
    assert "leave the primary of S001 empty" in hits[0].fix
    edit(folder, I, put(1, "primary", "S001"))
    assert not [x for x in d.check_panel(folder) if x.severity == "error"]
    edit(folder, I, lambda f: pd.concat([f, f.iloc[:1].set_axis(["GONE"])]).rename_axis("symbol").assign(primary="GONE"))
    assert any(x.code == "BAD_PRIMARY" and "has no returns" in x.what for x in d.check_panel(folder))


def test_a_primary_of_itself_and_the_words_of_flags_are_no_defect(folder: Path) -> None:
    before = d.check_panel(folder)
    for flag in ("TRUE", "false", "1", "0", ""):
        edit(folder, I, put(0, "allows_nonpositive_price", flag))
        assert d.check_panel(folder) == before
    edit(folder, I, lambda f: f.assign(ticker="X", quoted_from="2015-01-01"))  # a column of one's own
    assert d.check_panel(folder) == before


def test_a_regime_that_starts_late_is_no_defect(folder: Path) -> None:
    before = d.check_panel(folder)
    edit(folder, G, lambda f: f.astype(object).where(np.repeat(np.arange(len(f))[:, None] >= 60, f.shape[1], axis=1), None))
    assert d.check_panel(folder) == before


def test_the_cash_column_is_no_market(folder: Path) -> None:
    (folder / "panel.toml").write_text('name = "x"\ncash = "S005"\n')
    found = {(x.severity, x.file): x for x in d.check_panel(folder) if x.code == "CASH_COLUMN" and x.column == "S005"}
    assert set(found) == {("error", n) for n in ("sleeves/sleeve_a", "sleeves/sleeve_b", "prices")} | {("info", "instruments")}
    assert "drop it from this table, or name another cash column" in found["error", "sleeves/sleeve_a"].fix
    assert not any(x.code == "NO_RETURNS" for x in d.check_panel(folder))
    with pytest.raises(InputError, match="no market") as caught:
        d.load_panel(folder)
    assert caught.value.code == "CASH_COLUMN"
    for name in (S, "sleeves/sleeve_b.csv", "prices.csv"):
        edit(folder, name, lambda f: f.drop(columns="S005"))
    assert d.load_panel(folder).cash is not None


def test_repeated_column_in_csv_is_seen(folder: Path) -> None:
    text = (folder / R).read_text().replace("S005", "S004", 1)
    (folder / R).write_text(text)
    assert any(x.code == "DUPLICATE_SYMBOL" and x.column == "S004" for x in d.check_panel(folder))


@pytest.mark.parametrize(("file", "text", "code", "column"), [
    ("sleeves.toml", '[sleeve_a]\nrole = "brave"\n', "BAD_ROLE", "sleeve_a"),
    ("sleeves.toml", "[sleeve_a]\ncapacity = -1.0\n", "BAD_NUMBER", "sleeve_a"),
    ("sleeves.toml", '[sleeve_a]\npromoted_on = "soon"\n', "BAD_DATE", "sleeve_a"),
    ("sleeves.toml", "[sleeve_a]\npromoted_on = 2016-01-04\ndemoted_on = 2015-01-05\n", "BAD_DATE", "sleeve_a"),
    ("sleeves.toml", '[ghost]\nrole = "neutral"\n', "UNKNOWN_SLEEVE", "ghost"),
    ("sleeves.toml", "[sleeve_a\n", "UNREADABLE", ""),
    ("panel.toml", 'name = "x"\nbars_per_year = 0\n', "BAD_NUMBER", "bars_per_year"),
    ("panel.toml", 'name = "x"\ncash = "TBILL"\n', "MISSING_COLUMN", "cash"),
    ("panel.toml", 'name = "x"\ncalendar = "MOON"\n', "UNKNOWN_CALENDAR", "calendar"),
    ("panel.toml", 'name = "x"\ntarget_max_age = -1\n', "BAD_NUMBER", "target_max_age")])
def test_settings_defects(folder: Path, file: str, text: str, code: str, column: str) -> None:
    (folder / file).write_text(text)
    assert any(x.code == code and x.column == column and x.severity == "error" for x in d.check_panel(folder))


def test_calendar_claim_is_checked(folder: Path) -> None:
    (folder / "panel.toml").write_text('name = "x"\ncalendar = "XNYS"\n')
    found = d.check_panel(folder)
    assert any(x.code == "NOT_A_SESSION" and x.date == "2015-01-01" for x in found)
    edit(folder, R, lambda f: f.drop("2015-01-06"))
    assert any(x.code == "MISSING_SESSION" and x.date == "2015-01-06" for x in d.check_panel(folder))


def test_missing_and_broken_files(folder: Path) -> None:
    (folder / "retruns.csv").write_text("date,A\n")
    (folder / "prices.csv").unlink()
    (folder / "prices.parquet").write_bytes(b"not parquet")
    (folder / "panel.toml").unlink()
    codes = {(x.file, x.code) for x in d.check_panel(folder)}
    assert {("retruns.csv", "UNKNOWN_FILE"), ("prices.parquet", "UNREADABLE"), ("panel.toml", "MISSING_FILE")} <= codes
    (folder / R).unlink()
    assert any(x.code == "MISSING_FILE" and x.file == "returns" for x in d.check_panel(folder))
    with pytest.raises(InputError, match="a panel is a folder"):
        d.check_panel(folder / "nowhere")


def test_look_ahead_smells(folder: Path) -> None:
    returns = pd.read_csv(folder / R, index_col=0)
    edit(folder, S, lambda f: np.sign(returns.shift(-1)).fillna(0.0))
    assert any(x.code == "TOO_GOOD" and x.column == "sleeve_a" for x in d.check_panel(folder))


def test_weight_without_quote(folder: Path) -> None:
    edit(folder, R, fill(slice(300, 330), "S003", np.nan))
    hits = [x for x in d.check_panel(folder) if x.code == "WEIGHT_WITHOUT_QUOTE" and x.column == "S003"]
    assert hits and hits[0].date > str(pd.bdate_range("2015-01-01", periods=301)[-1].date())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31))
def test_random_damage_never_raises(seed: int) -> None:
    import tempfile
    rng = np.random.default_rng(seed)
    panel = d.synthetic_panel(2, n_sleeves=1, n_symbols=3, n_days=70)
    with tempfile.TemporaryDirectory() as place:
        folder = d.write_panel(panel, Path(place, "p"), fmt="csv")
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        for path in rng.choice(np.array(files, dtype=object), 2):
            text = bytearray(path.read_bytes())
            for _ in range(5):
                text[int(rng.integers(len(text)))] = int(rng.choice(list(b"x,\n0-.\"[")))
            path.write_bytes(bytes(text))
        errors = [x for x in d.check_panel(folder) if x.severity == "error"]
        try:
            d.load_panel(folder)
        except InputError:
            return
        assert not errors


def test_run_lengths() -> None:
    starts, lengths = run_lengths(np.array([1.0, 1.0, 2.0, np.nan, np.nan, 2.0]))
    assert starts.tolist() == [0, 2, 3, 4, 5] and lengths.tolist() == [2, 1, 1, 1, 1]


# ---------------------------------------------------------------- synthetic

def test_synthetic_is_reproducible_and_clean() -> None:
    a, b = d.synthetic_panel(9), d.synthetic_panel(9)
    assert a.fingerprint() == b.fingerprint() != d.synthetic_panel(10).fingerprint()
    assert a.returns.shape == (1500, 30) and len(a.sleeve_ids) == 5
    assert "synthetic" in a.source


def test_synthetic_truth_is_met() -> None:
    panel, truth = d.synthetic_market(0, n_sleeves=3, n_symbols=40, n_days=20000, sharpe=[0.0, 0.8, 1.6],
                                      correlation=0.3, missing=0.0, staggered=False, start="1950-01-02")
    weights, returns = panel.target_array()[:-1], panel.returns.to_numpy()[1:]
    daily = np.einsum("tkm,tm->tk", weights, returns)
    sharpe = daily.mean(axis=0) / daily.std(axis=0) * np.sqrt(252.0)
    np.testing.assert_allclose(sharpe, truth.sharpe, atol=4.0 / np.sqrt(20000 / 252.0))
    np.testing.assert_allclose(np.corrcoef(daily.T)[np.triu_indices(3, 1)], 0.3, atol=0.05)


def test_holes_compound() -> None:
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0, 0.01, (300, 4))
    holed = punch_holes(rng, returns, 0.2)
    assert 0.1 < np.isnan(holed).mean() < 0.3
    last = ~np.isnan(holed[-1])
    np.testing.assert_allclose(np.nansum(np.log1p(holed), axis=0)[last], np.log1p(returns).sum(axis=0)[last], atol=1e-12)


@pytest.mark.parametrize("bad", [{"n_sleeves": 0}, {"correlation": 1.0}, {"sharpe": [1.0, 2.0]}, {"correlation": -0.5},
                                 {"seed": -1}, {"seed": "x"}, {"seed": 1.5}, {"seed": True}, {"sharpe": float("nan")},
                                 {"sharpe": "x"}, {"missing": 1.2}, {"missing": -0.1}, {"missing": "x"}, {"memory": 1.5},
                                 {"n_days": 10.5}, {"start": "bogus"}, {"start": ""}])
def test_synthetic_refuses(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match="must be") as caught:
        d.synthetic_panel(**{"seed": 1, **bad})  # type: ignore[arg-type]
    assert caught.value.field == next(iter(bad))


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_date_that_is_none_is_a_typed_error(name: str) -> None:
    small = d.synthetic_panel(1, n_sleeves=2, n_symbols=3, n_days=30)
    for make in (d.default_panel, small.select):
        with pytest.raises(InputError, match=f"{name} must be a date, got 'bogus'; write YYYY-MM-DD") as caught:
            make(**{name: "bogus"})
        assert caught.value.code == "BAD_DATE"


# ---------------------------------------------------------------- default futures

@pytest.fixture(scope="module")
def futures() -> d.Panel:
    return d.default_panel()


def test_default_panel_shape(futures: d.Panel) -> None:
    assert futures.returns.shape[1] == 64 and len(futures.dates) > 9000 and len(futures.sleeve_ids) >= 6
    assert set(futures.instruments["asset_class"]) == {"Equities", "FX", "Energy", "Metals", "Agriculture"}
    assert futures.dates[0] == pd.Timestamp("1990-01-02") and futures.calendar == "XNYS"
    assert futures.prices is None and futures.instruments["multiplier"].isna().all()
    assert (futures.instruments["kind"] == "future").all() and futures.instruments["assumed"].all()
    for symbol in futures.symbols:
        assert check_name(symbol, "symbol") == symbol


def test_default_panel_has_no_zero_and_no_total_loss(futures: d.Panel) -> None:
    values = futures.returns.to_numpy()
    assert (values == 0.0).sum() == 0  # an unchanged price is no quote
    assert np.nanmin(values) > -0.5 and np.nanmax(values) < 0.6


def test_default_costs_are_the_class_table_and_are_marked_assumed(futures: d.Panel) -> None:
    assert futures.cost_schedule is None and futures.instruments["assumed"].all()
    gold = futures.instruments.loc["GOLD"]
    assert tuple(gold[["half_spread_bps", "fee_bps", "impact_bps"]]) == d.CLASS_COSTS["Metals"]


def test_institutional_costs_follow_the_published_schedule() -> None:
    """Hurst, Ooi and Pedersen (2017), exhibit B1: equities 34, 11, 6 basis points one way; commodities 58, 19, 10."""
    panel = d.default_panel(["SP_500", "GOLD"], sleeves=["trend"], costs="institutional")
    assert panel.cost_schedule is not None and not panel.instruments["impact_bps"].any()
    for day, equity, metal in (("1990-06-29", 34, 58), ("2000-06-30", 11, 19), ("2020-06-30", 6, 10)):
        row = panel.cost_schedule.loc[day] * 1e4
        assert row["SP_500"] == pytest.approx(equity) and row["GOLD"] == pytest.approx(metal)


def test_default_check_has_no_error(futures: d.Panel, tmp_path: Path) -> None:
    folder = d.write_panel(futures.select(symbols=["GOLD", "SP_500", "WTI", "CHFUSD"]), tmp_path / "f")
    found = d.check_panel(folder)
    assert not [x for x in found if x.severity == "error"]
    assert any(x.column == "CHFUSD" and x.date == "2015-01-15" and x.code == "RETURN_OUTLIER" for x in found)


def test_session_returns_compound_over_closed_days() -> None:
    days = pd.bdate_range("2024-01-01", periods=5)
    returns = pd.DataFrame({"A": [0.01, 0.02, 0.03, 0.0, 0.05], "B": [0.01] * 5}, index=days)
    prices = 100.0 * (1.0 + returns).cumprod()
    out = session_returns(prices, returns, days[[1, 3, 4]])
    np.testing.assert_allclose(out["A"].to_numpy(), [0.02, 0.03, 0.05], atol=1e-15)
    np.testing.assert_allclose(out["B"].iloc[1], 1.01**2 - 1.0, atol=1e-15)
    still = session_returns(prices, returns, days[[2, 3, 4]])
    assert np.isnan(still["A"].iloc[1])


def test_wheel_markets_and_symbols() -> None:
    assert safe_symbol("S&p_500") == "SP_500" and safe_symbol("Cotton #2") == "COTTON_2"
    everything = d.wheel_markets("all")
    assert len(everything) == 84 and everything.index.is_unique
    assert everything.loc["SMI", "ticker"] == "SM1 Index" and everything.loc["SOYB_MEAL", "ticker"] == "SM1 Comdty"
    with pytest.raises(InputError, match="markets must be"):
        d.wheel_markets(["GOLDD"])
    with pytest.raises(InputError, match="period must hold data"):
        d.default_panel(["GOLD"], start="2040-01-01")
