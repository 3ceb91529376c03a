"""The instruments table as arrays: defaults, costs by class, wrappers, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pil_research.market import INSTRUMENT_COLUMNS, Market, complete_instruments
from pil_research.types import InputError


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"asset_class": ["Metals", "Equities", "Metals"], **columns}, index=["GLD", "SPY", "IAU"])


SYMBOLS = ("GLD", "IAU", "SPY")


def test_defaults_fill_every_column() -> None:
    full = complete_instruments(table())
    assert list(full.index) == list(SYMBOLS) and tuple(full.columns) == INSTRUMENT_COLUMNS
    assert full["half_spread_bps"].tolist() == [2.4, 2.4, 1.0] and full["fee_bps"].tolist() == [0.4, 0.4, 0.3]
    assert full["assumed"].all() and (full["kind"] == "future").all() and (full["primary"] == full.index).all()
    assert full["exposure_multiple"].tolist() == [1.0] * 3 and not full["allows_nonpositive_price"].any()


def test_arrays_follow_the_symbols() -> None:
    m = Market.from_frame(
        table(half_spread_bps=[1.0, 2.0, 3.0], adv_usd=[1e9, 2e9, np.nan], kind=["etf", "etf", "future"]), SYMBOLS
    )
    np.testing.assert_allclose(m.half_spread, [1e-4, 3e-4, 2e-4], rtol=1e-15)
    assert m.funded.tolist() == [True, False, True] and m.assumed.tolist() == [False, True, False]
    assert m.cluster_names == ("Equities", "Metals") and m.clusters.tolist() == [1, 1, 0]
    assert m.primary is None and m.known.all() and np.isnan(m.adv[1])
    assert (Market.from_frame(None, SYMBOLS, 2.5).impact == 2.5).all()


def test_order_of_rows_is_irrelevant() -> None:
    a, b = (
        Market.from_frame(table(fee_bps=[1.0, 2.0, 3.0]), SYMBOLS),
        Market.from_frame(table(fee_bps=[1.0, 2.0, 3.0]).iloc[::-1], SYMBOLS),
    )
    assert (a.fee == b.fee).all() and (a.clusters == b.clusters).all()


def test_symbols_without_a_row_are_known_to_be_unknown() -> None:
    m = Market.from_frame(table(), ("GLD", "SPY", "XYZ"))
    assert m.known.tolist() == [True, True, False] and "unclassified" in m.cluster_names and m.assumed[2]
    m = Market.from_frame(None, ("A", "B"))
    assert not m.known.any() and m.cluster_names == ("unclassified",)


def test_wrappers() -> None:
    m = Market.from_frame(table(primary=["GLD", "SPY", "GLD"], exposure_multiple=[1.0, 1.0, -2.0]), SYMBOLS)
    assert m.primary is not None and m.primary.tolist() == [0, 0, 2] and m.multiple.tolist() == [1.0, -2.0, 1.0]


def test_words_of_a_csv_file_are_flags() -> None:
    m = Market.from_frame(table(allows_nonpositive_price=["True", "no", "1"]), SYMBOLS)
    assert m.allows_nonpositive.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("columns", "code", "field"),
    [
        ({"half_spread_bps": [1.0, -1.0, 1.0]}, "BAD_NUMBER", "half_spread_bps"),
        ({"fee_bps": [np.inf, 1, 1]}, "BAD_NUMBER", "fee_bps"),
        ({"adv_usd": [0.0, 1.0, 1.0]}, "BAD_NUMBER", "adv_usd"),
        ({"multiplier": ["big", 1, 1]}, "BAD_NUMBER", "multiplier"),
        ({"exposure_multiple": [0.0, 1.0, 1.0]}, "BAD_NUMBER", "exposure_multiple"),
        ({"kind": ["swap", "etf", "etf"]}, "BAD_KIND", "instruments.kind"),
        ({"primary": ["GONE", "SPY", "IAU"]}, "BAD_PRIMARY", "instruments.primary"),
        ({"primary": ["SPY", "IAU", "IAU"]}, "BAD_PRIMARY", "instruments.primary"),
    ],
)
def test_bad_tables(columns: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(InputError, match="must be") as caught:
        Market.from_frame(table(**columns), SYMBOLS)
    assert caught.value.code == code and caught.value.field == field and caught.value.subject in SYMBOLS


def test_duplicates_and_missing_class() -> None:
    with pytest.raises(InputError, match="twice") as caught:
        Market.from_frame(pd.concat([table(), table().iloc[:1]]), SYMBOLS)
    assert caught.value.code == "DUPLICATE_SYMBOL"
    with pytest.raises(InputError, match="asset_class") as caught:
        complete_instruments(table().drop(columns="asset_class"))
    assert caught.value.code == "MISSING_COLUMN"


def test_the_table_is_not_changed() -> None:
    given = table(half_spread_bps=[1.0, np.nan, 2.0])
    before = given.copy()
    Market.from_frame(given, SYMBOLS)
    pd.testing.assert_frame_equal(given, before)


def test_an_empty_primary_is_a_missing_one() -> None:
    for blank in ("", None, np.nan):
        given = table(primary=["GLD", blank, "GLD"])
        full = complete_instruments(given)
        assert full["primary"].to_dict() == {"GLD": "GLD", "IAU": "GLD", "SPY": "SPY"}
        m = Market.from_frame(given, SYMBOLS)
        assert m.primary is not None and m.primary.tolist() == [0, 0, 2]
    assert Market.from_frame(table(primary=["", "", ""]), SYMBOLS).primary is None
    assert Market.from_frame(table(primary=pd.array(["GLD", "", pd.NA], dtype="string")), SYMBOLS).primary is None
    with pytest.raises(InputError, match="primary of SPY") as err:
        Market.from_frame(table(primary=["GLD", "GONE", ""]), SYMBOLS)
    assert err.value.code == "BAD_PRIMARY"
