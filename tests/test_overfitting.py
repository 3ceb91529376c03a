"""CSCV, the PBO gate, CPCV and the deflated Sharpe ratio: published numbers, peers, brute force, properties."""
from __future__ import annotations

import itertools
import json
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis, rankdata, skew

from pil_research.research import overfitting as o
from pil_research.research.cscv import block_sums, check_performance
from pil_research.types import InputError

SMALL = [[0.0054, -0.0023, 0.0253, -0.0015], [0.0021, 0.0168, -0.0081, -0.0049], [0.0029, -0.0023, -0.0109, -0.001],
         [-0.0026, 0.007, -0.0156, -0.006], [0.0125, 0.0196, -0.0141, 0.0074], [-0.0088, -0.0076, -0.0077, -0.0032],
         [0.011, 0.0081, 0.0016, -0.0026], [0.001, -0.0001, 0.0089, -0.0053], [0.0009, -0.0, 0.0005, 0.0035],
         [0.003, 0.0143, 0.0001, 0.0166], [-0.0021, -0.0038, 0.002, 0.0046], [0.0037, 0.0139, 0.0124, 0.0059],
         [-0.0024, -0.0, 0.0151, 0.0032], [-0.0121, -0.0059, -0.0048, 0.0125], [-0.0001, 0.0236, 0.0076, 0.0022],
         [-0.0034, 0.0107, -0.0014, -0.0072]]


def oracle(area: str) -> dict[str, dict]:
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is not set; the folder of published cases is not read")
    return {c["id"]: c for c in json.loads((Path(folder) / f"{area}.json").read_text())["cases"]}


def noise(t: int, n: int, seed: int = 0) -> np.ndarray:
    return np.asarray(0.01 * np.random.default_rng(seed).standard_normal((t, n)))


def slow_cscv(x: np.ndarray, s: int) -> dict[str, np.ndarray]:
    """The algorithm of the paper as it is written: every split, every half, a full ranking."""
    x = x[len(x) % s:]
    blocks = np.split(x, s)
    out: dict[str, list[float]] = {"omega": [], "is_best": [], "is_perf": [], "oos_perf": [], "oos_mean": []}
    for c in itertools.combinations(range(s), s // 2):
        inside = np.concatenate([blocks[i] for i in c])
        outside = np.concatenate([blocks[i] for i in range(s) if i not in c])
        a, b = (h.mean(0) / h.std(0, ddof=1) for h in (inside, outside))
        best = int(a.argmax())
        for k, v in zip(out, (rankdata(b)[best] / (x.shape[1] + 1), best, a[best], b[best], b.mean()), strict=True):
            out[k].append(v)
    return {k: np.array(v) for k, v in out.items()}


# CSCV


def test_small_worked_case() -> None:
    # 16 x 4, S = 4; confirmed by pypbo, sharpe-gate 0.1.1 and purgedcv 0.1.11
    r = o.cscv(np.array(SMALL), 4)
    assert r.n_splits == 6 and r.pbo == r.pbo_strict == r.prob_loss == pytest.approx(1 / 6)
    np.testing.assert_allclose(r.omega, [0.6, 0.8, 0.8, 0.8, 0.8, 0.2], atol=1e-14)
    np.testing.assert_allclose(r.logits, np.log(r.omega / (1 - r.omega)), atol=1e-14)
    assert r.is_best.tolist() == [1, 1, 1, 1, 1, 3]
    np.testing.assert_allclose(r.is_perf, [0.5056731464704683, 0.6345672246608564, 0.5692132634139844,
                                           0.5659142069095224, 0.5274475690825783, 0.7262192660880478], atol=1e-13)
    assert r.oos_perf[0] == pytest.approx(0.6293180015955125, abs=1e-13)
    assert (r.slope, r.intercept) == pytest.approx((-4.876742530614306, 3.2723255947677954), abs=1e-10)


def test_published_pbo_cases() -> None:
    for case in oracle("pbo").values():
        if "M" not in case["input"]:
            continue
        r, e = o.cscv(np.array(case["input"]["M"]), case["input"]["S"]), case["expected"]
        for key in set(e) & {"n_splits", "pbo", "logits", "omega", "is_best", "is_perf", "oos_perf", "slope",
                             "intercept", "prob_loss"}:
            np.testing.assert_allclose(getattr(r, key), e[key], atol=1e-10, err_msg=f"{case['id']} {key}")


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(0, 7), st.integers(2, 9), st.integers(0, 10_000))
def test_equals_the_paper_step_by_step(half: int, extra: int, n: int, seed: int) -> None:
    s = 2 * half
    x = noise(12 * s + extra % s, n, seed) + 0.01
    r, slow = o.cscv(x, s), slow_cscv(x, s)
    assert r.n_dropped == extra % s and r.n_obs == 12 * s and r.n_splits == math.comb(s, half)
    assert r.is_best.tolist() == slow["is_best"].tolist()
    for key in ("omega", "is_perf", "oos_perf", "oos_mean"):
        np.testing.assert_allclose(getattr(r, key), slow[key], atol=1e-11)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_scale_and_order_of_columns_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, order = noise(120, 7, seed), rng.permutation(7)
    r, other = o.cscv(x, 6), o.cscv((x * rng.uniform(0.1, 10, 7))[:, order], 6)
    np.testing.assert_allclose(other.logits, r.logits, atol=1e-12)
    assert order[other.is_best].tolist() == r.is_best.tolist()
    np.testing.assert_allclose(other.mean_oos, r.mean_oos[order], atol=1e-12)


def test_each_split_and_its_mirror_swap_roles() -> None:
    x = noise(160, 2, 4)
    r = o.cscv(x, 8)
    both = (r.is_best == r.is_best[::-1])  # same pick in a split and its mirror: in-sample of one is out of the other
    np.testing.assert_allclose(r.is_perf[both], r.oos_perf[::-1][both], atol=1e-13)
    assert both.any()


def test_clones_share_the_average_rank() -> None:
    x = noise(200, 3, 1)
    r = o.cscv(np.repeat(x, [1, 40, 1], axis=1) * np.linspace(0.5, 2, 42), 8)
    picked_clone = (r.is_best >= 1) & (r.is_best <= 40)
    assert set(r.is_best[picked_clone]) == {1}  # the first among equals
    assert set((r.omega[picked_clone] * 43).round(9)) <= {20.5, 21.5, 22.5}  # average of 40 equal ranks


def test_equal_mean_and_deviation_is_overfitting_by_construction() -> None:
    # property behind the vignette of the R package pbo: what one half wins the other must lose
    x = noise(2400, 100, 765)
    x = (x - x.mean(0)) / x.std(0, ddof=1) / np.sqrt(252)
    r = o.cscv(x - 0.03 / 252, 8)
    assert r.pbo == r.pbo_strict == r.prob_loss == 1.0
    assert r.slope == pytest.approx(-1.0, abs=0.03) and r.r_squared > 0.95


def test_noise_is_a_coin_toss_and_skill_is_not() -> None:
    pbos = [o.cscv(noise(400, 20, seed), 8).pbo for seed in range(250)]
    assert np.mean(pbos) == pytest.approx(0.5, abs=0.05)
    better = noise(2520, 20, 1)
    better[:, 3] += 0.01 * 3 / np.sqrt(252)
    r = o.cscv(better, 10)
    assert r.pbo == 0.0 and r.prob_loss == 0.0 and set(r.is_best) == {3}
    assert o.judge_pbo(r).aim_met


def test_even_ties_at_the_median_are_told_apart() -> None:
    r = o.cscv(noise(64, 3, 5), 4)  # N + 1 even: rank 2 of 3 is the median, logit exactly 0
    assert ((r.omega == 0.5) == (r.logits == 0.0)).all()
    assert r.pbo - r.pbo_strict == pytest.approx((r.logits == 0).mean())


def test_flat_halves_count_as_zero() -> None:
    x = noise(160, 4, 2)
    x[:80, 2] = 0.0
    r = o.cscv(x, 8)
    assert r.n_flat == 1 and np.isfinite(r.oos_perf).all() and np.isfinite(r.mean_oos).all()
    tiny = noise(160, 4, 2)
    tiny[:80, 2] = 1e-7 * tiny[:80, 2]  # hardly moves, but moves
    np.testing.assert_allclose(o.cscv(tiny, 8).oos_perf, slow_cscv(tiny, 8)["oos_perf"], rtol=1e-6)


@pytest.mark.parametrize(("x", "s", "code"), [
    (np.zeros((10,)), 4, "BAD_SHAPE"), (noise(40, 1), 4, "BAD_SHAPE"), (noise(3, 4), 2, "BAD_SHAPE"),
    (pd.DataFrame(noise(40, 30), columns=pd.date_range("2020", periods=30)), 4, "TRANSPOSED"),
    (np.where(np.eye(40, 4) > 0, np.nan, noise(40, 4)), 4, "NON_FINITE"),
    (np.column_stack([noise(40, 2), np.full(40, 0.001)]), 4, "NON_FINITE"),
    (noise(40, 4), 5, "BAD_BLOCKS"), (noise(40, 4), 22, "BAD_BLOCKS"), (noise(40, 4), True, "BAD_BLOCKS"),
    (noise(40, 4), 4.0, "BAD_BLOCKS"), (noise(40, 4), "4", "BAD_BLOCKS"), (noise(15, 4), 16, "TOO_SHORT")])
def test_unusable_matrices_are_refused(x: np.ndarray, s: int, code: str) -> None:
    with pytest.raises(InputError) as err:
        o.cscv(x, s)
    assert err.value.code == code


def test_dates_on_rows_allow_more_columns_than_rows() -> None:
    frame = pd.DataFrame(noise(40, 60), index=pd.date_range("2020", periods=40), columns=[f"c{i}" for i in range(60)])
    assert check_performance(frame)[1][5] == "c5" and o.cscv(frame, 4).names[59] == "c59"


def test_more_configurations_than_bars_are_judged_with_one_warning() -> None:
    x = noise(40, 60, 3)
    calls = (lambda: o.cscv(x, 4), lambda: o.block_sensitivity(x, (4, 8)), lambda: o.cscv(pd.DataFrame(x), 4),
             lambda: o.cpcv_select(x, n_groups=4, n_test=2, purge=0, embargo=0))
    for call in calls:
        with pytest.warns(UserWarning, match="time must be on the rows") as seen:
            call()
        assert len(seen) == 1 and Path(seen[0].filename).name == "test_overfitting.py"
    with pytest.warns(UserWarning):
        r = o.cscv(x, 4)
    dated = o.cscv(pd.DataFrame(x, index=pd.date_range("2020", periods=40)), 4)
    slow = slow_cscv(x, 4)
    assert r.is_best.tolist() == slow["is_best"].tolist() and np.array_equal(r.logits, dated.logits)
    np.testing.assert_allclose(r.oos_perf, slow["oos_perf"], atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 7), st.integers(2, 6), st.integers(0, 10_000))
def test_blocks_of_one_bar(half: int, length: int, extra: int, n: int, seed: int) -> None:
    s = 2 * half
    x = noise(length * s + extra % s, n, seed)
    if n > len(x):
        x = x[:, :len(x)]
    r, slow = o.cscv(x, s), slow_cscv(x, s)
    assert r.n_obs == length * s and r.n_dropped == extra % s and np.isfinite(r.logits).all()
    assert r.is_best.tolist() == slow["is_best"].tolist()
    for key in ("omega", "is_perf", "oos_perf", "oos_mean"):
        np.testing.assert_allclose(getattr(r, key), slow[key], rtol=1e-7, atol=1e-11)


def test_two_blocks_need_two_bars_each() -> None:
    x = noise(4, 3, 1)
    np.testing.assert_allclose(o.cscv(x, 2).oos_perf, slow_cscv(x, 2)["oos_perf"], rtol=1e-9)
    with pytest.raises(InputError, match="two bars a half") as err:
        block_sums(x[:3], 2)
    assert err.value.code == "TOO_SHORT" and err.value.limit == 4


def test_a_column_that_moves_only_in_the_rows_dropped_is_flat() -> None:
    x = noise(41, 3, 5)
    x[1:, 1] = 0.0
    r = o.cscv(x, 4)
    assert r.n_dropped == 1 and r.n_flat == 6 and np.isfinite(r.logits).all() and r.mean_oos[1] == 0.0


def test_the_parameter_has_the_name_of_the_design() -> None:
    x = noise(40, 4)
    assert o.cscv(performance_TxN=x, n_blocks=4).pbo == o.cscv(x, np.int64(4)).pbo


def test_a_thousand_configurations_in_megabytes() -> None:
    x = noise(2500, 1000)
    r = o.cscv(x)
    assert r.n_splits == 12870 and r.n_dropped == 2500 % 16
    tracemalloc.start()
    o.cscv(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6  # the matrix itself is 20 MB
    assert not r.logits.flags.writeable and not r.is_best.flags.writeable


# the gate


def test_gate_asks_for_a_difference_first() -> None:
    flat = noise(1600, 1) + 1e-7 * noise(1600, 30, 9)
    verdict = o.judge_pbo(o.cscv(flat, 8))
    assert verdict.status == "INDIFFERENT" and verdict.spread < 0.05 and "does not matter" in verdict.message
    x = noise(2400, 10, 3)
    x = (x - x.mean(0)) / x.std(0) * 0.01
    x[:, 0] += 0.0002
    r = o.cscv(x - x.mean(0) + np.linspace(0, 3e-4, 10), 8)
    assert o.judge_pbo(r, indifferent_below=99.0).status == "INDIFFERENT"
    assert o.judge_pbo(r, gate=r.pbo).status == "FAIL" and o.judge_pbo(r, gate=r.pbo + 1e-9).status == "PASS"


def test_spread_is_the_percentile_range_of_annualised_means() -> None:
    r = o.cscv(noise(406, 40, 8), 8)
    expected = np.subtract(*np.percentile(r.mean_oos * np.sqrt(252), [95, 5]))
    assert r.spread() == pytest.approx(expected) and o.judge_pbo(r).spread == r.spread()
    assert "oldest 6 rows dropped" in o.judge_pbo(r).message


def test_both_figures_are_shown_when_they_straddle() -> None:
    for seed in range(200):
        r = o.cscv(noise(64, 3, seed), 4)
        if r.pbo_strict < 0.5 <= r.pbo:
            verdict = o.judge_pbo(r)
            assert verdict.straddles and "strict" in verdict.message and verdict.status != "PASS"
            return
    raise AssertionError("no straddling draw found")


def test_block_table_and_null() -> None:
    x = noise(1000, 32, 4)
    table = o.block_sensitivity(x, (8, 16))
    assert table.loc[16, "n_dropped"] == 8 and table.loc[8, "n_splits"] == 70
    assert table.loc[8, "pbo"] == o.cscv(x, 8).pbo
    null = o.pbo_without_skill(x, n_draws=40, n_blocks=8)
    assert null.shape == (40,) and abs(np.median(null) - 0.5) < 0.15
    assert np.array_equal(null, o.pbo_without_skill(x, n_draws=40, n_blocks=8))


def test_dominance_and_picks() -> None:
    x = noise(2520, 20, 1)
    x[:, 3] += 0.01 * 3 / np.sqrt(252)
    r = o.cscv(x, 8)
    table = o.dominance(r)
    assert table.attrs == {"first_order": True, "second_order": True}
    assert (table["pick"] <= table["average"]).all() and table["pick"].iloc[-1] == 1.0
    bad = x.copy()
    bad[:, 3] = bad[:, 3] - bad[:, 3].mean() - 0.0002
    assert not o.dominance(o.cscv(bad, 8)).attrs["first_order"]
    won = o.picks(r)
    assert won.index[0] == "3" and won["share"].sum() == pytest.approx(1.0)


def test_second_order_integral_is_the_area_between_the_curves() -> None:
    r = o.cscv(noise(400, 10, 6), 8)
    table = o.dominance(r, n_points=20001)
    gap = (table["average"] - table["pick"]).to_numpy()
    area = np.concatenate([[0.0], np.cumsum(gap[:-1] * np.diff(table.index))])
    np.testing.assert_allclose(table["integral"], area, atol=1e-5)
    assert table["integral"].iloc[-1] == pytest.approx(r.oos_perf.mean() - r.oos_mean.mean(), abs=1e-12)


# deflated Sharpe ratio


def test_published_probabilistic_sharpe() -> None:
    # Bailey and Lopez de Prado (2012), 24 monthly returns; third-party tests pin 0.91323430688486018
    assert o.probabilistic_sharpe(0.458, 24, -2.448, 10.164) == pytest.approx(0.913361083860933, abs=1e-12)
    assert o.probabilistic_sharpe(0.458, 24, 0.0, 3.0) == pytest.approx(0.9816749190910771, abs=1e-12)
    assert o.probabilistic_sharpe(1.585 / 12**0.5, 24, -2.448, 10.164) == pytest.approx(0.9132343068848602, abs=1e-12)
    assert o.sharpe_error(0.458, 24, -2.448, 10.164) == pytest.approx(0.33633273664502306, abs=1e-13)
    # paper table: two hedge-fund indices, 134 months
    np.testing.assert_allclose(o.sharpe_error([0.7079, 0.8183], 134, [-0.225, -1.4455], [2.957, 7.0497]),
                               [0.10276082308007262, 0.15500654727884933], atol=1e-12)
    # restatement of 2025: variance at the benchmark, over T (zoonek/2025-sharpe-ratio: .987, .939, 13.029)
    sr = 0.036 / 0.079
    assert o.probabilistic_sharpe(sr, 24, -2.448, 10.164, convention="2025") == pytest.approx(0.987207, abs=1e-6)
    assert o.probabilistic_sharpe(sr, 24, -2.448, 10.164, 0.1, convention="2025") == pytest.approx(0.939148, abs=1e-6)
    assert o.min_track_record_length(sr, -2.448, 10.164, convention="2025") == pytest.approx(13.028778, abs=1e-6)


def test_published_deflated_sharpe() -> None:
    # Bailey and Lopez de Prado (2014): SR 2.5 annual, 1250 days, 100 trials of variance 1/2 (annual), skew -3, kurt 10
    sr, v = 2.5 / 250**0.5, 0.5 / 250
    assert o.expected_max_sharpe(100, v) == pytest.approx(0.1132, abs=5e-5)
    assert o.deflated_sharpe(sr, 1250, -3, 10, 100, v) == pytest.approx(0.9004, abs=5e-5)
    assert o.deflated_sharpe(sr, 1250, -3, 10, 46, v) == pytest.approx(0.9505, abs=5e-5)
    assert o.deflated_sharpe(sr, 1250, 0, 3, 88, v) == pytest.approx(0.9505, abs=5e-5)


def test_expected_maximum() -> None:
    # false-strategy formula, pypbo expected_max(100) = 2.5306028932016846; order statistic by quadrature
    formula = {2: 0.5197553442805939, 10: 1.57459830134575, 100: 2.5306028932016846, 1000: 3.255121513652723}
    order = {2: 0.5641895835477564, 10: 1.5387527308351727, 100: 2.507593636441684, 1000: 3.2414357691334468}
    np.testing.assert_allclose(o.expected_max_sharpe(list(formula)), list(formula.values()), atol=1e-12)
    np.testing.assert_allclose(o.expected_max_sharpe(list(order), exact=True), list(order.values()), atol=1e-10)
    assert o.expected_max_sharpe(1) == o.expected_max_sharpe(1, exact=True) == 0.0
    assert o.expected_max_sharpe(1.0001, 4.0) == 0.0 and o.expected_max_sharpe(50, 0.0) == 0.0
    assert o.deflated_sharpe(0.1, 500, 0, 3, 1, 0.01) == o.probabilistic_sharpe(0.1, 500, 0, 3)
    assert np.isfinite(o.expected_max_sharpe(1e12))


def test_lengths() -> None:
    # PSR paper, figure 8: years at daily, weekly, monthly frequency
    rows = [(250, 2, 1, 0, 3, 2.731187801728176), (52, 2, 1, 0, 3, 2.828833586945237),
            (12, 2, 1, 0, 3, 3.239800696444647), (12, 2, 1, -0.72, 5.78, 4.991258223875627),
            (12, 3, 2.5, -0.72, 5.78, 27.3529201960403)]
    for f, sr, bench, g3, g4, years in rows:
        got = o.min_track_record_length(sr / f**0.5, g3, g4, bench / f**0.5) / f
        assert got == pytest.approx(years, abs=1e-10)
    assert o.min_track_record_length(0.05, 0, 3, 0.05) == np.inf == o.min_track_record_length(-0.1, 0, 3)
    # Bailey et al. (2014), Notices of the AMS: 45 configurations use up five years
    np.testing.assert_allclose(o.min_backtest_length([7, 45, 100]),
                               [1.923143406664121, 4.998087004443404, 6.403951003080737], atol=1e-10)
    np.testing.assert_allclose(o.min_backtest_length([7, 45], bound=True), [3.8918202981106265, 7.613324979540639])


def test_published_sharpe_cases() -> None:
    cases = oracle("sharpe")
    e = cases["emax-sharpe"]["expected"]
    for exact, key in ((False, "false_strategy_formula"), (True, "exact_order_statistic")):
        for n, value in e[key].items():
            assert o.expected_max_sharpe(int(n), exact=exact) == pytest.approx(value, abs=1e-8)
    case = cases["mintrl-hf-indices"]
    for row, years in zip(case["input"]["rows"], case["expected"]["mintrl_years"], strict=True):
        assert o.min_track_record_length(row["sr"], row["skew"], row["kurt"]) / 12 == pytest.approx(years, abs=1e-8)


def test_excess_kurtosis_is_refused() -> None:
    calls = [lambda k: o.probabilistic_sharpe(0.1, 500, -0.5, k), lambda k: o.sharpe_error(0.1, 500, -0.5, k),
             lambda k: o.deflated_sharpe(0.1, 500, -0.5, k, 10, 0.01),
             lambda k: o.min_track_record_length(0.1, -0.5, k)]
    for call in calls:
        for excess in (0.0, 0.03, -1.2, 1.2):
            with pytest.raises(InputError, match="excess kurtosis") as err:
                call(excess)
            assert err.value.code == "EXCESS_KURTOSIS"
        assert np.isfinite(call(1.25))  # exactly 1 + skew^2 is a two-point distribution, and legal
    with pytest.raises(InputError, match="excess"):  # the paper's own example with 7 for 10
        o.deflated_sharpe(2.5 / 250**0.5, 1250, -3, 7, 100, 0.002)


@pytest.mark.parametrize(("call", "match"), [
    (lambda: o.probabilistic_sharpe(np.nan, 10, 0, 3), "sr must be finite"),
    (lambda: o.probabilistic_sharpe(0.1, 10, 0, 3, np.nan), "benchmark must be finite"),
    (lambda: o.probabilistic_sharpe(0.1, 1, 0, 3), "at least 2 bars"),
    (lambda: o.probabilistic_sharpe(0.1, 10, 0, 3, convention="2020"), "convention"),
    (lambda: o.expected_max_sharpe(0), "at least 1"), (lambda: o.expected_max_sharpe(np.nan), "at least 1"),
    (lambda: o.expected_max_sharpe(5, -1.0), "variance"), (lambda: o.min_backtest_length(5, 0.0), "positive"),
    (lambda: o.min_track_record_length(0.1, 0, 3, 0.0, 1.0), "confidence"),
    (lambda: o.sharpe_moments(np.zeros(50)), "move"), (lambda: o.sharpe_moments([0.1, np.nan, 0.2]), "three bars"),
    (lambda: o.sharpe_moments([0.1, np.inf, 0.2]), "infinite")])
def test_bad_numbers_are_refused(call, match: str) -> None:
    with pytest.raises(InputError, match=match):
        call()


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.3, 0.5), st.integers(30, 5000), st.floats(-2, 2), st.floats(0, 10), st.integers(1, 2000))
def test_deflation_only_lowers(sr: float, n: int, g3: float, more: float, trials: int) -> None:
    g4 = 1.01 + g3 * g3 + more
    psr, dsr = o.probabilistic_sharpe(sr, n, g3, g4), o.deflated_sharpe(sr, n, g3, g4, trials, 0.01)
    assert 0.0 <= dsr <= psr <= 1.0 and o.deflated_sharpe(sr, n, g3, g4, trials + 50, 0.01) <= dsr
    bars = o.min_track_record_length(sr, g3, g4)
    if sr > 1e-3 and 10 < bars < 1e6:  # the two formulas are each other's inverse
        assert o.probabilistic_sharpe(sr, bars, g3, g4) == pytest.approx(0.95, abs=1e-9)


def test_moments_are_sample_moments_and_survive_gaps() -> None:
    x = noise(500, 3, 2) + 0.001
    m = o.sharpe_moments(x)
    np.testing.assert_allclose(m.sr, x.mean(0) / x.std(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(m.kurt, kurtosis(x, fisher=False), rtol=1e-12)
    np.testing.assert_allclose(m.skew, skew(x), rtol=1e-10)
    gap = x[:, 0].copy()
    gap[::7] = np.nan
    assert o.sharpe_moments(gap) == pytest.approx(o.sharpe_moments(gap[np.isfinite(gap)]), rel=1e-13)


def test_agrees_with_skfolio() -> None:
    measures = pytest.importorskip("skfolio.measures")
    rng = np.random.default_rng(1)
    x = 0.01 * rng.standard_t(5, (1200, 30)) + 0.0004
    sharpes = x.mean(0) / x.std(0, ddof=1)
    best = x[:, sharpes.argmax()]
    assert o.probabilistic_sharpe(*o.sharpe_moments(best), 0.02) == pytest.approx(
        measures.probabilistic_sharpe_ratio(best, 0.02), abs=1e-12)
    ours = o.deflate_track(best, x, n_trials=30)
    assert ours.dsr == pytest.approx(measures.deflated_sharpe_ratio(best, sharpes), abs=1e-12)


def test_clones_count_once() -> None:
    ideas = noise(1500, 3, 5)
    family = ideas[:, np.arange(30) % 3] * np.linspace(0.5, 2, 30) + 1e-4 * noise(1500, 30, 6)
    found = o.effective_trials(family)
    assert found.n_clusters == 3 and found.labels.tolist() == (np.arange(30) % 3).tolist()
    assert 1 < found.interpolated < 30
    assert o.effective_trials(noise(1500, 30, 7)).n_clusters == 30
    one = o.effective_trials(family[:, ::3])
    assert one.n_clusters == 1 and one.var_clusters == 0.0
    r = o.deflate_track(family[:, 0], family[:, ::3], n_trials=10)
    assert r.dsr_effective == r.psr >= r.dsr and r.n_obs == 1500
    with pytest.raises(InputError, match="cover the family of 30") as err:
        o.deflate_track(family[:, 0], family, n_trials=29)
    assert err.value.code == "TRIALS_UNDERCOUNTED"
    with pytest.raises(InputError, match="clone_correlation"):
        o.effective_trials(family, clone_correlation=0.0)


# CPCV


@pytest.mark.parametrize(("n", "k", "splits", "paths"), [
    (6, 1, 6, 1), (6, 2, 15, 5), (5, 2, 10, 4), (8, 4, 70, 35), (10, 2, 45, 9), (10, 8, 45, 36), (12, 3, 220, 55),
    (16, 8, 12870, 6435)])
def test_split_and_path_counts(n: int, k: int, splits: int, paths: int) -> None:
    # Lopez de Prado (2018), chapter 12
    assert o.cpcv_counts(n, k) == (splits, paths)
    assert o.cpcv_paths(n, k).shape == (paths, n)
    assert len(o.cpcv_splits(2 * n, n, k)) == splits


def test_splits_and_paths_are_skfolios() -> None:
    selection = pytest.importorskip("skfolio.model_selection")
    compared = 0
    for t, n, k, p, e in itertools.product((60, 97), (3, 6), (2, 4), (0, 3), (0, 2)):
        if k >= n or p + e >= t // n - 1:
            continue
        peer = selection.CombinatorialPurgedCV(n, k, purged_size=p, embargo_size=e)
        ours = o.cpcv_splits(t, n, k, purge=p, embargo=e)
        for (train, test), (their_train, their_test) in zip(ours, peer.split(np.zeros((t, 1))), strict=True):
            assert np.array_equal(train, their_train)
            assert all(np.array_equal(a, b) for a, b in zip(test, their_test, strict=True))
        assert np.array_equal(o.cpcv_paths(n, k), peer.recombined_paths.T)
        compared += 1
    assert compared > 10


@settings(max_examples=40, deadline=None)
@given(st.integers(70, 130), st.integers(3, 6), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
def test_no_training_row_is_near_a_test_row(t: int, n: int, k: int, purge: int, embargo: int) -> None:
    if k >= n:
        return
    tested = np.zeros(t, dtype=int)
    for train, test in o.cpcv_splits(t, n, k, purge=purge, embargo=embargo):
        rows = np.concatenate(test)
        tested[rows] += 1
        behind = train[:, None] - rows[None, :]  # > 0: training after the test
        assert not ((behind >= -purge) & (behind <= purge + embargo)).any()
        kept = set(train.tolist()) | set(rows.tolist())
        gone = np.array(sorted(set(range(t)) - kept), dtype=int)
        near = (gone[:, None] - rows[None, :])
        assert ((near >= -purge) & (near <= purge + embargo)).any(axis=1).all()  # and nothing else was removed
    assert (tested == math.comb(n - 1, k - 1)).all()


def test_each_path_uses_each_test_group_once() -> None:
    paths = o.cpcv_paths(7, 3)
    groups = list(itertools.combinations(range(7), 3))
    used = {(int(split), g) for path in paths for g, split in enumerate(path)}
    assert used == {(i, g) for i, c in enumerate(groups) for g in c} and len(used) == paths.size


def test_what_a_test_set_is_and_where_the_remainder_goes() -> None:
    for train, test in o.cpcv_splits(23, 5, 2):
        assert isinstance(test, tuple) and len(test) == 2
        assert np.array_equal(np.sort(np.concatenate([train, *test])), np.arange(23))
    assert [len(g) for s in o.cpcv_splits(23, 5, 1) for g in s.test] == [4, 4, 4, 4, 7]
    assert "4, 4, 4, 4, 7" in o.cpcv_splits.__doc__ and "np.concatenate(test)" in o.cpcv_splits.__doc__


def test_impossible_splits_are_refused() -> None:
    for arguments, match in (((10, 3, 3), "n_test"), ((10, 3, 0), "n_test"), ((2, 3, 1), "n_obs"),
                             ((100, 40, 20), "at most")):
        with pytest.raises(InputError, match=match):
            o.cpcv_splits(*arguments)
    with pytest.raises(InputError, match="purge"):
        o.cpcv_splits(100, 5, 2, purge=-1)
    with pytest.raises(InputError, match="leave training rows"):
        o.cpcv_splits(100, 5, 2, purge=60)


def test_selection_on_paths() -> None:
    x = noise(1000, 12, 4)
    x[:, 5] += 0.01 * 3 / np.sqrt(252)
    r = o.cpcv_select(x, n_groups=6, n_test=2, purge=5, embargo=10)
    assert set(r.chosen) == {5} and r.returns.shape == (5, 1000)
    np.testing.assert_array_equal(r.returns, np.tile(x[:, 5], (5, 1)))
    weak = noise(997, 12, 4)
    r = o.cpcv_select(weak, n_groups=6, n_test=2, purge=5, embargo=10)
    splits = o.cpcv_splits(997, 6, 2, purge=5, embargo=10)
    for i, (train, _) in enumerate(splits):
        assert r.chosen[i] == (weak[train].mean(0) / weak[train].std(0, ddof=1)).argmax()
        assert r.n_train[i] == len(train)
    for p, path in enumerate(o.cpcv_paths(6, 2)):
        for g, s in enumerate(path):
            rows = next(t for t in splits[s].test if t[0] == g * (997 // 6))
            np.testing.assert_array_equal(r.returns[p, rows], weak[rows, r.chosen[s]])
    low, high = (np.percentile([np.median(o.cpcv_select(noise(600, 20, s)).sharpe) for s in range(30)], q)
                 for q in (10, 90))
    assert low < 0 < high  # noise earns nothing out of sample


def test_published_cpcv_counts() -> None:
    for row in oracle("cpcv")["cpcv-counts"]["expected"]["table"]:
        assert o.cpcv_counts(row["N"], row["k"]) == (row["splits"], row["paths"])


def test_public_names() -> None:
    assert set(o.__all__) >= {"cscv", "CSCVResult", "probabilistic_sharpe", "deflated_sharpe", "expected_max_sharpe",
                              "min_track_record_length", "min_backtest_length", "cpcv_splits", "TrialLedger"}
    assert all(hasattr(o, name) for name in o.__all__)
