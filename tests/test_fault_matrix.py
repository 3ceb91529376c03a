"""The fault matrix as an index: every row names the tests that prove it, and the rows that had none are here."""

# ruff: noqa: E501 (tables of faults and tests)
from __future__ import annotations

import ast
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from books import FAST, Live, codes, gross, small_panel, snapshot

from pil_research.integrator import PortfolioIntegrator
from pil_research.types import BookState, ConfigError, InputError, StateError

HERE = Path(__file__).parent
PANEL, ROW = small_panel(21), 150

MATRIX: dict[str, tuple[str, ...]] = {
    "not finite in a sleeve's weights": (
        "faults::test_non_finite_sleeve_is_held",
        "integrator::test_a_lost_sleeve_never_adds_risk",
    ),
    "missing returns, up to 5 %": (
        "faults::test_missing_returns_never_raise_a_sleeve",
        "sleeve_returns::test_missing_is_never_zero_and_never_lowers_risk",
    ),
    "missing returns, more or in the last row; infinite": (
        "fault_matrix::test_a_last_row_that_is_missing",
        "faults::test_refused_with_code_and_field",
    ),
    "a return beyond ten deviations, or -100 %": (
        "alarms::test_a_return_beyond_ten_deviations_names_its_symbol",
        "fault_matrix::test_a_return_no_market_makes_is_refused",
    ),
    "empty sleeve": ("faults::test_flat_sleeve_is_cash",),
    "a sleeve without variance": ("faults::test_a_dead_feed_is_quarantined",),
    "frozen values": ("stage_sleeves::test_each_reason", "stage_sleeves::test_a_holiday_does_not_hide_a_frozen_feed"),
    "duplicates": ("faults::test_refused_with_code_and_field",),
    "unknown symbol": ("faults::test_a_symbol_nobody_knows",),
    "price not positive": (
        "faults::test_unusable_prices",
        "faults::test_a_held_wrapper_without_a_price_freezes_its_primary",
    ),
    "stale input": (
        "session::test_each_input_ages_by_itself",
        "session::test_a_stale_sleeve_is_a_missing_sleeve",
        "session::test_late_bars_hold",
    ),
    "time in the future": ("session::test_an_input_from_the_future_holds", "faults::test_refused_with_code_and_field"),
    "duplicated, unsorted or naive index": ("faults::test_refused_with_code_and_field",),
    "dates that are no sessions, clock changes, missing slots": (
        "calendar::test_days_without_slots_are_typed_errors",
        "calendar::test_clock_changes_keep_local_time",
        "session::test_a_missed_slot_is_caught_up_once_before_the_close",
    ),
    "sleeve with too few observations": ("faults::test_young_sleeves_wait_and_do_not_truncate_the_others",),
    "near-duplicate sleeves": (
        "faults::test_clones_and_mirror_images_of_a_sleeve",
        "hrp::test_last_bit_noise_on_clones_changes_nothing",
    ),
    "perfectly anti-correlated sleeves": ("faults::test_clones_and_mirror_images_of_a_sleeve",),
    "one sleeve": ("step::test_one_and_two_sleeves",),
    "no sleeves": (
        "integrator::test_absent_list_holds_and_reduces_only",
        "integrator::test_confirmed_empty_list_closes_out",
    ),
    "caps that cannot place everything": (
        "stage_allocation::test_common_cap",
        "stage_allocation::test_water_filling_known_cases",
    ),
    "no asset covariance for a symbol": ("faults::test_a_symbol_without_risk_is_dropped_and_only_shrinks",),
    "covariance that is none": ("covariance::test_always_a_covariance", "covariance::test_repair_keeps_the_diagonal"),
    "ex-ante volatility zero or not a number": (
        "faults::test_no_variance_at_all_is_no_leverage",
        "step::test_risk_that_is_not_a_number_holds",
    ),
    "equity missing, not positive, or jumping": (
        "faults::test_equity_faults",
        "alarms::test_equity_that_jumps_without_a_flow",
        "fault_matrix::test_equity_next_to_nothing_is_none",
    ),
    "high-water mark below equity, missing or NaN": ("fault_matrix::test_a_state_that_cannot_be_is_refused",),
    "throttle outside [0, 1], unknown kill tier": (
        "fault_matrix::test_a_state_that_cannot_be_is_refused",
        "integrator::test_an_unreadable_kill_state_counts_as_set",
    ),
    "operator kill": (
        "session::test_a_killed_book_is_flat_whatever_else_fails",
        "session::test_a_killed_book_is_flat_whatever_the_snapshot_says",
        "session::test_the_kill_file_flattens_the_next_decision_and_latches",
    ),
    "state truncated or flipped": (
        "store::test_no_damaged_store_is_believed",
        "store::test_damage_is_moved_aside_and_never_defaulted",
    ),
    "older schema": ("store::test_migrations_are_pure_steps", "replay::test_a_store_of_every_version_opens_for_ever"),
    "newer schema": ("store::test_a_newer_store_is_refused_and_left_alone",),
    "state behind the journal": (
        "store::test_a_careful_edit_is_still_damage",
        "store::test_kill_at_write_points_loses_nothing_acknowledged",
    ),
    "crash between compute and persist": ("session::test_a_killed_account_ends_like_one_that_lived",),
    "crash between persist and publish": ("session::test_asking_twice_gives_the_first_answer",),
    "two daemons": ("store::test_a_second_writer_is_refused_at_once", "store::test_concurrent_writers_lose_nothing"),
    "clock backwards or far ahead": (
        "session::test_a_clock_that_went_back_holds",
        "session::test_a_clock_that_jumped_ahead_is_refused",
    ),
    "disk full, I/O error": (
        "store::test_a_full_disk_writes_nothing_and_recovers",
        "store::test_short_writes_at_any_offset",
        "store::test_an_error_at_any_statement",
    ),
    "configuration": (
        "config::test_every_typo_of_every_key_is_refused",
        "config::test_range_boundaries",
        "config::test_cross_field_rules",
        "fault_matrix::test_numbers_next_to_an_open_end_are_refused",
    ),
    "loose YAML and JSON": ("config::test_bad_files", "security::test_loose_text_is_refused"),
    "pickles and object arrays": (
        "security::test_the_package_unpickles_and_evaluates_nothing",
        "security::test_archived_bytes_are_never_objects",
    ),
    "papermill names": (
        "security::test_parameters_cannot_inject",
        "report::test_parameters_are_checked_before_anything_runs",
    ),
    "python -O": ("security::test_core_faults_without_asserts",),
    "inputs and outputs changed by the caller": (
        "integrator::test_no_input_is_changed",
        "integrator::test_decisions_are_values",
    ),
}


@cache
def named_in(name: str) -> frozenset[str]:
    """Names of the test functions and test values of a file."""
    tree = ast.parse((HERE / f"test_{name}.py").read_text(encoding="utf-8"))
    made = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    return frozenset(
        made | {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    )


@pytest.mark.parametrize("row", MATRIX)
def test_every_row_has_a_test_that_exists(row: str) -> None:
    assert MATRIX[row]
    for node in MATRIX[row]:
        file, _, name = node.partition("::")
        assert name in named_in(file), f"{row}: tests/test_{file}.py has no {name}"


def test_the_matrix_is_whole() -> None:
    assert len(MATRIX) == 42


# ---------------------------------------------------------------- rows that had no test


def test_a_last_row_that_is_missing() -> None:
    """No quote for one symbol, or for all, on the last day: decided, never as a zero return, never with more risk."""
    for columns in ([3], list(range(8))):
        live = Live(PANEL)
        live.days(ROW - 4, ROW - 1)
        returns = PANEL.returns.iloc[:ROW].copy()
        returns.iloc[-1, columns] = np.nan
        held = float((live.positions / live.equity).abs().sum())
        d = live.day(ROW, change=lambda s, r=returns: replace(s, asset_returns=r), earn=False)  # type: ignore[misc]
        assert np.isfinite(d.exposures).all() and gross(d) <= held * 1.6 + 0.2


@pytest.mark.parametrize("value", [1.1e6, -2e6, 1e150, 1.7e308])
def test_a_return_no_market_makes_is_refused(value: float) -> None:
    """A number whose square is no number must not reach the estimators."""
    made = snapshot(PANEL, ROW)
    returns = made.asset_returns.copy()
    returns.iloc[40, 2] = value
    with pytest.raises(InputError, match="no market makes") as no:
        PortfolioIntegrator(FAST).build_target_book(replace(made, asset_returns=returns))
    assert (no.value.code, no.value.field, no.value.subject) == ("BAD_RETURN", "asset_returns", "S02")
    for fine in (-1.27, 5.0, 1e5):
        returns.iloc[40, 2] = fine
        d = PortfolioIntegrator(FAST).build_target_book(replace(made, asset_returns=returns))
        assert np.isfinite(d.exposures).all()


@pytest.mark.parametrize("equity", [5e-324, 1e-300, 9e-7])
def test_equity_next_to_nothing_is_none(equity: float) -> None:
    d = PortfolioIntegrator(FAST).build_target_book(
        snapshot(PANEL, ROW, equity=equity, positions=pd.Series({"S01": 5e5}))
    )
    assert "EQUITY_NONPOSITIVE" in codes(d) and gross(d) == 0.0 and all(np.isfinite(o.quantity) for o in d.orders)


def stored() -> dict[str, Any]:
    live = Live(PANEL)
    live.days(ROW - 3, ROW - 1)
    return json.loads(json.dumps(live.integrator.state.to_dict()))


STATES: dict[str, Any] = {
    "mark missing": lambda v: v["drawdown"].pop("mark"),
    "mark NaN": lambda v: v["drawdown"].update(mark=[None]),
    "mark below equity": lambda v: v["drawdown"].update(mark=[v["drawdown"]["equity"][0] * 0.9]),
    "true mark below equity": lambda v: v["drawdown"].update(true_mark=[1.0]),
    "mark infinite": lambda v: v["drawdown"].update(mark=["inf"]),
    "throttle above one": lambda v: v["drawdown"].update(throttle=[1.5]),
    "throttle negative": lambda v: v["drawdown"].update(throttle=[-0.1]),
    "governor above one": lambda v: v["drawdown"].update(multiplier=[2.0]),
    "haircut NaN": lambda v: v.update(haircut=[None]),
    "unknown kill tier": lambda v: v["drawdown"].update(tier=[9]),
    "kill tier as text": lambda v: v["drawdown"].update(tier=["NONE"]),
    "unknown capital tier": lambda v: v.update(tier=[7]),
    "capital tier broken": lambda v: v.update(tier=[1.5]),
    "sleeve state unknown": lambda v: v.update(sleeve_state=[[9] * 4]),
    "sleeve weight above one": lambda v: v.update(applied=[[5.0, 0, 0, 0]]),
    "sleeve weight negative": lambda v: v.update(smoothed=[[-0.5, 0.5, 0.5, 0.5]]),
    "another length": lambda v: v.update(applied=[[0.25] * 3]),
    "exposure NaN": lambda v: v.update(exposures=[[None] * 8]),
    "flag as number": lambda v: v["drawdown"].update(flat=[3]),
    "session as text": lambda v: v.update(session="x"),
    "session true": lambda v: v.update(session=True),
    "clusters of text": lambda v: v.update(clusters=["2020-07", ["a"]]),
    "number beyond the floats": lambda v: v.update(haircut=[10**400]),
}


@pytest.mark.parametrize("how", STATES)
def test_a_state_that_cannot_be_is_refused(how: str) -> None:
    """Never reset, never clipped: unknown means that somebody has to look."""
    told = stored()
    STATES[how](told["values"])
    with pytest.raises(StateError) as no:
        PortfolioIntegrator(FAST, BookState.from_dict(told))
    assert no.value.code == "BAD_STATE" and "restore" in str(no.value)


@pytest.mark.parametrize(
    "change",
    [
        {"symbols": ["B", "A"]},
        {"sleeve_ids": [1]},
        {"last_session": "soon"},
        {"seq": -1},
        {"seq": "4"},
        {"last_decision": "x"},
        {"config_fingerprint": 5},
    ],
)
def test_labels_of_a_state_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(StateError):
        PortfolioIntegrator(FAST, BookState.from_dict({**stored(), **change}))


def test_a_sound_state_is_accepted() -> None:
    state = BookState.from_dict(stored())
    assert PortfolioIntegrator(FAST, state).state == state


@pytest.mark.parametrize("key", ["sizing.kelly", "vol_target.target", "caps.name", "sleeves.vol_floor"])
def test_numbers_next_to_an_open_end_are_refused(key: str) -> None:
    """(0, 1] does not mean 5e-324: the inverse would be no number."""
    for bad in (5e-324, 1e-300, 9.9e-7, 10**400):
        with pytest.raises(ConfigError) as no:
            FAST.replace(**{key: bad})
        assert no.value.field == key
