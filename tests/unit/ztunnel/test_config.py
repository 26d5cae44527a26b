from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bpf import layout
from control.kit.errors import ConfigError
from ztunnel import main
from ztunnel.access import call_metadata
from ztunnel.config import (
    WORKERS_MAX,
    Addresses,
    ZtunnelConfig,
    host_port,
    read_roots,
    workers_of,
)


def load(*flags: str) -> ZtunnelConfig:
    """The configuration that these flags make."""
    context = main.main.make_context("tulle-ztunnel", list(flags), obj=None)
    return main.make_config(dict(context.params))


def test_defaults_follow_from_the_flags() -> None:
    config = load("--control", "c.example:15012", "--node", "n1", "--drain", "150ms")
    assert (config.ca, config.zds) == ("c.example:15012", Path("/run/tulle/n1/zds.sock"))
    assert config.admin_socket == Path("/run/tulle/n1/ztunnel.sock")
    assert (config.drain_s, config.secret_ttl_s, config.spin_us) == (0.15, 86400, 50)
    assert config.pod_name == "ztunnel-n1"


@pytest.mark.parametrize(
    ("flags", "direct"),
    [
        ((), "/run/tulle/n1/direct.sock"),
        (("--zds", "/x/zds.sock"), "/x/direct.sock"),
        (("--zds", "/var/run/ztunnel/ztunnel.sock"), None),
        (("--fixed-ports",), None),
        (("--fixed-ports", "--direct", "/x/d.sock"), "/x/d.sock"),
        (("--direct", ""), None),
        (("--direct", "off"), None),
    ],
)
def test_the_direct_path_is_our_own_agents(flags: tuple[str, ...], direct: str | None) -> None:
    config = load("--control", "c.example:15012", "--node", "n1", *flags)
    assert config.direct == (direct and Path(direct))


def test_istios_names_work_and_ours_win(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "XDS_ADDRESS": "https://istiod.istio-system.svc:15012",
        "XDS_ROOT_CA": "root.pem",
        "NODE_NAME": "theirs",
        "TULLE_NODE": "ours",
        "AUTH_TOKEN": "./var/token",
        "SECRET_TTL": "1h",
        "ZTUNNEL_WORKER_THREADS": "2",
        "INPOD_UDS": "/var/run/ztunnel/ztunnel.sock",
        "LOG_FORMAT": "json",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    config = load()
    assert config.control == "istiod.istio-system.svc:15012"
    assert (config.control_root, config.ca_root) == ("root.pem", "root.pem")
    assert (config.node, config.workers, config.secret_ttl_s) == ("ours", 2, 3600)
    assert (config.token, config.log_format) == (Path("var/token"), "json")


def test_everything_is_shown_and_nothing_is_secret() -> None:
    shown = load("--control", "c:1", "--token", "/run/token").as_json()
    assert shown["token"] == "/run/token"
    assert set(shown) >= {"control", "drain_s", "workers", "fixed_ports"}


def test_istios_mounts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load("--control", "c:1")
    assert (config.control_root, config.ca_root, config.token) == ("SYSTEM", "SYSTEM", None)
    for name in (main.ROOT_MOUNTED, main.TOKEN_MOUNTED):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    config = load("--control", "c:1")
    assert (config.control_root, config.ca_root) == (main.ROOT_MOUNTED, main.ROOT_MOUNTED)
    assert config.token == Path(main.TOKEN_MOUNTED)
    config = load("--control", "c:1", "--control-root", "SYSTEM", "--token", "t")
    assert (config.control_root, config.token) == ("SYSTEM", Path("t"))


def test_the_container_of_istios_daemonset_needs_no_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables, mounts and arguments of Istio's ztunnel chart."""
    monkeypatch.chdir(tmp_path)
    socket = tmp_path / "run" / "ztunnel.sock"
    monkeypatch.setattr(main, "ZDS_MOUNTED", str(socket))
    for path in (main.ROOT_MOUNTED, main.TOKEN_MOUNTED, str(socket)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    for path in (main.ROOT_MOUNTED, main.TOKEN_MOUNTED):
        Path(path).touch()
    given = {
        "CA_ADDRESS": "istiod.istio-system.svc:15012",
        "XDS_ADDRESS": "istiod.istio-system.svc:15012",
        "ISTIO_META_CLUSTER_ID": "east",
        "CLUSTER_ID": "west",
        "INPOD_ENABLED": "true",
        "TERMINATION_GRACE_PERIOD_SECONDS": "30",
        "POD_NAME": "ztunnel-x7k",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    config = load("proxy", "ztunnel")
    assert (config.zds, config.fixed_ports, config.direct) == (socket, True, None)
    assert (config.cluster_id, config.pod_name, config.drain_alone_s) == ("east", "ztunnel-x7k", 25)
    assert load("--no-fixed-ports").fixed_ports is False
    assert config.dns_capture is True
    assert load("--zds", "/run/tulle/n1/zds.sock").dns_capture is False
    monkeypatch.setenv("ISTIO_META_DNS_CAPTURE", "false")
    assert load("proxy").dns_capture is False
    monkeypatch.setenv("CONNECTION_TERMINATION_DEADLINE", "7s")
    assert load("proxy").drain_alone_s == 7
    assert load("proxy").drain_s == 25
    with pytest.raises(ConfigError, match="unexpected arguments: serve"):
        load("serve")
    monkeypatch.setenv("PROXY_MODE", "dedicated")
    with pytest.raises(click.UsageError, match="'dedicated' is not 'shared'"):
        load("proxy")


@pytest.mark.parametrize(
    ("told_s", "grace_s", "drain_s"),
    [(None, None, 5), (9, 30, 9), (None, 30, 25), (None, 10, 9), (None, 3, 2), (None, 0.5, 1)],
)
def test_the_drain_leaves_time_for_the_end(
    told_s: float | None, grace_s: float | None, drain_s: float
) -> None:
    assert main.drain_s(told_s, grace_s, 5.0) == drain_s


def test_a_token_may_be_given_itself_and_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "eyJhbGciOiJIUzI1NiJ9.eyJub2RlIjoibjEifQ.c2lnbmF0dXJl"
    monkeypatch.setenv("AUTH_TOKEN", secret)
    config = load("--control", "c:1")
    assert call_metadata(config.token, "k") == (
        ("authorization", f"Bearer {secret}"),
        ("clusterid", "k"),
    )
    assert secret not in f"{config}{config.as_json()}"


@pytest.mark.parametrize(
    "flags",
    [[], ["--control", "nohost"], ["--control", "c:1", "--drain", "soon"],
     ["--control", "c:1", "--workers", "many"], ["--control", "c:99999"]],
)  # fmt: skip
def test_a_bad_flag_is_explained(flags: list[str]) -> None:
    result = CliRunner().invoke(main.main, flags)
    assert result.exit_code == 2
    assert "error: " in result.output


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("0", 8), ("25%", 2), ("1%", 1), ("100%", 8)]
)
def test_workers(text: str, expected: int) -> None:
    assert workers_of(text, 8) == expected


def test_there_are_as_many_workers_as_the_kernel_half_has_places_for() -> None:
    assert WORKERS_MAX == layout.ROLE_SLOTS
    assert workers_of("0", 1000) == workers_of("100%", 1000) == workers_of("32", 1) == WORKERS_MAX


@pytest.mark.parametrize("text", ["", "-1", "x", "%", "1000", "33", "101%", "1.5"])
def test_what_is_no_number_of_workers(text: str) -> None:
    with pytest.raises(ConfigError):
        workers_of(text, 8)


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:0", "host:x", "http://h:1/p"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError):
        host_port(text)


def test_roots(tmp_path: Any) -> None:
    assert read_roots("SYSTEM") is None
    assert read_roots("-----BEGIN CERTIFICATE-----") == b"-----BEGIN CERTIFICATE-----"
    (tmp_path / "root.pem").write_bytes(b"pem")
    assert read_roots(str(tmp_path / "root.pem")) == b"pem"
    with pytest.raises(ConfigError):
        read_roots(str(tmp_path / "absent"))


def test_a_worker_gets_every_setting_that_concerns_it(tmp_path: Path) -> None:
    config = ZtunnelConfig("c:1", "c:1", tmp_path, tmp_path, node="n1", drain_s=7)
    assert config.for_workers() == {
        "trust_domain": "cluster.local",
        "cluster_id": "Kubernetes",
        "network": "",
        "node": "n1",
        "drain_s": 7,
        "spin_us": 50,
        "log_level": "info",
        "log_format": "text",
        "access_log": True,
        "fixed_ports": False,
        "direct": False,
    }


def test_the_page_names_the_way_of_addresses(tmp_path: Path) -> None:
    config = ZtunnelConfig("c:1", "c:1", tmp_path, tmp_path, addresses=Addresses.ON_DEMAND)
    assert config.as_json()["addresses"] == "on-demand"


def test_all_addresses_come_unasked_unless_told_otherwise() -> None:
    flags = ("--control", "c.example:15012", "--node", "n1")
    assert load(*flags).addresses is Addresses.ALL
    for each in Addresses:
        assert load(*flags, "--addresses", each.value).addresses is each
