"""Metrics and the tests of Sharpe differences: published numbers, peers, properties."""
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.research import metrics as m
from pil_research.research.sharpe_tests import block_length, bootstrap_sharpes
from pil_research.types import InputError


def pair(n: int = 750, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common = 0.006 * rng.standard_normal((n, 1))
    return np.asarray(0.0002 + common + 0.003 * rng.standard_normal((n, 2)))


def oracle(area: str) -> dict[str, dict]:
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is not set; the folder of published cases is not read")
    return {c["id"]: c for c in json.loads((Path(folder) / f"{area}.json").read_text())["cases"]}


def test_effective_number_of_bets() -> None:
    # inverse Herfindahl and exponential entropy of 40/30/20/10 (arithmetic)
    assert m.effective_n([0.4, 0.3, 0.2, 0.1]) == pytest.approx(10 / 3, abs=1e-12)
    assert m.effective_n([0.4, -0.3, 0.2, -0.1], "entropy") == pytest.approx(3.5961154666243216, abs=1e-12)
    assert m.effective_n([0.5, 0.5, 0, 0]) == m.effective_n([0.5, 0.5, 0, 0], "entropy") == 2.0
    # Roy and Vetterli's effective rank, example of zoonek/2025-sharpe-ratio: 1.84
    corr = [[1, 0.1, 0.7], [0.1, 1, 0.8], [0.7, 0.8, 1]]
    assert m.effective_rank(corr) == pytest.approx(1.840200395337524, abs=1e-10)
    rows = pd.DataFrame([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]], index=["a", "b", "c"])
    assert m.effective_n(rows).to_dict()["a"] == 2.0 and np.isnan(m.effective_n(rows)["c"])
    with pytest.raises(InputError, match="hhi"):
        m.effective_n([1.0], "gini")


def test_rank_ic_with_ties_is_scipys() -> None:
    f, y = [0.5, 0.1, 0.1, -0.2, 0.9, 0.3, -0.4, 0.0], [0.01, 0.02, -0.01, -0.03, 0.04, 0.0, -0.02, 0.0]
    assert m.rank_ic(f, y) == pytest.approx(0.8072289156626505, abs=1e-12)
    assert np.isnan(m.rank_ic([1, 1, 1], [1, 2, 3])) and np.isnan(m.rank_ic([1, 2, np.nan], [1, 2, 3]))


def test_sharpe_vol_growth_keep_names_and_missing_bars() -> None:
    r = pd.DataFrame({"a": [0.01, -0.01, 0.02, np.nan], "b": [0.0, 0.0, 0.0, 0.0]})
    a = np.array([0.01, -0.01, 0.02])
    assert m.sharpe(r)["a"] == pytest.approx(a.mean() / a.std(ddof=1) * np.sqrt(252), rel=1e-14)
    assert np.isnan(m.sharpe(r)["b"]) and np.isnan(m.sharpe(np.full(100, 0.1)))
    assert m.annual_vol(a, bars_per_year=1) == pytest.approx(a.std(ddof=1), rel=1e-14)
    assert m.annual_growth([0.1, -0.5, 0.2], bars_per_year=3) == pytest.approx(1.1 * 0.5 * 1.2 - 1)
    assert m.annual_growth([0.1, -1.5, 9.0]) == -1.0
    with pytest.raises(InputError, match="infinite"):
        m.sharpe([0.1, np.inf])


def test_drawdown_is_the_textbook_one() -> None:
    track = pd.Series(pair()[:, 0])
    wealth = (1 + track).cumprod()
    expected = (1 - wealth / np.maximum(wealth.cummax(), 1.0)).max()
    assert m.max_drawdown(track) == pytest.approx(expected, rel=1e-13)
    assert m.max_drawdown([-0.1, 0.05]) == pytest.approx(0.1)
    assert m.max_drawdown(pd.DataFrame(pair(), columns=["x", "y"])).index.tolist() == ["x", "y"]


def test_turnover_ceq_and_net_returns_of_demiguel() -> None:
    # DeMiguel, Garlappi and Uppal (2009), eqs 12-15, worked example
    moves = np.array([[0.02, -0.01, 0.0], [-0.03, 0.04, 0.01], [0.0, 0.01, -0.02]])
    each = m.turnover([0.5, 0.3, 0.2], moves, two_sided=True)
    np.testing.assert_allclose(each, [0.012909632571996038, 0.02902902902902907, 0.007607607607607647], atol=1e-14)
    np.testing.assert_allclose(m.turnover([0.5, 0.3, 0.2], moves), each / 2)
    assert m.ceq(moves @ [0.5, 0.3, 0.2]) == pytest.approx(0.0016560000000000004, abs=1e-12)
    assert m.turnover(np.array([[1.0, 0.0], [0.0, 1.0]])).tolist() == [1.0]
    with pytest.raises(InputError, match="weights"):
        m.turnover(np.array([[1.0, np.nan], [0.0, 1.0]]))
    with pytest.raises(InputError, match="weights"):
        m.turnover(np.ones((5, 3)), np.zeros((5, 2)))


def test_kelly_and_uplift_closed_forms() -> None:
    assert [m.kelly_growth_share(c) for c in (0.25, 0.5, 0.75, 1, 1.5, 2)] == [0.4375, 0.75, 0.9375, 1, 0.75, 0]
    assert m.kelly_drawdown_probability(0.5, 0.5) == pytest.approx(0.125)
    assert m.kelly_drawdown_probability(1.5, 0.5) == pytest.approx(0.7937005259840998, abs=1e-12)
    assert m.kelly_drawdown_probability(2.0, 0.5) == 1.0
    assert m.kelly_growth(0.53, 2 * m.kelly_fraction(0.53)) == pytest.approx(-1.748139693422135e-05, abs=1e-15)
    assert m.diversification_uplift(0.6, 8, 0.2) == pytest.approx(1.0954451150103321, abs=1e-12)
    assert m.diversification_uplift(0.6, 1, 0.9) == pytest.approx(0.6)
    for rho in (-0.5, 1.1, float("nan")):
        with pytest.raises(InputError, match="rho"):
            m.diversification_uplift(0.6, 3, rho)


def test_published_cases() -> None:
    kelly, uplift, sharpe = oracle("kelly"), oracle("uplift"), oracle("sharpe_test")
    bets = kelly["kelly-binomial"]["expected"]
    for p, f in bets["kelly_fraction"].items():
        assert m.kelly_fraction(float(p)) == pytest.approx(f, abs=1e-12)
        for c, g in bets["growth"][p].items():
            assert m.kelly_growth(float(p), float(c) * f) == pytest.approx(g, abs=1e-12)
    for c, p in kelly["kelly-fractions"]["expected"]["prob_ever_half"].items():
        assert m.kelly_drawdown_probability(float(c), 0.5) == pytest.approx(p, abs=1e-12)
    for cell in uplift["uplift-table"]["expected"]["cells"]:
        assert m.diversification_uplift(0.6, cell["K"], cell["rho"]) == pytest.approx(cell["formula"], abs=1e-12)
    case = sharpe["sharpediff-synth"]
    x, want = np.array(case["input"]["X"]), case["expected"]
    jkm = m.sharpe_difference(x[:, 0], x[:, 1], "jkm")
    assert (jkm.theta, jkm.statistic, jkm.p_value) == pytest.approx(tuple(want["jkm"].values()), abs=1e-8)
    for method, key in (("iid", "iid"), ("hac", "hac_parzen")):
        got = m.sharpe_difference(x[:, 0], x[:, 1], method)
        assert [got.sharpe_a, got.sharpe_b] == pytest.approx(want[key]["sr"], abs=1e-12)
        assert (got.difference, got.se, got.p_value) == pytest.approx(
            (want[key]["diff"], want[key]["se"], want[key]["p"]), abs=1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_block_length_is_archs(seed: int) -> None:
    from arch.bootstrap import optimal_block_length

    rng = np.random.default_rng(seed)
    e = rng.standard_normal(1500)
    x = np.zeros(1500)
    for t in range(1, 1500):
        x[t] = 0.15 * seed * x[t - 1] + e[t]
    assert block_length(x, floor=0.0) == pytest.approx(float(optimal_block_length(x)["stationary"].iloc[0]), rel=1e-9)


def test_block_length_has_a_floor() -> None:
    assert block_length(np.random.default_rng(0).standard_normal(2000)) == 21.0
    assert block_length(np.zeros(100)) == block_length(np.ones(5)) == 21.0


def test_bootstrap_is_archs_stationary_bootstrap() -> None:
    from arch.bootstrap import StationaryBootstrap

    x = pair()
    ours = bootstrap_sharpes(x, block=21, n_draws=4000, bars_per_year=1)
    theirs = StationaryBootstrap(21, x, seed=1).apply(lambda d: d.mean(0) / d.std(0, ddof=1), reps=1500)
    mine, peer = ours[:, 0] - ours[:, 1], theirs[:, 0] - theirs[:, 1]
    assert mine.mean() == pytest.approx(peer.mean(), abs=4 * peer.std() / np.sqrt(1500))
    assert mine.std() == pytest.approx(peer.std(), rel=0.08)
    np.testing.assert_allclose(np.corrcoef(ours.T)[0, 1], np.corrcoef(theirs.T)[0, 1], atol=0.05)


def test_bootstrap_is_repeatable_exact_and_paired() -> None:
    x = pair(300)
    a = bootstrap_sharpes(x, n_draws=600)
    np.testing.assert_array_equal(a, bootstrap_sharpes(x, n_draws=600))
    same = bootstrap_sharpes(np.column_stack([x[:, 0], 3.0 * x[:, 0]]), n_draws=300)
    np.testing.assert_allclose(same[:, 0], same[:, 1], rtol=1e-9)  # scale-free, on the same bars
    one_block = bootstrap_sharpes(x, block=1e9, n_draws=50)  # a rotation of the history keeps every sum
    np.testing.assert_allclose(one_block, np.broadcast_to(m.sharpe(x), (50, 2)), rtol=1e-9)
    with pytest.raises(InputError, match="missing"):
        bootstrap_sharpes(np.array([[0.1, np.nan], [0.2, 0.1]]))


def test_sharpe_difference_methods_agree_on_independent_bars() -> None:
    x = pair(2520)
    found = {k: m.sharpe_difference(x[:, 0], x[:, 1], k, bars_per_year=252) for k in ("jkm", "iid", "hac", "bootstrap")}
    for d in found.values():
        assert d.difference == pytest.approx(m.sharpe(x[:, 0]) - m.sharpe(x[:, 1]), abs=1e-12)
        assert d.se == pytest.approx(found["jkm"].se, rel=0.1)
        assert d.prob_better == pytest.approx(found["jkm"].prob_better, abs=0.05)
        assert d.interval[0] < d.difference < d.interval[1]


def test_equal_tracks_are_a_tie_and_series_align_by_date() -> None:
    x = pair(400)[:, 0]
    tie = m.sharpe_difference(x, x)
    assert tie.prob_better == 0.5 and tie.difference == 0.0
    assert m.sharpe_difference(x, x, "jkm").prob_better == 0.5
    days = pd.bdate_range("2020-01-01", periods=400)
    a, b = pd.Series(x, days), pd.Series(pair(400)[:, 1], days)
    shifted = m.sharpe_difference(a.iloc[10:], b.iloc[:-10], "jkm")
    assert shifted.n_obs == 380
    with pytest.raises(InputError, match="10 common bars"):
        m.sharpe_difference(x[:5], x[:5])
    with pytest.raises(InputError, match="method"):
        m.sharpe_difference(x, x, "t-test")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=60))
def test_drawdown_bounds(values: list[float]) -> None:
    dd = m.max_drawdown(values)
    assert 0.0 <= dd < 1.0
    assert dd >= 1.0 - np.prod(1.0 + np.array(values)) - 1e-12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3))
def test_effective_n_bounds(weights: list[float]) -> None:
    hhi, entropy = m.effective_n(weights), m.effective_n(weights, "entropy")
    assert 1.0 - 1e-9 <= hhi <= entropy + 1e-9 <= len(weights) + 1e-6


@pytest.mark.parametrize("method", ["bootstrap", "jkm", "iid", "hac"])
def test_tracks_of_different_length_are_refused(method: str) -> None:
    a, b = pair().T
    for one, other in ((a, b[:50]), (a[:50], b), (a, np.column_stack([a, b])), (pd.Series(a), b[:50]), (a[None], b[None])):
        with pytest.raises(InputError, match="a and b must") as err:
            m.sharpe_difference(one, other, method)
        assert err.value.code == "BAD_SHAPE"
    assert m.sharpe_difference(a[:, None], b, method).n_obs == len(a)
    twice = pd.concat([pd.Series(b), pd.Series(b)])
    with pytest.raises(InputError, match="twice") as err:
        m.sharpe_difference(pd.Series(a), twice, method)
    assert err.value.code == "DUPLICATE_INDEX"


@pytest.mark.parametrize("option", [
    {"block": 0.5}, {"block": 0}, {"block": np.nan}, {"block": np.inf}, {"block": "x"}, {"n_draws": 0}, {"n_draws": -1},
    {"n_draws": 10.5}, {"seed": -1}, {"seed": "x"}, {"bars_per_year": 0.0}, {"bars_per_year": -252.0},
    {"confidence": 1.5}, {"confidence": np.nan}])
def test_options_out_of_range_are_refused(option: dict) -> None:
    x = pair()
    with pytest.raises(InputError, match=f"{next(iter(option))} must be") as err:
        m.sharpe_difference(*x.T, **option)
    assert err.value.code == "OUT_OF_RANGE"
    if "confidence" not in option:
        with pytest.raises(InputError):
            bootstrap_sharpes(x, **option)


@pytest.mark.parametrize(("call", "field"), [
    (lambda: m.diversification_uplift(0.6, 3, np.array([0.1, 0.2])), "rho"),
    (lambda: m.diversification_uplift(0.6, [3, 5], 0.1), "k"), (lambda: m.diversification_uplift(np.ones(2), 3, 0.1), "sr"),
    (lambda: m.diversification_uplift(0.6, 3, None), "rho"), (lambda: m.diversification_uplift("x", 3, 0.1), "sr"),
    (lambda: m.kelly_drawdown_probability(np.array([0.5, 0.6]), 0.5), "fraction"),
    (lambda: m.kelly_growth(0.5, np.array([0.1, 0.2])), "stake"), (lambda: m.rank_ic([0.1, 0.2, 0.3], [0.1, 0.2]), "realised"),
    (lambda: m.turnover(0.5), "weights"), (lambda: m.turnover(0.5, np.ones((3, 2))), "weights"),
    (lambda: m.drifted_weights(np.ones((3, 2)), np.ones((4, 2))), "returns"),
    (lambda: m.effective_rank(np.ones((2, 3))), "corr"), (lambda: m.effective_rank(np.full((2, 2), np.nan)), "corr"),
    (lambda: bootstrap_sharpes(np.ones((1, 2))), "returns")])
def test_arguments_of_the_wrong_shape_are_refused(call, field: str) -> None:
    with pytest.raises(InputError) as err:
        call()
    assert err.value.field == field
    assert m.diversification_uplift(np.float32(0.5), np.int64(4), np.array(0.0)) == 1.0
