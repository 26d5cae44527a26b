"""Our network configuration, made from the primary one's bytes; and the choice of that. Pure.

The runtime takes the file that sorts first, so ours has a name that sorts before the primary's. It
is the primary's text with our plugin at the end of its list, not a letter of the rest changed. What
cannot be understood whole is never used: a file that is being written is no primary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Any, ClassVar

from control.kit.errors import ConfigError

PLUGIN = "tulle-cni"
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")  # the plugin's; older have no chains
CONFIG_BYTES_MAX = 256 * 1024  # the plugin takes twice that, with the result of those before it
LIST_ENDING = ".conflist"
ENDINGS = (".conf", LIST_ENDING, ".json")  # the runtime reads these
# The first of these that sorts before the primary: `00-multus.conf` is before `00-tulle`.
OUR_NAMES = ("00-tulle.conflist", "00-00-tulle.conflist", "!00-tulle.conflist")
_SPACE = re.compile(r"[ \t\r\n]*")


class UnusablePrimary(ConfigError):
    """A configuration that we cannot extend; the runtime may be able to use it, or not."""

    reason: ClassVar[str] = "primary_unusable"


def is_ours(name: str) -> bool:
    return name in OUR_NAMES


def primary_of(names: Iterable[str]) -> str | None:
    """The file that the runtime would take without us."""
    found = [each for each in names if each.endswith(ENDINGS) and not is_ours(each)]
    return min(found, key=str.encode, default=None)


def our_name(primary: str) -> str:
    """UnusablePrimary: nothing of ours sorts before it."""
    for each in OUR_NAMES:
        if each.encode() < primary.encode():
            return each
    raise UnusablePrimary(f"{primary!r} sorts before every name of ours")


def extended(name: str, data: bytes, entry: Mapping[str, Any]) -> bytes:
    """The configuration of the file `name`, with the plugin `entry` behind its own."""
    text = _text(data)
    members = _members(text)
    plugin = json.dumps(entry, indent=2)
    if name.endswith(LIST_ENDING):
        return _with_plugin(text, members, plugin).encode()
    return _as_list(text, members, plugin).encode()


def _text(data: bytes) -> str:
    if len(data) > CONFIG_BYTES_MAX:
        raise UnusablePrimary(f"it has more than {CONFIG_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UnusablePrimary("it is not UTF-8") from exc


def _members(text: str) -> dict[str, tuple[Any, int, int]]:
    """Name → (value, where it begins, where it ends) in the object that the text is."""
    if not text.strip():
        raise UnusablePrimary("it is empty")
    try:
        return _scanned(text)
    except IndexError as exc:
        raise UnusablePrimary("it is not a JSON object: it ends in the middle of one") from exc
    except (ValueError, RecursionError) as exc:
        raise UnusablePrimary(f"it is not a JSON object: {exc}") from exc


def _scanned(text: str) -> dict[str, tuple[Any, int, int]]:
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    found: dict[str, tuple[Any, int, int]] = {}
    at = _expect(text, _skip(text, 0), "{")
    while text[at] != "}":
        if found:
            at = _expect(text, at, ",")
        name, at = scanstring(text, _expect(text, at, '"', skip=False), True)
        at = _expect(text, _skip(text, at), ":")
        value, end = decoder.raw_decode(text, at)
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = (value, at, end)
        at = _skip(text, end)
    if _skip(text, at + 1) != len(text):
        raise ValueError("there is more behind it")
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _expect(text: str, at: int, sign: str, *, skip: bool = True) -> int:
    if text[at] != sign:
        raise ValueError(f"{sign!r} is missing at {at}")
    return _skip(text, at + 1) if skip else at + 1


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _with_plugin(text: str, members: Mapping[str, tuple[Any, int, int]], plugin: str) -> str:
    plugins, _, end = members.get("plugins", (None, 0, 0))
    _check_head(members)
    if not isinstance(plugins, list) or not plugins:
        raise UnusablePrimary("it has no list of plugins")
    for each in plugins:
        _check_plugin(each)
    return f"{text[: end - 1].rstrip()},\n{plugin}\n{text[end - 1 :]}"


def _as_list(text: str, members: Mapping[str, tuple[Any, int, int]], plugin: str) -> str:
    """The list that a runtime makes of a single plugin's configuration."""
    _check_head(members)
    _check_plugin({name: value for name, (value, _, _) in members.items()})
    head = ", ".join(
        f'"{name}": {text[members[name][1] : members[name][2]]}'
        for name in ("cniVersion", "cniVersions", "name")
        if name in members
    )
    return f'{{ {head}, "plugins": [\n{text.strip()},\n{plugin}\n] }}\n'


def _check_head(members: Mapping[str, tuple[Any, int, int]]) -> None:
    """A version that the plugin does not know would keep every pod of the node from starting."""
    name, one, many = (
        members.get(each, (None, 0, 0))[0] for each in ("name", "cniVersion", "cniVersions")
    )
    if not isinstance(name, str) or not name:
        raise UnusablePrimary("it has no name")
    # The runtime takes one of several; without any 0.1.0.
    named = [*([] if one is None else [one]), *(many if isinstance(many, list) else [])]
    unknown = [str(each) for each in named if each not in VERSIONS]
    if unknown or not named:
        said = ", ".join(unknown) or "none"
        raise UnusablePrimary(f"its cniVersion is {said}, of {VERSIONS[0]} to {VERSIONS[-1]}")


def _check_plugin(found: Any) -> None:
    kind = found.get("type") if isinstance(found, dict) else None
    if not isinstance(kind, str) or not kind:
        raise UnusablePrimary("a plugin of it has no type")
    if kind == PLUGIN:
        raise UnusablePrimary(f"it names {PLUGIN} itself: another program copied our file")
