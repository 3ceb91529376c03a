"""A folder of invented markets in the long layout, with the defects that real sources have. No number is a quote."""
from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from pil_research.research.prints import market_sessions

FUTURES = {"GOLD": "metals", "SILVER": "metals", "PLAT": "metals", "PALLAD": "metals", "CRUDE_W": "energy", "HEATOIL": "energy",
           "CORN": "ags", "SOYBEAN": "ags", "SOYMEAL": "ags", "US10": "rates", "SP500": "equity", "JPY": "fx", "NIKKEI": "equity",
           "VIX": "vol"}
FUNDS = {"GLD": "gold", "IAU": "gold", "SLV": "silver", "GDX": "miners", "SPY": "equity", "TLT": "rates", "CORN": "ags",
         "VIXY": "vol", "SVXY": "vol"}
SERIES = {"VIX": 18.0, "GVZ": 17.0, "DGS2": 1.5, "DGS10": 2.5, "DFII10": 0.5, "T10YIE": 2.0, "DTWEXBGS": 100.0, "TBILL13W": 1.0,
          "WTI_SPOT": 60.0}
START, END = "2012-01-03", "2014-12-31"
REAL = os.environ.get("PIL_SHARED_DATA", "")


def weekdays() -> pd.DatetimeIndex:
    return pd.bdate_range(START, END)


def _walk(rng: np.random.Generator, n: int, level: float, vol: float = 0.01) -> np.ndarray:
    return level * np.cumprod(1.0 + vol * rng.standard_normal(n))


def futures_tables(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng, days, parts = np.random.default_rng(seed), weekdays(), []
    for i, name in enumerate(FUTURES):
        price = _walk(rng, len(days), 50.0 + 10.0 * i)
        adjusted = price - (80.0 if name == "SOYMEAL" else 20.0)  # one goes through zero
        nearer = i % 2 == 0
        held = np.asarray(days.year * 100 + 12)
        frame = pd.DataFrame({"date": days, "instrument": name, "adj": adjusted, "price": price, "price_contract": held,
                              "carry_ref": price, "carry": price * (0.995 if nearer else 1.005),
                              "carry_contract": held - 3 if nearer else held - 9, "forward": price * 1.01,
                              "forward_contract": held, "price_source": "contract"})
        parts.append(frame[rng.random(len(days)) > 0.03])  # a calendar of its own
    daily = pd.concat(parts, ignore_index=True)
    n = len(FUTURES)
    info = pd.DataFrame({"instrument": list(FUTURES), "asset_class": list(FUTURES.values()), "description": list(FUTURES),
                         "point_size": 100.0, "currency": ["JPY" if k == "NIKKEI" else "USD" for k in FUTURES],
                         "commission_per_block": 2.0, "commission_pct": 0.0, "commission_per_trade": 0.0, "region": ["US"] * n,
                         "half_spread_points": 0.02})
    return daily, info


def etf_tables(seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng, days, parts = np.random.default_rng(seed), market_sessions(START, END), []
    for i, name in enumerate(FUNDS):
        total = _walk(rng, len(days), 40.0 + 5.0 * i)
        raw = np.where(days < "2014-06-01", total * 1.5, np.nan)
        parts.append(pd.DataFrame({"date": days, "ticker": name, "close_tr": total, "close_raw": raw,
                                   "volume": rng.integers(10_000, 90_000, len(days)).astype(float), "dividend": 0.0,
                                   "split": 1.0}))
    return pd.concat(parts, ignore_index=True), pd.DataFrame({"ticker": list(FUNDS), "asset_class": list(FUNDS.values())})


def macro_table(seed: int = 2) -> pd.DataFrame:
    rng, days, parts = np.random.default_rng(seed), weekdays(), []
    for name, level in SERIES.items():
        value = np.abs(level + 0.02 * level * np.cumsum(rng.standard_normal(len(days))) * 0.2) + 0.2
        parts.append(pd.DataFrame({"date": days, "series": name, "value": value, "source": "invented"}))
    months = pd.date_range(START, END, freq="MS")
    prices = 200.0 + np.arange(len(months))
    parts.append(pd.DataFrame({"date": months, "series": "CPIAUCSL", "value": prices, "source": "invented"}))
    return pd.concat(parts, ignore_index=True)


def fx_table() -> pd.DataFrame:
    days = weekdays()
    return pd.DataFrame({"date": days, "pair": "JPYUSD", "rate": _walk(np.random.default_rng(3), len(days), 0.01, 0.004)})


@cache
def tables() -> dict[str, pd.DataFrame]:
    daily, info = futures_tables()
    etf, etf_info = etf_tables()
    return {"futures_daily": daily, "futures_info": info, "etf_daily": etf, "etf_info": etf_info, "macro": macro_table(),
            "fx_usd": fx_table()}


def write(folder: Path, changed: dict[str, pd.DataFrame] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in {**tables(), **(changed or {})}.items():
        frame.to_parquet(folder / f"{name}.parquet")
    return folder
