"""`tulle-control token`: prints a token of a node or a waypoint, or revokes some."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import click

from control.kit.clock import SystemClock
from control.kit.command import PlainCommand
from control.kit.errors import ConfigError, os_error_text
from control.kit.terminal import is_interactive
from control.server.ca.keys import TOKEN_KEY_NAME, load_token_key
from control.server.callers import issued
from control.server.callers.revocations import NAME, add, load, whole_node
from control.server.callers.speakers import account_from
from control.server.callers.tokens import TOKEN_CHARS_MAX, NodeTokens, Unauthenticated, subject_of
from control.server.flags import DURATION, ROOT_NAMESPACE, STATE, option, output


@click.command(cls=PlainCommand)
@option("--node", help="Name of the node the token is for.")
@STATE
@ROOT_NAMESPACE
@option("--ttl", type=DURATION, default="365d", help="Life of the token.")
@option(
    "--service-account",
    metavar="NAMESPACE/NAME",
    help="The token is a waypoint's, for what runs on this node as this account: that of its "
    "Gateway's name.",
)
@click.option("--revoke", is_flag=True, help="Revoke all tokens that the node has until now.")
@click.option(
    "--revoke-token",
    type=click.File("rb"),
    metavar="FILE",
    help="Revoke the token in this file; - is standard input.",
)
def token(
    node: str | None,
    state: Path,
    root_namespace: str,
    ttl: float,
    service_account: str | None,
    revoke: bool,
    revoke_token: BinaryIO | None,
) -> None:
    """Print a token for a node, or for a waypoint there, or revoke some. Its holder speaks for the
    node, as its agent and ztunnel, or for the waypoint alone.

    Without a newline when it goes to a file: Istio's ztunnel sends the file as it is, and a header
    cannot hold a newline.

    A control plane that runs refuses a revoked token from its next call on, and ends calls that
    are under way within a second.
    """
    if (node is None) is (revoke_token is None) or (revoke and node is None):
        raise click.UsageError("--node NAME, --node NAME --revoke, or --revoke-token FILE")
    account = None if service_account is None else account_from(service_account)
    if service_account is not None and (account is None or revoke or revoke_token):
        said = "--service-account NAMESPACE/NAME, with --node NAME alone"
        raise click.UsageError(said)
    clock, revoked = SystemClock(), state / NAME
    if (revoke or revoke_token) and not (state / TOKEN_KEY_NAME).exists():
        raise click.ClickException(f"{state}: no control plane has its state there")
    is_first = not (state / TOKEN_KEY_NAME).exists()
    try:
        key, known = load_token_key(state), load(revoked)
        tokens = NodeTokens(key, subject_of(root_namespace), clock, lambda: known)
        if revoke_token is not None:
            text = revoke_token.read(TOKEN_CHARS_MAX + 1).decode("ascii", "replace").strip()
            add(revoked, tokens.revocation(text), clock)
        elif node is not None and revoke:
            add(revoked, whole_node(node, clock, issued.last_s(state, node)), clock)
        elif node is not None:
            made = tokens.issue(node, timedelta(seconds=ttl), account)
            issued.note(state / issued.NAME, node, tokens.issued_s(made))
            with output():
                click.echo(made, nl=is_interactive(sys.stdout))
            if is_first:  # a misspelt --state would make a token that nobody takes
                told = f"note: {state} had no key of tokens, and has one now"
                click.echo(f"{told}: for a control plane with this --state only", err=True)
    except Unauthenticated as exc:
        raise click.ClickException(f"not a token that could be used: {exc.why.meaning}") from exc
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc
    except OSError as exc:
        raise click.ClickException(os_error_text(exc)) from exc
