"""Sizing: Kelly, once."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pil_research.stages.sizing import book_equivalent, haircut, size_exposures
from pil_research.types import InputError

BOOK = np.array([0.12, -0.08, 0.40])


def test_half_kelly_once():
    np.testing.assert_array_equal(size_exposures(BOOK, 0.5), BOOK * 0.5)
    np.testing.assert_allclose(size_exposures(BOOK, 0.5, 0.8), BOOK * 0.4)
    np.testing.assert_allclose(size_exposures(np.stack([BOOK, BOOK]), np.array([0.5, 0.25])), [BOOK / 2, BOOK / 4])


@settings(max_examples=60, deadline=None)
@given(arrays(float, 4, elements=st.floats(-3, 3)), st.floats(0.01, 1.0), st.floats(0.1, 1.0))
def test_there_and_back(book, kelly, fraction):
    back = book_equivalent(size_exposures(book, kelly, fraction), kelly, fraction)
    np.testing.assert_allclose(back, book, rtol=1e-15, atol=1e-300)


@pytest.mark.parametrize(("kelly", "fraction"), [(0.0, 1.0), (-0.5, 1.0), (np.nan, 1.0), (0.5, np.inf), (0.5, 0.0)])
def test_no_equivalent_of_nothing(kelly, fraction):
    with pytest.raises(InputError, match="must be positive") as caught:
        book_equivalent(BOOK, kelly, fraction)
    assert caught.value.code == "BAD_SIZING"


def test_haircut():
    np.testing.assert_allclose(haircut(0.6, 0.5, 0.5), 0.15)
    assert haircut(1.0, 3.0, 0.5) == 0.5
    assert haircut(1.0, -1.0, 0.5) == 0.0
    assert haircut(1.0, np.nan, 0.5) == 0.0
    np.testing.assert_allclose(haircut(np.array([1.0, 0.2]), 1.0, np.array([0.5, 1.0])), [0.5, 0.2])


def _check_kelly(fractions, expected):
    for c in fractions:
        exposure = float(size_exposures(np.array([1.0]), c)[0])  # full Kelly held at a fraction c
        np.testing.assert_allclose(exposure * (2 - exposure), expected["growth_share"][f"{c:g}"], atol=1e-12)
        np.testing.assert_allclose(exposure, expected["vol_share"][f"{c:g}"], atol=1e-12)


def test_growth_and_volatility_of_fractional_kelly():
    """Thorp (2006): g(c f*) / g(f*) = c (2 - c), volatility c."""
    _check_kelly([0.25, 0.5, 0.75, 1], {"growth_share": {"0.25": 0.4375, "0.5": 0.75, "0.75": 0.9375, "1": 1.0},
                                        "vol_share": {"0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "1": 1.0}})


@pytest.mark.skipif("PIL_ORACLES" not in os.environ, reason="PIL_ORACLES names no folder of published numbers")
def test_kelly_oracle_folder():
    cases = json.loads((Path(os.environ["PIL_ORACLES"]) / "kelly.json").read_text())["cases"]
    for case in cases:
        if "growth_share" in case["expected"]:
            _check_kelly(case["input"]["c"], case["expected"])
