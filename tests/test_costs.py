"""Cost formulas: published examples and the break-even arithmetic."""
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pil_research.research.costs import (
    almgren_impact,
    break_even,
    break_even_advantage,
    net_returns,
    sharpe_cost,
    trade_cost,
)
from pil_research.research.metrics import sharpe, turnover
from pil_research.types import InputError


def test_half_spread_and_square_root() -> None:
    size = np.array([1e4, 1e5, 1e6])
    cost = trade_cost(-size, half_spread=0.0002, sigma_daily=0.012, adv=1e8, impact_y=0.5)
    np.testing.assert_allclose(cost, [0.00026, 0.00038973665961010277, 0.0008], rtol=1e-12)
    assert trade_cost(0.0, half_spread=0.0002, fee=0.0001, sigma_daily=0.0, adv=1.0) == pytest.approx(0.0003)
    for bad in ({"adv": 0.0}, {"adv": np.nan}, {"sigma_daily": -1.0}, {"half_spread": np.inf}):
        with pytest.raises(InputError, match=next(iter(bad))):
            trade_cost(1.0, **{"half_spread": 0.0, "sigma_daily": 0.01, "adv": 1.0, **bad})


@pytest.mark.parametrize(("days", "permanent", "temporary", "total"), [
    (0.1, 19.859701911852525, 22.294, 32.22385095592626), (0.5, 19.859701911852525, 8.488012181946356, 18.41786313787)])
def test_almgren_2005_ibm(days: float, permanent: float, temporary: float, total: float) -> None:
    # Almgren, Thum, Hauptmann and Li (2005), table of worked examples
    got = almgren_impact(656_100, volume=6_561_000, outstanding=1.728e9, sigma_daily=0.0157, days=days)
    np.testing.assert_allclose([1e4 * got.permanent, 1e4 * got.temporary, 1e4 * got.total],
                               [permanent, temporary, total], atol=0.05)


def test_carver_and_demiguel() -> None:
    assert sharpe_cost(8, 1.5 * 337) == pytest.approx(0.0019782393669634025, abs=1e-12)  # printed as 0.002
    assert sharpe_cost(8, 1.5 * 337, round_trips=10) == pytest.approx(0.019782393669634, abs=1e-12)
    moves, target = np.array([[0.02, -0.01, 0.0], [-0.03, 0.04, 0.01], [0.0, 0.01, -0.02]]), [0.5, 0.3, 0.2]
    net = net_returns(moves @ target, turnover(target, moves, two_sided=True), 0.005)
    np.testing.assert_allclose(net, [0.0069349999999999, -0.0011450000000000626, -0.001038], atol=1e-14)


def test_published_cases() -> None:
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is not set; the folder of published cases is not read")
    case = {c["id"]: c for c in json.loads((Path(folder) / "costs.json").read_text())["cases"]}["almgren-2005"]
    for name, want in case["expected"].items():
        s = case["input"][name]
        for days, row in want.items():
            got = almgren_impact(0.1 * s["V"], volume=s["V"], outstanding=s["theta"], sigma_daily=s["sigma"],
                                 days=float(days))
            np.testing.assert_allclose([1e4 * got.permanent, 1e4 * got.temporary, 1e4 * got.total],
                                       [row["I_bp"], row["K_bp"], row["J_bp"]], atol=0.05)


def test_break_even_of_a_track() -> None:
    b = break_even([0.001, 0.003], [0.0001, 0.0003], [0.05, 0.15])
    assert (b.multiple, b.bps, b.charged_bps) == pytest.approx((10.0, 100.0, 10.0))
    assert break_even([-0.001], [0.0001], [0.1]).multiple == 0.0
    assert np.isnan(break_even([0.001], [0.0], [0.0]).bps)


def test_break_even_of_an_advantage_is_where_the_sharpe_ratios_cross() -> None:
    rng = np.random.default_rng(5)
    shock = 0.006 * rng.standard_normal(2000)
    a, b = shock + 0.00045, shock + 0.0004
    ca, cb = np.abs(4e-5 * rng.standard_normal(2000)), np.abs(2e-5 * rng.standard_normal(2000))
    x = break_even_advantage(a, ca, b, cb)
    assert 1.0 < x < 10.0
    assert sharpe(a - x * ca) == pytest.approx(sharpe(b - x * cb), abs=1e-4)
    assert break_even_advantage(b, cb, a, ca) == 0.0
    assert break_even_advantage(a, cb, b, ca) == float("inf")
