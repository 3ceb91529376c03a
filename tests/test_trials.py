"""The trial ledger: counting, chaining, damage, and several processes at once. Always a temporary file."""
from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pil_research.config import PILConfig
from pil_research.research.ledger_file import append_records, decode_lines, read_lines
from pil_research.research.overfitting import Trial, TrialLedger, default_ledger
from pil_research.types import InputError, StateError

DATA = "ab" * 32


def fp(i: int) -> str:
    return f"{i:064x}"


@pytest.fixture
def ledger(tmp_path: Path) -> TrialLedger:
    return TrialLedger(tmp_path / "deep" / "trials.jsonl")


def test_distinct_trials_count_and_repeats_are_logged(ledger: TrialLedger) -> None:
    assert ledger.count() == 0 and ledger.entries() == [] and ledger.table().empty
    base, other = PILConfig(), PILConfig().replace(**{"allocation.method": "erc"})
    assert ledger.record(base, DATA, code="0.1.0", command="demo", sharpe=0.4)
    assert not ledger.record(base.fingerprint(), "sha256:" + DATA, code="0.9.3")  # minor version: a repeat
    assert ledger.record(base, DATA, code="1.0.0")  # major version: results changed
    assert ledger.record(other, DATA, code="0.1.0")
    assert ledger.record(base, "cd" * 32, code="0.1.0")
    assert ledger.count() == 4 and len(ledger.entries()) == 5
    assert ledger.count(data=DATA) == 3 and ledger.count(data="sha256:" + "cd" * 32) == 1
    first = ledger.entries()[0].trial
    assert first is not None and first.command == "demo" and first.facts == {"sharpe": 0.4}
    assert ledger.table()["evaluations"].tolist() == [2, 1, 1, 1]


def test_many_at_once_return_the_new_ones(ledger: TrialLedger) -> None:
    family = [Trial(config=fp(i), data=DATA) for i in range(300)]
    assert ledger.record_many(family) == 300
    assert ledger.record_many([*family[:50], *[Trial(config=fp(999), data=DATA)] * 2]) == 1
    assert ledger.record_many([]) == 0
    assert ledger.count() == 301 and len(ledger.entries()) == 352
    assert all(json.loads(line)["schema"] == "pil.trial/1" for line in ledger.path.read_bytes().splitlines())


def test_the_file_is_only_ever_appended_to(ledger: TrialLedger) -> None:
    before = b""
    for i in range(5):
        ledger.record(fp(i), DATA)
        now = ledger.path.read_bytes()
        assert now.startswith(before) and len(now) > len(before)
        before = now


@pytest.mark.parametrize(("change", "line"), [
    (lambda lines: lines[1:], 1), (lambda lines: lines[:2] + lines[3:], 3),
    (lambda lines: [*lines[:2], lines[2].replace(b"demo", b"memo"), *lines[3:]], 4),
    (lambda lines: [*lines[:2], b"rubbish\n", *lines[3:]], 4), (lambda lines: lines + lines[-1:], 6)])
def test_removed_and_changed_lines_are_refused(ledger: TrialLedger, change, line: int) -> None:
    for i in range(5):
        ledger.record(fp(i), DATA, command="demo")
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(change(lines)))
    for act in (ledger.count, lambda: ledger.record(fp(9), DATA), ledger.entries, ledger.table):
        with pytest.raises(StateError, match=f"line {line}") as err:
            act()
        assert err.value.code == "LEDGER_BROKEN"


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_a_torn_line_never_lowers_the_count(ledger: TrialLedger, cut: int) -> None:
    for i in range(3):
        ledger.record(fp(i), DATA)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-cut])  # a power cut in the last write; cut = 1 loses only the newline
    assert ledger.count() == 3
    ledger.record(fp(7), DATA)
    assert ledger.count() == 4 and len(ledger.entries()) == 4
    assert (ledger.entries()[2].trial is None) == (cut > 1)


def test_a_shortened_ledger_does_not_extend_its_head(ledger: TrialLedger) -> None:
    empty = ledger.head()
    for i in range(4):
        ledger.record(fp(i), DATA)
    head = ledger.head()
    assert empty == (0, "") and head[0] == 4 and ledger.extends(head) and ledger.extends(empty)
    ledger.record(fp(9), DATA)
    assert ledger.extends(head)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:3]))
    assert ledger.count() == 3 and not ledger.extends(head)
    ledger.record(fp(11), DATA)
    assert not ledger.extends(head)


def test_a_smaller_count_than_the_ledgers_is_an_error(ledger: TrialLedger) -> None:
    family = 0.01 * np.random.default_rng(0).standard_normal((500, 10)) + 0.0005
    with pytest.raises(InputError, match="no trials"):
        ledger.deflate(family[:, 0], family)
    ledger.record_many([Trial(config=fp(i), data=DATA) for i in range(5)])
    with pytest.raises(InputError, match="cover the family of 10") as err:  # five were never recorded
        ledger.deflate(family[:, 0], family)
    ledger.record_many([Trial(config=fp(i), data=DATA) for i in range(12)])
    for few in (11, 1, 0, float("nan")):
        with pytest.raises(InputError, match="count of 12") as err:
            ledger.deflate(family[:, 0], family, n_trials=few)  # type: ignore[arg-type]
        assert err.value.code == "TRIALS_UNDERCOUNTED" and err.value.limit == 12
    assert ledger.deflate(family[:, 0], family).n_trials == 12
    more = ledger.deflate(family[:, 0], family, n_trials=500)
    assert more.n_trials == 500 and more.dsr < ledger.deflate(family[:, 0], family).dsr


@pytest.mark.parametrize(("change", "code"), [
    ({"config": "abc"}, "BAD_FINGERPRINT"), ({"data": "G" * 64}, "BAD_FINGERPRINT"), ({"code": "dev"}, "BAD_VERSION"),
    ({"facts": {"sharpe": float("nan")}}, "BAD_RECORD"), ({"facts": {"x": object()}}, "BAD_RECORD")])
def test_bad_trials_are_refused_and_write_nothing(ledger: TrialLedger, change: dict, code: str) -> None:
    ledger.record(fp(0), DATA)
    before = ledger.path.read_bytes()
    with pytest.raises(InputError) as err:
        ledger.record_many([Trial(config=fp(1), data=DATA), Trial(**{"config": fp(2), "data": DATA, **change})])
    assert err.value.code == code and ledger.path.read_bytes() == before


def test_waiting_for_a_lock_is_bounded(ledger: TrialLedger) -> None:
    ledger.record(fp(0), DATA)
    hurried = TrialLedger(ledger.path, timeout=0.05)
    with ledger.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for act in (hurried.count, lambda: hurried.record(fp(1), DATA)):
            with pytest.raises(StateError, match="locked by another process") as err:
                act()
            assert err.value.code == "LEDGER_LOCKED"
    assert hurried.record(fp(1), DATA)


def test_threads_share_one_ledger(ledger: TrialLedger) -> None:
    def work(k: int) -> None:
        for i in range(15):
            ledger.record(fp(100 * (i % 2) * k + i), DATA)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(ledger.entries()) == 60 and ledger.count() == len({100 * (i % 2) * k + i
                                                                  for k in range(4) for i in range(15)})


WRITER = """
import sys
from pathlib import Path
from pil_research.research.ledger_file import append_records
for i in range(15):
    append_records(Path(sys.argv[1]), [{"writer": int(sys.argv[2]), "i": i, "pad": "x" * 5000}] * 2, 30.0)
"""


def test_processes_lose_nothing_and_keep_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    workers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(k)], env=env) for k in range(3)]
    assert [w.wait(60) for w in workers] == [0, 0, 0]
    records = decode_lines(read_lines(path, 1.0))  # raises if the chain is broken
    assert len(records) == 90 and None not in records
    for k in range(3):
        mine = [r["i"] for r in records if r is not None and r["writer"] == k]
        assert mine == [i for i in range(15) for _ in range(2)]


def test_records_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert append_records(path, [{"a": 1, "text": "line\nbreak é"}], 1.0) == []
    before = append_records(path, [{"a": 2}], 1.0)
    assert before[0] is not None and before[0]["text"] == "line\nbreak é" and before[0]["prev"] == ""


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIL_LEDGER", raising=False)
    assert default_ledger(tmp_path).path == tmp_path / "trials.jsonl"
    monkeypatch.setenv("PIL_LEDGER", str(tmp_path / "other.jsonl"))
    assert default_ledger(tmp_path).path == tmp_path / "other.jsonl"


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    place = TrialLedger(tmp_path)
    for ask in (place.count, place.head, place.entries, lambda: place.record(fp(1), DATA)):
        with pytest.raises(InputError, match="must be the file of a ledger") as caught:
            ask()
        assert caught.value.code == "NOT_A_FILE"


@pytest.mark.parametrize("wrong", [None, 3, b"ab"])
def test_what_has_no_fingerprint_is_a_typed_error(ledger: TrialLedger, wrong: object) -> None:
    for given in ((wrong, DATA), (fp(1), wrong)):
        with pytest.raises(InputError, match="sha256 fingerprint") as caught:
            ledger.record(*given)  # type: ignore[arg-type]
        assert caught.value.code == "BAD_FINGERPRINT"
    assert not ledger.path.exists()


@pytest.mark.parametrize("n", [4.5, 4.0, True, "4"])
def test_a_count_is_a_whole_number(ledger: TrialLedger, n: object) -> None:
    ledger.record(fp(1), DATA)
    with pytest.raises(InputError, match="n_trials must be a whole number") as caught:
        ledger.check_count(n)  # type: ignore[arg-type]
    assert caught.value.code == "BAD_COUNT" and ledger.check_count(np.int64(4)) == 4
