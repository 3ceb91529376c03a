"""One slot at a time: kills first, nothing traded on bad inputs, nothing returned before it is durable, nothing twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from desk import DAILY, DAYS, FOUR, LIMITS, NAMES, Desk, adds, codes, gross, history

from pil_research.integrator import PortfolioIntegrator, decision_from_dict
from pil_research.live import LiveSession, StateStore, replay
from pil_research.live.archive import whole_decision
from pil_research.live.memory import book_values
from pil_research.live.payload import canonical
from pil_research.types import InputError, InvariantError, Kills, Operator, Snapshot, StateError

ROW = 200


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Two ordinary sessions old, fully invested."""
    made = Desk(tmp_path / "store" / "book.db", kill_file=tmp_path / "KILL")
    made.run(ROW, ROW + 1)
    assert gross(made.session.on_slot(made.snapshot(ROW + 1))) > 0.2
    return made


def refused(desk: Desk, made: Snapshot) -> str:
    """A question that is wrong: typed, and nothing moved."""
    seq, state = desk.store.seq, desk.session.state
    with pytest.raises(InputError) as no:
        desk.session.on_slot(made)
    assert desk.store.seq == seq and desk.session.state == state and no.value.field
    return no.value.code


# ---------------------------------------------------------------- an ordinary life


def test_the_session_adds_nothing_to_the_integrator(tmp_path: Path) -> None:
    """One code path: the live book is the integrator's, bit for bit, with frames or with a growing history."""
    desks = [Desk(tmp_path / str(f) / "book.db", frames=f) for f in (False, True)]
    plain, positions = PortfolioIntegrator(DAILY), desks[0].positions
    for row in range(ROW, ROW + 6):
        made = replace(desks[0].snapshot(row), positions=positions, asset_returns=desks[1].snapshot(row).asset_returns,
                       sleeves=desks[1].snapshot(row).sleeves)
        want = plain.build_target_book(made)
        for desk in desks:
            got = desk.session.on_slot(desk.snapshot(row))
            desk.fill(got)
            assert got.exposures.to_numpy().tobytes() == want.exposures.to_numpy().tobytes() and got.id == want.id
            assert got.status == "ok" and got.to_dict()["orders"] == want.to_dict()["orders"]
        positions = desks[0].positions
    assert desks[0].store.seq == 6 and [d.session.state for d in desks][0] == plain.state


def test_asking_twice_gives_the_first_answer(desk: Desk) -> None:
    """Incident 12: one row, one step, however often; also after a restart, also for an old decision."""
    first = desk.session.on_slot(desk.snapshot(ROW + 2))
    seq, state = desk.store.seq, desk.session.state
    for restart in (False, False, True, False):
        if restart:
            desk.restart()
        again = desk.session.on_slot(desk.snapshot(ROW + 2))
        assert again.exposures.to_numpy().tobytes() == first.exposures.to_numpy().tobytes() and again.seq == first.seq == seq
        assert [o.quantity for o in again.orders] == [o.quantity for o in first.orders]
        assert codes(again)[-1] == "DUPLICATE"
    other = desk.session.on_slot(desk.snapshot(ROW + 2, equity=4e6))
    assert codes(other)[-1] == "INPUT_CHANGED" and other.exposures.equals(first.exposures)
    assert [a.code for a in other.alarms if a not in first.alarms] == ["INPUT_CHANGED"]
    old = desk.session.on_slot(desk.snapshot(ROW))
    assert old.session == DAYS[ROW] and codes(old)[-1] in ("DUPLICATE", "INPUT_CHANGED")
    assert desk.store.seq == seq and desk.session.state == state


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """Restarted before every decision or never: the same journal, hash for hash."""
    desks = [Desk(tmp_path / name / "book.db") for name in "ab"]
    for row in range(ROW, ROW + 8):
        for n, desk in enumerate(desks):
            if n:
                desk.restart()
            desk.run(row, row)
    assert desks[0].store.head == desks[1].store.head and desks[1].store.epoch == 9


def test_four_slots_a_day(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", config=FOUR)
    for row in range(ROW, ROW + 3):
        for slot in desk.calendar.slots(DAYS[row]):
            d = desk.session.on_slot(desk.snapshot(row, slot.name))
            desk.fill(d)
            assert "SLOT_MISSED" not in codes(d)
    assert d.status == "ok" and desk.store.seq == 12 and replay(desk.store).ok


def test_what_comes_back_cannot_be_changed(desk: Desk) -> None:
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    with pytest.raises((ValueError, TypeError)):
        d.exposures.iloc[0] = 1.0
    with pytest.raises(AttributeError):
        d.status = "ok"  # type: ignore[misc]


# ---------------------------------------------------------------- the question itself


@pytest.mark.parametrize(("change", "code"), [
    ({"session": pd.Timestamp("2024-12-25")}, "NOT_A_SESSION"), ({"session": pd.Timestamp("2024-10-19")}, "NOT_A_SESSION"),
    ({"session": pd.NaT}, "BAD_TIME"), ({"session": "2024-10-21"}, "BAD_TIME"), ({"slot": "11:00"}, "UNKNOWN_SLOT"),
    ({"slot": None}, "UNKNOWN_SLOT"), ({"slot": "event-x"}, "UNKNOWN_SLOT"), ({"slot": "event-2"}, "EVENT_ORDER"),
    ({"decided_at": pd.Timestamp("2024-10-21 15:30")}, "BAD_TIME"), ({"decided_at": pd.NaT}, "BAD_TIME")])
def test_a_wrong_question_is_refused(desk: Desk, change: dict[str, Any], code: str) -> None:
    assert refused(desk, replace(desk.snapshot(ROW + 2), **change)) == code


def test_order_is_by_session_and_slot(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", config=FOUR)
    d = desk.session.on_slot(desk.snapshot(ROW, "12:00"))
    assert [(r.code, r.subject) for r in d.reasons if r.code == "SLOT_MISSED"] == [("SLOT_MISSED", "09:35")]
    assert refused(desk, desk.snapshot(ROW, "09:35")) == "SLOT_ORDER"
    assert refused(desk, desk.snapshot(ROW - 1, "15:30")) == "SLOT_ORDER"
    assert codes(desk.session.on_slot(desk.snapshot(ROW + 3, "09:35")))[0] == "SESSION_MISSED"


def test_a_missed_slot_is_caught_up_once_before_the_close(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", config=FOUR)
    day = DAYS[ROW]
    late = day.tz_localize("America/New_York") + pd.Timedelta(hours=14, minutes=20)
    due = desk.session.due(late, day)
    assert due.slot is not None and due.slot.name == "14:00" and due.missed == ("09:35", "12:00")
    assert refused(desk, desk.snapshot(ROW, "12:00", decided_at=late)) == "SLOT_SUPERSEDED"
    d = desk.session.on_slot(desk.snapshot(ROW, "14:00", decided_at=late))
    assert {"CAUGHT_UP", "SLOT_MISSED"} <= set(codes(d)) and desk.session.due(late, day).slot is None
    over = day.tz_localize("America/New_York") + pd.Timedelta(hours=16)
    assert refused(desk, desk.snapshot(ROW, "15:30", decided_at=over)) == "SLOT_OVER"


def test_early_close_allocates_at_half_past_twelve(tmp_path: Path) -> None:
    row = int(DAYS.get_loc(pd.Timestamp("2024-11-29")))
    desk = Desk(tmp_path / "book.db", config=FOUR)
    made = desk.snapshot(row, "15:30")
    assert f"{made.decided_at:%H:%M}" == "12:30" and refused(desk, replace(made, slot="14:00")) == "UNKNOWN_SLOT"
    d = desk.session.on_slot(made)
    assert d.slot == "15:30" and desk.session.state.values["allocated"][0]


def test_events_are_capped(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", config=FOUR)
    desk.session.on_slot(desk.snapshot(ROW, "09:35"))
    for n in (1, 2):
        d = desk.session.on_slot(desk.snapshot(ROW, f"event-{n}"))
        assert d.slot == f"event-{n}" and codes(desk.session.on_slot(desk.snapshot(ROW, f"event-{n}")))[-1] == "DUPLICATE"
    assert refused(desk, desk.snapshot(ROW, "event-3")) == "EVENT_CAP"
    assert desk.session.on_slot(desk.snapshot(ROW, "15:30")).status == "ok"


@pytest.mark.parametrize("shift", ["-1s", "-1h", "-1D"])
def test_a_clock_that_went_back_holds(desk: Desk, shift: str) -> None:
    """Incident 29: decisions are ordered by slot; a time before the slot, or before the last decision, holds the book."""
    at = desk.snapshot(ROW + 2).decided_at + pd.Timedelta(shift) - pd.Timedelta(seconds=2)
    d = desk.session.on_slot(desk.snapshot(ROW + 2, decided_at=at))
    assert d.status == "hold" and "CLOCK" in codes(d) and adds(d) < 1e-9


def test_a_clock_that_jumped_ahead_is_refused(desk: Desk) -> None:
    at = desk.snapshot(ROW + 2).decided_at
    for jump in ("1h", "1D", "3650D"):
        assert refused(desk, desk.snapshot(ROW + 2, decided_at=at + pd.Timedelta(jump))) == "SLOT_OVER"
    assert desk.session.on_slot(desk.snapshot(ROW + 2)).status == "ok"


# ---------------------------------------------------------------- inputs that cannot be trusted


@pytest.mark.parametrize(("name", "limit", "hold"), [
    ("prices", 900.0, True), ("positions", 900.0, True), ("equity", 86_400.0, False)])
def test_each_input_ages_by_itself(desk: Desk, name: str, limit: float, hold: bool) -> None:
    """Incidents 1 and 2: at the limit it passes, a second later it does not."""
    made = desk.snapshot(ROW + 2)
    at = made.decided_at - pd.Timedelta(seconds=limit)
    twin = Desk(desk.path.parent.parent / "twin" / "book.db")
    twin.run(ROW, ROW + 1)
    assert "STALE" not in codes(twin.session.on_slot(twin.snapshot(ROW + 2), times={name: at}))
    d = desk.session.on_slot(made, times={name: at - pd.Timedelta(seconds=1)})
    assert [r.subject for r in d.reasons if r.code == "STALE"] == [name]
    assert (d.status == "hold") == hold and adds(d) < 1e-9
    if not hold:
        assert "EQUITY_MISSING" in {str(a.code) for a in d.alarms}


@pytest.mark.parametrize("stamp", [pd.NaT, None, pd.Timestamp("2024-10-21 15:30"), "now"])
def test_a_time_that_is_no_time_is_stale(desk: Desk, stamp: Any) -> None:
    d = desk.session.on_slot(desk.snapshot(ROW + 2), times={"prices": stamp})
    assert d.status == "hold" and adds(d) < 1e-9


def test_an_input_from_the_future_holds(desk: Desk) -> None:
    at = desk.snapshot(ROW + 2).decided_at
    fine = desk.session.on_slot(desk.snapshot(ROW + 2), times={"prices": at + pd.Timedelta(seconds=2)})
    desk.fill(fine)
    made = desk.snapshot(ROW + 3)
    d = desk.session.on_slot(made, times={"positions": made.decided_at + pd.Timedelta(seconds=3)})
    assert fine.status == "ok" and d.status == "hold" and codes(d) == ["FUTURE_TIME"]


def test_late_bars_hold(desk: Desk) -> None:
    """Incident 2: one missing bar is tolerated, two are not."""
    made = desk.snapshot(ROW + 2)
    short = Desk(desk.path.parent.parent / "other" / "book.db")
    short.run(ROW, ROW + 1)
    one = short.session.on_slot(replace(made, asset_returns=history(ROW + 1)))
    assert "STALE" not in codes(one)
    d = desk.session.on_slot(replace(desk.snapshot(ROW + 4), asset_returns=history(ROW + 2)))
    assert d.status == "hold" and [r.subject for r in d.reasons if r.code == "STALE"] == ["asset_returns"]


def test_a_stale_sleeve_is_a_missing_sleeve(desk: Desk) -> None:
    made = desk.snapshot(ROW + 2)
    old = made.decided_at - pd.Timedelta(days=11)
    sleeves = tuple(replace(s, published_at=old if s.id == "macro" else made.decided_at) for s in made.sleeves or ())
    d = desk.session.on_slot(replace(made, sleeves=sleeves))
    assert d.status == "ok" and [r.subject for r in d.reasons] == ["sleeve macro"]
    assert "SLEEVE_HELD" in {str(a.code) for a in d.alarms}


REFUSED: list[tuple[str, Callable[[Snapshot], dict[str, Any]]]] = [
    ("flows", lambda s: {"flows": float("nan")}), ("equity", lambda s: {"equity": float("inf")}),
    ("no returns", lambda s: {"asset_returns": None}), ("text positions", lambda s: {"positions": s.positions.astype(str)}),
    ("position twice", lambda s: {"positions": pd.concat([s.positions, s.positions[:1]])}),
    ("position NaN", lambda s: {"positions": s.positions.mask(s.positions.index == "S01", float("nan"))}),
    ("sleeve twice", lambda s: {"sleeves": (*s.sleeves, s.sleeves[0])}),
    ("instruments", lambda s: {"instruments": s.instruments.assign(half_spread_bps=-1.0)}),
    ("list of sleeves", lambda s: {"sleeves": ("carry",)}), ("unknown held", lambda s: {"positions": pd.Series({"ZZ": 5.0})}),
    ("restrictions", lambda s: {"restricted": ["S01"]}), ("published later", lambda s: {
        "sleeves": (replace(s.sleeves[0], published_at=s.decided_at + pd.Timedelta("1h")), *s.sleeves[1:])})]


@pytest.mark.parametrize(("name", "change"), REFUSED, ids=[n for n, _ in REFUSED])
def test_unusable_inputs_trade_nothing_and_leave_the_slot_open(desk: Desk, name: str,
                                                               change: Callable[[Snapshot], dict[str, Any]]) -> None:
    """The daemon turns a refusal into a hold by the same rule; incident 5: the next, clean call is clean."""
    made, state = desk.snapshot(ROW + 2), desk.session.state
    bad = [desk.session.on_slot(replace(made, **change(made))) for _ in range(2)]
    for d in bad:
        assert d.status == "hold" and codes(d)[-1] == "INPUT_REFUSED" and d.orders == () and not d.trades.any()
        assert d.id.startswith(desk.store.last("held").decision_id[:16])  # type: ignore[union-attr]
    assert desk.session.state == state and desk.session.memory.holds == 1
    good = desk.session.on_slot(made)
    assert good.status == "ok" and desk.session.memory.holds == 0 and replay(desk.store).ok


JUNK: list[Any] = [None, float("nan"), float("inf"), -1.0, 0, 1e300, True, "", "x", b"x", [], {}, (), object(), pd.NaT,
                   pd.Series(dtype=float), pd.Series({"S01": np.nan}), pd.Series({1: 2.0}), pd.DataFrame(), np.zeros(3),
                   pd.Timestamp("2024-10-21"), pd.Timestamp("2030-01-02 12:00", tz="UTC"), Kills(), ("carry", None)]


@pytest.mark.parametrize("field", sorted(Snapshot.__dataclass_fields__))
def test_junk_in_any_field_is_a_hold_or_a_typed_error(desk: Desk, field: str) -> None:
    """Invariant 34 for the live path: never another exception, never added risk on a hold, and the next slot is clean."""
    made = desk.snapshot(ROW + 2)
    for junk in JUNK:
        try:
            with np.errstate(all="ignore"):
                d = desk.session.on_slot(replace(made, **{field: junk}))
        except InputError as e:
            assert e.code != "ERROR" and e.field and str(e)
            continue
        assert np.isfinite(d.exposures.to_numpy(dtype=float)).all() and d.status in ("ok", "hold", "reduce", "halt", "flat")
        assert d.status != "hold" or adds(d) < 1e-9
        if d.status in ("ok", "flat") and desk.session.memory.done:
            desk.store.close()
            for file in desk.path.parent.iterdir():
                file.unlink()
            desk.start()
            desk.positions = pd.Series(0.0, index=NAMES)
            desk.run(ROW, ROW + 1)
            made = desk.snapshot(ROW + 2)
    assert replay(desk.store).ok and desk.store.verify()["rows"] == desk.store.seq
    assert desk.session.on_slot(desk.snapshot(ROW + 3)).status in ("ok", "reduce", "halt")


def test_any_exception_inside_is_a_hold(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("inside")

    with monkeypatch.context() as m:
        m.setattr(PortfolioIntegrator, "build_target_book", broken)
        d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert d.status == "hold" and d.reasons[-1].value == "ZeroDivisionError" and d.orders == ()
    assert desk.session.on_slot(desk.snapshot(ROW + 2)).status == "ok"


def test_a_daemon_that_asks_every_second_does_not_fill_the_disk(desk: Desk) -> None:
    made, seq = desk.snapshot(ROW + 2), desk.store.seq
    for i in range(50):
        later = made.decided_at + pd.Timedelta(seconds=i)
        d = desk.session.on_slot(replace(made, flows=float("nan"), decided_at=later))
        assert d.status == "hold" and d.seq == seq + 1
    desk.session.on_slot(replace(made, asset_returns=None))
    assert desk.store.seq == seq + 2 and desk.session.on_slot(made).status == "ok"


def test_a_hold_while_a_sleeve_leaves_the_list(tmp_path: Path) -> None:
    """The state still knows the demoted sleeve; the hold goes through the integrator all the same."""
    desk = Desk(tmp_path / "book.db", frames=True)
    desk.run(ROW, ROW + 1)
    made = desk.snapshot(ROW + 2)
    gone = tuple(replace(s, demoted_on=DAYS[ROW + 2]) if s.id == "macro" else s for s in made.sleeves or ())
    desk.fill(desk.session.on_slot(replace(made, sleeves=gone)))
    made = desk.snapshot(ROW + 3)
    left = tuple(s for s in made.sleeves or () if s.id != "macro")
    d = desk.session.on_slot(replace(made, sleeves=left), times={"prices": made.decided_at - pd.Timedelta(hours=1)})
    assert d.status == "hold" and "INPUT_REFUSED" not in codes(d) and adds(d) < 1e-9
    desk.fill(d)
    made = desk.snapshot(ROW + 4)
    d = desk.session.on_slot(replace(made, sleeves=tuple(s for s in made.sleeves or () if s.id != "macro")))
    assert d.status == "ok" and replay(desk.store).ok


def test_holds_in_a_row_reduce_then_halt(desk: Desk) -> None:
    """More than three holds: reduce only until a clean slot; more than twelve, and only an operator opens the book again."""
    limits, row, seen = desk.limits, ROW + 2, []
    while not desk.session.memory.halted:
        made = desk.snapshot(row)
        d = desk.session.on_slot(made, times={"prices": made.decided_at - pd.Timedelta(hours=1)})
        desk.fill(d)
        assert adds(d) < 1e-9
        seen.append((d.status, desk.session.memory.reducing))
        row += 1
    assert len(seen) == limits.holds_before_halt + 1 and [r for _, r in seen[:5]] == [False, False, False, True, True]
    desk.restart()
    clean = desk.session.on_slot(desk.snapshot(row))
    assert clean.status == "halt" and {"HALTED", "REDUCING"} <= set(codes(clean)) and adds(clean) < 1e-9
    desk.fill(clean)
    assert desk.session.on_slot(desk.snapshot(row + 1)).status == "halt"
    for who, why in (("", "x"), ("x", " ")):
        with pytest.raises(InputError, match="who and why"):
            desk.session.acknowledge(who=who, why=why)
    desk.session.acknowledge(who="desk", why="feed repaired")
    assert desk.session.on_slot(desk.snapshot(row + 2)).status == "ok" and replay(desk.store).ok


def test_reducing_ends_after_one_clean_slot(desk: Desk) -> None:
    for row in range(ROW + 2, ROW + 6):
        made = desk.snapshot(row)
        desk.fill(desk.session.on_slot(made, times={"prices": made.decided_at - pd.Timedelta(hours=1)}))
    first, second = (desk.session.on_slot(desk.snapshot(row)) for row in (ROW + 6, ROW + 7))
    assert first.status == "reduce" and adds(first) < 1e-9 and second.status == "ok"


# ---------------------------------------------------------------- positions, universe, limits


def test_a_partial_fill_is_no_break(desk: Desk) -> None:
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    desk.fill(d, 0.4)
    assert "POSITION_BREAK" not in codes(desk.session.on_slot(desk.snapshot(ROW + 3)))


def test_a_break_reduces_that_symbol_until_it_heals(desk: Desk) -> None:
    """Incident 13 and rule C13; the break survives a restart, heals by itself, and blocks no other name."""
    good = desk.positions.copy()
    name = str(good.abs().idxmax())
    desk.positions = good.where(good.index != name, good * 0.5)
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert [r.subject for r in d.reasons if r.code == "POSITION_BREAK"] == [name] and d.status == "ok"
    assert adds(d, name) < 1e-9
    desk.fill(d)
    desk.restart()
    again = desk.session.on_slot(desk.snapshot(ROW + 3))
    assert "POSITION_BREAK" in codes(again) and adds(again, name) < 1e-9
    desk.positions = desk.positions.where(desk.positions.index != name, good)
    healed = desk.session.on_slot(desk.snapshot(ROW + 4, positions=desk.positions))
    assert [r.subject for r in healed.reasons if r.code == "POSITION_BREAK"] in ([], [n for n in NAMES if n != name][:0])


def test_an_operator_ends_a_break(desk: Desk) -> None:
    desk.positions = desk.positions * 1.2
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert codes(d).count("POSITION_BREAK") >= 4 and adds(d) < 1e-9
    desk.fill(d)
    row = desk.session.acknowledge(who="desk", why="transfer from the other book")
    assert row.kind == "operator" and row.payload["ended"]["breaks"]
    desk.restart()
    assert "POSITION_BREAK" not in codes(desk.session.on_slot(desk.snapshot(ROW + 3)))


def test_a_lost_store_with_positions_reduces_only(desk: Desk) -> None:
    """Incident 14: never a fresh start with positions open."""
    desk.store.close()
    for file in desk.path.parent.iterdir():
        file.unlink()
    desk.start()
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert d.status == "halt" and "STATE_NEW" in codes(d) and adds(d) < 1e-9
    desk.fill(d)
    assert desk.session.on_slot(desk.snapshot(ROW + 3)).status == "halt"
    desk.session.acknowledge(who="desk", why="positions compared with the broker")
    assert desk.session.on_slot(desk.snapshot(ROW + 4)).status == "ok"


def test_many_vanished_names_hold_a_few_do_not(desk: Desk) -> None:
    made = desk.snapshot(ROW + 2)
    prices = made.prices.copy()
    prices[["S00"]] = np.nan
    d = desk.session.on_slot(replace(made, prices=prices))
    assert d.status == "ok" and any(r.code == "UNIVERSE_CHANGED" and r.subject == "-S00" for r in d.reasons)
    desk.fill(d)
    prices = desk.snapshot(ROW + 3).prices.copy()
    prices[["S00", "S01", "S02", "S03"]] = np.nan
    d = desk.session.on_slot(desk.snapshot(ROW + 3, prices=prices))
    assert d.status == "hold" and "UNIVERSE_SHRUNK" in codes(d) and adds(d) < 1e-9
    desk.fill(d)
    desk.restart()
    still = desk.session.on_slot(desk.snapshot(ROW + 4, prices=desk.snapshot(ROW + 4).prices.where(prices.notna())))
    assert still.status == "hold" and "UNIVERSE_SHRUNK" in codes(still)  # a second look does not make it normal
    desk.fill(still)
    desk.session.acknowledge(who="desk", why="four names left the index")
    d = desk.session.on_slot(desk.snapshot(ROW + 5, prices=desk.snapshot(ROW + 5).prices.where(prices.notna())))
    assert d.status == "ok" and replay(desk.store).ok


def test_too_much_added_risk_is_refused_not_scaled(tmp_path: Path) -> None:
    """C4 and C5: the hard stops build the book again with every symbol reduce-only."""
    desk = Desk(tmp_path / "a" / "book.db")
    desk.run(ROW, ROW)
    for name, code in (("added_name", "CHANGE_LIMIT"), ("added_decision", "TURNOVER_LIMIT"), ("added_session", "TURNOVER_LIMIT")):
        tight = Desk(tmp_path / name / "book.db", limits=replace(desk.limits, **{name: 0.01}))
        d = tight.session.on_slot(tight.snapshot(ROW))
        assert d.status == "reduce" and code in codes(d) and adds(d) < 1e-9 and gross(d) == 0.0
        assert replay(tight.store).ok


def test_a_session_limit_counts_all_its_slots(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", config=FOUR)
    desk.session.on_slot(desk.snapshot(ROW, "15:30"))
    opened = desk.session.memory.added
    assert opened > 0.2
    tight = Desk(tmp_path / "b" / "book.db", config=FOUR, limits=replace(desk.limits, added_session=opened * 1.5))
    tight.session.on_slot(tight.snapshot(ROW, "15:30"))
    d = tight.session.on_slot(tight.snapshot(ROW, "event-1", decided_at=tight.snapshot(ROW).decided_at + pd.Timedelta("5min")))
    assert tight.session.memory.added >= opened and adds(d) <= 0.5 * opened + 1e-9
    tight.session.on_slot(tight.snapshot(ROW + 1, "09:35"))
    assert tight.session.memory.added < opened


def test_a_broken_last_line_holds(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any) -> None:
        raise InvariantError("a rule", code="LAST_LINE", field="exposures")

    with monkeypatch.context() as m:
        m.setattr("pil_research.live.session.check_last_line", no)
        d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert d.status == "hold" and codes(d) == ["LAST_LINE"] and d.orders == ()
    assert desk.session.on_slot(desk.snapshot(ROW + 2)).status == "ok"


# ---------------------------------------------------------------- kills


def test_the_kill_file_flattens_the_next_decision_and_latches(desk: Desk, tmp_path: Path) -> None:
    kill = tmp_path / "KILL"
    kill.touch()
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert d.status == "flat" and gross(d) == 0.0 and "KILLED" in codes(d) and len(d.orders) >= 4
    desk.fill(d)
    kill.unlink()
    desk.restart()
    assert desk.session.on_slot(desk.snapshot(ROW + 3)).status == "flat"
    released = desk.session.on_slot(desk.snapshot(ROW + 4, operator=Operator(who="desk", why="checked", release_kills=True)))
    assert released.status == "ok" and gross(released) > 0.0 and replay(desk.store).ok


def test_a_kill_reaches_a_slot_that_was_decided(desk: Desk, tmp_path: Path) -> None:
    first = desk.session.on_slot(desk.snapshot(ROW + 2))
    (tmp_path / "KILL").touch()
    for restart in (False, True):
        if restart:
            desk.restart()
        d = desk.session.on_slot(desk.snapshot(ROW + 2))
        assert d.status == "flat" and gross(d) == 0.0 and d.id == f"{first.id}:kill"
        assert {o.symbol for o in d.orders} == set(desk.positions.index[desk.positions != 0.0])
    (tmp_path / "KILL").unlink()
    assert desk.session.on_slot(desk.snapshot(ROW + 3)).status == "flat"


BREAKERS: list[tuple[str, str]] = [
    ("store", "pil_research.live.store._commit"), ("check", "pil_research.live.inputs.check_ages"),
    ("build", "pil_research.live.session._build"), ("calendar", "pil_research.live.session.need_slot"),
    ("last line", "pil_research.live.session.check_last_line"), ("lookup", "pil_research.live.store._ask")]


@pytest.mark.parametrize(("name", "target"), BREAKERS, ids=[n for n, _ in BREAKERS])
def test_a_killed_book_is_flat_whatever_else_fails(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   name: str, target: str) -> None:
    """Incident 17: every collaborator raises in turn while the kill is set."""
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    (tmp_path / "KILL").touch()
    held = desk.positions.copy()
    with monkeypatch.context() as m:
        m.setattr(target, broken)
        d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert d.status == "flat" and gross(d) == 0.0 and "KILLED" in codes(d) or "NOT_JOURNALLED" in codes(d)
    assert {o.symbol: o.quantity for o in d.orders} == {k: abs(v) for k, v in held.items() if v}
    assert all((o.side == "sell") == (held[o.symbol] > 0) for o in d.orders)


@pytest.mark.parametrize("bad", [{"session": pd.NaT}, {"slot": None}, {"positions": None}, {"asset_returns": 7}, {"kills": "?"}])
def test_a_killed_book_is_flat_whatever_the_snapshot_says(desk: Desk, tmp_path: Path, bad: dict[str, Any]) -> None:
    (tmp_path / "KILL").write_text("damaged {")
    d = desk.session.on_slot(replace(desk.snapshot(ROW + 2), **bad))
    assert d.status == "flat" and gross(d) == 0.0


def test_a_killed_symbol_and_sleeve_close(desk: Desk, tmp_path: Path) -> None:
    name = str(desk.positions.abs().idxmax())
    (tmp_path / "KILL").write_text(f'{{"symbols": ["{name}"], "sleeves": ["macro"], "who": "desk", "why": "halted"}}')
    bad = desk.session.on_slot(desk.snapshot(ROW + 2, flows=float("nan")))
    assert [o.symbol for o in bad.orders] == [name] and bad.status == "hold"
    desk.fill(bad)
    (tmp_path / "KILL").unlink()
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert d.exposures[name] == 0.0 and d.sleeve_weights["macro"] == 0.0 and "KILLED" in codes(d)


@pytest.mark.parametrize("kills", [Kills(book="yes"), Kills(symbols="S01", book=True), Kills(symbols=(3,)), 5])  # type: ignore[arg-type]
def test_an_unreadable_kill_in_the_snapshot_is_a_kill(desk: Desk, kills: Any) -> None:
    assert desk.session.on_slot(desk.snapshot(ROW + 2, kills=kills)).status == "flat"


# ---------------------------------------------------------------- durability


def test_nothing_is_returned_that_is_not_durable(desk: Desk) -> None:
    """A full disk: a typed error, the integrator where it was; later the same decision as without the fault."""
    twin = Desk(desk.path.parent.parent / "twin" / "book.db")
    twin.run(ROW, ROW + 1)
    want = twin.session.on_slot(twin.snapshot(ROW + 2))
    pages = desk.store._db.execute("PRAGMA page_count").fetchone()[0]
    desk.store._db.execute(f"PRAGMA max_page_count = {pages}")
    state, seq = desk.session.state, desk.store.seq
    with pytest.raises(StateError, match="do not trade") as no:
        desk.session.on_slot(desk.snapshot(ROW + 2))
    assert no.value.code == "COMMIT_FAILED" and desk.session.state == state and desk.store.seq == seq
    desk.store._db.execute("PRAGMA max_page_count = 1000000")
    got = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert got.exposures.to_numpy().tobytes() == want.exposures.to_numpy().tobytes()
    assert desk.store.head == twin.store.head and replay(desk.store).ok


def test_another_configuration_is_refused(desk: Desk) -> None:
    desk.store.close()
    with StateStore(desk.path) as store, pytest.raises(StateError, match="another configuration"):
        LiveSession(store, PortfolioIntegrator(DAILY.replace(**{"vol_target.target": 0.09})))


def test_an_integrator_with_a_past_of_its_own(desk: Desk, tmp_path: Path) -> None:
    """Its state begins an empty store (and replays from there); it is refused by a store that knows better."""
    past = PortfolioIntegrator(DAILY)
    past.build_target_book(desk.snapshot(ROW))
    with StateStore(tmp_path / "new" / "book.db") as store:
        session = LiveSession(store, past, desk.calendar, limits=desk.limits)
        assert session.state == past.state and store.last().kind == "genesis"  # type: ignore[union-attr]
        assert session.on_slot(desk.snapshot(ROW + 1)).status == "ok" and replay(store).ok
    with pytest.raises(StateError, match="of its own"):
        LiveSession(desk.store, past, desk.calendar)


def test_a_flattened_book_comes_back_to_the_byte(desk: Desk) -> None:
    """Whole numbers of the state stay whole: the journal of a restarted book has the hashes of one that ran on."""
    desk.equity *= 0.8
    d = desk.session.on_slot(desk.snapshot(ROW + 2))
    assert d.numbers["governed_drawdown"] > 0.15 and (d.exposures == 0.0).all()
    before = canonical(book_values(desk.session.state))
    assert canonical(book_values(desk.restart().state)) == before
    desk.fill(d)
    desk.run(ROW + 3, ROW + 3)
    assert replay(desk.store).ok


def test_a_kill_that_no_disk_takes_has_an_id_of_its_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon ignores an id it has sent: the same question keeps its id, the next slot and a remainder get another."""

    def full(*_: Any) -> None:
        raise StateError("disk full", code="COMMIT_FAILED")

    monkeypatch.setattr(desk.store, "commit", full)
    kills = Kills(book=True, who="ops", why="x")
    first, again = (desk.session.on_slot(desk.snapshot(ROW + 2, kills=kills)) for _ in range(2))
    assert first.orders and first.id == again.id and first.seq == 0 and "NOT_JOURNALLED" in codes(first)
    desk.fill(first, 0.5)
    rest, later = (desk.session.on_slot(desk.snapshot(row, kills=kills)) for row in (ROW + 2, ROW + 3))
    assert len({first.id, rest.id, later.id}) == 3
    desk.fill(rest)
    assert (desk.positions == 0.0).all()


def test_a_killed_book_without_usable_inputs_closes_what_is_left(desk: Desk) -> None:
    """Asked again after half was filled, the refusal orders the other half, under another id."""
    bad = {"asset_returns": "junk", "kills": Kills(book=True, who="ops", why="x")}
    first, again = (desk.session.on_slot(desk.snapshot(ROW + 2, **bad)) for _ in range(2))
    assert first.status == "flat" and first.orders and first.id == again.id
    desk.fill(first, 0.5)
    rest = desk.session.on_slot(desk.snapshot(ROW + 2, **bad))
    assert rest.id != first.id and len(rest.orders) == len(first.orders)
    desk.fill(rest)
    assert (desk.positions == 0.0).all()


def resume(desk: Desk, last: int) -> None:
    """What a daemon does after a start: positions from the broker (here: the fills the journal implies), then on."""
    asked = [(row, slot.name) for row in range(ROW, last + 1) for slot in desk.calendar.slots(DAYS[row])]
    for kept in desk.store.rows():
        desk.fill(decision_from_dict(whole_decision(kept.payload, desk.store.blob)))
    for row, slot in asked[desk.store.seq :]:
        desk.fill(desk.session.on_slot(desk.snapshot(row, slot)))


def live_and_die(desk: Callable[[], Desk], last: int, seconds: float) -> bool:
    """One life of a daemon, killed after a while; whether it got to the end."""
    pid = os.fork()
    if pid == 0:
        try:
            resume(desk(), last)
            os._exit(0)
        finally:
            os._exit(7)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code == 0


def killed_run(tmp_path: Path, config: Any, last: int, most: float, seed: int) -> int:
    """An account killed at random instants against one that lived: the same journal, hash for hash; how often it died."""
    whole, rng, lives = Desk(tmp_path / "a" / "book.db", config=config), np.random.default_rng(seed), 0
    resume(whole, last)
    path, longest = tmp_path / "b" / "book.db", 0.05
    while not live_and_die(lambda: Desk(path, config=config), last, 0.01 + longest * float(rng.random())):
        lives, longest = lives + 1, longest if lives < 5 else most
        assert lives < 3000
    with StateStore(path) as store:
        assert store.head == whole.store.head and replay(store).ok
    return lives


def test_a_killed_account_ends_like_one_that_lived(tmp_path: Path) -> None:
    """SIGKILL at random instants of whole decisions."""
    assert killed_run(tmp_path, DAILY, ROW + 24, 0.4, seed=8) >= 3


@pytest.mark.slow
def test_a_year_at_four_slots_killed_all_the_time(tmp_path: Path) -> None:
    """About 1,000 decisions."""
    assert killed_run(tmp_path, FOUR, ROW + 252, 2.5, seed=9) >= 10


def test_two_sessions_on_one_store_do_not_fork_the_book(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "store" / "book.db", frames=True)
    desk.run(ROW, ROW + 1)
    late = LiveSession(desk.store, PortfolioIntegrator(DAILY), desk.calendar, limits=LIMITS)
    desk.run(ROW + 2, ROW + 2)
    for call in (lambda: late.on_slot(desk.snapshot(ROW + 3)), lambda: late.acknowledge(who="desk", why="looked")):
        with pytest.raises(StateError) as no:
            call()
        assert no.value.code == "LOST_UPDATE"
    assert desk.session.on_slot(desk.snapshot(ROW + 3)).status == "ok" and desk.session.state.seq == desk.store.seq == 4
    assert replay(desk.store).ok
