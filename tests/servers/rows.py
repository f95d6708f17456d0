"""Lists as KFP's API server gives them: filter, order, pages (backend/src/apiserver/list, filter)."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

DEFAULT_PAGE, LARGEST_PAGE = 20, 200

SORT_KEYS = {
    "pipelines": ("pipeline_id", "name", "display_name", "created_at"),
    "pipeline_versions": ("pipeline_version_id", "name", "display_name", "created_at"),
    "experiments": ("experiment_id", "display_name", "created_at", "last_run_created_at"),
    "runs": (
        *("run_id", "display_name", "created_at", "finished_at", "scheduled_at"),
        *("description", "state", "storage_state"),
    ),
    "recurringRuns": ("recurring_run_id", "display_name", "created_at", "updated_at"),
}
FILTER_KEYS = {
    "pipelines": ("pipeline_id", "name", "display_name", "created_at", "description", "namespace"),
    "pipeline_versions": ("pipeline_version_id", "name", "display_name", "created_at", "description"),
    "experiments": (
        *("experiment_id", "display_name", "created_at", "last_run_created_at"),
        *("description", "namespace", "storage_state"),
    ),
    "runs": (*SORT_KEYS["runs"], "experiment_id", "recurring_run_id", "namespace"),
    "recurringRuns": (*SORT_KEYS["recurringRuns"], "description"),
}
IDS = {kind: keys[0] for kind, keys in SORT_KEYS.items()}
ALIASES = {
    "recurringRuns": {"id": "recurring_run_id", "name": "display_name"},
    "runs": {"id": "run_id", "name": "display_name"},
    "experiments": {"id": "experiment_id", "name": "display_name"},
    "pipelines": {"id": "pipeline_id"},
    "pipeline_versions": {"id": "pipeline_version_id"},
}

OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda mine, given: folded(mine) == folded(given),
    "NOT_EQUALS": lambda mine, given: folded(mine) != folded(given),
    "GREATER_THAN": lambda mine, given: bool(mine > given),
    "GREATER_THAN_EQUALS": lambda mine, given: bool(mine >= given),
    "LESS_THAN": lambda mine, given: bool(mine < given),
    "LESS_THAN_EQUALS": lambda mine, given: bool(mine <= given),
    "IN": lambda mine, given: folded(mine) in [folded(value) for value in given],
    "IS_SUBSTRING": lambda mine, given: like(given, mine),
}
VALUES = ("int_value", "long_value", "string_value", "timestamp_value", "int_values", "long_values", "string_values")


class BadList(Exception):
    """A query that the server refuses."""


def page(kind: str, rows: Iterable[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of rows, with the token of the next."""
    size = int(query.get("page_size", 0))
    if size < 0:
        raise BadList(f"The page size should be greater than 0. Got {size}")
    size = min(size or DEFAULT_PAGE, LARGEST_PAGE)
    order, filtered, after = position(kind, query)
    key, descending = sort_key(kind, order)
    found = [row for row in rows if matches(kind, filtered, row)]
    found.sort(key=lambda row: (row.get(key, ""), row[IDS[kind]]), reverse=descending)
    start = next((i for i, row in enumerate(found) if row[IDS[kind]] == after), len(found)) if after else 0
    following = found[start + size :][:1]
    token = written({"order": order, "filter": filtered, "after": following[0][IDS[kind]]}) if following else ""
    return {kind: found[start : start + size], "total_size": len(found), "next_page_token": token}


def position(kind: str, query: Mapping[str, str]) -> tuple[str, list[Any], str]:
    """Order, filter and the first row of a page: a token has them all, and no other may be given with it."""
    order, filtered = query.get("sort_by", ""), parse_filter(kind, query.get("filter", ""))
    if not query.get("page_token"):
        return order, filtered, ""
    try:
        token = json.loads(base64.b64decode(query["page_token"], validate=True))
    except ValueError:
        raise BadList("Invalid package token") from None
    if (order and order != token["order"]) or (filtered and filtered != token["filter"]):
        raise BadList("parsed page token does not match the sort order or the filter of the request")
    return token["order"], token["filter"], token["after"]


def written(token: Mapping[str, Any]) -> str:
    return base64.b64encode(json.dumps(token).encode()).decode()


def sort_key(kind: str, order: str) -> tuple[str, bool]:
    words = order.lower().split() or ["created_at"]
    if len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
        raise BadList(f"Received invalid sort by format {order!r}. Supported format: 'field_name desc'")
    name = ALIASES[kind].get(words[0], words[0])
    if name not in SORT_KEYS[kind]:
        raise BadList(f"Invalid sorting field: {words[0]!r}")
    return name, words[1:] == ["desc"]


def parse_filter(kind: str, encoded: str) -> list[Any]:
    """[operation, key, value] of each predicate. The server decodes once more than HTTP does."""
    if not encoded:
        return []
    try:
        predicates = json.loads(unquote_plus(encoded))["predicates"]
        return [parse_predicate(kind, predicate) for predicate in predicates]
    except (ValueError, KeyError, TypeError):
        raise BadList(f"failed to parse valid filter from {encoded!r}") from None


def parse_predicate(kind: str, predicate: dict[str, Any]) -> list[Any]:
    given = dict(predicate)
    operation, key = given.pop("operation"), given.pop("key")
    ((name, value),) = given.items()
    if operation not in OPERATIONS or name not in VALUES:
        raise ValueError
    key = ALIASES[kind].get(key, key)
    if key not in FILTER_KEYS[kind]:
        raise BadList(f"no support for filtering on unrecognized field {key!r}")
    return [operation, key, value["values"] if name.endswith("s") else value]


def matches(kind: str, predicates: list[Any], row: Mapping[str, Any]) -> bool:
    return all(OPERATIONS[operation](row.get(key, ""), value) for operation, key, value in predicates)


def folded(value: Any) -> Any:
    """As MySQL's default collation compares: without regard to case."""
    return value.lower() if isinstance(value, str) else value


def like(pattern: str, text: str) -> bool:
    """SQL's LIKE %pattern%: `%` and `_` are wildcards."""
    parts = [{"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern]
    return bool(re.search("".join(parts), text, re.IGNORECASE | re.DOTALL))
