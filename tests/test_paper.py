"""The paper run: an account that can be recomputed, and a process that may be killed at any instant."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from books import CAPPED

from pil_research.cli import build_parser, main
from pil_research.commands import paper as command
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import LiveSession, SessionLimits, SlotCalendar, StateStore, replay
from pil_research.live.broker import FillRules, PaperBroker, fill_share
from pil_research.live.paper import PaperRun
from pil_research.research.costs import trade_cost
from pil_research.research.paper_market import PanelMarket
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.types import InputError, Operator, Order, StateError

CONFIG = CAPPED.replace(**{"schedule.slots": ["09:35", "15:30"], "sizing.kelly": 0.5})
CALENDAR = SlotCalendar(config=CONFIG.schedule)
LIMITS = SessionLimits(added_name=1.0, added_decision=3.0, added_session=6.0)
PANEL = synthetic_panel(3, 3, 8, 240)
RULES = FillRules(seed=5, partial=0.2, reject=0.1)
FLOWS = {"2015-09-04": -4e5, "2015-09-08": 1e5}
START = "2015-09-01"


class Killed(BaseException):
    """The end of a process, in process."""


def market(**more: Any) -> PanelMarket:
    return PanelMarket(PANEL, CALENDAR, **{"start": START, "flows": FLOWS, **more})


class Life:
    """One process of a run: opens the folder, plays, and gives the files back however it ends."""

    def __init__(self, folder: Path, *, rules: FillRules = RULES, operator: Operator | None = None, **more: Any) -> None:
        self.market = market(**more)
        self.store = StateStore(folder / "store.sqlite")
        self.broker = PaperBroker(folder / "broker.sqlite", self.market.instruments, self.market.symbols, cash=5e6, rules=rules,
                                  run=self.market.facts())
        self.session = LiveSession(self.store, PortfolioIntegrator(CONFIG), CALENDAR, limits=LIMITS, kill_file=folder / "KILL")
        self.run = PaperRun(self.session, self.broker, self.market, run="test", operator=operator)
        self.lines: list[dict[str, Any]] = []

    def play(self, sessions: int = 8, **more: Any) -> tuple[str, str]:
        try:
            self.run.play(sessions=sessions, log=self.lines.append, **more)
            return self.store.head, self.broker.account.head
        finally:
            self.close()

    def close(self) -> None:
        self.store.close()
        self.broker.close()


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, str], list[dict[str, Any]], Path]:
    folder = tmp_path_factory.mktemp("through") / "run"
    life = Life(folder)
    return life.play(), life.lines, folder


# ---------------------------------------------------------------- the same end, however often it dies

def dying(call: Callable[..., Any], after: bool) -> Callable[..., Any]:
    """The step, and the death of the process before or right after it."""
    def step(*args: Any, **kw: Any) -> Any:
        if after:
            call(*args, **kw)
        raise Killed
    return step


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["advance", "on_slot", "place"])
def test_killed_around_a_step_at_every_decision_it_ends_with_the_same_hashes(
        step: str, after: bool, tmp_path: Path, through: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, lives = 0, 0
    while True:
        life = Life(tmp_path / "run")
        owner: Any = life.session if step == "on_slot" else life.broker
        call, left = getattr(owner, step), [3]

        def sometimes(*args: Any, call: Any = call, left: Any = left, **kw: Any) -> Any:
            left[0] -= 1
            return dying(call, after)(*args, **kw) if left[0] == 0 else call(*args, **kw)

        monkeypatch.setattr(owner, step, sometimes)
        lives += 1
        try:
            end = life.play()
            break
        except Killed:
            made += len(life.lines)
    assert end == through[0] and lives > 5 and made > 5
    assert replay(tmp_path / "run" / "store.sqlite").ok


def test_a_second_run_and_more_sessions_go_on_where_the_first_stopped(tmp_path: Path, through: Any) -> None:
    for n in (1, 1, 5, 8, 8):
        end = Life(tmp_path / "run").play(n)
    assert end == through[0]


def test_another_seed_is_another_account(tmp_path: Path, through: Any) -> None:
    assert Life(tmp_path / "run", rules=FillRules(seed=6, partial=0.2, reject=0.1)).play()[1] != through[0][1]


PAPER = ["--data", "synthetic:3,8,400", "--start", "2015-09-01", "--slots", "09:35,12:00,14:00,15:30"]


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pil_research", "paper", str(folder / "run"), "--log", str(folder / "log"), *more]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Forked:
    """`pil paper` in a process of its own that need not import the package again: a start costs a tenth of a fresh one."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                code = main(["paper", str(folder / "run"), "--log", str(folder / "log"), *more])
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.returncode = 0
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self) -> None:
        if self.returncode is None:
            os.waitpid(self.pid, 0)
            self.returncode = 0


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def finish(folder: Path, *more: str) -> tuple[str, str]:
    child = start(folder, *more)
    error = child.communicate(timeout=3000)[1].decode()
    assert child.returncode == 0, error
    with StateStore(folder / "run" / "store.sqlite", readonly=True) as store, \
            sqlite3.connect(folder / "run" / "broker.sqlite") as db:
        head = json.loads(db.execute("SELECT payload FROM account").fetchone()[0])["head"]
        return store.head, head


def killed_again_and_again(folder: Path, more: list[str], kills: int, bytes_a_life: int, seed: int,
                           begin: Callable[..., Any] = start) -> int:
    """SIGKILL at random instants: mostly while decisions are made, sometimes while the process starts."""
    chance, done = random.Random(seed), 0
    while done < kills:
        child, grown = begin(folder, *more), size(folder / "log") + chance.randrange(2 * bytes_a_life)
        if chance.random() < 0.2:
            time.sleep(chance.uniform(0.0, 2.0))
        else:
            while size(folder / "log") < grown and child.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.uniform(0.0, 0.02))
        early = child.poll() is None
        child.kill()
        child.communicate()
        if not early:
            return done
        done += 1
    return done


def test_a_process_killed_with_sigkill_ends_with_the_same_hashes(tmp_path: Path) -> None:
    for name in ("killed", "plain"):
        (tmp_path / name).mkdir()
    more = [*PAPER, "--sessions", "20"]
    assert killed_again_and_again(tmp_path / "killed", more, 3, 4_000, 1) >= 2
    assert finish(tmp_path / "killed", *more) == finish(tmp_path / "plain", *more)
    lines = [json.loads(x) for x in (tmp_path / "killed" / "log").read_text().splitlines()]
    assert [x["seq"] for x in sorted({x["seq"]: x for x in lines}.values(), key=lambda x: x["seq"])] == list(range(1, 81))


@pytest.mark.slow
def test_ten_years_killed_many_times_end_with_the_same_hashes_and_replay(tmp_path: Path) -> None:
    """Ten years, four slots a day. PIL_PAPER_YEARS and PIL_PAPER_KILLS make it shorter or longer."""
    years, kills = int(os.environ.get("PIL_PAPER_YEARS", "10")), int(os.environ.get("PIL_PAPER_KILLS", "200"))
    sessions = 252 * years
    more = ["--data", f"synthetic:5,15,{int(sessions * 1.045) + 320}", "--sessions", str(sessions)]
    for name in ("killed", "plain"):
        (tmp_path / name).mkdir()
    began = time.monotonic()
    child, memory = start(tmp_path / "plain", *more), []
    while child.poll() is None:
        time.sleep(0.5)
        pages = Path(f"/proc/{child.pid}/statm")
        if size(tmp_path / "plain" / "log") and pages.exists():
            memory.append(int((pages.read_text().split() or ["0", "0"])[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    child.communicate()
    plain, took = finish(tmp_path / "plain", *more), time.monotonic() - began
    done = killed_again_and_again(tmp_path / "killed", more, kills, size(tmp_path / "plain" / "log") // kills, 2, Forked)
    killed = finish(tmp_path / "killed", *more)
    memory = [m for m in memory if m > 1.0]
    tenth = len(memory) // 10
    first, last = np.median(memory[tenth:2 * tenth]), np.median(memory[-tenth:])
    again = replay(tmp_path / "killed" / "run" / "store.sqlite")
    (tmp_path / "figures.json").write_text(json.dumps(
        {"sessions": sessions, "rows": again.rows, "kills": done, "seconds undisturbed": took, "MB early": first, "MB late": last,
         "MB store": size(tmp_path / "killed" / "run" / "store.sqlite") / 2**20, "head": killed[0]}))
    assert killed == plain
    assert done >= kills // 2
    assert again.ok and again.decisions >= 3.9 * sessions
    assert last < first + 20.0 + 2.5 * years  # the history, the archive's index and the journal's pages grow; nothing else may


# ---------------------------------------------------------------- the account can be recomputed

def test_cash_and_quantities_follow_from_fills_prices_and_flows(through: Any) -> None:
    folder, m, life = through[2], market(), Life(through[2])
    account, unit, funded = life.broker.account, life.broker._unit, life.broker.market.funded
    equity = life.broker.equity
    life.close()
    with sqlite3.connect(folder / "broker.sqlite") as db:
        fills = [(at, *json.loads(x)) for at, x in db.execute("SELECT at, payload FROM fills ORDER BY rowid")]
    held, gain, spent, costs = np.zeros(8), 0.0, 0.0, 0.0
    for session in m.sessions[:8]:
        day = m.day(session)
        price = day.start
        for at, quote in zip(day.times, day.quotes, strict=True):
            gain += float(np.nansum(held * unit * (quote - price)))
            price = quote
            for when, symbol, quantity, paid, cost, outcome in fills:
                if when == at.isoformat():
                    i = m.symbols.index(symbol) if outcome != "rejected" else 0
                    assert outcome == "rejected" or paid == quote[i]
                    held[i] += quantity
                    costs += cost
                    spent += quantity * unit[i] * paid if funded[i] else 0.0
    np.testing.assert_allclose(account.quantity, held, atol=1e-9)
    assert account.costs == pytest.approx(costs, rel=1e-12) and costs > 0.0
    assert equity == pytest.approx(5e6 + sum(FLOWS.values()) + gain - costs, rel=1e-12)
    assert {"filled", "partial", "rejected"} == {f[5] for f in fills} and abs(spent) > 0.0
    assert all(f[2] == int(f[2]) for f in fills)  # whole lots stay whole


def test_a_fill_costs_what_research_says_a_trade_costs(through: Any) -> None:
    life = Life(through[2])
    day = life.market.day(life.market.sessions[8])
    life.broker.advance(day, 0)
    terms = life.broker.market
    i = int(np.flatnonzero(day.trades & np.isfinite(day.daily_vol))[-1])
    name, money = life.broker.symbols[i], abs(37.0 * life.broker._unit[i] * day.quotes[1, i])
    seed = next(n for n in range(99) if fill_share(RULES, f"c{n}", 0) == 1.0)
    life.broker.place(f"c{seed}", [Order(symbol=name, vehicle=name, side="sell", quantity=37.0, notional=money, reason="target")])
    life.broker.advance(day, 1)
    (fill,) = life.broker.fills(f"c{seed}")
    life.close()
    share = trade_cost(money, half_spread=terms.half_spread[i], fee=terms.fee[i], sigma_daily=day.daily_vol[i], adv=terms.adv[i],
                       impact_y=terms.impact[i])
    assert fill.outcome == "filled" and fill.quantity == -37.0
    assert fill.cost == pytest.approx(float(share) * money, rel=1e-12)


def test_a_flow_is_told_to_one_decision_and_is_no_gain(tmp_path: Path) -> None:
    seen: list[float] = []
    life = Life(tmp_path / "run")
    ask = life.session.on_slot

    def listen(snapshot: Any) -> Any:
        seen.append(snapshot.flows)
        return ask(snapshot)

    life.session.on_slot = listen  # type: ignore[method-assign]
    life.play()
    assert [f for f in seen if f] == list(FLOWS.values())
    assert all(abs(b["equity"] - a["equity"]) < 0.2 * a["equity"] for a, b in zip(life.lines, life.lines[1:], strict=False))


def test_a_flow_that_a_refusal_did_not_hear_is_told_again(tmp_path: Path) -> None:
    life, seen = Life(tmp_path / "run"), []
    ask, session = life.session.on_slot, life.market.sessions[3]
    assert session.date().isoformat() in FLOWS

    def mislead(snapshot: Any) -> Any:
        seen.append((snapshot.session, snapshot.flows))
        if snapshot.session == session and snapshot.slot == "09:35":
            snapshot = replace(snapshot, equity=float("inf"))
        return ask(snapshot)

    life.session.on_slot = mislead  # type: ignore[method-assign]
    life.play(5)
    assert "INPUT_REFUSED" in life.lines[6]["reasons"]
    assert [f for s, f in seen if s == session] == [FLOWS["2015-09-04"]] * 2 and seen[8][1] == FLOWS["2015-09-08"]


def test_shares_of_unkind_fills_and_no_chance_at_all() -> None:
    shares = np.array([fill_share(RULES, f"id{i}", 3) for i in range(4000)])
    assert abs((shares == 0.0).mean() - 0.1) < 0.02 and abs(((shares > 0) & (shares < 1)).mean() - 0.18) < 0.02
    assert {fill_share(FillRules(partial=0.0, reject=0.0), str(i), 0) for i in range(50)} == {1.0}
    assert {fill_share(FillRules(partial=0.0, reject=1.0), str(i), 0) for i in range(50)} == {0.0}


def test_a_symbol_without_a_quote_today_is_not_filled(tmp_path: Path) -> None:
    life = Life(tmp_path / "run", rules=FillRules(partial=0.0, reject=0.0))
    days = [life.market.day(s) for s in life.market.sessions]
    day = next(d for d in days if not d.trades.all())
    dark, lit = (life.market.symbols[int(np.flatnonzero(x)[0])] for x in (~day.trades, day.trades))
    life.broker.advance(day, 0)
    life.broker.place("x", [Order(symbol=n, vehicle=n, side="buy", quantity=1.0, notional=1.0, reason="target")
                            for n in (dark, lit, "UNKNOWN")])
    life.broker.advance(day, 1)
    told = [f.outcome for f in life.broker.fills("x")]
    life.close()
    assert told == ["rejected", "filled", "rejected"]


# ---------------------------------------------------------------- the market

def test_a_day_is_the_same_in_any_order_and_ends_at_the_close_of_the_panel() -> None:
    a, b = market(), market()
    late, early = b.sessions[9], b.sessions[2]
    b.day(late)
    for session in (early, late):
        x, y = a.day(session), b.day(session)
        assert np.array_equal(x.quotes, y.quotes, equal_nan=True) and x.times == y.times
        assert x.snapshot.asset_returns.digest == y.snapshot.asset_returns.digest
    close = PANEL.prices.ffill().loc[late].to_numpy()  # type: ignore[union-attr]
    good = np.isfinite(a.day(late).start)
    np.testing.assert_allclose(a.day(late).quotes[-1][good], close[good], rtol=1e-12)


def test_the_evening_before_knows_nothing_of_the_day() -> None:
    changed = PANEL.returns.copy()
    at = market().sessions[5]
    changed.loc[at:] *= -3.0
    other = PanelMarket(type(PANEL)(**{**PANEL.__dict__, "returns": changed}), CALENDAR, start=START, flows=FLOWS)
    a, b = market().day(at), other.day(at)
    assert a.snapshot.asset_returns.digest == b.snapshot.asset_returns.digest
    assert np.array_equal(a.start, b.start, equal_nan=True) and np.array_equal(a.daily_vol, b.daily_vol, equal_nan=True)
    assert not np.array_equal(a.quotes, b.quotes, equal_nan=True)


@pytest.mark.parametrize(("more", "code"), [({"start": "2031-01-01"}, "NO_HISTORY"),
                                            ({"flows": {"2015-09-05": 1.0}}, "UNKNOWN_FLOW"),
                                            ({"flows": {"2015-09-08": float("nan")}}, "UNKNOWN_FLOW")])
def test_a_market_that_cannot_be_played_is_refused(more: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as e:
        market(**more)
    assert e.value.code == code


# ---------------------------------------------------------------- what goes wrong

def test_other_settings_a_second_process_and_a_changed_account_are_refused(tmp_path: Path) -> None:
    Life(tmp_path / "run").play(1)
    life = Life(tmp_path / "run")
    with pytest.raises(StateError) as e:
        Life(tmp_path / "run")
    life.close()
    assert e.value.code == "LOCKED"
    with pytest.raises(StateError) as e:
        Life(tmp_path / "run", flows={})
    assert e.value.code == "OTHER_RUN" and e.value.value == ["flows"]
    with sqlite3.connect(tmp_path / "run" / "broker.sqlite") as db:
        db.execute("UPDATE account SET payload = replace(payload, '\"cash\":', '\"cash\":1')")
    db.close()
    m = market()
    with pytest.raises(StateError) as e:
        PaperBroker(tmp_path / "run" / "broker.sqlite", m.instruments, m.symbols, cash=5e6, rules=RULES, run=m.facts())
    assert e.value.code == "BROKER_CORRUPT"
    (tmp_path / "run" / "broker.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 99)
    with pytest.raises(StateError) as e:
        PaperBroker(tmp_path / "run" / "broker.sqlite", m.instruments, m.symbols, cash=5e6, rules=RULES, run=m.facts())
    assert e.value.code == "BROKER_IO"


def test_a_disk_that_cannot_be_written_stops_the_process_and_the_next_one_goes_on(tmp_path: Path, through: Any) -> None:
    life = Life(tmp_path / "run")
    life.broker._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StateError) as e:
        life.play()
    assert e.value.code == "BROKER_IO"
    life = Life(tmp_path / "run")
    life.store._db.execute(f"PRAGMA max_page_count = {life.store._db.execute('PRAGMA page_count').fetchone()[0] + 3}")
    with pytest.raises(StateError) as e:
        life.play()
    assert e.value.code == "COMMIT_FAILED"
    assert Life(tmp_path / "run").play() == through[0]


def test_a_kill_file_closes_the_book_and_an_operator_opens_it_again(tmp_path: Path) -> None:
    Life(tmp_path / "run").play(4)
    (tmp_path / "run" / "KILL").touch()
    life = Life(tmp_path / "run")
    life.play(6)
    assert {x["status"] for x in life.lines} == {"flat"} and "KILLED" in life.lines[0]["reasons"]
    assert life.lines[-1]["gross"] == 0.0 and life.broker.account.quantity.count(0.0) >= 6
    (tmp_path / "run" / "KILL").unlink()
    life = Life(tmp_path / "run")
    life.play(7)
    assert life.lines[0]["status"] == "flat"  # removing the file releases nothing
    life = Life(tmp_path / "run", operator=Operator(who="desk", why="over", release_kills=True))
    life.play(8)
    assert "KILLED" not in life.lines[0]["reasons"]


def test_a_refused_question_is_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    life = Life(tmp_path / "run")
    ask, asked = life.session.on_slot, [0]

    def sometimes(snapshot: Any) -> Any:
        asked[0] += 1
        if asked[0] == 2:
            raise InputError("no", code="UNKNOWN_SLOT", field="slot")
        return ask(snapshot)

    life.session.on_slot = sometimes  # type: ignore[method-assign]
    life.play(2)
    assert [x["status"] for x in life.lines].count("refused") == 1 and life.lines[1]["error"]["code"] == "UNKNOWN_SLOT"
    assert len(life.lines) == 4 and life.lines[2]["reasons"].count("SLOT_MISSED") == 0


# ---------------------------------------------------------------- the command

def cli(folder: Path, *more: str) -> int:
    return main(["paper", str(folder), *PAPER, *more])


def test_the_command_writes_one_json_line_a_decision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flows.csv").write_text("session,amount\n2015-09-02,-1000\n")
    assert cli(tmp_path / "run", "--sessions", "2", "--flows", str(tmp_path / "flows.csv")) == 0
    out = capsys.readouterr()
    lines = [json.loads(x) for x in out.out.splitlines()]
    assert len(lines) == 8 and {x["config"] for x in lines} == {lines[0]["config"]} and len({x["id"] for x in lines}) == 8
    assert {"run", "session", "slot", "status", "reasons", "gross", "net", "ex_ante_vol", "orders", "equity"} <= set(lines[0])
    assert "journal row 8" in out.err
    again = ("--sessions", "2", "--flows", str(tmp_path / "flows.csv"))
    assert cli(tmp_path / "run", *again, "--operator", "acknowledge", "me", "ok") == 0
    with StateStore(tmp_path / "run" / "store.sqlite", readonly=True) as store:
        row = store.last()
        assert row is not None and row.kind == "operator" and row.payload["who"] == "me"
    assert cli(tmp_path / "run", *again, "--operator", "acknowledge", "me", "ok") == 0  # a supervisor's restart
    assert "not done again" in capsys.readouterr().err
    with StateStore(tmp_path / "run" / "store.sqlite", readonly=True) as store:
        assert store.last() == row


def test_a_restart_with_the_same_words_does_not_release_the_next_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, words = tmp_path / "run", ("--operator", "release-kills", "me", "over")

    def statuses(*more: str) -> list[str]:
        assert cli(run, *more) == 0
        return [json.loads(x)["status"] for x in capsys.readouterr().out.splitlines()]

    def kill(sessions: str, *more: str) -> list[str]:
        (run / "KILL").touch()
        assert set(statuses("--sessions", sessions)) == {"flat"}
        (run / "KILL").unlink()
        return statuses("--sessions", str(int(sessions) + 1), *more)

    assert "flat" not in statuses("--sessions", "1")
    assert "flat" not in kill("2", *words)
    with (run / "operator.jsonl").open("a") as f:
        f.write('{"words": ["release')  # cut short by a crash
    assert set(kill("4", *words)) == {"flat"}  # the kill after it stands
    assert "flat" not in statuses("--sessions", "6", "--operator", "release-kills", "me", "over again")


@pytest.mark.parametrize(("more", "code"), [
    (["--data", "synthetic:3,8"], "BAD_PARAMETER"), (["--flows", "nowhere.csv"], "BAD_PARAMETER"),
    (["--log", "/nowhere/at/all"], "BAD_PARAMETER"), (["--operator", "pray", "me", "please"], "BAD_PARAMETER"),
    (["--approval", "nowhere.json"], "BAD_PARAMETER"), (["--seed", "8"], "OTHER_RUN")])
def test_the_command_says_what_to_do_instead(more: list[str], code: str, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(tmp_path / "run", "--sessions", "0") == 0
    assert cli(tmp_path / "run", "--sessions", "1", *more) == 2
    said = capsys.readouterr().err
    assert f"pil: {code}" in said and "fix: " in said


def test_metrics_need_an_extra_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert cli(tmp_path / "run", "--sessions", "1", "--metrics", "19090") == 2
    assert "EXTRA_MISSING" in (said := capsys.readouterr().err) and "pil_research[live]" in said


def test_metrics_are_served_on_the_loopback_interface() -> None:
    pytest.importorskip("prometheus_client")
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    made = command.Metrics(port, "abc")
    made.see({"status": "ok", "equity": 5e6, "gross": 0.5, "net": None, "reasons": ["STALE"], "orders": 3, "filled": 2,
              "rejected": 1})
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    for line in ('pil_decisions_total{status="ok"} 1.0', "pil_equity 5e+06", 'pil_reasons_total{code="STALE"} 1.0',
                 'pil_fills_total{outcome="rejected"} 1.0', 'pil_run_info{id="abc"} 1.0'):
        assert line in page
    with pytest.raises(InputError) as e:
        command.Metrics(port, "abc")
    assert e.value.code == "BAD_PARAMETER"


def test_market_time_passes_at_its_speed() -> None:
    class Stop:
        slept: list[float] = []

        def wait(self, seconds: float) -> None:
            self.slept.append(round(seconds, 6))

    stop, at = Stop(), pd.Timestamp("2025-03-03 09:35", tz="America/New_York")
    clock = iter([0.0, 0.0, 1.0, 100.0])
    wait = command.paced(60.0, stop, lambda: next(clock))  # type: ignore[arg-type]
    for minutes in (0, 10, 20):
        wait(at + pd.Timedelta(minutes=minutes))
    assert stop.slept == [9.0]  # 10 market minutes are 10 s, of which one had passed; the third point was late already
    command.paced(0.0, stop)(at)  # type: ignore[arg-type]
    assert len(stop.slept) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_at_the_next_point_even_while_it_waits(number: int, tmp_path: Path) -> None:
    child = start(tmp_path, *PAPER, "--sessions", "3", "--speed", "1")
    until = time.monotonic() + 30.0
    while not size(tmp_path / "log") and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(number)
    error = child.communicate(timeout=20)[1].decode()
    assert child.returncode == 0 and "stopped by a signal" in error
    assert size(tmp_path / "log") and "journal row 1," in error


def test_the_parser_knows_every_option_of_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "daemon.md").read_text(encoding="utf-8")
    args = build_parser().parse_args(["paper", "x"])
    for name in ("speed", "operator", "metrics", "flows", "kill_file"):
        assert hasattr(args, name) and f"--{name.replace('_', '-')}" in page
