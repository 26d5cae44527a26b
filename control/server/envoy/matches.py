"""The match of a rule, in a route's words."""

from __future__ import annotations

from control.kit import re2
from control.model.route import PathKind, RequestMatch, TextMatch, TextMatchKind
from control.server.envoy import letters
from control.server.envoy.letters import Unspeakable
from control.server.envoy.names import Json


def of_request(match: RequestMatch) -> Json:
    made: Json = _path(match)
    headers = [
        {"name": letters.header_name(each.name), "string_match": _text(each)}
        for each in match.headers
    ]
    if match.method:
        headers.append({"name": ":method", "string_match": {"exact": letters.method(match.method)}})
    if headers:
        made["headers"] = headers
    if match.query:
        made["query_parameters"] = [
            {"name": letters.query_name(each.name), "string_match": _text(each)}
            for each in match.query
        ]
    return made


def _path(match: RequestMatch) -> Json:
    if match.path_kind is PathKind.REGEX:
        return {"safe_regex": {"regex": _regex(match.path)}}
    if match.path_kind is PathKind.EXACT:
        return {"path": letters.value(match.path)}
    if match.path == "/":
        return {"prefix": "/"}
    return {"path_separated_prefix": letters.prefix(match.path)}


def _text(match: TextMatch) -> Json:
    if match.kind is TextMatchKind.REGEX:
        return {"safe_regex": {"regex": _regex(match.value)}}
    return {"exact": letters.value(match.value)}


def _regex(pattern: str) -> str:
    problem = re2.problem_of(pattern)
    if problem:
        raise Unspeakable(problem)
    return pattern
