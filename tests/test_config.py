"""Every default of SPEC section 8 as a literal, and every way a configuration can be wrong."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pil_research.config import PILConfig, config_table
from pil_research.types import ConfigError

BASE = PILConfig()
KEYS = [f"{s}.{k}" for s, table in BASE.to_dict().items() for k in table]

SPEC_8: dict[str, Any] = {
    "allocation.method": "hrp",
    "allocation.variant": "direct",
    "covariance.window": 252,
    "covariance.half_life": 63.0,
    "covariance.target": "constant_correlation",
    "covariance.intensity_scale": 1.0,
    "covariance.min_overlap": 60,
    "risk.window": 120,
    "risk.half_life": 60.0,
    "risk.min_observations": 30,
    "risk.model": "shrinkage",
    "risk.factors": 5,
    "sleeves.vol_target": 0.10,
    "sleeves.vol_window": 504,
    "sleeves.vol_half_life": 42.0,
    "sleeves.vol_floor": 0.005,
    "sleeves.min_observations": 60,
    "sleeves.coverage": 0.95,
    "sleeves.normalise": True,
    "sleeves.held_sessions": 3,
    "sleeves.frozen_bars": 5,
    "vol_target.target": 0.10,
    "vol_target.leverage_max": 2.0,
    "vol_target.leverage_alarm": 0.3,
    "vol_target.enabled": True,
    "regime.risk_on": 1.2,
    "regime.transition": 1.0,
    "regime.crisis": 0.8,
    "regime.role_tilt": 0.2,
    "regime.enabled": True,
    "caps.gross": 2.0,
    "caps.net": 1.0,
    "caps.name": 0.15,
    "caps.cluster": 0.50,
    "caps.cluster_correlation": 0.5,
    "caps.drift_tolerance": 1.10,
    "caps.enabled": True,
    "allocation.sleeve_cap": 0.30,
    "tilt.bound": 0.25,
    "tilt.step": 21,
    "tilt.half_life": 63.0,
    "tilt.window": 504,
    "tilt.min_steps": 6,
    "tilt.warm_up": 40,
    "tilt.skill": True,
    "tilt.redundancy": False,
    "tilt.redundancy_threshold": 0.7,
    "allocation.smoothing": 0.8,
    "allocation.apply_threshold": 0.02,
    "allocation.probation_sessions": 20,
    "allocation.cadence": "daily",
    "allocation.divergence_alarm": 0.15,
    "allocation.correlation_alarm": 0.9,
    "governor.start": 0.05,
    "governor.floor_at": 0.12,
    "governor.flat_at": 0.15,
    "governor.floor": 0.2,
    "governor.flat_sessions": 20,
    "governor.mark_half_life": 126.0,
    "governor.max_reentries": 2,
    "governor.reentry_window": 252,
    "governor.lifetime_limit": 0.25,
    "governor.enabled": True,
    "governor.reference_vol": 0.10,
    "kill_tiers.warn": 0.05,
    "kill_tiers.throttle": 0.12,
    "kill_tiers.no_new": 0.135,
    "kill_tiers.throttle_multiplier": 0.5,
    "kill_tiers.release": 0.01,
    "kill_tiers.no_new_sessions": 20,
    "kill_tiers.daily_loss": 0.03,
    "turnover.risk_cut": 0.95,
    "turnover.risk_raise": 1.10,
    "turnover.band": 0.0075,
    "turnover.band_relative": 0.5,
    "turnover.trade_to": "target",
    "turnover.gate": True,
    "turnover.gate_sharpe": 0.5,
    "turnover.gate_horizon": 20,
    "turnover.impact": 1.0,
    "sizing.kelly": 0.5,
    "sizing.fraction": 1.0,
    "schedule.allocation_time": "15:30",
    "schedule.slots": ("09:35", "12:00", "14:00", "15:30"),
    "schedule.max_events": 2,
    "schedule.event_move": 0.01,
    "schedule.early_close_minutes": 30,
    "ladder.thresholds": (1e5, 1e6, 1e7),
    "ladder.gross": (1.0, 1.5, 2.0, 3.0),
    "ladder.name": (0.20, 0.15, 0.12, 0.10),
    "ladder.min_ticket": (0.02, 0.005, 0.0025, 0.001),
    "ladder.max_names": 15,
    "ladder.up_factor": 1.05,
    "ladder.migrate_sessions": 5,
    "ladder.dust": 0.5,
    "gates.bootstrap": 0.90,
}


def value(config: PILConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize("key", sorted(SPEC_8))
def test_default_of_the_spec(key: str) -> None:
    got = value(BASE, key)
    assert got == SPEC_8[key] and type(got) is type(SPEC_8[key])


def test_the_table_documents_every_key() -> None:
    table = config_table()
    assert list(table.index) == KEYS and set(SPEC_8) <= set(KEYS)
    assert (table[["legal", "section", "meaning"]].map(len) > 0).all().all()
    assert table.index[~table.index.isin(SPEC_8)].tolist() == [], "a default that no literal here pins down"


# ---------------------------------------------------------------- names


def typos(word: str) -> set[str]:
    """Every word one edit away (a fixed alphabet for insertions and replacements)."""
    letters = string.ascii_lowercase + "_"
    cut = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    return (
        {a + b[1:] for a, b in cut if b}
        | {a + b[1] + b[0] + b[2:] for a, b in cut if len(b) > 1}
        | {a + c + b[1:] for a, b in cut if b for c in letters}
        | {a + c + b for a, b in cut for c in letters}
    ) - {word}


@pytest.mark.parametrize("key", KEYS)
def test_every_typo_of_every_key_is_refused(key: str) -> None:
    section, name = key.split(".")
    known = BASE.to_dict()[section]
    for wrong in sorted(typos(name) - set(known)):
        with pytest.raises(ConfigError, match="nearest known key") as caught:
            PILConfig.from_dict({section: {wrong: known[name]}})
        assert caught.value.code == "CONFIG_UNKNOWN_KEY" and caught.value.field == f"{section}.{wrong}"


@pytest.mark.parametrize("key", KEYS)
def test_the_nearest_key_is_named(key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=re.escape(f"nearest known key: {name!r}")):
        PILConfig.from_dict({section: {name + "x": 1}})
    with pytest.raises(ConfigError, match="unknown key"):
        BASE.replace(**{key + "x": 1})


@pytest.mark.parametrize("section", sorted(BASE.to_dict()))
def test_sections_are_checked(section: str) -> None:
    for wrong in sorted(typos(section)):
        with pytest.raises(ConfigError, match="unknown section") as caught:
            PILConfig.from_dict({wrong: {}})
        assert caught.value.code == "CONFIG_UNKNOWN_KEY"
    with pytest.raises(ConfigError, match="must be a table") as caught:
        PILConfig.from_dict({section: 3})
    assert caught.value.code == "CONFIG_TYPE"
    with pytest.raises(ConfigError, match="unknown"):
        BASE.replace(**{section: {}})


# ---------------------------------------------------------------- ranges


def numeric() -> list[tuple[str, str]]:
    table = config_table()
    return [(k, str(table.loc[k, "legal"])) for k in KEYS if str(table.loc[k, "legal"])[0] in "[("]


def put(key: str, x: Any) -> PILConfig:
    section, name = key.split(".")
    old = value(BASE, key)
    return PILConfig.from_dict({section: {name: [x] * len(old) if isinstance(old, tuple) else x}})


def refused(key: str, x: Any, codes: tuple[str, ...] = ("CONFIG_RANGE", "CONFIG_TYPE")) -> None:
    with pytest.raises(ConfigError, match=re.escape(key)) as caught:
        put(key, x)
    assert caught.value.code in codes and caught.value.field.startswith(key)


def accepted(key: str, x: Any) -> None:
    """In range: nothing but a rule between two keys may still refuse it."""
    try:
        put(key, x)
    except ConfigError as e:
        assert e.code == "CONFIG_CROSS", e


@pytest.mark.parametrize(("key", "legal"), numeric())
def test_range_boundaries(key: str, legal: str) -> None:
    """At the bound and one unit in the last place (or one) beyond it."""
    low, high = (float(x) for x in legal[1:-1].split(","))
    first = value(BASE, key)
    whole = isinstance(first, int)
    beside = (
        (lambda x, up: int(x) + (1 if up else -1))
        if whole
        else (lambda x, up: float(np.nextafter(x, np.inf if up else -np.inf)))
    )
    at = (lambda x: int(x)) if whole else float
    (refused if legal[0] == "(" else accepted)(key, at(low))
    (refused if legal[-1] == ")" else accepted)(key, at(high))
    refused(key, beside(low, False))
    refused(key, beside(high, True))
    for bad in (float("nan"), float("inf"), -float("inf"), "1", None, True, [1]):
        refused(key, bad)
    if whole:
        refused(key, float(int(low)) + 0.5)
        refused(key, 10.0)


@pytest.mark.parametrize(("key", "legal"), [(k, v) for k, v in numeric() if isinstance(value(BASE, k), float)])
def test_percentages_for_fractions_are_refused(key: str, legal: str) -> None:
    """Wrong-unit guard: a hundred times the default is out of range, and the text says how fractions are written."""
    if value(BASE, key) < 0.5 and float(legal[1:-1].split(",")[1]) <= 1.0:
        with pytest.raises(ConfigError, match="fractions are written 0.10, not 10"):
            put(key, 100.0 * value(BASE, key))


@pytest.mark.parametrize("key", [k for k in KEYS if isinstance(value(BASE, k), str)])
def test_choices(key: str) -> None:
    legal = str(config_table().loc[key, "legal"])
    for good in legal.replace("ext:NAME", "ext:some_name").split("|") if "|" in legal else ["15:30"]:
        assert value(put(key, good), key) == good
    for bad in ("", "HRP!", 3, None, "25:00", "9:35"):
        with pytest.raises(ConfigError, match=re.escape(key)) as caught:
            put(key, bad)
        assert caught.value.code == "CONFIG_CHOICE"


@pytest.mark.parametrize("key", [k for k in KEYS if isinstance(value(BASE, k), bool)])
def test_switches(key: str) -> None:
    assert value(put(key, not value(BASE, key)), key) is not value(BASE, key)
    for bad in (0, 1, "true", None):
        with pytest.raises(ConfigError, match="true or false"):
            put(key, bad)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"caps.name": 0.9, "caps.gross": 0.5, "caps.net": 0.5}, "name <= gross"),
        ({"caps.net": 2.5}, "net <= gross"),
        ({"governor.start": 0.12}, "start < floor_at"),
        ({"governor.floor_at": 0.15}, "start < floor_at < flat_at"),
        ({"governor.lifetime_limit": 0.14}, "flat_at <= lifetime_limit"),
        ({"kill_tiers.warn": 0.12}, "warn < throttle"),
        ({"kill_tiers.no_new": 0.12}, "warn < throttle < no_new"),
        ({"regime.crisis": 1.0, "regime.transition": 0.9}, "crisis <= transition"),
        ({"covariance.window": 59}, "min_overlap"),
        ({"risk.window": 29}, "min_observations <= window"),
        ({"schedule.allocation_time": "15:31"}, "one of slots"),
        ({"ladder.thresholds": [1e5, 1e5, 1e7]}, "rising thresholds"),
        ({"kill_tiers.no_new": 0.15}, "below governor.flat_at"),
    ],
)
def test_cross_field_rules(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(rule)) as caught:
        BASE.replace(**changes)
    assert caught.value.code == "CONFIG_CROSS"


def test_tuples_have_a_length() -> None:
    for bad in ([0.1, 0.2], (0.1,) * 5, 0.1, "abcd"):
        with pytest.raises(ConfigError, match="list of 4 values"):
            BASE.replace(**{"ladder.name": bad})


# ---------------------------------------------------------------- values


def test_two_keys_that_need_each_other_change_together() -> None:
    assert BASE.replace(**{"caps.net": 0.4, "caps.name": 0.3, "caps.gross": 0.4}).caps.gross == 0.4


def test_replace_does_not_change_the_original() -> None:
    other = BASE.replace(**{"allocation.method": "erc", "caps.name": 0.1})
    assert (other.allocation.method, other.caps.name) == ("erc", 0.1) and PILConfig() == BASE and other != BASE
    with pytest.raises(FrozenInstanceError):
        BASE.caps.name = 1.0  # type: ignore[misc]
    with pytest.raises(ConfigError, match="unknown"):
        BASE.replace(method="erc")


def test_toml_round_trip(tmp_path: Path) -> None:
    for i, config in enumerate(
        (
            BASE,
            BASE.replace(
                **{
                    "caps.name": 1.0 / 7.0,
                    "ladder.thresholds": [1e5 / 3.0, 1e6, 2e7],
                    "schedule.slots": ["10:00", "15:30"],
                    "tilt.skill": False,
                }
            ),
        )
    ):
        path = tmp_path / f"{i}.toml"
        path.write_text(config.to_toml())
        back = PILConfig.load(path)
        assert back == config and back.fingerprint() == config.fingerprint() and hash(back) == hash(config)
        assert PILConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[caps]\nname = 10\n", "CONFIG_RANGE"),
        ("[caps]\nname = 0.1\nname = 0.2\n", "CONFIG_TOML"),
        ("[caps\n", "CONFIG_TOML"),
        ("[caps]\nname = '0.1'\n", "CONFIG_TYPE"),
        ("[caps]\nnaem = 0.1\n", "CONFIG_UNKNOWN_KEY"),
        ("[cpas]\n", "CONFIG_UNKNOWN_KEY"),
        ("caps = 3\n", "CONFIG_TYPE"),
        ("[governor]\nenabled = 1\n", "CONFIG_TYPE"),
        ("[caps]\nname = nan\n", "CONFIG_TYPE"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=".") as caught:
        PILConfig.load(path)
    assert caught.value.code == code


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file") as caught:
        PILConfig.load(tmp_path / "none.toml")
    assert caught.value.code == "CONFIG_FILE"


def test_fingerprints() -> None:
    """The hash is of values alone: it is stable, and one changed value of any key changes it."""
    base = BASE.fingerprint()
    assert (
        re.fullmatch(r"sha256:[0-9a-f]{64}", base) and base == PILConfig().fingerprint() == BASE.replace().fingerprint()
    )
    prints = {base}
    for key in KEYS:
        old = value(BASE, key)
        new: Any = (
            not old
            if isinstance(old, bool)
            else old + 1
            if isinstance(old, int)
            else old * (1.0 - 1e-12)
            if isinstance(old, float)
            else None
        )
        if new is None or key == "governor.max_reentries":
            continue
        prints.add(put(key, new).fingerprint())
    assert len(prints) > 75
    import json
    import subprocess
    import sys

    code = "from pil_research.config import PILConfig; print(PILConfig().fingerprint())"
    for seed in ("0", "7"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": "", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        )
        assert out.stdout.strip() == base
    assert json.loads(json.dumps(BASE.to_dict())) == BASE.to_dict()


def _numpy_twin(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [np.bool_(value)]
    if isinstance(value, int):
        return [np.int64(value), np.int32(value)]
    if isinstance(value, float):
        return [np.float64(value)] + [np.float32(value)] * (float(np.float32(value)) == value)
    if isinstance(value, list):
        return [[_numpy_twin(v)[0] for v in value], tuple(_numpy_twin(v)[0] for v in value)]
    return [np.str_(value)]


@pytest.mark.parametrize("key", KEYS)
def test_numpy_scalars_are_the_plain_value(key: str) -> None:
    section, name = key.split(".")
    plain = BASE.to_dict()[section][name]
    for twin in _numpy_twin(plain):
        made = BASE.replace(**{key: twin})
        kept = made.to_dict()[section][name]
        assert made == BASE and made.fingerprint() == BASE.fingerprint() and made.to_toml() == BASE.to_toml()
        assert type(kept) is type(plain) and repr(kept) == repr(plain)


def test_a_numpy_number_of_the_wrong_kind_is_refused() -> None:
    assert BASE.replace(**{"covariance.window": np.int64(200)}).covariance.window == 200
    assert type(BASE.replace(**{"sleeves.vol_target": np.float32(0.25)}).sleeves.vol_target) is float
    assert BASE.replace(**{"sleeves.vol_target": np.int64(1)}) == BASE.replace(**{"sleeves.vol_target": 1})
    for key, value in (("covariance.window", np.bool_(True)), ("covariance.window", True),
                       ("covariance.window", np.float64(252.0)),
                       ("sleeves.vol_target", np.bool_(True)), ("sleeves.vol_target", np.float64("nan")),
                       ("sleeves.normalise", np.int64(1)), ("sleeves.vol_target", np.datetime64("2020-01-01"))):
        with pytest.raises(ConfigError) as err:
            BASE.replace(**{key: value})
        assert err.value.code == "CONFIG_TYPE"


def test_what_is_no_section_no_table_and_no_text_file(tmp_path: Path) -> None:
    folder, bytes_ = tmp_path / "folder", tmp_path / "odd.toml"
    folder.mkdir()
    bytes_.write_bytes(b"[caps]\nname = 0.1 # \xff\xfe\n")
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: PILConfig(sleeves=5), "CONFIG_TYPE"),  # type: ignore[arg-type]
        (lambda: PILConfig(caps=PILConfig().governor), "CONFIG_TYPE"),  # type: ignore[arg-type]
        (lambda: PILConfig.from_dict(5), "CONFIG_TYPE"),  # type: ignore[arg-type]
        (lambda: PILConfig().replace(**{"schedule.allocation_time": "1\u00b2:00"}), "CONFIG_CHOICE"),
        (lambda: PILConfig.load(folder), "CONFIG_FILE"), (lambda: PILConfig.load(bytes_), "CONFIG_TOML")]
    for build, code in cases:
        with pytest.raises(ConfigError) as caught:
            build()
        assert caught.value.code == code
