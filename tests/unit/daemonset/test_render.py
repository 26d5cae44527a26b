"""The chart and its kustomize tree: valid, equal, and with no more rights than are explained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml

from agent.cli.uninstall import uninstall
from agent.main import main as agent_main
from control.kit.durations import duration_s
from control.server.serve import serve as control_serve
from daemonset.tools import __main__ as manifests
from daemonset.tools import boards, crds, readme, render
from daemonset.tools.render import Object
from ztunnel.main import main as ztunnel_main

FOREIGN = "monitoring.coreos.com"  # kinds of an operator, not in Kubernetes' own schemas
VERSION = "1.36"


def workload(objects: list[Object], kind: str, name: str) -> Object:
    return next(e for e in objects if e["kind"] == kind and e["metadata"]["name"] == name)


def pod_spec(objects: list[Object], kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = workload(objects, kind, name)["spec"]["template"]["spec"]
    return spec


def test_all_objects_are_strictly_valid(full: list[Object]) -> None:
    ours = [each for each in full if not each["apiVersion"].startswith(FOREIGN)]
    assert len(ours) > 18
    for each in ours:
        kubernetes_validate.validate(each, VERSION, strict=True)


def test_what_is_made_is_up_to_date(helm_program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert manifests.main(["--check"]) == 0, f"make manifests: {capsys.readouterr().out}"


@pytest.mark.parametrize("platform", render.PLATFORMS)
def test_kustomize_builds_what_helm_renders(platform: str, helm_program: str) -> None:
    own = manifests.OWN.with_name("kubectl")
    program = str(own) if own.exists() else shutil.which("kubectl")
    assert program, "no kubectl: make ready-dev"
    built = render.built(render.MANIFESTS / "overlays" / platform, program)
    wanted = render.rendered(platform, helm_program) + list(crds.definitions().values())
    wanted.append(render.root_namespace(helm_program))
    assert render.as_set(built) == render.as_set(wanted)


def test_helm_finds_nothing_wrong(helm_program: str) -> None:
    done = subprocess.run(
        [helm_program, "lint", "--strict", str(render.CHART)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "flags",
    ["platform=minix", "image.digest=latest", "ztunnel.workers=99", "no=1", "agent.drain=soon"],
)
def test_a_wrong_setting_is_refused(flags: str, helm_program: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render.helm("--set", flags, program=helm_program)
    assert "schema" in refused.value.stderr


def test_every_setting_has_a_description_and_a_place_in_the_schema() -> None:
    schema = json.loads((render.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((render.CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)

    def compare(part: dict[str, Any], value: dict[str, Any], path: str) -> None:
        assert part["properties"].keys() - {"global"} == value.keys(), path
        for name, each in part["properties"].items():
            assert each["description"], f"{path}{name}"
            if "properties" in each:
                compare(each, value[name], f"{path}{name}.")

    compare(schema, values, "")
    assert readme.table().count("\n") > 40


def test_the_platforms_settings_exist() -> None:
    schema = json.loads((render.CHART / "values.schema.json").read_text())
    names = schema["properties"]["platform"]["enum"]
    assert sorted(names) == render.PLATFORMS
    profiles = schema["properties"]["profile"]["enum"]
    assert sorted(profiles) == sorted(p.stem for p in (render.CHART / "profiles").glob("*.yaml"))
    for path in (*render.CHART.glob("platforms/*.yaml"), *render.CHART.glob("profiles/*.yaml")):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_a_users_setting_wins_over_the_platforms(helm_program: str) -> None:
    flags = ("--set", "cni.binDir=/mine", "--set", "controlPlane.replicas=5")
    objects = render.rendered("k3s", helm_program, *flags)
    volumes = {
        each["name"]: each for each in pod_spec(objects, "DaemonSet", "tulle-agent")["volumes"]
    }
    assert volumes["cni-bin"]["hostPath"]["path"] == "/mine"
    assert volumes["cni-conf"]["hostPath"]["path"].startswith("/var/lib/rancher")
    assert workload(objects, "Deployment", "tulle-control")["spec"]["replicas"] == 5


# -- Helm's hook: without it captured pods were left without a ztunnel -----------------------------


def test_helm_takes_pods_and_nodes_out_before_it_deletes_anything(hooks: list[Object]) -> None:
    assert [each["kind"] for each in hooks] == ["ServiceAccount", "Role", "RoleBinding", "Job"]
    for each in hooks:
        kubernetes_validate.validate(each, VERSION, strict=True)
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    job = pod_spec(hooks, "Job", "tulle-uninstall")
    (container,) = job["containers"]
    words = container["command"]
    options = {option for each in uninstall.params for option in each.opts}
    assert words[:2] == ["tulle", "uninstall"]
    assert {each.partition("=")[0] for each in words[2:]} <= options
    assert job["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_its_rights_are_those_that_it_uses_in_its_own_namespace(hooks: list[Object]) -> None:
    (role,) = (each for each in hooks if each["kind"] == "Role")
    assert role["metadata"]["namespace"] == render.NAMESPACE
    rules = [(rule["resources"], rule["verbs"]) for rule in role["rules"]]
    assert rules == [
        (["deployments"], ["get", "update"]),
        (["daemonsets"], ["get", "update"]),
        (["daemonsets"], ["get"]),
        (["pods"], ["list"]),
        (["pods/exec"], ["get", "create"]),
    ]


def test_manifests_for_kubectl_have_no_hook(full: list[Object]) -> None:
    assert "tulle-uninstall" not in json.dumps(full)


# -- rights -------------------------------------------------------------------------------------


def test_containers_have_the_least_that_they_can(full: list[Object]) -> None:
    pods = [
        each["spec"]["template"]["spec"]
        for each in full
        if each["kind"] in ("Deployment", "DaemonSet")
    ]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            context = container["securityContext"]
            assert not context.get("privileged")
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"]["drop"] == ["ALL"]
            assert {"requests", "limits"} <= container["resources"].keys()
        for container in pod["containers"]:
            assert container["readinessProbe"]
            assert container["livenessProbe"]
        # Nothing needs a shared mount: not every node has them.
        mounts = [mount for each in pod["containers"] for mount in each["volumeMounts"]]
        assert not any("mountPropagation" in mount for mount in mounts)
    control = pod_spec(full, "Deployment", "tulle-control")
    assert control["securityContext"]["runAsNonRoot"] is True
    assert control["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert "add" not in control["containers"][0]["securityContext"]["capabilities"]
    assert not any("hostPath" in volume for volume in control["volumes"])


def test_an_selinux_type_is_for_what_touches_the_node(
    helm_program: str, plain: list[Object]
) -> None:
    """With a container's own type the socket folder is closed to one of both, as Istio found."""
    flags = ("--set", "security.seLinuxType=spc_t")
    typed = render.objects_of(render.helm(*flags, program=helm_program))
    for part in ("agent", "ztunnel"):
        context = pod_spec(typed, "DaemonSet", f"tulle-{part}")["securityContext"]
        assert context["seLinuxOptions"] == {"type": "spc_t"}
        assert (
            "seLinuxOptions" not in pod_spec(plain, "DaemonSet", f"tulle-{part}")["securityContext"]
        )
    control = pod_spec(typed, "Deployment", "tulle-control")
    assert "seLinuxOptions" not in control["securityContext"]


def test_only_the_control_plane_has_rights_at_the_api_server(full: list[Object]) -> None:
    bindings = [each for each in full if each["kind"] in ("ClusterRoleBinding", "RoleBinding")]
    subjects = {subject["name"] for each in bindings for subject in each["subjects"]}
    assert subjects == {"tulle-control"}
    for part in ("agent", "ztunnel"):
        assert pod_spec(full, "DaemonSet", f"tulle-{part}")["automountServiceAccountToken"] is False


def test_rights_are_few_and_each_rule_says_why(full: list[Object]) -> None:
    rules = [
        rule for each in full if each["kind"] in ("ClusterRole", "Role") for rule in each["rules"]
    ]
    for rule in rules:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        if "secrets" in rule["resources"] and rule["verbs"] != ["create"]:
            assert rule["resourceNames"]
    cluster = next(each for each in full if each["kind"] == "ClusterRole")
    assert not any("secrets" in rule["resources"] for rule in cluster["rules"])
    lines = (render.CHART / "templates/rbac.yaml").read_text().splitlines()
    starts = [at for at, line in enumerate(lines) if re.match(r"  - apiGroups:", line)]
    reasons = 0
    for at in starts:
        before = lines[at - 1].strip()
        # A second rule of one purpose follows the first, whose reason covers both.
        assert before.startswith("#") or before.startswith("verbs:"), f"rbac.yaml:{at + 1}"
        reasons += before.startswith("#")
    assert reasons >= len(starts) - 3


COMMANDS: dict[str, click.Command] = {
    "agent": agent_main,
    "control": control_serve,
    "ztunnel": ztunnel_main,
}


@pytest.mark.parametrize("part", COMMANDS)
def test_the_commands_have_the_flags_that_they_are_given(part: str, full: list[Object]) -> None:
    kind = "Deployment" if part == "control" else "DaemonSet"
    arguments = pod_spec(full, kind, f"tulle-{part}")["containers"][0]["args"]
    options = {
        option for each in COMMANDS[part].params for option in (*each.opts, *each.secondary_opts)
    }
    given = {each.partition("=")[0] for each in arguments if each.startswith("--")}
    assert len(given) > 8
    assert given - options == set()


def test_no_port_of_the_node_belongs_to_the_ztunnel(full: list[Object]) -> None:
    """With one, the scheduler would leave the second pod of a rolling update pending."""
    ztunnel = pod_spec(full, "DaemonSet", "tulle-ztunnel")
    assert not ztunnel.get("hostNetwork")
    assert not any("hostPort" in port for port in ztunnel["containers"][0]["ports"])
    strategy = workload(full, "DaemonSet", "tulle-ztunnel")["spec"]["updateStrategy"][
        "rollingUpdate"
    ]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_ztunnel_has_time_to_drain() -> None:
    values = yaml.safe_load((render.CHART / "values.yaml").read_text())["ztunnel"]
    drain_s, alone_s = (duration_s(values[name]) for name in ("drain", "drainAlone"))
    assert max(drain_s, alone_s) + 10 <= values["terminationGraceSeconds"]


def test_istios_definitions_can_be_left_out(helm_program: str, plain: list[Object]) -> None:
    kinds = [each["kind"] for each in plain]
    assert kinds.count("CustomResourceDefinition") == 2
    none = render.objects_of(render.helm("--set", "crds.install=never", program=helm_program))
    assert "CustomResourceDefinition" not in [each["kind"] for each in none]


# -- what watches it ------------------------------------------------------------------------------

_METRIC = re.compile(r"\b(?:tulle|istio|workload_manager)_[a-z_]+")
_MADE = re.compile(r'"((?:tulle|istio|workload_manager)_[a-z_]+)"')


def known_metrics() -> set[str]:
    """Names in the sources, with what Prometheus' client adds to them."""
    names: set[str] = set()
    for folder in ("agent", "control", "ztunnel"):
        for path in (render.ROOT / folder).rglob("*.py"):
            names.update(_MADE.findall(path.read_text()))
    from ztunnel.supervisor.metrics import HELP

    names.update(HELP)
    return names | {f"{name}{end}" for name in names for end in ("_total", "_bucket", "_count")}


@pytest.mark.parametrize(
    "path", [render.CHART / "alerts.yaml", *boards.files()], ids=lambda p: p.name
)
def test_what_is_watched_is_measured(path: Path) -> None:
    used = set(_METRIC.findall(path.read_text()))
    assert used
    assert used - known_metrics() == set()


def test_the_alerts_can_be_loaded() -> None:
    path = render.CHART / "alerts.yaml"
    rules = yaml.safe_load(path.read_text())["groups"][0]["rules"]
    for each in rules:
        assert each["alert"].startswith("Tulle")
        assert each["labels"]["severity"] in ("warning", "critical")
        assert each["annotations"].keys() == {"summary", "description"}
