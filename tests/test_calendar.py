"""Slots of every session: exchange time, early closes, holidays, events, and what is due after a restart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.live import SlotCalendar, event_reason, slots
from pil_research.types import ConfigError, InputError

NEW_YORK = "America/New_York"
CALENDAR = SlotCalendar()
USUAL = ["09:35", "12:00", "14:00", "15:30"]


@pytest.fixture(scope="module")
def every() -> dict[pd.Timestamp, list[tuple[str, str, bool]]]:
    """Name, local time and kind of every slot of every session from 2000 to 2035."""
    return {d: [(s.name, f"{s.at:%H:%M}", s.allocates) for s in CALENDAR.slots(d)] for d in CALENDAR.sessions}


def test_every_session_has_its_slots(every: dict[pd.Timestamp, list[tuple[str, str, bool]]]) -> None:
    """Incidents 21 and 22: about 9,000 sessions; two shapes of a day, plus one late open."""
    assert len(every) == 9049 and min(every).year == 2000 and max(every).year == 2035
    usual = [(n, n, n == "15:30") for n in USUAL]
    early = [("09:35", "09:35", False), ("12:00", "12:00", False), ("15:30", "12:30", True)]
    odd = {d: v for d, v in every.items() if v not in (usual, early)}
    assert set(odd) <= {pd.Timestamp("2001-09-17"), pd.Timestamp("2002-09-11"), pd.Timestamp("2003-02-18")}
    assert all(v[-1] == ("15:30", "15:30", True) for v in odd.values())
    halves = sorted(d for d, v in every.items() if v == early)
    assert 60 <= len(halves) <= 110
    for known in ("2003-12-24", "2012-07-03", "2020-11-27", "2025-07-03", "2026-11-27", "2026-12-24"):
        assert pd.Timestamp(known) in halves


def test_slots_rise_within_the_hours_and_allocate_once(every: dict[pd.Timestamp, list[tuple[str, str, bool]]]) -> None:
    rng = np.random.default_rng(1)
    for day in rng.choice(list(every), 400, replace=False):
        session = pd.Timestamp(day)
        made, (opens, closes) = CALENDAR.slots(session), CALENDAR.hours(session)
        times = [s.at for s in made]
        assert times == sorted(times) and opens <= times[0] and times[-1] < closes
        assert sum(s.allocates for s in made) == 1 and made[-1].allocates
        assert {s.session for s in made} == {session} and all(str(t.tzinfo) == NEW_YORK for t in times)


def test_clock_changes_keep_local_time() -> None:
    """Around every change of New York's clocks, 2000 to 2035: the same local time, another hour in UTC."""
    for year in range(2000, 2036):
        for month in (3, 4, 10, 11):
            days = CALENDAR.sessions[(CALENDAR.sessions.year == year) & (CALENDAR.sessions.month == month)]
            utc = {s.at.tz_convert("UTC").hour for d in days[::4] for s in CALENDAR.slots(d) if f"{s.at:%H:%M}" == "15:30"}
            assert utc <= {19, 20}
    march = [slots(d)[-1].at.tz_convert("UTC").hour for d in ("2026-03-06", "2026-03-09")]
    assert march == [20, 19]


def test_neighbours_walk_over_every_session() -> None:
    days = CALENDAR.sessions
    for i in range(1, len(days) - 1, 97):
        assert CALENDAR.next_session(days[i]) == days[i + 1] and CALENDAR.previous_session(days[i]) == days[i - 1]
        assert CALENDAR.sessions_between(days[i - 1], days[i + 1]) == 2
    saturday = pd.Timestamp("2026-01-03")
    assert CALENDAR.next_session(saturday) == pd.Timestamp("2026-01-05")
    assert CALENDAR.previous_session(saturday) == pd.Timestamp("2026-01-02")
    for call, day in ((CALENDAR.next_session, days[-1]), (CALENDAR.previous_session, days[0])):
        with pytest.raises(InputError, match="wider range"):
            call(day)


@pytest.mark.parametrize(("day", "code"), [
    ("2026-07-04", "NOT_A_SESSION"), ("2026-01-03", "NOT_A_SESSION"), ("2025-01-09", "NOT_A_SESSION"),
    ("2012-10-29", "NOT_A_SESSION"), ("1999-12-31", "OUTSIDE_CALENDAR"), ("2036-01-02", "OUTSIDE_CALENDAR"),
    ("2026-01-05 12:00", "BAD_TIME"), ("2026-01-05T00:00Z", "BAD_TIME"), ("NaT", "BAD_TIME")])
def test_days_without_slots_are_typed_errors(day: str, code: str) -> None:
    """A holiday, a weekend, a day of mourning, a hurricane, both ends of the range, and things that are no date."""
    with pytest.raises(InputError) as no:
        CALENDAR.slots(pd.Timestamp(day))
    assert no.value.code == code and no.value.field == "session"


def now(day: str, clock: str) -> pd.Timestamp:
    return pd.Timestamp(f"{day} {clock}", tz=NEW_YORK)


@pytest.mark.parametrize(("clock", "done", "name", "missed"), [
    ("09:34:59", (), None, ()), ("09:35", (), "09:35", ()), ("11:00", ("09:35",), None, ()),
    ("12:30", (), "12:00", ("09:35",)), ("14:20", ("09:35",), "14:00", ("12:00",)),
    ("15:30", ("14:00",), "15:30", ("09:35", "12:00")),
    ("15:59:59", (), "15:30", ("09:35", "12:00", "14:00")), ("15:45", ("15:30",), None, ("09:35", "12:00", "14:00")),
    ("16:00", (), None, tuple(USUAL)), ("23:00", ("09:35",), None, ("12:00", "14:00", "15:30"))])
def test_one_slot_is_caught_up_before_the_close(clock: str, done: tuple[str, ...], name: str | None,
                                                missed: tuple[str, ...]) -> None:
    due = CALENDAR.due(now("2026-11-05", clock), pd.Timestamp("2026-11-05"), done)
    assert (due.slot.name if due.slot else None) == name and due.missed == missed
    assert due.slot is None or due.late == now("2026-11-05", clock) - due.slot.at


def test_a_missed_allocation_is_caught_up_first() -> None:
    config = PILConfig().replace(**{"schedule.allocation_time": "12:00"}).schedule
    due = SlotCalendar(config=config).due(now("2026-11-05", "14:30"), pd.Timestamp("2026-11-05"), ())
    assert due.slot is not None and due.slot.name == "12:00" and due.slot.allocates and due.missed == ("09:35",)


def test_the_allocation_of_an_early_close_is_over_at_its_close() -> None:
    day = pd.Timestamp("2026-11-27")
    at = CALENDAR.due(now("2026-11-27", "12:59:59"), day, ("12:00",)).slot
    assert at is not None and at.name == "15:30" and f"{at.at:%H:%M}" == "12:30"
    assert CALENDAR.due(now("2026-11-27", "13:00"), day, ("12:00",)).slot is None


def test_events_are_capped_and_within_hours() -> None:
    day = pd.Timestamp("2026-11-05")
    made = [CALENDAR.event(now("2026-11-05", "10:00"), day, n).name for n in (0, 1)]
    assert made == ["event-1", "event-2"]
    for clock, used, code in (("10:00", 2, "EVENT_CAP"), ("09:00", 0, "CLOSED"), ("16:00", 0, "CLOSED")):
        with pytest.raises(InputError) as no:
            CALENDAR.event(now("2026-11-05", clock), day, used)
        assert no.value.code == code


@pytest.mark.parametrize(("move", "before", "after", "reason"), [
    (0.01, "", "", None), (0.0100000001, "", "", "book_move"), (-0.02, "crisis", "crisis", "book_move"),
    (0.0, "risk_on", "crisis", "regime"), (0.0, "", "crisis", None), (0.01 + 1e-13, "", "", None)])
def test_event_triggers(move: float, before: str, after: str, reason: str | None) -> None:
    assert event_reason(move, before, after) == reason


@pytest.mark.parametrize("move", [float("nan"), float("inf"), None])
def test_an_unreadable_move_is_not_a_quiet_market(move: float) -> None:
    with pytest.raises(InputError, match="must be finite"):
        event_reason(move, "", "")


def test_other_exchanges_and_impossible_schedules() -> None:
    london = SlotCalendar("XLON")
    assert [f"{s.at:%H:%M}" for s in london.slots(pd.Timestamp("2026-12-24"))][-1] == "12:00"
    with pytest.raises(ConfigError, match="XNYS"):
        SlotCalendar("XNYC")
    with pytest.raises(ConfigError, match="outside the hours"):
        SlotCalendar("XTKS").slots(pd.Timestamp("2026-12-24"))
    assert SlotCalendar("24/5").slots(pd.Timestamp("2026-12-25"))


def test_the_same_answer_whatever_the_order_of_questions() -> None:
    a, b = pd.Timestamp("2026-11-05"), pd.Timestamp("2026-11-27")
    one = SlotCalendar()
    assert [one.slots(d) for d in (a, b, a)] == [SlotCalendar().slots(d) for d in (a, b, a)]


@pytest.mark.parametrize("day", ["foo", "2026-13-01", [1, 2], "99999-01-01", None, "", object()])
def test_what_is_no_date_is_refused(day: object) -> None:
    with pytest.raises(InputError) as err:
        slots(day)  # type: ignore[arg-type]
    assert err.value.code == "BAD_TIME"


@pytest.mark.parametrize(("call", "error", "code"), [
    (lambda: slots("2026-11-05", ["XNYS"]), ConfigError, "BAD_CALENDAR"),
    (lambda: slots("2026-11-05", "FOO"), ConfigError, "BAD_CALENDAR"),
    (lambda: slots("2026-11-05", config=PILConfig()), ConfigError, "CONFIG_TYPE"),
    (lambda: SlotCalendar(None), ConfigError, "BAD_CALENDAR"),
    (lambda: SlotCalendar(first="foo"), InputError, "BAD_TIME"),
    (lambda: SlotCalendar(first="2030-01-01", last="2020-01-01"), InputError, "BAD_TIME"),
    (lambda: CALENDAR.sessions_between("2026-11-05", pd.Timestamp("2026-11-06")), InputError, "BAD_TIME"),
    (lambda: CALENDAR.next_session("2026-11-05"), InputError, "BAD_TIME"),
    (lambda: CALENDAR.event(pd.Timestamp("2026-11-05 12:00"), pd.Timestamp("2026-11-05"), 0), InputError, "BAD_TIME")])
def test_other_arguments_are_refused_by_name(call, error, code) -> None:
    with pytest.raises(error) as err:
        call()
    assert err.value.code == code
