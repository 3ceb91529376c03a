"""The store under fire: kills at every point of a commit, damaged files, two writers, full disks, other versions."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pil_research.live.files import WriterLock, quarantined, read_head, write_head
from pil_research.live.journal import SCHEMA, Entry, migrate_state
from pil_research.live.payload import canonical, pack, parse, sha, unpack
from pil_research.live.store import StateStore
from pil_research.research.crash import contend, in_child, kill_loop
from pil_research.research.damage import damage_copies, mutate
from pil_research.types import StateError


def entry(n: int, size: int = 300) -> Entry:
    book = {f"S{i:03d}": n / (i + 7.0) for i in range(size)}
    return Entry("decision", f"id-{n}", "2026-03-02", "15:30", {"n": n, "book": book})


def state_of(n: int) -> dict[str, Any]:
    return {"n": n, "marks": [n / 3.0, n / 7.0]}


def commit(store: StateStore, n: int, size: int = 300) -> None:
    store.commit(entry(n, size), state_of(n), {sha(b"%d" % n): b"%d" % n})


def content(store: StateStore) -> tuple[Any, ...]:
    """Everything a store says."""
    return store.state, [(r.seq, r.kind, r.decision_id, r.payload, r.hash) for r in store.rows()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "book.db"


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(StateError) as no:
        call()
    assert str(no.value) and no.value.field
    return str(no.value.code)


# ---------------------------------------------------------------- what is promised on a good day


def test_round_trip_and_head(path: Path) -> None:
    with StateStore(path) as store:
        for n in range(1, 30):
            commit(store, n)
        said, head = content(store), store.head
    with StateStore(path) as store:
        assert content(store) == said and (store.seq, store.head) == (29, head) and store.epoch == 2
        assert store.find("id-7").payload["n"] == 7 and store.find("id-99") is None  # type: ignore[union-attr]
        assert store.blob(sha(b"3")) == b"3" and store.last("decision").seq == 29  # type: ignore[union-attr]
        assert store.verify()["rows"] == 29 and store.last("held") is None
        again = StateStore(path, readonly=True)
        assert content(again) == said and again.epoch == 0
        again.close()


def test_the_head_depends_on_content_only(tmp_path: Path) -> None:
    """Two accounts that decided the same have the same head, however often they restarted."""
    heads = []
    for name, breaks in (("a", ()), ("b", (3, 4, 9))):
        store = StateStore(tmp_path / name / "book.db")
        for n in range(1, 12):
            if n in breaks:
                store.close()
                store = StateStore(tmp_path / name / "book.db")
            commit(store, n)
        heads.append(store.head)
        store.close()
    assert heads[0] == heads[1]


def test_rows_only_grow(path: Path) -> None:
    with StateStore(path) as store:
        commit(store, 1)
        for sql in ("UPDATE journal SET slot = 'x'", "DELETE FROM journal", "DELETE FROM blobs", "UPDATE blobs SET data = 'x'",
                    "DELETE FROM epochs", "UPDATE epochs SET epoch = 9"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                store._db.execute(sql)
        assert refused(lambda: commit(store, 1)) == "DUPLICATE_ID"
        commit(store, 2)


def test_private_files(path: Path) -> None:
    with StateStore(path) as store:
        commit(store, 1)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
        assert stat.S_IMODE(store.export().stat().st_mode) == 0o600
    os.chmod(path.parent, 0o770)
    assert refused(lambda: StateStore(path)) == "UNSAFE_DIR"
    os.chmod(path.parent, 0o700)
    other = path.parent / "link.db"
    other.symlink_to(path)
    assert refused(lambda: StateStore(other)) == "BAD_FILE"


def test_the_export_is_never_read_back(path: Path) -> None:
    with StateStore(path) as store:
        commit(store, 1)
        out = store.export()
        assert parse(out.read_bytes())["state"] == state_of(1)
        out.write_text('{"state": {"n": 99}}')
        assert store.state == state_of(1)
    with StateStore(path) as store:
        assert store.state == state_of(1)


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}, {"x": {1, 2}}, {"x": np.zeros(2)}])
def test_only_finite_plain_values_are_written(path: Path, bad: dict[str, Any]) -> None:
    with StateStore(path) as store:
        commit(store, 1)
        assert refused(lambda: store.commit(Entry("decision", "b", "", "", bad), {})) == "NOT_PLAIN"
        assert refused(lambda: store.commit(entry(2), bad)) == "NOT_PLAIN"
        assert store.seq == 1
        commit(store, 2)


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', "[NaN]", "[Infinity]", "[1e999]", '{"a":1', "", "[1]x", '{"a":NaN}', "[" * 99_999])
def test_strict_reading(text: str) -> None:
    assert refused(lambda: parse(text)) == "BAD_PAYLOAD"


def test_canonical_is_a_fixed_point() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        x = {"a": rng.standard_normal(5).tolist(), "b": [None, True, "é", 10 ** int(rng.integers(20))], "c": {"z": 1e-310}}
        assert parse(canonical(x)) == x and canonical(parse(canonical(x))) == canonical(x)
    values = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    values = values[np.isfinite(values)]
    assert np.array(parse(canonical(values.tolist()))).tobytes() == values.tobytes()
    assert unpack(pack(values)).tobytes() == values.tobytes()


# ---------------------------------------------------------------- one writer


def test_a_second_writer_is_refused_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Incident 30: refused without waiting, with the holder's process id."""
    def wait(*_: object) -> None:
        raise AssertionError("it waits")

    with StateStore(path), monkeypatch.context() as patched:
        patched.setattr(time, "sleep", wait)
        patched.setattr("pil_research.live.store.sqlite3.connect", wait)  # refused before the file is opened: no busy time-out
        with pytest.raises(StateError, match=f"process {os.getpid()}"):
            StateStore(path)
    StateStore(path).close()


def test_a_writer_without_the_lock_is_fenced(path: Path) -> None:
    """Where file locks do not work, the newer epoch wins and the older writer can write nothing more."""
    old = StateStore(path)
    commit(old, 1)
    assert old._lock is not None
    old._lock.release()
    with StateStore(path) as new:
        assert refused(lambda: commit(old, 2)) == "FENCED"
        commit(new, 2)
        assert refused(lambda: commit(old, 3)) == "FENCED" and content(new)[0] == state_of(2)
    old.close()


def test_a_store_that_was_moved_away_is_not_written(path: Path) -> None:
    store = StateStore(path)
    commit(store, 1)
    shutil.copy(path, path.with_suffix(".copy"))
    os.replace(path.with_suffix(".copy"), path)
    assert refused(lambda: commit(store, 2)) == "MOVED"
    store.close()


@pytest.mark.parametrize("writers", [2, 4])
def test_concurrent_writers_lose_nothing(path: Path, writers: int) -> None:
    StateStore(path).close()
    got = contend(path, writers, 12)
    assert got.commits >= 12 * writers and not got.lost


@pytest.mark.slow
def test_sixteen_writers_lose_nothing(path: Path) -> None:
    StateStore(path).close()
    got = contend(path, 16, 25)
    assert got.commits >= 400 and not got.lost


# ---------------------------------------------------------------- kill -9


def test_kill_at_write_points_loses_nothing_acknowledged(path: Path) -> None:
    """Incidents 12, 13: killed inside transactions, at write calls and at random; an acknowledged commit is never lost."""
    StateStore(path).close()
    got = kill_loop(path, 48, seed=0)
    assert got.cycles == 48 and not got.lost and got.commits > 20


@pytest.mark.slow
def test_a_thousand_kills(path: Path) -> None:
    StateStore(path).close()
    got = kill_loop(path, 1500, seed=1)
    assert got.cycles == 1500 and not got.lost


@pytest.mark.parametrize("step", [1, 30, 80, 150, 300, 1000])
def test_a_kill_while_a_store_is_made_leaves_none_or_a_whole_one(path: Path, step: int) -> None:
    def work() -> None:
        size = [step * 100]
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size[0], size[0]))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        StateStore(path)

    os.waitpid(in_child(work), 0)
    with StateStore(path) as store:
        assert store.seq == 0
        commit(store, 1)


# ---------------------------------------------------------------- damage


def make_store(path: Path, rows: int = 6) -> tuple[Any, ...]:
    with StateStore(path) as store:
        for n in range(1, rows + 1):
            commit(store, n, 12 if n % 3 else 300)
        return content(store)


def accepted(path: Path) -> tuple[Any, ...] | None:
    """What a store says, or None when it is refused with a typed error."""
    try:
        with StateStore(path, readonly=True) as store:
            said = content(store)
            blobs = [store.blob(sha(b"%d" % n)) for n in range(1, store.seq + 1)]
            assert blobs == [b"%d" % n for n in range(1, store.seq + 1)]
            return said
    except StateError as e:
        assert e.code in ("CORRUPT", "ROLLED_BACK", "NEWER_SCHEMA", "MISSING", "STORE_IO"), e
        return None


def test_no_damaged_store_is_believed(path: Path) -> None:
    """Incident 28: truncated, flipped, zeroed, cut, stuffed; never other content, never an empty start."""
    make_store(path)
    got = damage_copies(path, 2000, seed=5)
    assert got.other == 0 and got.refused > 1000 and got.same < 1000  # a flip in an unused part of a page changes nothing
    assert set(got.codes) <= {"CORRUPT", "ROLLED_BACK", "NEWER_SCHEMA", "MISSING", "STORE_IO"}


@pytest.mark.slow
def test_a_hundred_thousand_damaged_stores(path: Path) -> None:
    make_store(path)
    got = damage_copies(path, 100_000, seed=6)
    assert got.other == 0 and got.refused + got.same == 100_000


def test_a_damaged_log_never_gives_an_older_book(path: Path) -> None:
    """SQLite drops the tail of a damaged log silently; the head beside it notices."""
    store, rng = StateStore(path), np.random.default_rng(2)
    for n in range(1, 7):
        commit(store, n)
    said, files = content(store), {p.name: p.read_bytes() for p in path.parent.iterdir() if p.suffix != ".lock"}
    store.close()
    assert len(files["book.db-wal"]) > 10_000
    copy, kept = path.parent / "copy" / "book.db", 0
    copy.parent.mkdir(mode=0o700)
    for _ in range(400):
        for name, data in files.items():
            if name != "book.db-shm":
                copy.with_name(name).write_bytes(mutate(data, rng) if name.endswith("-wal") else data)
        copy.with_name("book.db-shm").unlink(missing_ok=True)
        found = accepted(copy)
        assert found is None or found == said
        kept += found is not None
    assert kept < 400


def test_damage_is_moved_aside_and_never_defaulted(path: Path) -> None:
    make_store(path)
    for n in (1, 2):
        if n == 2:
            with StateStore(path, fresh=True) as store:
                commit(store, 1)
        path.write_bytes(path.read_bytes()[:5000])
        assert refused(lambda: StateStore(path)) == "CORRUPT"
        assert [p.name for p in quarantined(path)] == [f"book.db.corrupt-{i}" for i in range(1, n + 1)]
        assert not path.exists() and refused(lambda: StateStore(path)) == "MISSING"
    assert (path.parent / "book.db.corrupt-1").stat().st_size == 5000


@pytest.mark.parametrize("junk", [b"", b"\x00" * 4096, b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_foreign_file_is_no_store(path: Path, junk: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(junk)
    assert refused(lambda: StateStore(path)) == "CORRUPT" and not path.exists()


def test_another_program_s_database_is_no_store(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE journal(seq INTEGER)")
        db.commit()
    assert refused(lambda: StateStore(path)) == "CORRUPT"


@pytest.mark.parametrize("sql", [
    "DROP TRIGGER journal_update", "DELETE FROM state", "UPDATE state SET seq = 2", "UPDATE state SET payload = x'7b7d'",
    "DROP TRIGGER journal_delete; DELETE FROM journal WHERE seq = 6", "CREATE TABLE extra(x)", "UPDATE state SET payload = 7",
    "UPDATE state SET seq = 'six'", "DROP TRIGGER journal_update; UPDATE journal SET kind = CAST(kind AS BLOB) WHERE seq = 3",
    "UPDATE state SET schema = x'01'", "PRAGMA user_version = 0", "PRAGMA application_id = 5"])
def test_a_careful_edit_is_still_damage(path: Path, sql: str) -> None:
    make_store(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(sql)
        db.commit()
    assert refused(lambda: StateStore(path)) == "CORRUPT"


@pytest.mark.parametrize("sql", ["UPDATE blobs SET data = CAST(data AS TEXT) WHERE hash = (SELECT min(hash) FROM blobs)",
                                 "UPDATE journal SET payload = CAST(payload AS TEXT) WHERE seq = 2",
                                 "UPDATE journal SET payload_hash = CAST(payload_hash AS BLOB) WHERE seq = 6",
                                 "UPDATE journal SET slot = CAST(slot AS BLOB) WHERE seq = 1",
                                 "UPDATE journal SET epoch = 'one' WHERE seq = 6"])
def test_a_value_of_another_type_is_damage(path: Path, sql: str) -> None:
    """One flipped bit of a record's header makes text of bytes."""
    make_store(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        guards = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        off, on = (f"DROP TRIGGER {name};" for name, _ in guards), (f"{text};" for _, text in guards)
        db.executescript("".join((*off, f"{sql};", *on)))
        db.commit()

    def read_all() -> None:
        with StateStore(path) as store:
            digests = [d for (d,) in store._db.execute("SELECT hash FROM blobs")]
            for digest in digests:
                store.blob(digest)
            list(store.rows())
            store.verify()

    assert refused(read_all) == "CORRUPT"


@pytest.mark.parametrize("stuck", [False, True])
def test_a_copy_without_wal_survives_a_kill(path: Path, tmp_path: Path, stuck: bool) -> None:
    """As `VACUUM INTO` makes it; `stuck`: killed by a program that left it so."""
    make_store(path)
    twin = tmp_path / "twin" / "book.db"
    twin.parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"VACUUM INTO '{twin}'")
    twin.chmod(0o600)

    def half(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA cache_size=1")
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO blobs VALUES (?, ?)", [(f"{i:064d}", os.urandom(5000)) for i in range(200)])
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            half(sqlite3.connect(twin, isolation_level=None) if stuck else StateStore(twin)._db)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert twin.with_name("book.db-journal").exists() is stuck
    with StateStore(twin) as store:
        assert store.seq == 6
        commit(store, 7)
        assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_restored_backup_is_noticed(path: Path, tmp_path: Path) -> None:
    make_store(path, 3)
    backup = path.read_bytes()
    with StateStore(path) as store:
        commit(store, 4)
    path.write_bytes(backup)
    assert refused(lambda: StateStore(path)) == "ROLLED_BACK" and path.read_bytes() == backup
    path.with_name("book.db.head").unlink()
    with StateStore(path) as store:
        assert store.seq == 3


def test_a_lost_store_is_not_a_first_start(path: Path) -> None:
    """Incident 14: the file is gone, the head is not."""
    make_store(path)
    path.unlink()
    assert refused(lambda: StateStore(path)) == "MISSING"
    with StateStore(path, fresh=True) as store:
        assert store.seq == 0
    assert len(list(path.parent.glob("book.db.corrupt-1*"))) == 1


def test_the_head_may_lag_but_not_lead(path: Path) -> None:
    make_store(path, 4)
    head = path.with_name("book.db.head")
    seq, digest = read_head(head) or (0, "")
    assert seq == 4
    with StateStore(path, readonly=True) as store:
        second = list(store.rows())[1].hash
    for text, ok in (((2, second), True), ((5, digest), False), ((3, digest), False)):
        write_head(head, *text)
        if ok:
            StateStore(path).close()
        else:
            assert refused(lambda: StateStore(path)) == "ROLLED_BACK"
    head.write_bytes(b"torn")
    StateStore(path).close()


# ---------------------------------------------------------------- versions


def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    make_store(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    before = path.read_bytes()
    assert refused(lambda: StateStore(path)) == "NEWER_SCHEMA" and path.read_bytes() == before and not quarantined(path)


def test_migrations_are_pure_steps() -> None:
    steps = {1: lambda p: {**p, "b": 1}, 2: lambda p: {k: v for k, v in p.items() if k != "a"}}
    old = {"a": 0}
    assert migrate_state(old, 1, 3, steps) == {"b": 1} and old == {"a": 0}
    assert migrate_state(old, 1) == old
    assert refused(lambda: migrate_state(old, 1, 4, steps)) == "NO_MIGRATION"
    assert refused(lambda: migrate_state(old, 5, 3, steps)) == "NEWER_SCHEMA"


# ---------------------------------------------------------------- disk


def test_a_full_disk_writes_nothing_and_recovers(path: Path) -> None:
    """SQLite's own page limit stands for a full disk; space comes back and the next commit succeeds."""
    with StateStore(path) as store:
        commit(store, 1)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        big = {sha(x): x for x in (os.urandom(60_000),)}
        with pytest.raises(StateError, match="nothing was written") as no:
            store.commit(entry(2), state_of(2), big)
        assert no.value.code == "COMMIT_FAILED" and store.seq == 1 and store.state == state_of(1)
        store._db.execute("PRAGMA max_page_count = 100000")
        store.commit(entry(2), state_of(2), big)
        assert store.verify()["rows"] == 2


@pytest.mark.parametrize("room", range(0, 24_000, 3001))
def test_short_writes_at_any_offset(path: Path, room: int) -> None:
    """The kernel refuses writes past a size: a typed error, and the old state or the new one, nothing else."""
    make_store(path, 3)

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            with StateStore(path) as store:
                commit(store, 4)
        except StateError as e:
            os._exit(3 if e.code in ("COMMIT_FAILED", "STORE_IO") else 4)
        os._exit(0)

    _, status = os.waitpid(in_child(work), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 3)
    with StateStore(path) as store:
        assert store.seq == (4 if code == 0 else store.seq) and store.seq in (3, 4)
        assert store.state == state_of(store.seq)
        commit(store, store.seq + 1)


class _Broken:
    """A connection whose n-th statement fails."""

    def __init__(self, db: sqlite3.Connection, fail_at: int, after: bool) -> None:
        self._db, self._left, self._after = db, fail_at, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def _run(self, call: Callable[..., Any], *args: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise sqlite3.OperationalError("disk I/O error")
        out = call(*args)
        if self._left == 0:
            raise sqlite3.OperationalError("disk I/O error")
        return out

    def execute(self, *args: Any) -> Any:
        return self._run(self._db.execute, *args)

    def executemany(self, *args: Any) -> Any:
        return self._run(self._db.executemany, *args)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(1, 8))
def test_an_error_at_any_statement(path: Path, fail_at: int, after: bool) -> None:
    """Before or after each statement of a commit; an error that came after COMMIT is a commit."""
    with StateStore(path) as store:
        commit(store, 1)
        real = store._db
        store._db = _Broken(real, fail_at, after)  # type: ignore[assignment]
        try:
            commit(store, 2)
            done = True
        except StateError as e:
            assert e.code == "COMMIT_FAILED"
            done = False
        store._db = real
        assert done == (fail_at == 7 and after) and store.seq == (2 if done else 1) and store.state == state_of(store.seq)
        commit(store, store.seq + 1)
        store.verify()


def test_a_trouble_of_the_moment_moves_nothing_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = make_store(path)

    def broken(*_: Any, **__: Any) -> Iterator[Any]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR  # type: ignore[misc]
        raise error

    with monkeypatch.context() as m:
        m.setattr("pil_research.live.store.check_all", broken)
        assert refused(lambda: StateStore(path)) == "STORE_IO"
    with StateStore(path) as store:
        assert content(store) == said


def test_the_lock_is_free_after_every_refusal(path: Path) -> None:
    make_store(path, 2)
    path.write_bytes(b"junk")
    refused(lambda: StateStore(path))
    refused(lambda: StateStore(path))
    WriterLock(path.with_name("book.db.lock")).release()
