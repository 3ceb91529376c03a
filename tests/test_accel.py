"""Compiled allocators against numpy: the same trees, the same weights, the same refusals, and a record of who answered."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pil_research import accel
from pil_research.allocators import allocate_batch, erc, hrp
from pil_research.allocators.engine import NUMPY, answer, engine, install
from pil_research.allocators.erc import erc_rows, risk_contributions
from pil_research.allocators.hrp import hrp_rows
from pil_research.types import ConfigError, InputError

needs_numba = pytest.mark.skipif(not accel.available(), reason="numba is not installed")


@pytest.fixture
def compiled() -> Iterator[None]:
    accel.use(True)
    yield
    accel.use(False)


def draw(rng: np.random.Generator, k: int, n: int = 30) -> np.ndarray:
    """A stack of covariances with very different volatilities."""
    x = rng.standard_normal((n, 4 * k + 8, k)) + rng.uniform(0.0, 1.5, (n, 1, 1)) * rng.standard_normal((n, 4 * k + 8, 1))
    x *= np.exp(rng.uniform(-3.0, 3.0, (n, 1, k)))
    cov = np.einsum("nti,ntj->nij", x, x) / x.shape[1]
    return 0.5 * (cov + cov.swapaxes(1, 2))


def both(call: object) -> tuple[np.ndarray, np.ndarray]:
    accel.use(False)
    plain = call()  # type: ignore[operator]
    accel.use(True)
    try:
        return plain, call()  # type: ignore[operator]
    finally:
        accel.use(False)


@needs_numba
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 12, 25, 40])
@pytest.mark.parametrize("options", [{}, {"variant": "paper"}, {"leaf_order": False}], ids=str)
def test_hrp_equals_numpy(k: int, options: dict[str, object]) -> None:
    stack = draw(np.random.default_rng(k), k)
    plain, fast = both(lambda: hrp(stack, **options))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)
    one, quick = both(lambda: hrp(stack[0], **options))
    np.testing.assert_allclose(quick, one, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(quick, fast[0])


@needs_numba
@pytest.mark.parametrize("k", [2, 3, 4, 7, 12, 26])
def test_ties_are_decided_alike(k: int) -> None:
    """Correlations from a handful of values, and duplicated sleeves: many trees are equally short."""
    rng = np.random.default_rng(k)
    levels = rng.choice([0.0, 0.25, 0.5], size=(60, k, k))
    cov = np.triu(levels, 1) + np.triu(levels, 1).swapaxes(1, 2) + np.eye(k) * (1.0 + 0.5 * k)
    cov[::3, 1], cov[::3, :, 1] = cov[::3, 0], cov[::3, :, 0]
    cov[::3, 1, 1] = cov[::3, 0, 0]
    cov = 0.5 * (cov + cov.swapaxes(1, 2))
    plain, fast = both(lambda: hrp_rows(cov))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)


@needs_numba
@pytest.mark.parametrize("k", [1, 2, 3, 5, 12, 40])
def test_erc_equals_numpy_and_meets_its_shares(k: int) -> None:
    rng = np.random.default_rng(100 + k)
    stack, budget = draw(rng, k), rng.uniform(0.5, 2.0, k)
    plain, fast = both(lambda: erc(stack))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)
    assert np.abs(k * risk_contributions(stack, fast) - 1.0).max() <= 1e-10
    plain, fast = both(lambda: erc(stack, budget=budget))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)


@needs_numba
def test_what_is_declined_goes_to_numpy(compiled: None) -> None:
    stack = draw(np.random.default_rng(3), 6, n=4)
    stack[1, 0, 1] *= 1.0 + 1e-12  # still symmetric for numpy's tolerance
    stack[2] = np.eye(6) - 0.5  # indefinite: no ERC
    assert np.isfinite(hrp_rows(stack[:2])).all() and np.isfinite(erc_rows(stack[:2])).all()
    rows = answer("erc", stack, np.full((4, 6), 1.0 / 6.0))
    assert rows is not None and np.isnan(rows[[1, 2]]).all() and np.isfinite(rows[[0, 3]]).all()
    for bad, code in ((np.full((3, 3), np.nan), "NON_FINITE"), (np.zeros((3, 3)), "NON_POSITIVE_VARIANCE"), (np.ones(3), "SHAPE"),
                      (np.array([[1.0, 0.5, 0.0], [0.1, 1.0, 0.0], [0.0, 0.0, 1.0]]), "NOT_SYMMETRIC")):
        for allocate in (hrp, erc):
            with pytest.raises(InputError) as caught:
                allocate(bad)
            assert caught.value.code == code
    with pytest.raises(InputError, match="semi-definite"):
        erc(stack[2])


@needs_numba
def test_the_ladder_and_masks_run_on_it(compiled: None) -> None:
    stack = draw(np.random.default_rng(4), 8, n=12)
    stack[5] = np.nan
    mask = np.ones((12, 8), dtype=bool)
    mask[::2, 3] = False
    fast = {m: allocate_batch(stack, m, active=mask) for m in ("hrp", "erc")}
    accel.use(False)
    for m, (weights, rung) in fast.items():
        plain, steps = allocate_batch(stack, m, active=mask)
        np.testing.assert_allclose(weights, plain, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(rung, steps)


@needs_numba
def test_the_switch_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine() == NUMPY and accel.from_environment() == NUMPY
    monkeypatch.setenv("PIL_ACCEL", "1")
    try:
        assert accel.from_environment().startswith("numba ") and engine().startswith("numba ")
    finally:
        assert accel.use(False) == NUMPY


def test_without_numba_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "available", lambda: False)
    with pytest.raises(ConfigError, match="accel"):
        accel.use(True)
    assert engine() == NUMPY


def test_nothing_is_compiled_unasked() -> None:
    code = "import sys, pil_research.integrator, pil_research.accel; print('numba' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False"]


def test_an_engine_can_be_any_code() -> None:
    try:
        assert install("half", {"hrp": lambda cov, *_: np.full(cov.shape[:2], 0.5)}) == NUMPY
        assert hrp(np.eye(2)).tolist() == [0.5, 0.5] and engine() == "half"
    finally:
        install(NUMPY, {})
