"""Every weight of every day is the sum of its parts; the sleeves' contributions are the netted book."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from books import CAPPED, FAST, Live, small_panel, without

from pil_research.passport import MEANING, SLEEVE_STEPS, SYMBOL_STEPS
from pil_research.types import Decision, InputError, Kills, Snapshot

PANEL = small_panel(7, missing=0.01, regime=True)


def check_parts(d: Decision) -> None:
    p = d.passport
    for name in p.symbols:
        e = d.explain(name)
        assert abs(e.table["part"].sum() - d.exposures[name]) <= 1e-12 and e.total == pytest.approx(
            d.exposures[name], abs=1e-12
        )
        assert e.table["after"].iloc[-1] == d.exposures[name] and list(e.table.index) == list(SYMBOL_STEPS)
    for name in p.sleeve_ids:
        e = d.explain(name)
        assert abs(e.table["part"].sum() - d.sleeve_weights[name]) <= 1e-12 and list(e.table.index) == list(
            SLEEVE_STEPS
        )
    s = p.decision
    assert np.abs((s.ramped[0][:, None] * s.scaled_unit).sum(axis=0) - s.netted[0]).max() <= 1e-12
    by = p.attribution().sum(axis=0)
    real = np.abs(s.netted[0]) > 1e-9
    np.testing.assert_allclose(by[real], s.sized[0][real], rtol=0, atol=1e-12)


def eventful(row: int, made: Snapshot) -> Snapshot:
    """A different trouble every few days."""
    day = PANEL.dates
    if row in (115, 116):
        return without(made, "sleeve_a")
    if row in (118, 119, 120, 121, 122):
        return without(made, "sleeve_b")
    if row in (124, 125):
        return replace(made, restricted={"S01": "no_trade", "S02": "reduce_only", "S03": "no_short", "S04": "?"})
    if row == 127:
        return replace(made, kills=Kills(symbols=("S05",), sleeves=("sleeve_c",)))
    if row >= 130:
        made = replace(
            made,
            sleeves=tuple(replace(s, promoted_on=day[130]) if s.id == "sleeve_d" else s for s in made.sleeves or ()),
        )
    if row in (135, 136):
        return replace(made, sleeves=None)
    if row == 140:
        return replace(made, equity=(made.equity or 0.0) * 0.9)
    if row == 145:
        return replace(made, kills=Kills(book=True))
    return made


@pytest.mark.parametrize(
    "config", [CAPPED, FAST, CAPPED.replace(**{"caps.net": 0.2, "vol_target.target": 0.2, "turnover.trade_to": "edge"})]
)
@pytest.mark.parametrize("equity", [5e4, 5e6])
def test_parts_sum_on_every_day(config: Any, equity: float) -> None:
    live = Live(PANEL, config, equity=equity)
    for row in range(100, 150):
        check_parts(live.day(row, change=lambda s, r=row: eventful(r, s)))  # type: ignore[misc]


def test_steps_follow_the_order_of_the_spec() -> None:
    want = [
        "base",
        "tilt",
        "cap",
        "smooth",
        "apply",
        "ramp",
        "net",
        "vol",
        "caps",
        "governor",
        "kelly",
        "risk level",
        "band",
        "gate",
        "held limit",
        "restriction",
        "caps again",
        "lot",
        "repair",
    ]
    assert [s for s in SYMBOL_STEPS if s in want] == want and SYMBOL_STEPS[: len(SLEEVE_STEPS)] == SLEEVE_STEPS
    assert set(SYMBOL_STEPS) <= set(MEANING)


def test_each_part_is_what_its_stage_did() -> None:
    live = Live(PANEL)
    live.days(100, 110)
    d = live.day(111, equity=live.equity * 0.99)
    s, i = d.passport.decision, 2
    after = d.explain(d.passport.symbols[i]).table["after"]
    assert after["net"] == s.netted[0, i] and after["vol"] == pytest.approx(
        s.netted[0, i] * d.numbers["leverage"], abs=1e-15
    )
    assert after["governor"] == pytest.approx(
        after["caps"] * d.haircuts["governor"] * d.haircuts["throttle"], abs=1e-15
    )
    assert after["kelly"] == pytest.approx(after["governor"] * 0.5, abs=1e-15) and after["kelly"] == s.sized[0, i]


def test_explanations_read_and_refuse() -> None:
    d = Live(PANEL).day(110)
    e = d.explain("S00")
    assert "S00 (symbol)" in str(e) and "asked for by sleeve_" in str(e) and "<table>" in e._repr_html_()
    assert "kelly" in str(e) and "sleeve_a (sleeve)" in str(d.explain("sleeve_a"))
    for bad in ("GLD", "", "sleeve_z"):
        with pytest.raises(InputError, match="neither a symbol nor a sleeve") as caught:
            d.explain(bad)
        assert caught.value.code == "UNKNOWN_NAME"
