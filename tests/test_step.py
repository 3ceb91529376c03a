"""The pure step on arrays: purity, the last line, closed forms at K = 1 and 2, lots, hold, and the next state."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from books import CAPPED, FAST, Live, small_panel, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research import step as step_module
from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.passport import SYMBOL_STEPS, Passport
from pil_research.step import StepDecision, StepInputs, StepState, initial_state, stack_configs, step
from pil_research.types import BINDING, InputError, InvariantError

PANEL = small_panel(11)
Arguments = tuple[Any, StepState, StepInputs]


def arguments(days: int = 10, config: PILConfig = FAST, first: int = 100) -> Arguments:
    """What the integrator hands to `step` on the day after some ordinary days."""
    live, caught = Live(PANEL, config), []
    original = step_module.step

    def spy(p: Any, s: Any, x: Any) -> Any:
        caught.append((p, s, x))
        return original(p, s, x)

    import pil_research.integrator as module

    before, module.step = module.step, spy  # type: ignore[attr-defined]
    try:
        live.days(first, first + days)
    finally:
        module.step = before  # type: ignore[attr-defined]
    return caught[-1]


def arrays(x: Any, path: str = "") -> list[tuple[str, np.ndarray]]:
    out = []
    for name in x._fields if isinstance(x, tuple) else [f.name for f in fields(x)]:
        v = getattr(x, name)
        if isinstance(v, np.ndarray):
            out.append((path + name, v))
        elif hasattr(v, "__dataclass_fields__"):
            out += arrays(v, f"{path}{name}.")
    return out


def test_equal_arguments_give_equal_bits_and_nothing_is_changed() -> None:
    p, s, x = arguments()
    before = [(n, a.copy()) for n, a in arrays(s) + [y for y in arrays(x) if "risk" not in y[0]]]
    (d1, s1), (d2, s2) = step(p, s, x), step(p, s, x)
    for (n, a), (_, b) in zip(arrays(d1) + arrays(s1), arrays(d2) + arrays(s2), strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), n
    for (n, a), (_, b) in zip(before, arrays(s) + [y for y in arrays(x) if "risk" not in y[0]], strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), n


def test_shapes() -> None:
    d, s = step(*arguments())
    k, m = 4, 8
    for name, array in arrays(d):
        want = {1: (1,), 2: ((1, k), (1, m), (k, m), (1, 4), (1, len(BINDING)))}
        assert array.shape == want[1] or array.shape in want[2], name
    blank = initial_state(1, k, m, 1e6)
    for (name, a), (_, b) in zip(arrays(s), arrays(blank), strict=True):
        assert a.shape == b.shape and a.dtype.kind == b.dtype.kind, name


def test_a_step_at_a_hundred_configurations_is_a_hundred_steps() -> None:
    """The same state and inputs, a hundred different configurations, row by row <= 1e-12."""
    p, s, x = arguments()
    rng = np.random.default_rng(0)
    configs = [
        FAST.replace(
            **{
                "vol_target.target": float(rng.uniform(0.05, 0.2)),
                "caps.net": float(rng.uniform(0.1, 1.0)),
                "tilt.bound": float(rng.uniform(0.0, 0.5)),
                "turnover.band": float(rng.uniform(0.0, 0.02)),
                "sizing.kelly": float(rng.uniform(0.2, 1.0)),
                "turnover.gate": bool(rng.random() < 0.5),
            }
        )
        for _ in range(100)
    ]

    def widen(a: Any) -> Any:
        return np.repeat(a, 100, axis=0) if isinstance(a, np.ndarray) else a

    low = replace(s.drawdown, **{f.name: widen(getattr(s.drawdown, f.name)) for f in fields(s.drawdown)})
    wide = replace(
        s,
        **{f.name: widen(getattr(s, f.name)) for f in fields(s) if f.name not in ("drawdown", "session")},
        drawdown=low,
    )
    base = x.bases(np.ones((1, 4), dtype=bool))

    def bases(active: Any) -> Any:
        return replace(
            base,
            weights=np.repeat(base.weights, len(active), 0),
            erc=np.repeat(base.erc, len(active), 0),
            rung=np.repeat(base.rung, len(active)),
            rho=np.repeat(base.rho, len(active)),
        )

    many = replace(
        x,
        bases=bases,
        equity=widen(x.equity),
        flow=widen(x.flow),
        exposures_now=widen(x.exposures_now),
        allocate=widen(x.allocate),
    )
    d, after = step(stack_configs(configs), wide, many)
    for i in range(0, 100, 9):
        one, alone = step(stack_configs([configs[i]]), s, replace(x, bases=bases))
        for name in ("exposures", "ramped", "netted", "vol_scaled", "capped", "governed", "gated", "recapped"):
            np.testing.assert_allclose(getattr(d, name)[i], getattr(one, name)[0], rtol=0, atol=1e-12, err_msg=name)
        assert (d.bound[i] == one.bound[0]).all()
        np.testing.assert_allclose(after.smoothed[i], alone.smoothed[0], rtol=0, atol=1e-12)


# ---------------------------------------------------------------- small K


@pytest.mark.parametrize(("k", "want"), [(1, [1.0]), (2, None)])
def test_one_and_two_sleeves(k: int, want: list[float] | None) -> None:
    """K = 1: everything, since the cap is relaxed to 1/K. K = 2: the relaxed cap of 1/2 decides."""
    d = PortfolioIntegrator(FAST).build_target_book(snapshot(small_panel(k=k), 150))
    np.testing.assert_allclose(d.sleeve_weights, want or [0.5, 0.5], atol=1e-12)
    assert "CAP_RELAXED" in {str(a.code) for a in d.alarms}
    base = d.passport.sleeve_path()[0]
    assert base.sum() == pytest.approx(1.0, abs=1e-12)
    if k == 2:  # two equal volatilities: HRP is inverse variance, and so nearly equal
        assert abs(base[0] - 0.5) < 0.2


def test_the_tilt_stays_inside_its_bound_and_caps_hold_after_every_step() -> None:
    live = Live(PANEL, FAST.replace(**{"tilt.warm_up": 0, "allocation.sleeve_cap": 0.26}))
    for row in range(100, 140):
        d = live.day(row).passport.decision
        ratio = d.tilted[0] / d.base[0]
        assert ratio.min() >= 0.75 - 1e-12 and ratio.max() <= 1.25 + 1e-12
        for w in (d.target, d.smoothed, d.applied, d.ramped):
            assert w.max() <= 0.26 + 1e-12 and w.min() >= 0.0 and w.sum() <= 1.0 + 1e-12


def test_smoothing_is_bounded() -> None:
    """Invariant 36: |a_t - a_{t-1}| <= 2 (1 - lambda) in L1; and the applied vector waits for 2 points."""
    live, old = Live(PANEL), None
    for row in range(100, 150):
        d = live.day(row).passport.decision
        if old is not None:
            assert np.abs(d.smoothed - old.smoothed).sum() <= 2.0 * 0.2 + 1e-12
            moved = not (d.applied == old.applied).all()
            assert moved == (np.abs(d.smoothed - old.applied).max() > 0.02 + 1e-10)
        old = d


# ---------------------------------------------------------------- last line, hold, lots


def test_the_last_line_refuses_a_book_above_its_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the cure failed, the step must raise rather than hand out the book."""
    p, s, x = arguments(config=CAPPED)
    original = step_module.caps.cure_within
    monkeypatch.setattr(
        step_module.caps, "cure_within", lambda book, *a: original(book, *a)._replace(book=book * 0.0 + 5.0)
    )
    with pytest.raises(InvariantError, match=".") as caught:
        step(p, s, x)
    assert caught.value.code and caught.value.limit is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_last_line_refuses_what_is_not_finite(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    p, s, x = arguments()
    original = step_module.caps.cure_within
    monkeypatch.setattr(
        step_module.caps, "cure_within", lambda book, *a: original(book, *a)._replace(book=book * 0.0 + bad)
    )
    with np.errstate(all="ignore"), pytest.raises((InvariantError, InputError), match="."):
        step(p, s, x)


def test_risk_that_is_not_a_number_holds() -> None:
    p, s, x = arguments()

    class Blind:
        def __init__(self, risk: Any) -> None:
            self.known, self.sd, self.inner = risk.known, risk.sd, risk

        def variance(self, w: np.ndarray) -> np.ndarray:
            return np.full(np.asarray(w).shape[:-1], np.nan)

        def stressed_vol(self, w: np.ndarray) -> np.ndarray:
            return self.inner.stressed_vol(w)

    d, _ = step(p, s, replace(x, estimates=replace(x.estimates, risk=Blind(x.estimates.risk))))  # type: ignore[arg-type]
    assert d.hold[0] and d.reduce_only[0]
    assert (np.abs(d.exposures) <= np.abs(x.exposures_now) + 1e-15).all() and (
        d.exposures * x.exposures_now >= 0.0
    ).all()
    assert np.abs(d.exposures).sum() > 0.5 * np.abs(x.exposures_now).sum()
    assert any(a.code == "RISK_UNAVAILABLE" and a.mask.all() for a in d.alarms)


def test_hold_follows_the_haircut_down_and_never_up() -> None:
    p, s, x = arguments()
    for before, now in ((1.0, 0.4), (0.4, 1.0), (1.0, 1.0)):
        state = replace(s, haircut=np.array([before]))
        loss = {1.0: 0.0, 0.4: 0.05 + 0.07 * 0.6 / 0.8}[now]
        mark = x.equity / (1.0 - loss)
        low = replace(state.drawdown, mark=mark, true_mark=mark, equity=x.equity, close=x.equity)
        d, _ = step(p, replace(state, drawdown=low), replace(x, sleeves_absent=True))
        assert d.governor[0] == pytest.approx(now, abs=1e-9)
        np.testing.assert_allclose(d.exposures, x.exposures_now * min(1.0, now / before), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.001, 0.2))
def test_whole_lots_stay_whole_and_under_the_caps(seed: int, lot: float) -> None:
    p, s, x = ARGS
    rng = np.random.default_rng(seed)
    sizes = lot * rng.uniform(0.2, 1.0, (1, 8))
    now = np.round(rng.standard_normal((1, 8)) * 0.05 / sizes) * sizes
    d, _ = step(p, s, replace(x, lot=sizes, exposures_now=now))
    traded = d.exposures != now
    lots = d.exposures[traded] / sizes[traded]
    np.testing.assert_allclose(lots, np.round(lots), atol=1e-9)
    w = 2.0 * d.exposures[0]
    assert np.abs(w).max() <= 0.12 * 1.1 + 1e-9 and np.abs(w).sum() <= 2.2 + 1e-9


ARGS = arguments(config=CAPPED)
HELD = arguments(config=CAPPED.replace(**{"caps.net": 0.3}))  # of the book; with drift 0.33, half of it in exposures


def test_dust_that_offset_the_rest_is_not_closed_at_the_price_of_the_net_cap() -> None:
    p, s, x = HELD
    now = np.array([[0.0553, 0.0553, 0.0553, -0.001, 0.0, 0.0, 0.0, 0.0]])  # net 0.1649 of at most 0.165
    d, _ = step(p, s, replace(x, exposures_now=now, sleeves_absent=True))
    assert d.recapped[0] == pytest.approx(now[0]) and d.exposures[0, 3] == 0.0
    assert 2.0 * d.exposures.sum() == pytest.approx(0.3) and (d.exposures <= now + 0.001).all()
    assert d.bound[0, BINDING.index("net")]
    assert d.rounded[0] == pytest.approx([0.0553, 0.0553, 0.0553, 0.0, 0.0, 0.0, 0.0, 0.0])  # before the repair


def test_the_passport_tells_rounding_from_its_repair() -> None:
    p, s, x = HELD
    now = np.array([[0.06, -0.03, -0.03, 0.09, -0.09, 0.06, 0.0, 0.06]])
    d, _ = step(p, s, replace(x, lot=np.full((1, 8), 0.03), exposures_now=now))
    path = dict(zip(SYMBOL_STEPS, Passport(d, [f"S{i}" for i in range(8)], [f"s{i}" for i in range(d.base.shape[-1])])
                    .symbol_path(), strict=True))
    assert (path["lot"] == d.rounded[0]).all() and (path["repair"] == d.exposures[0]).all()
    assert 2.0 * abs(path["repair"].sum()) <= 0.33 + 1e-9
    moved = np.abs(path["repair"] - path["lot"])
    assert moved.max() > 0.02
    np.testing.assert_allclose(moved / 0.03, np.round(moved / 0.03), atol=1e-9)  # in whole lots


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_dust_closed_at_the_net_cap_leaves_every_cap_kept(seed: int) -> None:
    p, s, x = HELD
    rng = np.random.default_rng(seed)
    now = rng.choice([0.0003, 0.0008, 0.0011, 0.03, 0.05], (1, 8)) * rng.choice([1.0, 1.0, -1.0], (1, 8))
    now *= min(1.0, float(rng.uniform(0.1649, 0.1651) / max(abs(now.sum()), 1e-9)))
    d, _ = step(p, s, replace(x, exposures_now=now, sleeves_absent=True))  # holds: nothing else trades
    assert abs(d.exposures.sum()) <= 0.165 + 1e-9 and np.abs(d.exposures).max() <= 0.066 + 1e-9
    assert (np.abs(d.exposures) <= np.abs(now) + 1e-15).all()


def test_the_next_state_is_what_was_decided() -> None:
    p, s, x = arguments()
    d, after = step(p, s, x)
    for name in ("base", "tilted", "target", "smoothed", "applied", "exposures", "tier"):
        assert (getattr(after, name) == getattr(d, name)).all(), name
    assert (
        (after.haircut == d.governor * d.throttle).all()
        and (after.bound == d.bound).all()
        and after.session == x.session
    )
    assert isinstance(d, StepDecision) and d.bound.shape[-1] == len(BINDING)


def test_kill_is_an_exact_zero_for_any_inputs() -> None:
    p, s, x = arguments()
    for change in ({}, {"sleeves_absent": True}, {"allocate": np.array([False])}, {"equity": np.array([np.nan])}):
        d, _ = step(p, s, replace(x, kill_book=True, **change))
        assert (d.exposures == 0.0).all() and d.throttle[0] == 0.0


def test_a_volatility_target_switched_off_for_one_configuration_only() -> None:
    on, off = FAST, FAST.replace(**{"vol_target.enabled": False})
    _, s, x = arguments()
    alone = [step(stack_configs([c]), s, x)[0] for c in (on, off)]

    def twice(v: Any) -> Any:
        return np.concatenate([v, v])

    low = type(s.drawdown)(**{f.name: twice(getattr(s.drawdown, f.name)) for f in fields(s.drawdown)})
    s2 = replace(s, drawdown=low, **{f.name: twice(getattr(s, f.name)) for f in fields(s)
                                     if isinstance(getattr(s, f.name), np.ndarray)})
    x2 = replace(x, allocate=twice(x.allocate), equity=twice(x.equity), flow=twice(x.flow), exposures_now=twice(x.exposures_now))
    both, _ = step(stack_configs([on, off]), s2, x2)
    assert both.leverage[1] == 1.0 != both.leverage[0]
    for i, d in enumerate(alone):
        np.testing.assert_allclose(both.exposures[i], d.exposures[0], rtol=0, atol=1e-12)
