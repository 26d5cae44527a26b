"""Texts that Envoy takes where it is picky: it would refuse a whole resource because of one."""

from __future__ import annotations

import re


class Unspeakable(ValueError):
    """Something that Envoy cannot be told. Whoever made it should have refused it."""


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_QUERY_NAME = re.compile(r"[^\x00\r\n]{1,255}")  # 1,024 bytes
_VALUE = re.compile(r"[^\x00\r\n]*")
_PREFIX = re.compile(r"/[^?#\x00\r\n]*[^?#/\x00\r\n]")
_HOST = re.compile(r"(?:\*\.)?[^*\s\x00]+|\*")


def header_name(name: str) -> str:
    return _checked(_TOKEN, name, "a header's name")


def changeable(name: str) -> str:
    """A header that a rule may change: the host has its own word."""
    if name.lower() == "host":
        raise Unspeakable("the host is not changed as a header")
    return header_name(name)


def method(name: str) -> str:
    return _checked(_TOKEN, name, "a method")


def query_name(name: str) -> str:
    return _checked(_QUERY_NAME, name, "a parameter's name")


def value(text: str) -> str:
    return _checked(_VALUE, text, "a value")


def prefix(path: str) -> str:
    """Whole segments, but for "/" itself."""
    return _checked(_PREFIX, path, "a prefix of a path")


def host(name: str) -> str:
    return _checked(_HOST, name, "a host")


def _checked(wanted: re.Pattern[str], text: str, what: str) -> str:
    if not wanted.fullmatch(text):
        raise Unspeakable(f"not {what}: {text!r}")
    return text
