"""Policies and permissions from files: read strictly, or not at all.

A file is written by people and guards what models do, so a slip must not open a gate: a key that is
not known, a value of a wrong type or a rule that would mean nothing stops the start, with the file
and the place in it. The rules are registered as data, and made again from it by `policies_of` when
a run is resumed; both ways go through the same checks.
"""

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from carstore import canonical
from carstore.errors import InvalidJson, NotFound
from carstore.names import Json
from engine.policies import MAX_EXPIRY_SECS, only_once
from engine.problems import Step, path_text, shown, suggestion
from engine.rules import capabilities
from engine.rules.capabilities import CapabilitySet
from engine.rules.file_rules import MAKERS, Body, denied_by_pattern
from engine.rules.identifiers import problem_with_id, problem_with_state_key
from engine.rules.policies import MAX_APPROVERS, InvalidPolicy, Policy
from engine.rules.texts import search_of

__all__ = ["MAX_SEARCHES", "load_permissions", "load_policies", "policies_of"]

MAX_FILE_BYTES = 1024 * 1024
"""Of a file of policies or permissions: thousands of rules, and each is asked at each action."""

MAX_TEXT_CHARS = 1000
"""Characters of a keyword, a pattern, a path or a reason."""

MAX_SEARCHES = 200
"""Rules of a file that look for a text or a pattern. Each looks through all that an action is
given, up to 16 MiB, and the program does nothing else meanwhile."""

MAX_CALLS = 10**9
"""Calls that a rate limit can allow, as for the rate limit of a tool."""

MATCHING = "deny_tool_param_matching"

NEEDS_RE2 = "patterns need google-re2, which is not installed: pip install 'carstore[re2]'"

Check = Callable[[Json], str | None]
"""What is wrong with a value, to be read after the place of it; None if nothing."""


def load_policies(path: str | Path) -> tuple[Policy, ...]:
    """The rules of a policy file (TOML), in the order of the kinds below and then of the file.

    Raises:
        NotFound: there is no such file.
        InvalidPolicy: the file cannot be used; it names the place in it.
    """
    source = str(path)
    document = _toml(source, _read(source))
    for name in document:
        if name not in _KINDS:
            hint = suggestion(name, _KINDS) or f"; known are {', '.join(_KINDS)}"
            raise InvalidPolicy(source, "", f"there is no key {shown(name)}{hint}")
    try:
        return only_once(_rules(document, source))
    except InvalidPolicy as error:
        if error.source == source:
            raise
        reason = f"says two different things about {error.source!r}; leave one of them"
        raise InvalidPolicy(source, "", reason) from None


def policies_of(rule_data: Json) -> Policy:
    """The policy that was registered as `rule_data`, with the same name and digest.

    Raises:
        InvalidPolicy: this carstore knows no such rule, or lacks what it needs.
    """
    if not isinstance(rule_data, dict) or len(rule_data) != 1:
        raise InvalidPolicy("rule", "", "a rule is an object with one key, its kind")
    [(kind, body)] = rule_data.items()
    if kind == capabilities.NAME:
        return capabilities.as_policy(CapabilitySet.from_json(body))
    if kind not in _KINDS:
        raise InvalidPolicy("rule", "", f"there is no kind of rule {shown(kind)}")
    return _policy(kind, body, "rule", (kind,))


def load_permissions(path: str | Path) -> CapabilitySet:
    """The permissions of a file: TOML if its name ends with `.toml`, else JSON.

    Raises:
        NotFound: there is no such file.
        InvalidPolicy: the file cannot be used; it names the place in it.
    """
    source = str(path)
    data = _read(source)
    try:
        if source.lower().endswith(".toml"):
            return CapabilitySet.from_json(_toml(source, data))
        return CapabilitySet.from_json(canonical.loads(data, source))
    except InvalidJson as error:
        raise InvalidPolicy(source, error.path.removeprefix(source)[1:], error.reason) from None
    except InvalidPolicy as error:
        if error.source == capabilities.NAME:
            raise InvalidPolicy(source, error.path, error.reason) from None
        raise


# --- reading ---


def _read(source: str) -> bytes:
    try:
        with Path(source).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise NotFound("file", source) from None
    except OSError as error:
        reason = f"cannot be read: {error.strerror or type(error).__name__}"
        raise InvalidPolicy(source, "", reason) from None
    if len(data) > MAX_FILE_BYTES:
        raise InvalidPolicy(source, "", f"has more than {MAX_FILE_BYTES:,} bytes")
    return data


def _toml(source: str, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 at byte {error.start}"
    except tomllib.TOMLDecodeError as error:
        reason = f"is not TOML: {error}"
    except RecursionError:
        reason = "is nested too deeply"
    raise InvalidPolicy(source, "", reason) from None


def _rules(document: dict[str, Any], source: str) -> Iterator[Policy]:
    searches = 0
    for kind in _KINDS:
        if kind not in document:
            continue
        given = document[kind]
        if not isinstance(given, list):
            what = "a list of texts" if kind in _TEXTS else f"tables; write [[{kind}]]"
            raise InvalidPolicy(source, kind, f"{_described(given)}; expected {what}")
        for index, body in enumerate(given):
            searches += _searches(kind, body)
            if searches > MAX_SEARCHES:
                reason = f"is the rule {searches:,} of those that look for a text; at most "
                reason += f"{MAX_SEARCHES} are allowed. One pattern can stand for many words: a|b"
                raise InvalidPolicy(source, path_text((kind, index)), reason)
            yield _policy(kind, body, source, (kind, index))


def _searches(kind: str, body: Json) -> bool:
    return kind in ("deny_keyword", MATCHING) or (isinstance(body, dict) and "contains" in body)


# --- one rule ---


@frozen
class Field:
    """A field of a rule."""

    check: Check
    required: bool = False


def _policy(kind: str, body: Json, source: str, place: tuple[Step, ...]) -> Policy:
    """The policy that one rule makes; `place` leads to it in its source."""
    if kind in _TEXTS:
        reason = _TEXTS[kind](body)
        if reason is not None:
            raise InvalidPolicy(source, path_text(place), reason)
        return MAKERS[kind](body)
    body = _checked(_TABLES[kind], body, source, place)
    if kind != MATCHING:
        return MAKERS[kind](body)
    try:
        return denied_by_pattern(body, search_of(body["matches"]))
    except ImportError:
        raise InvalidPolicy(source, path_text(place), NEEDS_RE2) from None


def _checked(fields: Mapping[str, Field], body: Json, source: str, place: tuple[Step, ...]) -> Body:
    """The fields of a table, sound and in the form in which they are registered."""
    if not isinstance(body, dict):
        raise InvalidPolicy(source, path_text(place), f"{_described(body)}; expected a table")
    for name, value in body.items():
        at = path_text((*place, name))
        if name not in fields:
            hint = suggestion(name, fields) or f"; known are {', '.join(fields)}"
            raise InvalidPolicy(source, at, f"there is no key {shown(name)}{hint}")
        if (reason := fields[name].check(value)) is not None:
            raise InvalidPolicy(source, at, reason)
    for name, field in fields.items():
        if field.required and name not in body:
            raise InvalidPolicy(source, path_text(place), f"the key {name!r} is missing")
    # 60 and 60.0 are one rule.
    return {k: float(v) if k.endswith("_secs") else v for k, v in body.items()}


# --- values ---


def _described(value: Any) -> str:
    if isinstance(value, str | dict | list | bool | int) or value is None:
        return shown(value)
    return f"a {type(value).__name__}"


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{_described(value)} is not a text"
    if not value:
        return "is empty"
    if len(value) > MAX_TEXT_CHARS:
        return f"has {len(value):,} characters; at most {MAX_TEXT_CHARS:,} are allowed"
    return _json(value)


def _path(value: Any) -> str | None:
    reason = _text(value)
    if reason is None and "" in value.split("."):
        return f"{shown(value)} has an empty step"
    return reason


def _json(value: Any) -> str | None:
    try:
        canonical.check(value, "$")
    except InvalidJson as error:
        return error.reason if error.path == "$" else f"{error.path[1:]}: {error.reason}"
    return None


def _list(value: Any) -> str | None:
    return _json(value) if isinstance(value, list) else f"{_described(value)} is not a list"


def _seconds(value: Any) -> str | None:
    if type(value) not in (int, float) or not math.isfinite(value):
        return f"{_described(value)} is not a number of seconds"
    return None if 0 < value <= MAX_EXPIRY_SECS else f"{value!r:.40} is not above 0, or too large"


def _count(most: int) -> Check:
    def check(value: Any) -> str | None:
        if type(value) is int and 1 <= value <= most:
            return None
        return f"{_described(value)} is not an integer from 1 to {most:,}"

    return check


_TOOL = Field(problem_with_id, required=True)
_PARAM = Field(_path, required=True)

_TEXTS: dict[str, Check] = {"deny_tool": problem_with_id, "deny_keyword": _text}
"""Keys that hold a list of texts."""

_TABLES: dict[str, dict[str, Field]] = {
    "deny_tool_param": {
        "tool": _TOOL,
        "param": _PARAM,
        "equals": Field(_json),
        "contains": Field(_text),
    },
    "allow_tool_param": {"tool": _TOOL, "param": _PARAM, "allow": Field(_list, required=True)},
    MATCHING: {"tool": _TOOL, "param": _PARAM, "matches": Field(_text, required=True)},
    "require_state": {
        "tool": evolve(_TOOL, required=False),
        "key": Field(problem_with_state_key, required=True),
        "value": Field(_json, required=True),
    },
    "rate_limit_tool": {
        "tool": _TOOL,
        "max_calls": Field(_count(MAX_CALLS), required=True),
        "interval_secs": Field(_seconds, required=True),
    },
    "require_approval": {
        "tool": _TOOL,
        "param": evolve(_PARAM, required=False),
        "contains": Field(_text),
        "reason": Field(_text),
        "expires_secs": Field(_seconds),
        "approvers": Field(_count(MAX_APPROVERS)),
    },
}
"""Keys that hold tables, and what these hold."""

_KINDS = (*_TEXTS, *_TABLES)
