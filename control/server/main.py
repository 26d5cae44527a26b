"""`tulle-control`: the table of commands. Only the module of the one in use is loaded: a token
needs no server."""

from __future__ import annotations

import click

from control.kit.lazy_group import LazyGroup
from control.kit.version import version

COMMANDS = {
    "check": ("control.server.check", "check", "Validate a folder of manifests."),
    "serve": ("control.server.serve", "serve", "Run the control plane (the default command)."),
    "token": (
        "control.server.token",
        "token",
        "Print a token for a node, or for a waypoint there, or revoke some.",
    ),
}


class DefaultServe(LazyGroup):
    """`tulle-control --manifests DIR` means `tulle-control serve --manifests DIR`."""

    verbs = COMMANDS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version"}
        if not args or (args[0] not in COMMANDS and args[0] not in own):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        serving = self.get_command(ctx, "serve")
        assert serving is not None
        records = [each.get_help_record(ctx) for each in serving.params]
        with formatter.section("Options of serve"):
            formatter.write_dl([each for each in records if each is not None])
        super().format_options(ctx, formatter)


@click.group(cls=DefaultServe, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="tulle-control", message="%(prog)s %(version)s")
def main() -> None:
    """The control plane: reads manifests or an API server, serves delta xDS and signs certificates.

    \b
    Examples:
      tulle-control --manifests ./mesh --state ./state
      tulle-control --kubernetes
      tulle-control --kubernetes --kubeconfig ~/.kube/config --context kind-kind
      tulle-control --manifests ./mesh --dns-name control.example
      tulle-control token --node n1 --state ./state > n1.token
      tulle-control token --node n1 --service-account shop/waypoint > w.token
      tulle-control check --manifests ./mesh

    Nodes verify the port with the root in <state>/ca/root-cert.pem.
    """


if __name__ == "__main__":
    main()
