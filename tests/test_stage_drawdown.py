"""Stage 5: the governor's line, both marks, the way back, the tiers, and an independent scalar twin of all of it."""
import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.stages.drawdown import (
    FLATTEN,
    NO_NEW,
    NONE,
    THROTTLE,
    WARN,
    DrawdownParams,
    DrawdownState,
    apply_governor,
    govern_drawdown,
    governor_multiplier,
)
from pil_research.types import InputError

CALM = DrawdownParams(daily_loss=9.0)  # daily loss switched off, to look at the rest


def run(equity, params=CALM, flows=None, state=None, re_arm=()):
    state = state or DrawdownState.initial(equity[0])
    reads = []
    for session, value in enumerate(equity):
        flow = 0.0 if flows is None else flows[session]
        read, state = govern_drawdown(state, value, flow, session, params, re_arm=session in re_arm)
        reads.append(read)
    return reads, state


def column(reads, name):
    return np.array([np.asarray(getattr(r, name)) for r in reads])


def test_published_taper():
    # published numbers of the case "stage5-governor": m(DD) with 5 %, 12 %, floor 0.2, flat at 15 %
    dd = [0, 0.05, 0.0501, 0.06, 0.085, 0.1, 0.1199, 0.12, 0.14, 0.15, 0.3]
    m = [1.0, 1.0, 0.9988571428571429, 0.8857142857142858, 0.6, 0.4285714285714285, 0.20114285714285718, 0.2, 0.2, 0.0, 0.0]
    np.testing.assert_allclose(governor_multiplier(dd), m, atol=1e-12)
    assert governor_multiplier(np.nan) == 0.0


@pytest.mark.skipif("PIL_ORACLES" not in os.environ, reason="PIL_ORACLES does not name a folder of published cases")
def test_oracle_folder():
    cases = json.loads((Path(os.environ["PIL_ORACLES"]) / "vol.json").read_text())["cases"]
    case = next(c for c in cases if c["id"] == "stage5-governor")
    np.testing.assert_allclose(governor_multiplier(case["input"]["dd"]), case["expected"]["m"],
                               atol=case["tolerance"]["abs"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_taper_is_monotone_and_bounded(dd):
    m = governor_multiplier(np.sort(dd))
    assert (np.diff(m) <= 0).all() and (m >= 0).all() and (m <= 1).all()


def test_recovery_at_constant_equity():
    equity = np.concatenate([[100.0], np.full(320, 84.0)])
    reads, _ = run(equity)
    flat = np.flatnonzero(column(reads, "flat"))
    assert flat.tolist() == list(range(1, 21))  # decisions t ... t+19
    back = 21
    assert bool(reads[back].reentered) and reads[back].multiplier == pytest.approx(0.2, abs=1e-12)
    m = [float(reads[back + n].multiplier) for n in (25, 60, 126, 252)]
    np.testing.assert_allclose(np.round(m, 2), [0.36, 0.55, 0.84, 1.0])
    assert column(reads, "tripped").sum() == 1
    assert (column(reads, "throttle")[back:] == 1.0).all()  # THROTTLE stays off after a re-entry
    assert (np.diff(column(reads, "multiplier")[back:]) >= 0).all()


@pytest.mark.parametrize("vol", [0.05, 0.08, 0.10, 0.12])
def test_drawdown_in_units_of_the_configured_volatility(vol):
    p = CALM._replace(vol_base=vol)
    scale = max(1.0, 0.10 / vol)
    reads, state = run([100.0, 96.0], p)
    assert float(reads[1].dd_governed) == pytest.approx(0.04 * scale)
    equity = np.concatenate([[100.0], np.full(60, 100 * (1 - 0.1501 / scale))])
    reads, _ = run(equity, p)
    back = int(np.flatnonzero(column(reads, "reentered"))[0])
    assert back == 21 and float(reads[back].multiplier) == pytest.approx(0.2, abs=1e-12)
    assert float(reads[back].dd_raw) == pytest.approx(0.12 / scale)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_flows_change_nothing(seed):
    rng = np.random.default_rng(seed)
    growth = 1.0 + rng.normal(-0.001, 0.02, 120)
    plain = 100.0 * np.cumprod(growth)
    flows = np.where(rng.random(120) < 0.3, rng.uniform(-0.4, 1.0, 120), 0.0)
    flows[0] = 0.0
    moved, value = [plain[0]], plain[0]
    for g, f in zip(growth[1:], flows[1:], strict=True):
        value = value * g * (1 + f)
        moved.append(value)
    cash = np.array([0.0] + [moved[i] * flows[i] / (1 + flows[i]) for i in range(1, 120)])
    a, _ = run(plain, DrawdownParams())
    b, _ = run(np.array(moved), DrawdownParams(), flows=cash)
    for name in ("dd_raw", "dd_governed", "dd_lifetime", "multiplier", "throttle", "session_loss"):
        np.testing.assert_allclose(column(a, name), column(b, name), atol=1e-9)
    np.testing.assert_array_equal(column(a, "tier"), column(b, "tier"))
    np.testing.assert_array_equal(column(a, "daily_loss"), column(b, "daily_loss"))


def test_tiers_and_their_release():
    dd = np.array([0, 0.049, 0.05, 0.041, 0.039, 0.12, 0.121, 0.111, 0.11, 0.136, 0.126, 0.124, 0.10, 0.15])
    reads, _ = run(100.0 * (1 - dd))
    assert column(reads, "tier").tolist() == [NONE, NONE, WARN, WARN, NONE, WARN, THROTTLE, THROTTLE, WARN, NO_NEW,
                                              NO_NEW, THROTTLE, WARN, FLATTEN]
    assert column(reads, "throttle").tolist() == [1, 1, 1, 1, 1, 1, 0.5, 0.5, 1, 0.5, 0.5, 0.5, 1, 0]
    assert column(reads, "reduce_only").tolist() == [False] * 9 + [True] * 2 + [False] * 3


def test_no_new_for_twenty_sessions_is_a_trip():
    equity = np.concatenate([[100.0], np.full(45, 86.0)])  # 14 %
    reads, _ = run(equity)
    tier = column(reads, "tier")
    assert (tier[1:21] == NO_NEW).all() and (tier[21:41] == FLATTEN).all() and tier[41] == WARN
    assert bool(reads[21].tripped) and bool(reads[41].reentered)
    assert float(reads[41].multiplier) == pytest.approx(0.2, abs=1e-12)


def test_third_reentry_within_a_year_needs_an_operator():
    equity = [100.0]
    for _ in range(3):
        equity += [equity[-1] * 0.92] * 21 if len(equity) > 1 else [84.9] * 21
    equity += [equity[-1]] * 300
    p = CALM._replace(lifetime_limit=0.9)
    reads, state = run(equity, p)
    assert column(reads, "reentered").sum() == 2
    assert bool(reads[-1].operator_needed) and float(reads[-1].multiplier) == 0.0 and bool(state.operator_needed)
    armed, after = govern_drawdown(state, equity[-1], 0.0, len(equity), p, re_arm=True)
    assert bool(armed.re_armed) and bool(armed.reentered) and not armed.operator_needed
    assert float(armed.multiplier) == pytest.approx(0.2, abs=1e-12)
    assert float(after.true_mark) == equity[-1] and float(after.old_true_mark) == 100.0


def test_reentries_are_allowed_again_after_the_window():
    p = CALM._replace(lifetime_limit=0.99, reentry_window=60)
    equity, value = [100.0], 100.0
    for _ in range(5):
        value *= 0.80
        equity += [value] * 80
    reads, _ = run(equity, p)
    assert column(reads, "reentered").sum() == 5 and not column(reads, "operator_needed").any()


def test_lifetime_drawdown_is_flatten_and_waits_for_an_operator():
    equity = np.concatenate([np.linspace(100, 86, 40), np.full(200, 86.0), np.linspace(86, 74.9, 300)])
    p = CALM._replace(flat_at=0.9, floor_at=0.8, no_new=0.85, throttle_at=0.8)  # nothing else in the way
    reads, state = run(equity, p)
    trip = int(np.flatnonzero(column(reads, "operator_needed"))[0])
    assert float(reads[trip].dd_lifetime) >= 0.25 - 1e-10 and float(reads[trip - 1].dd_lifetime) < 0.25
    assert bool(reads[trip].tripped) and int(reads[-1].tier) == FLATTEN
    too_soon, _ = run(equity[:trip + 1], p, re_arm={trip})
    assert bool(too_soon[-1].operator_needed)  # a re-arm answers a stop that was seen
    reads, state = run(np.append(equity, equity[-1]), p, re_arm={len(equity)})
    assert not reads[-1].flat and float(reads[-1].dd_lifetime) == 0.0


def test_daily_loss_is_flat_for_two_sessions_and_no_trip():
    reads, state = run([100.0, 97.0, 97.0, 97.0], DrawdownParams())
    assert column(reads, "flat").tolist() == [False, True, True, False]
    assert column(reads, "daily_loss").tolist() == [False, True, False, False]
    assert not column(reads, "tripped").any() and float(state.mark) == 100.0
    assert column(reads, "throttle").tolist() == [1, 0, 0, 1] and float(reads[1].multiplier) == 1.0
    reads, _ = run([100.0, 97.0 + 1e-6], DrawdownParams())
    assert not column(reads, "flat").any()


def test_daily_loss_is_measured_from_the_previous_close_at_every_slot():
    p = DrawdownParams()
    _, state = govern_drawdown(DrawdownState.initial(100.0), 100.0, 0.0, 0, p)
    _, state = govern_drawdown(state, 98.5, 0.0, 1, p)
    read, state = govern_drawdown(state, 96.9, 0.0, 1, p, new_session=False)
    assert bool(read.daily_loss) and float(read.session_loss) == pytest.approx(0.031)
    read, state = govern_drawdown(state, 99.0, 0.0, 1, p)  # the number says: same session
    assert bool(read.flat) and not read.daily_loss
    read, _ = govern_drawdown(state, 99.0, 0.0, 3, p)
    assert not read.flat


def test_missing_equity_holds_and_reduces():
    reads, state = run([100.0, 91.5])
    for missing in (np.nan, np.inf, -np.inf):
        read, after = govern_drawdown(state, missing, 7.0, 2, CALM)
        assert bool(read.equity_missing) and bool(read.reduce_only) and not read.equity_nonpositive
        assert float(read.equity_used) == 91.5 and float(read.multiplier) == float(reads[1].multiplier)
        assert float(after.mark) == 100.0 and float(after.pending_flow) == 7.0
        read, _ = govern_drawdown(after, 98.5, 0.0, 3, CALM)  # the flow of 7 is in it
        assert float(read.dd_raw) == pytest.approx(0.085) and not read.reduce_only


@pytest.mark.parametrize("value", [0.0, -5.0])
def test_no_equity_is_flat_and_marks_survive(value):
    _, state = run([100.0, 95.0])
    read, state = govern_drawdown(state, value, 0.0, 2, CALM)
    assert bool(read.flat) and bool(read.equity_nonpositive) and float(read.multiplier) == 0.0
    read, _ = govern_drawdown(state, 95.0, 0.0, 3, CALM)
    assert float(read.dd_raw) == pytest.approx(0.05) and not read.flat


def test_account_that_only_flows_keep_alive_is_a_total_loss():
    _, state = run([100.0, 95.0])
    read, _ = govern_drawdown(state, 50.0, 60.0, 2, CALM)
    assert float(read.dd_raw) == pytest.approx(1.0) and bool(read.operator_needed)


def test_governor_and_tiers_read_one_drawdown():
    reads, state = run([100.0, 87.5])
    read = reads[-1]
    assert float(read.dd_governed) == pytest.approx(0.125)
    assert float(read.multiplier) == 0.2 or float(read.multiplier) == pytest.approx(0.2)
    assert int(read.tier) == THROTTLE
    assert {f.name for f in fields(state)} >= {"mark", "tier", "multiplier", "throttle"}


def test_book_takes_both_cuts_and_never_grows():
    reads, _ = run([100.0, 87.5])
    governed, throttled = apply_governor([0.4, -0.2], reads[-1])
    np.testing.assert_allclose(governed, [0.08, -0.04])
    np.testing.assert_allclose(throttled, [0.04, -0.02])
    loud = reads[-1]._replace(throttle=np.float64(3.0))
    np.testing.assert_array_equal(*apply_governor([0.4, -0.2], loud))


def test_disabled_never_acts_but_still_measures():
    reads, _ = run([100.0, 60.0, 50.0], DrawdownParams(enabled=False))
    assert (column(reads, "multiplier") == 1).all() and (column(reads, "throttle") == 1).all()
    assert not column(reads, "flat").any() and float(reads[-1].dd_raw) == 0.5
    read, _ = govern_drawdown(DrawdownState.initial(1.0), -1.0, 0.0, 0, DrawdownParams(enabled=False))
    assert bool(read.flat)


def test_same_session_twice_decays_once():
    reads, state = run(np.concatenate([[100.0], np.full(25, 84.0)]))
    first, once = govern_drawdown(state, 84.0, 0.0, 26, CALM)
    second, twice = govern_drawdown(once, 84.0, 0.0, 26, CALM)
    assert float(first.multiplier) == float(second.multiplier) and float(once.mark) == float(twice.mark)


def test_missed_sessions_decay_at_the_next_one():
    equity = np.concatenate([[100.0], np.full(40, 84.0)])
    _, state = run(equity)
    full, _ = govern_drawdown(govern_drawdown(state, 84.0, 0.0, 41, CALM)[1], 84.0, 0.0, 42, CALM)
    late, _ = govern_drawdown(state, 84.0, 0.0, 42, CALM)
    assert float(late.multiplier) == pytest.approx(float(full.multiplier), abs=1e-12)


def test_bad_inputs_are_refused():
    with pytest.raises(InputError, match="equity must be positive"):
        DrawdownState.initial(0.0)
    with pytest.raises(InputError, match="flows must be finite") as error:
        govern_drawdown(DrawdownState.initial(1.0), 1.0, np.nan, 0, CALM)
    assert error.value.code == "NON_FINITE"


class Twin:
    """The same rules, one account, plain Python, written from the specification."""

    def __init__(self, equity, p):
        self.p, self.mark, self.true, self.last, self.close = p, equity, equity, equity, equity
        self.session, self.flat_until, self.daily, self.decays, self.calm = -1, None, -1, False, False
        self.entries, self.operator, self.tier, self.since, self.decayed = [], False, 0, 0, -1

    def step(self, v, s):
        p, a = self.p, max(1.0, p_ratio(self.p))
        r = lambda x: round(x, 10)
        if s > self.session:
            self.close = self.last
        self.session = s
        if self.decays and self.flat_until is None and s > self.decayed:
            self.mark = max(v, v + (self.mark - v) * 2 ** (-(s - self.decayed) / p.mark_half_life))
            self.decayed = s
        if v >= self.mark:
            self.mark, self.decays = v, False
        self.true = max(self.true, v)
        lifetime = r(1 - v / self.true - p.lifetime_limit) >= 0
        self.operator |= lifetime
        if self.flat_until is not None and s >= self.flat_until and not self.operator:
            if sum(s - e < p.reentry_window for e in self.entries) >= p.max_reentries:
                self.operator = True
            else:
                self.entries.append(s)
                self.flat_until, self.decays, self.decayed, self.calm, self.tier = None, True, s, True, 1
                self.mark = min(self.mark, v / (1 - p.floor_at / a))
        dd = (1 - v / self.mark) * a
        if r(dd - p.start) < 0:
            self.calm = False
        tier = 0
        for k, (level, strict) in enumerate([(p.warn, False), (p.throttle_at, True), (p.no_new, True)], start=1):
            level = level - (p.release if self.tier >= k else 0)
            if k == 2 and self.calm:
                continue
            if r(dd - level) > 0 or (not strict and r(dd - level) == 0):
                tier = k
        held = tier == 3 and self.tier == 3 and s - self.since >= p.no_new_sessions
        if self.flat_until is None and (r(dd - p.flat_at) >= 0 or held or lifetime):
            self.flat_until = s + p.flat_sessions
        if self.flat_until is not None:
            tier = 4
        if tier != self.tier or (self.entries and self.entries[-1] == s):
            self.since = s
        self.tier = tier
        if r(1 - v / self.close - p.daily_loss) >= 0:
            self.daily = s + 1
        self.last = v
        m = 1 - (1 - p.floor) * min(max((dd - p.start) / (p.floor_at - p.start), 0), 1)
        m = 0.0 if tier == 4 or r(dd - p.flat_at) >= 0 else m
        t = 0.0 if tier == 4 or s <= self.daily else (p.throttle_multiplier if tier >= 2 else 1.0)
        return m, t, tier, self.operator


def p_ratio(p):
    return p.reference_vol / p.vol_base


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_agrees_with_an_independent_twin(seed):
    rng = np.random.default_rng(seed)
    n, days = 6, 500
    vols = rng.choice([0.05, 0.08, 0.10, 0.12], n)
    equity = 100 * np.cumprod(1 + rng.normal(-0.0008, 0.008, (days, n)) * rng.choice([0.5, 1.0, 2.0], n), axis=0)
    p = DrawdownParams(vol_base=vols, lifetime_limit=rng.choice([0.25, 0.4, 0.9]), flat_sessions=int(rng.choice([5, 20])))
    state = DrawdownState.initial(equity[0], (n,))
    twins = [Twin(equity[0, i], p._replace(vol_base=float(vols[i]))) for i in range(n)]
    for s in range(days):
        read, state = govern_drawdown(state, equity[s], 0.0, s, p)
        expected = [t.step(equity[s, i], s) for i, t in enumerate(twins)]
        np.testing.assert_allclose(read.multiplier, [x[0] for x in expected], atol=1e-9, err_msg=str(s))
        np.testing.assert_allclose(read.throttle, [x[1] for x in expected], atol=0, err_msg=str(s))
        assert read.tier.tolist() == [x[2] for x in expected]
        assert read.operator_needed.tolist() == [x[3] for x in expected]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_configurations_do_not_touch_each_other(seed):
    rng = np.random.default_rng(seed)
    equity = 100 * np.cumprod(1 + rng.normal(-0.001, 0.02, (150, 5)), axis=0)
    equity[rng.random(equity.shape) < 0.02] = np.nan
    equity[0] = 100.0
    state = DrawdownState.initial(100.0, (5,))
    alone = [DrawdownState.initial(100.0) for _ in range(5)]
    for s in range(150):
        read, state = govern_drawdown(state, equity[s], 0.0, s, DrawdownParams())
        for i in range(5):
            one, alone[i] = govern_drawdown(alone[i], equity[s, i], 0.0, s, DrawdownParams())
            for name in read._fields:
                assert np.asarray(getattr(read, name))[i] == getattr(one, name), name
    assert (read.multiplier <= 1).all() and (read.throttle >= 0).all()
