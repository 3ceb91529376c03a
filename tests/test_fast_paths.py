"""What a quiet live day skips gives, to the last bit, what the general way gives."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.allocators.simple import FAULTS, covariance_faults
from pil_research.border import check_snapshot
from pil_research.estimate import History
from pil_research.estimators.skill import skill_from_steps
from pil_research.types import InputError, Sleeve, Snapshot

NAMES = pd.Index(["A", "B", "C"], dtype=object)


def snapshot(*weights: pd.Series, positions: pd.Series | None = None) -> Snapshot:
    day = pd.Timestamp("2024-05-06")
    return Snapshot(session=day, slot="15:30", decided_at=day.tz_localize("UTC") + pd.Timedelta(hours=20), asset_returns=None,
                    sleeves=tuple(Sleeve(id=f"s{i}", weights=w) for i, w in enumerate(weights)), equity=1e6, positions=positions)


@pytest.mark.parametrize(("bad", "code"), [
    (pd.Series(["x", "y", "z"], index=NAMES, dtype=object), "BAD_TYPE"),
    (pd.Series([True, False, True], index=NAMES), "BAD_TYPE"),
    (pd.Series([1.0, 2.0], index=pd.Index(["A", "A"], dtype=object)), "DUPLICATE_INDEX"),
    (pd.Series([1.0, 2.0], index=[1, 2]), "BAD_NAME")])
def test_a_bad_table_among_good_ones_is_found(bad: pd.Series, code: str) -> None:
    good = pd.Series([1.0, 0.0, -1.0], index=NAMES)
    check_snapshot(snapshot(good, good, positions=good))
    for place in range(3):
        tables = [good, good]
        tables.insert(place, bad)
        with pytest.raises(InputError) as e:
            check_snapshot(snapshot(*tables, positions=good))
        assert (e.value.code, e.value.subject) == (code, f"s{place}")


@pytest.mark.parametrize(("gap", "fault"), [(0.0, "ok"), (5e-11, "ok"), (-5e-11, "ok"), (1e-8, "NOT_SYMMETRIC")])
def test_rounding_errors_do_not_make_a_matrix_asymmetric(gap: float, fault: str) -> None:
    cov = np.array([[0.04, 0.01], [0.01 + gap, 0.09]])
    alone = covariance_faults(cov[None])
    beside = covariance_faults(np.stack([cov, np.full((2, 2), np.nan)]))  # the general way
    assert FAULTS[alone[0]] == FAULTS[beside[0]] == fault
    assert FAULTS[beside[1]] == "NON_FINITE"


@given(st.integers(0, 2**32 - 1), st.integers(6, 24))
@settings(max_examples=60, deadline=None)
def test_complete_evidence_scores_as_beside_gaps(seed: int, n: int) -> None:
    ics = np.random.default_rng(seed).normal(0.02, 0.1, (4, n))
    holes = np.where(np.arange(n) % 3 == 0, np.nan, ics)
    alone, mixed = skill_from_steps(ics), skill_from_steps(np.concatenate([ics, holes]))
    for a, b in zip(alone, mixed, strict=True):
        np.testing.assert_array_equal(a, b[:4])


def test_a_history_shows_the_bar_that_was_just_added() -> None:
    rng, days = np.random.default_rng(0), np.datetime64("2024-01-01") + np.arange(400)
    returns, targets = rng.normal(0.0, 0.01, (400, 3)), rng.normal(size=(400, 2, 3))
    grown = History(["A", "B", "C"], ["x", "y"], returns[:5], targets[:5], days[:5])
    for i in range(5, 400):  # beyond its first buffer
        assert len(grown.dates) == len(grown.returns) == i
        grown.append(days[i], returns[i], targets[i])
    whole = History(["A", "B", "C"], ["x", "y"], returns, targets, days)
    for name in ("dates", "returns", "unit", "gap", "issue", "heard", "known"):
        np.testing.assert_array_equal(getattr(grown, name), getattr(whole, name))
    with pytest.raises(AttributeError):
        _ = grown.nothing
