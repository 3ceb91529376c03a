"""The approval file: what it holds, every fault it can have, and what the live path does with each."""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fake_runs import CODE, passing_runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pil_research import __version__, approval
from pil_research.approval import GATES, canonical_json, load_approval, open_approval, seal, shipped_config
from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.research import approval as written
from pil_research.research.ladder_study import RUNGS
from pil_research.research.verdict import Verdict, judge
from pil_research.types import ConfigError, InputError, Operator

NOW = datetime(2026, 3, 2, 20, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
TIE = {"ladder__prob_hrp_better_lag1": {"value": 0.6, "status": "inconclusive"}}


@pytest.fixture(autouse=True)
def one_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "code_version", lambda: CODE)


@pytest.fixture(scope="module")
def tie(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    return judge(passing_runs(tmp_path_factory.mktemp("tie"), **TIE), now=NOW)


@pytest.fixture(scope="module")
def win(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    return judge(passing_runs(tmp_path_factory.mktemp("win")), now=NOW)


@pytest.fixture
def file(tie: Verdict, tmp_path: Path) -> Path:
    written.write_approval(tie, tmp_path / "approval.json", now=NOW)
    return tmp_path / "approval.json"


def change(file: Path, edit: Callable[[dict[str, Any]], None], *, sealed: bool = True) -> Path:
    """Edit the content, with a right hash unless told otherwise."""
    values = json.loads(file.read_bytes())
    edit(values)
    file.write_bytes(canonical_json(seal(values) if sealed else values))
    return file


def refusal(file: Path, now: datetime = LATER, version: str = __version__) -> str:
    with pytest.raises(ConfigError) as refused:
        load_approval(file, now, version)
    assert "; " in str(refused.value)  # a cause and a remedy
    return refused.value.code


def test_a_tie_ships_the_1n_risk_rung(file: Path, tie: Verdict) -> None:
    got = open_approval(file, now=LATER, code_version=__version__)
    assert tie.action == got.action == "ship_1n_risk" and got.overridden == () and got.override is None
    assert got.config == PILConfig().replace(**RUNGS["1/N-risk"]) == load_approval(file, LATER, __version__)
    assert got.gates["ladder"] == "INDIFFERENT" and set(got.gates) == set(GATES)
    assert got.expires - got.created == timedelta(days=written.DAYS)


def test_a_win_ships_the_base(win: Verdict, tmp_path: Path) -> None:
    values = written.write_approval(win, tmp_path / "a.json", now=NOW)
    assert load_approval(tmp_path / "a.json", LATER, __version__) == PILConfig()
    assert values["config_hash"] == values["evaluated_config_hash"]


def test_what_the_file_holds(file: Path, tie: Verdict) -> None:
    raw = file.read_bytes()
    values = json.loads(raw)
    assert raw.endswith(b"}\n") and raw == canonical_json(values) and raw.isascii()
    written.check_approval_schema(values)
    assert values["data"]["hash"] == tie.data["hash"] and values["ledger"] == dict(tie.ledger)
    assert values["code"] == CODE and {"python", "numpy", "pandas", "scipy"} <= set(values["libraries"])
    assert {k: v["run_id"] for k, v in values["reports"].items()} == {k: v["run_id"] for k, v in tie.runs.items()}
    assert all(g["limit"] is not None and g["source"] for g in values["gates"])
    assert values["evaluated_config_hash"] == PILConfig().fingerprint() != values["config_hash"]
    assert not list(file.parent.glob(".*.part"))
    assert written.write_approval(tie, file, now=NOW) == values and file.read_bytes() == raw


def test_the_hashes_of_the_reports_are_those_of_the_files(tmp_path: Path) -> None:
    import hashlib
    v = judge(passing_runs(tmp_path, **TIE))
    values = written.write_approval(v, tmp_path / "approval.json")
    for name, run in values["reports"].items():
        body = (tmp_path / name / run["run_id"] / "result.json").read_bytes()
        assert run["sha256"] == "sha256:" + hashlib.sha256(body).hexdigest()


def test_the_hand_written_form_is_the_schema() -> None:
    schema = written.approval_schema()
    kinds = {"string": str, "object": dict, "array": list}
    assert set(schema["required"]) == set(schema["properties"]) == set(approval._FIELDS)
    for name, kind in approval._FIELDS.items():
        rule = schema["properties"][name]
        assert kind is kinds.get(rule.get("type", "string"), str)
    assert tuple(schema["properties"]["gates"]["items"]["properties"]["id"]["enum"]) == GATES


def test_the_live_reader_needs_no_schema_library() -> None:
    code = ("import sys, pil_research.approval\n"
            "bad = {'jsonschema', 'scipy', 'matplotlib', 'papermill', 'sklearn'} & {m.split('.')[0] for m in sys.modules}\n"
            "assert not bad, bad\nassert not any(m.startswith('pil_research.research') for m in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


# faults of the file

def test_missing_and_unreadable(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json") == "APPROVAL_MISSING"
    assert refusal(tmp_path) == "APPROVAL_UNREADABLE"
    (tmp_path / "big.json").write_bytes(b" " * 1_000_001)
    assert refusal(tmp_path / "big.json") == "APPROVAL_UNREADABLE"


@pytest.mark.parametrize("raw", [
    b"", b"\n", b"{}", b"[]\n", b"null\n", b"\xff\xfe", b'{"a": NaN}\n', b'{"a": 1e999}\n', b'{"a": -Infinity}\n', b"[" * 100_000,
    b'{\n "schema": 1,\n "schema": 1\n}\n'])
def test_not_strict_json(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    assert refusal(tmp_path / "a.json") == "APPROVAL_MALFORMED"


def test_spelling_is_part_of_the_file(file: Path) -> None:
    values = json.loads(file.read_bytes())
    for body in (json.dumps(values), json.dumps(values, indent=1), json.dumps(values, indent=1, sort_keys=True),
                 canonical_json(values).decode() + "\n", canonical_json(values).decode().replace("\n", "\r\n")):
        file.write_text(body, newline="")
        assert refusal(file) == "APPROVAL_MALFORMED"


def test_duplicate_keys_deep_inside(file: Path) -> None:
    body = file.read_bytes().replace(b'   "kelly": 0.5', b'   "kelly": 0.5,\n   "kelly": 0.5').replace(
        b'  "kelly": 0.5', b'  "kelly": 0.5,\n  "kelly": 0.5')
    assert body != file.read_bytes()
    file.write_bytes(body)
    assert refusal(file) == "APPROVAL_MALFORMED"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_refused(file: Path, data: st.DataObject) -> None:
    raw = file.read_bytes()
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    mutant = file.with_name("mutant.json")
    mutant.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1:])
    assert refusal(mutant) in {"APPROVAL_MALFORMED", "APPROVAL_SCHEMA", "APPROVAL_TAMPERED"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_and_overwritten_files_are_refused(file: Path, data: st.DataObject) -> None:
    raw = file.read_bytes()
    a, b = sorted((data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, len(raw)))))
    kind = data.draw(st.sampled_from(["cut", "zeros", "dropped", "twice"]))
    body = {"cut": raw[:a], "zeros": raw[:a] + bytes(b - a) + raw[b:], "dropped": raw[:a] + raw[b:],
            "twice": raw[:b] + raw[a:b] + raw[b:]}[kind]
    mutant = file.with_name("mutant.json")
    mutant.write_bytes(body)
    if body == raw:
        assert load_approval(mutant, LATER, __version__)
    else:
        assert refusal(mutant) in {"APPROVAL_MALFORMED", "APPROVAL_SCHEMA", "APPROVAL_TAMPERED"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=400))
def test_any_bytes_are_refused_with_a_typed_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x").write_bytes(raw)
    assert refusal(tmp_path / "x").startswith("APPROVAL_")


# faults of the content, under a right hash

def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last, value = path

    def edit(values: dict[str, Any]) -> None:
        for k in keys:
            values = values[k]
        values[last] = value
    return edit


@pytest.mark.parametrize(("edit", "code"), [
    (put("schema", "pil.approval/2"), "APPROVAL_SCHEMA"), (put("extra", 1), "APPROVAL_SCHEMA"),
    (lambda v: v.pop("notes"), "APPROVAL_SCHEMA"), (put("gates", {}), "APPROVAL_SCHEMA"),
    (lambda v: v["gates"].pop(), "APPROVAL_SCHEMA"), (put("gates", 0, "status", "PASSED"), "APPROVAL_SCHEMA"),
    (put("gates", 0, "id", "pbo"), "APPROVAL_SCHEMA"), (put("gates", 0, None), "APPROVAL_SCHEMA"),
    (put("code", {}), "APPROVAL_SCHEMA"), (put("expires", "tomorrow"), "APPROVAL_SCHEMA"),
    (put("created", "2026-13-01T00:00:00Z"), "APPROVAL_SCHEMA"),
    (put("action", "none"), "APPROVAL_REFUSED"), (put("action", "ship_hrp"), "APPROVAL_REFUSED"),
    (put("gates", 5, "status", "FAIL"), "APPROVAL_REFUSED"), (put("gates", 1, "status", "ERROR"), "APPROVAL_REFUSED"),
    (put("config", "caps", "name", 0.2), "APPROVAL_CONFIG"), (put("config", "caps", "name", 15), "APPROVAL_CONFIG"),
    (put("config", "caps", "nmae", 0.15), "APPROVAL_CONFIG"), (put("config", "caps", 1), "APPROVAL_CONFIG"),
    (put("config", "caps", {}), "APPROVAL_CONFIG"), (put("config_hash", "sha256:" + "0" * 64), "APPROVAL_CONFIG"),
    (put("code", "version", "0.0.1"), "APPROVAL_VERSION"), (put("expires", "2026-03-03T00:00:00Z"), "APPROVAL_EXPIRED"),
    (put("expires", "2027-03-10T00:00:00Z"), "APPROVAL_EXPIRED"), (put("created", "2026-04-10T00:00:00Z"), "APPROVAL_EXPIRED")])
def test_content_that_is_not_approved(file: Path, edit: Callable[[dict[str, Any]], None], code: str) -> None:
    change(file, edit, sealed=False)
    first = refusal(file)
    assert first in {code, "APPROVAL_TAMPERED"}
    change(file, lambda v: None)
    assert refusal(file) == code


@pytest.mark.parametrize("other", [
    {"caps.name": 0.5}, {"allocation.method": "hrp"}, {"tilt.bound": 0.25}, {"allocation.method": "nco"}])
def test_another_configuration_with_its_own_hash(file: Path, other: dict[str, Any]) -> None:
    """A cap changed together with its hash is a forgery a hash cannot see; another action's configuration is seen."""
    config = PILConfig().replace(**RUNGS["1/N-risk"]).replace(**other)
    change(file, lambda v: v.update(config=config.to_dict(), config_hash=config.fingerprint()))
    if other == {"caps.name": 0.5}:
        assert load_approval(file, LATER, __version__) == config
    else:
        assert refusal(file) == "APPROVAL_CONFIG"


def test_hrp_must_be_the_judged_configuration(win: Verdict, tmp_path: Path) -> None:
    written.write_approval(win, tmp_path / "a.json", now=NOW)
    other = PILConfig().replace(**{"caps.name": 0.5})
    change(tmp_path / "a.json", lambda v: v.update(config=other.to_dict(), config_hash=other.fingerprint()))
    assert refusal(tmp_path / "a.json") == "APPROVAL_CONFIG"


@pytest.mark.parametrize("method", ["nco", "herc", "min_variance", "inverse_vol"])
def test_benchmark_allocators_never_go_live(win: Verdict, tmp_path: Path, method: str) -> None:
    written.write_approval(win, tmp_path / "a.json", now=NOW)
    other = PILConfig().replace(**{"allocation.method": method})
    change(tmp_path / "a.json", lambda v: v.update(config=other.to_dict(), config_hash=other.fingerprint(),
                                                   evaluated_config_hash=other.fingerprint()))
    assert refusal(tmp_path / "a.json") == "APPROVAL_CONFIG"


# where and when it is read

def test_the_edges_of_its_life(file: Path) -> None:
    end = NOW + timedelta(days=written.DAYS)
    assert load_approval(file, NOW, __version__) and load_approval(file, end - timedelta(seconds=1), __version__)
    assert refusal(file, end) == refusal(file, NOW - timedelta(seconds=1)) == "APPROVAL_EXPIRED"
    assert load_approval(file, LATER.astimezone(timezone(timedelta(hours=-5))), __version__)


def test_another_version(file: Path) -> None:
    assert refusal(file, version="0.1.1") == "APPROVAL_VERSION"


@pytest.mark.parametrize("now", [datetime(2026, 4, 1), "2026-04-01", None])  # noqa: DTZ001
def test_now_needs_a_time_zone(file: Path, now: Any) -> None:
    with pytest.raises(InputError, match="time zone"):
        open_approval(file, now=now, code_version=__version__)


def test_an_operator_may_set_age_and_version_aside(file: Path) -> None:
    who = Operator(who="r. miller", why="replay of June")
    late = NOW + timedelta(days=400)
    got = open_approval(file, now=late, code_version="9.9", override=who)
    assert got.overridden == ("APPROVAL_EXPIRED", "APPROVAL_VERSION") and got.override == who
    assert open_approval(file, now=LATER, code_version=__version__, override=who).override is None
    change(file, put("config", "caps", "name", 0.2), sealed=False)
    with pytest.raises(ConfigError) as refused:
        load_approval(file, late, "9.9", who)
    assert refused.value.code == "APPROVAL_TAMPERED"


@pytest.mark.parametrize("who", [Operator(who="", why="x"), Operator(who="x", why="  ")])
def test_an_override_names_who_and_why(file: Path, who: Operator) -> None:
    with pytest.raises(InputError, match="who and why"):
        load_approval(file, LATER, __version__, who)


# writing

def test_nothing_is_written_without_something_to_ship(tmp_path: Path) -> None:
    nothing = judge(tmp_path)
    with pytest.raises(ConfigError, match="nothing to approve"):
        written.write_approval(nothing, tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()
    with pytest.raises(ConfigError, match="ship something"):
        shipped_config(PILConfig(), "none")


@pytest.mark.parametrize("days", [0, -1, 367])
def test_life_is_at_most_a_year(tie: Verdict, tmp_path: Path, days: int) -> None:
    with pytest.raises(InputError, match="between 1 and 366"):
        written.write_approval(tie, tmp_path / "a.json", now=NOW, days=days)


def test_research_reads_with_the_schema_too(file: Path) -> None:
    change(file, put("ledger", {"lines": 1}))
    assert load_approval(file, LATER, __version__)
    with pytest.raises(ConfigError) as refused:
        written.read_approval(file, now=LATER)
    assert refused.value.code == "APPROVAL_SCHEMA" and "ledger" in str(refused.value)


def test_withdrawn_is_moved_aside(file: Path) -> None:
    aside = written.withdraw_approval(file)
    assert aside is not None and aside.exists() and not file.exists() and written.withdraw_approval(file) is None


def test_the_integrator_is_built_on_what_ships(file: Path, tie: Verdict, tmp_path: Path) -> None:
    written.write_approval(tie, tmp_path / "fresh.json", now=datetime.now(UTC))
    assert PortfolioIntegrator.from_approval(tmp_path / "fresh.json").config
    got = PortfolioIntegrator.from_approval(file, now=LATER)
    assert got.config == load_approval(file, LATER, __version__)
    with pytest.raises(ConfigError) as refused:
        PortfolioIntegrator.from_approval(file)  # by the clock of the machine it ended long ago
    assert refused.value.code == "APPROVAL_EXPIRED"
    with pytest.raises(ConfigError) as refused:
        PortfolioIntegrator.from_approval(file, now=NOW + timedelta(days=4000))
    assert refused.value.code == "APPROVAL_EXPIRED"
    with pytest.raises(ConfigError) as refused:
        PortfolioIntegrator.from_approval(file.with_name("absent.json"), now=LATER)
    assert refused.value.code == "APPROVAL_MISSING"
