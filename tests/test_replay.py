"""The journal decides again: bit for bit from archived inputs, and the first difference has a name and a price."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from desk import DAILY, DAYS, FOUR, IDS, INFO, NAMES, Desk, codes, history

from pil_research.estimate import History
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import StateStore, replay, replay_command
from pil_research.live.archive import Archive, Reader, _Shelf, split_decision, time_from, time_text, whole_decision
from pil_research.live.journal import SCHEMA
from pil_research.live.payload import canonical, joined, parse
from pil_research.live.replay import _Replayer
from pil_research.types import Kills, Operator, RegimeRead, Sleeve, Snapshot, StateError

ROW, FOLDER = 200, Path(__file__).parent / "golden"
GOLDEN = FOLDER / "store_v3.sqlite"  # of this version; those of older ones stay


def eventful(path: Path) -> Desk:
    """A fortnight with restarts, stale and refused inputs, a revision, a kill, a release and an operator."""
    desk = Desk(path, kill_file=path.parent.parent / "KILL")
    desk.run(ROW, ROW + 2)
    desk.restart()
    made = desk.snapshot(ROW + 3, regime=RegimeRead(label="crisis", confidence=0.6), flows=1e5, restricted={"S01": "no_short"})
    desk.fill(desk.session.on_slot(made))
    desk.session.on_slot(replace(desk.snapshot(ROW + 4), flows=float("nan")))
    made = desk.snapshot(ROW + 4)
    desk.fill(desk.session.on_slot(made, times={"prices": made.decided_at - pd.Timedelta(hours=2)}))
    revised = history(ROW + 5)
    changed = revised.returns.copy()
    changed[10, 3] += 0.001
    other = History(NAMES, IDS, changed, np.array(revised.target), np.array(revised.dates))
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 5, asset_returns=other)))
    desk._history = None
    assert desk.kill_file is not None
    desk.kill_file.write_text('{"symbols": ["S02"], "who": "desk", "why": "halted"}')
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 6)))
    desk.kill_file.write_text("")
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 6)))
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 7)))
    desk.kill_file.unlink()
    desk.restart()
    desk.session.acknowledge(who="desk", why="all checked")
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 8, operator=Operator(who="d", why="w", release_kills=True))))
    desk.run(ROW + 9, ROW + 10)
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 11, sleeves=None)))
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 12, equity=None, instruments=INFO.assign(half_spread_bps=2.0))))
    return desk


def test_an_eventful_fortnight_bit_for_bit(tmp_path: Path) -> None:
    desk = eventful(tmp_path / "store" / "book.db")
    kinds = [r.kind for r in desk.store.rows()]
    assert {"decision", "held", "kill", "operator"} <= set(kinds) and kinds.count("decision") == 13
    got = replay(desk.store)
    assert got.ok and (got.decisions, got.notes) == (13, 3) and got.rows == len(kinds) and got.head == desk.store.head
    assert replay(desk.path).ok  # read-only, beside the running writer
    code, lines = replay_command(desk.path)
    assert code == 0 and "13 decisions recomputed" in lines[0] and desk.store.head in lines[-1]


def test_frames_and_histories_replay_alike(tmp_path: Path) -> None:
    heads = []
    for frames in (False, True):
        desk = Desk(tmp_path / str(frames) / "book.db", frames=frames)
        desk.run(ROW, ROW + 5)
        assert replay(desk.store).ok
        heads.append([whole_decision(r.payload, desk.store.blob)["exposures"] for r in desk.store.rows()])
    assert heads[0] == heads[1]


def test_the_first_difference_has_a_name_and_a_price(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db")
    desk.run(ROW, ROW + 5)

    class Other(PortfolioIntegrator):
        def build_target_book(self, snapshot: Snapshot) -> Any:
            d = super().build_target_book(snapshot)
            if snapshot.session < DAYS[ROW + 3]:
                return d
            moved = d.exposures.copy()
            moved["S04"] += 1e-4
            return replace(d, exposures=moved)

    runner = _Replayer(desk.store, 0.0)
    runner.integrator = Other(DAILY)
    found = [d for d in map(runner.row, desk.store.rows()) if d]
    assert len(found) == 3 and (found[0].seq, found[0].path) == (4, "exposures.S04")
    assert found[0].dollars == pytest.approx(1e-4 * 5e6) and found[0].session == DAYS[ROW + 3].date().isoformat()
    runner = _Replayer(desk.store, 1e-3)
    runner.integrator = Other(DAILY)
    assert not [d for d in map(runner.row, desk.store.rows()) if d]


def test_another_configuration_shows_at_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db")
    desk.run(ROW, ROW + 1)
    runner = _Replayer(desk.store, 0.0)
    runner.integrator = PortfolioIntegrator(DAILY.replace(**{"vol_target.target": 0.09}))
    first = next(d for d in map(runner.row, desk.store.rows()) if d)
    assert first.path.startswith("exposures.") and first.dollars > 1000.0


def rewrite(path: Path, table: str, sql: str, *values: Any) -> None:
    """Edit a store although its triggers forbid it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        triggers = [r[0] for r in db.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,))]
        for name in ("update", "delete"):
            db.execute(f"DROP TRIGGER {table}_{name}")
        db.execute(sql, values)
        for t in triggers:
            db.execute(t)
        db.commit()


def test_changed_or_lost_inputs_are_damage(tmp_path: Path) -> None:
    """A store opens without reading every blob; whoever reads one that was changed gets a typed error."""
    desk = Desk(tmp_path / "a" / "book.db")
    desk.run(ROW, ROW + 3)
    desk.store.close()
    for n, sql in enumerate(("UPDATE blobs SET data = data || x'00' WHERE rowid = 5", "DELETE FROM blobs WHERE rowid = 5")):
        copy = tmp_path / str(n) / "book.db"
        copy.parent.mkdir(mode=0o700)
        shutil.copy(desk.path, copy)
        rewrite(copy, "blobs", sql)
        code, lines = replay_command(copy)
        assert code == 2 and lines[0].startswith("CORRUPT")
        with StateStore(copy) as store, pytest.raises(StateError, match="damaged"):
            store.verify() if not n else store.blob("0" * 64)


def test_no_store_is_exit_code_2(tmp_path: Path) -> None:
    code, lines = replay_command(tmp_path / "none.db")
    assert code == 2 and lines[0].startswith("MISSING")


# ---------------------------------------------------------------- the archive


def test_a_snapshot_comes_back_whole() -> None:
    rng, h = np.random.default_rng(3), history(ROW)
    made = Snapshot(
        session=DAYS[ROW], slot="event-2", decided_at=pd.Timestamp("2024-10-17 15:30:01.123456", tz="America/New_York"),
        asof=pd.Timestamp("2024-10-17 19:29", tz="UTC"), asset_returns=h, equity=float("nan"), flows=-0.0,
        prices=pd.Series([1.5, np.nan, -3.0], index=["A", "B", "C"]), positions=pd.Series([1, -2], index=["A", "B"]),
        sleeves=(Sleeve(id="x", weights=None, capacity=float("inf"), role="cyclical", promoted_on=DAYS[0]),
                 Sleeve(id="y", weights=pd.Series(rng.standard_normal(8), index=NAMES), expected_gain=pd.Series({"S01": 1e-300}),
                        published_at=pd.Timestamp("2024-10-17 12:00", tz="Asia/Tokyo"))),
        instruments=INFO.assign(multiplier=[50.0] * 7 + [np.nan], flag=[True, None] * 4, note=[None, "x"] * 4, n=range(8)),
        regime=RegimeRead(label="risk_on", confidence=0.1), kills=Kills(symbols=("A",), who="w"), restricted={"A": "no_trade"},
        operator=Operator(who="a", why="b", re_arm=True), sleeves_confirmed=True)
    archive = Archive()
    record = archive.record(made)
    back = Reader(dict(archive.pending).__getitem__).snapshot(record)
    twice = Archive()
    assert twice.record(back) == record  # what comes back is recorded as the same thing
    assert back.decided_at == made.decided_at and str(back.decided_at.tz) == "America/New_York" and back.asof == made.asof
    assert np.isnan(back.equity) and back.positions.to_dict() == {"A": 1.0, "B": -2.0} and np.isnan(back.prices["B"])
    assert back.sleeves[0].weights is None and back.sleeves[0].capacity == np.inf and back.sleeves[1].published_at.hour == 12
    assert back.asset_returns.digest == h.digest and back.operator == made.operator and back.kills == made.kills
    assert back.instruments["note"].tolist()[1] == "x" and back.instruments["flag"].tolist()[:2] == [True, None]


WIDE = [f"W{i:04d}" for i in range(5000)]
SHAPES = {
    "one": ([NAMES], 1), "alike": ([NAMES] * 3, 1), "other names": ([NAMES, NAMES[:5], NAMES], 3),
    "other order": ([NAMES, NAMES[::-1]], 2), "one without": ([NAMES, None, NAMES], 2), "large": ([WIDE] * 2, 2)}


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_of_sleeves_come_back_however_they_are_labelled(shape: str) -> None:
    """Stored as one array where they have the same names and are not large, else one each."""
    rng, (names, arrays) = np.random.default_rng(5), SHAPES[shape]
    sleeves = tuple(Sleeve(id=f"s{i}", weights=None if n is None else pd.Series(rng.standard_normal(len(n)), index=list(n)))
                    for i, n in enumerate(names))
    made = Snapshot(session=DAYS[ROW], slot="15:30", decided_at=DAYS[ROW].tz_localize("America/New_York"), equity=1.0,
                    asset_returns=history(ROW), sleeves=sleeves)
    archive = Archive()
    record = archive.record(made)
    fetched: list[str] = []
    back = Reader(lambda name: fetched.append(name) or dict(archive.pending)[name]).snapshot(record)  # type: ignore[func-returns-value]
    for a, b in zip(sleeves, back.sleeves, strict=True):
        if a.weights is None:
            assert b.weights is None
        else:
            pd.testing.assert_series_equal(a.weights, b.weights, check_exact=True, check_index_type=False)
    named = {x["weights"][1] for x in [record, *record["sleeves"]] if x.get("weights")}
    assert len(named) == arrays and named <= set(fetched)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_rows_of_a_history_come_back(n: int) -> None:
    """A row of no sleeve, of one, of several, and of more than fit into one array."""
    rng, ids = np.random.default_rng(7), [f"s{i}" for i in range(n)]
    for names in (NAMES, WIDE):
        m = len(names)
        h = History(names, ids, rng.standard_normal((3, m)), rng.standard_normal((3, n, m)),
                    DAYS[:3].to_numpy().astype("datetime64[D]"))
        archive, stored = Archive(), {}
        for day in (3, 4, 5):
            made = Snapshot(session=DAYS[day], slot="15:30", decided_at=DAYS[day].tz_localize("UTC"), asset_returns=h, equity=1.0,
                            sleeves=None)
            record = archive.record(made)
            stored.update(archive.pending)
            archive.stored(record)
            assert Reader(stored.__getitem__).snapshot(record).asset_returns.digest == h.digest
            row = rng.standard_normal((n, m))
            row[:1] = np.nan if day == 4 else row[:1]  # not published
            h.append(np.datetime64(DAYS[day].date()), rng.standard_normal(m), row, rng.standard_normal(n) if day == 3 else None)


@pytest.mark.parametrize("text", ["2026-03-08 01:59:59.999999999", "2026-11-01 00:30", "2026-07-01"])
@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Asia/Kolkata", None])
def test_times_come_back(text: str, zone: str | None) -> None:
    at = pd.Timestamp(text, tz=zone)
    back = time_from(time_text(at))
    assert back == at and back is not None and (back.tzinfo is None) == (zone is None)


def test_a_day_costs_a_day(tmp_path: Path) -> None:
    """Only new rows, changed arrays and the decision are stored: constant size a session, small beside the history."""
    desk, sizes = Desk(tmp_path / "book.db", config=FOUR), []
    for row in range(ROW, ROW + 12):
        before = blob_bytes(desk.store)
        for slot in desk.calendar.slots(DAYS[row]):
            desk.fill(desk.session.on_slot(desk.snapshot(row, slot.name)))
        sizes.append(blob_bytes(desk.store) - before)
    day = np.array(sizes[1:])
    assert sizes[0] > 15 * day.max() and day.max() < 2 * day.min() and day.max() < 8_000
    assert replay(desk.store).ok


def blob_bytes(store: StateStore) -> int:
    return int(store._db.execute("SELECT coalesce(sum(length(data)), 0) FROM blobs").fetchone()[0])


def test_a_restart_does_not_store_the_history_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", frames=True)
    desk.run(ROW, ROW)
    first = blob_bytes(desk.store)
    for row in range(ROW + 1, ROW + 6):
        desk.restart()
        desk.run(row, row)
    assert blob_bytes(desk.store) < 1.3 * first and replay(desk.store).ok


@pytest.mark.slow
def test_three_years_with_restarts_replay(tmp_path: Path) -> None:
    """About 2,400 decisions at four slots a day, a restart every third session."""
    desk, rng = Desk(tmp_path / "book.db", config=FOUR), np.random.default_rng(0)
    for row in range(ROW, len(DAYS) - 1):
        if rng.random() < 1 / 3:
            desk.restart()
        for slot in desk.calendar.slots(DAYS[row]):
            desk.fill(desk.session.on_slot(desk.snapshot(row, slot.name)))
    got = replay(desk.store)
    assert got.ok and got.decisions > 2300 and desk.store.verify()["rows"] == got.rows


# ---------------------------------------------------------------- a store of every version, for ever


def make_golden() -> None:
    """How the golden store was made; run with PIL_MAKE_GOLDEN=1, only while its version is unreleased."""
    import tempfile

    path = Path(tempfile.mkdtemp()) / "store" / "book.db"
    desk = Desk(path)
    desk.run(ROW, ROW + 2)
    desk.session.on_slot(replace(desk.snapshot(ROW + 3), flows=float("nan")))
    desk.fill(desk.session.on_slot(desk.snapshot(ROW + 3)))
    desk.store.close()
    GOLDEN.parent.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute(f"VACUUM INTO '{GOLDEN}.new'")
    os.replace(f"{GOLDEN}.new", GOLDEN)


if os.environ.get("PIL_MAKE_GOLDEN"):
    make_golden()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_every_version_opens_for_ever(tmp_path: Path, version: int) -> None:
    path = tmp_path / "store" / "book.db"
    path.parent.mkdir(mode=0o700)
    shutil.copy(FOLDER / f"store_v{version}.sqlite", path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT schema FROM state").fetchone()[0] == version
    with StateStore(path, readonly=True) as look:  # looking changes nothing
        assert look.state is not None and look.state["memory"]["adopting"] == ""
        assert replay(look, tolerance=1e-12).ok
    desk = Desk(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA
    state, memory = desk.session.state, desk.session.memory
    assert [r.kind for r in desk.store.rows()] == ["decision"] * 3 + ["held", "decision"] and state.seq == 4
    assert memory.session == DAYS[ROW + 3].date().isoformat() and memory.holds == 0 and state.symbols == tuple(NAMES)
    assert desk.store.verify()["rows"] == 5
    for row in desk.store.rows():
        if row.kind == "decision":
            for o in row.payload["decision"]["orders"]:
                desk.positions[o["vehicle"]] += o["quantity"] * (1 if o["side"] == "buy" else -1)
    d = desk.session.on_slot(desk.snapshot(ROW + 4))
    assert d.status == "ok" and codes(d) == [] and replay(desk.store, tolerance=1e-12).ok


def test_a_decision_is_stored_as_its_plain_values_would_be(tmp_path: Path) -> None:
    """The journal's short way makes the same bytes as the long one."""
    desk = Desk(tmp_path / "store" / "book.db")
    for row in range(ROW, ROW + 3):
        d = desk.run(row, row)
        archive, shelf = Archive(), _Shelf()
        light, parts = archive.decision(d)
        want = split_decision(shelf, d.to_dict())
        assert canonical([light, parts]) == canonical(list(want)) and archive.pending == shelf.new
        whole = whole_decision({"decision": light, "parts": parts}, shelf.new.__getitem__)
        assert parse(canonical(whole)) == parse(canonical(d.to_dict()))
        again = pickle.loads(pickle.dumps(d))  # noqa: S301 (our own bytes)
        assert (again.status, again.seq, again.to_dict()) == (d.status, d.seq, d.to_dict())


def test_a_book_without_sleeves_for_a_week_replays(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "store" / "book.db", frames=True)
    desk.run(ROW, ROW)
    for row in range(ROW + 1, ROW + 7):
        desk.fill(desk.session.on_slot(desk.snapshot(row, sleeves=(), sleeves_confirmed=True)))
    desk.restart()
    assert float(np.abs(desk.positions).sum()) == 0.0 and replay(desk.store).ok


def test_a_copied_answer_is_the_same_answer(tmp_path: Path) -> None:
    d = Desk(tmp_path / "store" / "book.db").run(ROW, ROW + 1)
    read = d.exposures
    for twin in (copy.copy(d), copy.deepcopy(d)):
        assert type(twin) is type(d) and twin.to_dict() == d.to_dict() and (twin.status, twin.seq) == (d.status, d.seq)
        assert twin.explain("S00").total == d.explain("S00").total
        pd.testing.assert_series_equal(twin.exposures, read)
    changed = copy.deepcopy(replace(d, equity=1.0))
    assert changed.equity == 1.0 and changed.exposures.equals(read)


def test_a_question_of_an_older_version_asked_again_is_no_other_question(tmp_path: Path) -> None:
    path = tmp_path / "store" / "book.db"
    path.parent.mkdir(mode=0o700)
    shutil.copy(FOLDER / "store_v2.sqlite", path)
    desk = Desk(path)
    again = desk.session.on_slot(desk.snapshot(ROW + 3))
    assert codes(again)[-1] == "DUPLICATE" and "an earlier version" in again.reasons[-1].message


def test_a_table_of_instruments_changed_in_place_counts(tmp_path: Path) -> None:
    costs = []
    for name, changed in (("a", False), ("b", True)):
        desk, info = Desk(tmp_path / name / "book.db", frames=True), INFO.copy()
        desk.fill(desk.session.on_slot(desk.snapshot(ROW, instruments=info)))
        if changed:
            info.loc["S03", "half_spread_bps"] = 400.0
        d = desk.session.on_slot(desk.snapshot(ROW + 1, instruments=info))
        alone = PortfolioIntegrator(DAILY)
        alone.build_target_book(desk.snapshot(ROW, instruments=(own := INFO.copy())))
        own["half_spread_bps"] = info["half_spread_bps"]
        told = alone.build_target_book(desk.snapshot(ROW + 1, instruments=own))
        costs.append((d.numbers["trade_cost"], told.numbers["trade_cost"]))
        assert replay(desk.store).ok
    assert costs[0][0] != costs[1][0] and costs[0][1] != costs[1][1]


def test_an_infinite_cell_of_instruments_is_held(tmp_path: Path) -> None:
    desk, info = Desk(tmp_path / "store" / "book.db", frames=True), INFO.copy()
    info["note"] = pd.Series([np.inf, None, *"abcdef"], index=NAMES, dtype=object)
    d = desk.session.on_slot(desk.snapshot(ROW, instruments=info))
    assert d.status == "hold" and [r.value for r in d.reasons if r.code.value == "INPUT_REFUSED"] == ["NON_FINITE"]


def test_a_table_that_was_replaced_is_the_one_that_is_checked_and_stored(tmp_path: Path) -> None:
    """What the journal and the last line read without labels is what a reader of the decision sees."""
    d = Desk(tmp_path / "store" / "book.db").run(ROW, ROW)
    fresh = d.arrays("book_weights", "exposures", "notionals", "trades")
    assert fresh is not None and d.labels is d.exposures.index
    for name, values in zip(("book_weights", "exposures", "notionals", "trades"), fresh, strict=True):
        assert (getattr(d, name).to_numpy() == values).all() and not values.flags.writeable
    moved = replace(d, exposures=d.exposures + 0.5)
    exposures, trades = moved.arrays("exposures", "trades") or ([], [])
    assert (exposures == moved.exposures.to_numpy()).all() and (trades == d.trades.to_numpy()).all()
    other = replace(d, trades=d.trades[::-1])
    assert other.arrays("exposures", "trades") is None and other.arrays("trades") is None  # its labels are its own
    shelf, archive = _Shelf(), Archive()
    assert canonical(list(archive.decision(moved))) == canonical(list(split_decision(shelf, moved.to_dict())))
    assert whole_decision(dict(zip(("decision", "parts"), archive.decision(moved), strict=True)),
                          dict(archive.pending).__getitem__)["exposures"] == moved.exposures.to_dict()


def test_joined_texts_are_canonical() -> None:
    a, b = {"z": 1.5, "a": [None, True]}, {"é": "x"}
    assert joined(memory=canonical(b), book=canonical(a)) == canonical({"book": a, "memory": b})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(StateError) as caught:
        canonical(loop)
    assert caught.value.code == "NOT_PLAIN"
