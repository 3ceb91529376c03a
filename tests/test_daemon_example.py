"""The daemon of README and docs, run from a process outside the package, killed, killed by an operator, and misled."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_runs import CODE, passing_runs

import pil_research
from pil_research.live import ReasonCode, StateStore, replay
from pil_research.research import approval as written
from pil_research.research.verdict import judge
from pil_research.types import AlarmCode

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, PAGE = ROOT / "examples" / "daemon.py", ROOT / "docs" / "daemon.md"

DESK = '''
import json, os, sys
from pathlib import Path
import numpy as np
import pandas as pd
from daemon import daemon
from pil_research.types import PilError, Sleeve, Snapshot

FOLDER, DIE, TRICK = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
RNG, NAMES, IDS = np.random.default_rng(4), ["AA", "BB", "CC", "DD", "EE", "FF"], ["carry", "trend", "value"]
DAYS = pd.bdate_range("2024-12-02", "2026-02-27")
RETURNS = pd.DataFrame(0.01 * RNG.standard_normal((len(DAYS), 6)), DAYS, NAMES)
TARGETS = {i: pd.DataFrame(RNG.standard_normal((len(DAYS), 6)), DAYS, NAMES).ewm(20).mean() for i in IDS}
PRICES = 100.0 * (1.0 + RETURNS).cumprod()
INFO = pd.DataFrame({"asset_class": ["A", "B"] * 3, "kind": "etf", "half_spread_bps": 1.0, "adv_usd": 1e9}, index=NAMES)
FIRST, LAST = (pd.Timestamp(t, tz="America/New_York") for t in ("2026-02-13 09:30", "2026-02-18 15:40"))


class Desk:
    """Clock and sent orders live in files, as a broker's do."""

    def __init__(self):
        self.clock, self.outbox, self.sends = FOLDER / "clock", FOLDER / "sent.json", 0
        self.sent = json.loads(self.outbox.read_text()) if self.outbox.exists() else {}

    def now(self):
        return FIRST + pd.Timedelta(minutes=int(self.clock.read_text()) if self.clock.exists() else 0)

    def wait(self):
        at = self.now() + pd.Timedelta(minutes=5)
        at = at if at.hour < 16 else at.normalize() + pd.Timedelta(hours=33, minutes=30)
        self.clock.write_text(str(int((at - FIRST).total_seconds() // 60)))
        if TRICK == "kill" and at == pd.Timestamp("2026-02-17 10:40", tz=at.tz):
            (FOLDER / "KILL").touch()
        return at if at < LAST else None

    def positions(self):
        held = pd.Series(0.0, NAMES)
        for orders in self.sent.values():
            for name, side, quantity in orders:
                held[name] += quantity if side == "buy" else -quantity
        return held

    def snapshot(self, session, slot, now):
        row = DAYS.get_loc(session)
        if TRICK == "wrong" and slot == "12:00" and now.minute == 0:
            slot = "12:34"
        return Snapshot(session=session, slot=slot, decided_at=now, asset_returns=RETURNS.iloc[:row], equity=5e6,
                        sleeves=tuple(Sleeve(id=i, weights=TARGETS[i].iloc[row - 1], history=TARGETS[i].iloc[:row]) for i in IDS),
                        prices=PRICES.iloc[row - 1], positions=self.positions(), instruments=INFO)

    def send(self, name, orders):
        if name in self.sent:
            return
        self.sends += 1
        if DIE == f"before {self.sends}":
            os._exit(9)
        self.sent[name] = [(o.vehicle, o.side, o.quantity) for o in orders]
        self.outbox.write_text(json.dumps(self.sent))
        if DIE == f"after {self.sends}":
            os._exit(9)

    def note(self, said):
        line = said.as_dict() if isinstance(said, PilError) else {"id": said.id, "status": said.status}
        with (FOLDER / "notes").open("a") as f:
            f.write(json.dumps({"at": str(self.now()), **line}) + "\\n")


try:
    daemon(Desk(), FOLDER)
except PilError as error:
    sys.exit(error.code)
print(" ".join(sorted({m.split(".")[0] for m in sys.modules})))
'''


@pytest.fixture(scope="module")
def approval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("approval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "code_version", lambda: CODE)
        now = datetime(2026, 2, 2, tzinfo=UTC)
        written.write_approval(judge(passing_runs(folder / "runs"), now=now), folder / "approval.json", now=now)
    return folder / "approval.json"


class Place:
    """A folder far from the package, with the example, a desk and an approval."""

    def __init__(self, folder: Path, approval: Path | None) -> None:
        self.folder = folder / "desk"
        self.folder.mkdir(mode=0o700)
        shutil.copy(EXAMPLE, folder / "daemon.py")
        (folder / "main.py").write_text(DESK)
        if approval is not None:
            shutil.copy(approval, self.folder)

    def start(self, die: str = "", trick: str = "") -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OPENBLAS_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, str(self.folder.parent / "main.py"), str(self.folder), die, trick], env=env,
                              cwd=self.folder.parent, capture_output=True, text=True, timeout=120)

    def head(self) -> str:
        with StateStore(self.folder / "store.sqlite", readonly=True) as store:
            return store.head

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(x) for x in (self.folder / "notes").read_text().splitlines()]

    def sent(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "sent.json").read_text()))


def test_the_example_is_twenty_lines_and_imports_only_the_package() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    (function,) = (n for n in tree.body if isinstance(n, ast.FunctionDef))
    body = function.body[1:]
    assert body[-1].end_lineno - body[0].lineno + 1 <= 20  # type: ignore[operator]
    assert all(n.module.split(".")[0] == "pil_research" for n in tree.body if isinstance(n, ast.ImportFrom) and n.module)
    assert not [n for n in tree.body if isinstance(n, ast.Import)]


def test_the_page_holds_the_example() -> None:
    assert "```{literalinclude} ../../examples/daemon.py" in PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory, approval: Path) -> Place:
    place = Place(tmp_path_factory.mktemp("through"), approval)
    done = place.start()
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"matplotlib", "sklearn", "papermill", "nbdev", "pytest", "books", "desk"}
    return place


def test_it_decides_every_slot_of_three_sessions_and_replays(through: Place) -> None:
    assert [n["at"][:16] for n in through.notes()] == [f"2026-02-{d} {t}" for d in (13, 17, 18)
                                                       for t in ("09:35", "12:00", "14:00", "15:30")]
    assert {n["status"] for n in through.notes()} == {"ok"} and any(through.sent().values())
    again = replay(through.folder / "store.sqlite")
    assert again.ok and again.decisions == 12


@pytest.mark.parametrize("die", ["before 4", "after 7"])
def test_killed_while_it_sends_every_order_leaves_once(die: str, tmp_path: Path, approval: Path, through: Place) -> None:
    place = Place(tmp_path, approval)
    assert place.start(die).returncode == 9
    done = place.start()
    assert done.returncode == 0, done.stderr
    assert place.sent() == through.sent() and place.head() == through.head()


def test_a_kill_file_closes_the_book_before_the_next_slot(tmp_path: Path, approval: Path) -> None:
    place = Place(tmp_path, approval)
    assert place.start(trick="kill").returncode == 0
    told = {n["at"][:16]: n["status"] for n in place.notes()}
    assert told["2026-02-17 09:35"] == "ok" and told["2026-02-17 10:40"] == "flat"
    assert told["2026-02-17 12:00"] == told["2026-02-18 15:30"] == "flat"
    held: dict[str, float] = {}
    for orders in place.sent().values():
        for name, side, quantity in orders:
            held[name] = held.get(name, 0.0) + (quantity if side == "buy" else -quantity)
    assert held and all(abs(q) < 1e-6 for q in held.values())
    assert replay(place.folder / "store.sqlite").ok


def test_a_wrong_question_is_noted_and_asked_again(tmp_path: Path, approval: Path) -> None:
    place = Place(tmp_path, approval)
    assert place.start(trick="wrong").returncode == 0
    told = {n["at"][:16]: n for n in place.notes()}
    assert told["2026-02-13 12:00"]["code"] == "UNKNOWN_SLOT" and told["2026-02-13 12:05"]["status"] == "ok"


def test_without_an_approval_or_beside_another_process_it_does_not_start(tmp_path: Path, approval: Path) -> None:
    assert Place(tmp_path, None).start().stderr.strip() == "APPROVAL_MISSING"
    (tmp_path / "two").mkdir()
    place = Place(tmp_path / "two", approval)
    with StateStore(place.folder / "store.sqlite"):
        assert place.start().stderr.strip() == "LOCKED"


# ---------------------------------------------------------------- the page names every code

def codes_raised() -> set[str]:
    """Every code that the live path can raise: modules below research, read from the calls that make the errors."""
    from pil_research.allocators.simple import FAULTS

    found, top = {"DUPLICATED_INDEX", "UNSORTED_INDEX", *FAULTS[1:]}, Path(pil_research.__file__).parent  # two are put together
    for path in top.rglob("*.py"):
        if path.relative_to(top).parts[0] in ("research", "commands") or path.name in ("_modidx.py", "cli.py", "doctor.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = [n.value for n in ast.walk(tree) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "code"]
        found |= {x.value for v in named if isinstance(v, ast.IfExp) for x in (v.body, v.orelse) if isinstance(x, ast.Constant)}
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = ast.unparse(call.func)
            given = [k.value for k in call.keywords if k.arg == "code"]
            texts = [x.value for value in given for x in ast.walk(value) if isinstance(x, ast.Constant)]
            if name == "_refuse" and path.name == "approval.py":
                texts += [f"APPROVAL_{x.value}" for x in call.args[1:2] if isinstance(x, ast.Constant)]
            found |= {x for x in texts if isinstance(x, str) and re.fullmatch("[A-Z][A-Z0-9]+(_[A-Z0-9]+)*", x)}
    return found


def table_codes(heading: str) -> list[str]:
    """Codes in the first column of the table under a heading of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [x.split("|")[1] for x in text.splitlines() if x.startswith("|")]
    return [c for cell in rows for c in re.findall(r"`([A-Za-z0-9_]+)`", cell)]


def test_every_status_and_reason_has_a_row() -> None:
    assert sorted(table_codes("Statuses")) == sorted(["ok", "hold", "reduce", "halt", "flat"])
    assert sorted(table_codes("Reasons")) == sorted(ReasonCode)


def test_every_alarm_has_a_row() -> None:
    assert sorted(table_codes("Alarms")) == sorted(AlarmCode)


def test_every_error_has_a_row_and_no_row_is_for_nothing() -> None:
    assert sorted(table_codes("Errors")) == sorted(codes_raised())


def test_statuses_are_those_of_the_session() -> None:
    source = (Path(pil_research.__file__).parent / "live" / "session.py").read_text(encoding="utf-8")
    said = set(re.findall(r'"(ok|hold|reduce|halt|flat)"', source))
    assert said == {"ok", "hold", "reduce", "halt", "flat"}
