"""The main job's steps, in order. Each leaves the cluster as the next one expects it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.e2e import views
from tests.e2e.claims import Claims
from tests.e2e.cluster import MESH, PLAIN, SYSTEM, Cluster, manifest, namespace, scripts
from tests.e2e.kubectl import CommandFailed

READY_S, CAPTURED_S, POLICY_S = 180.0, 60.0, 30.0
STEADY_S = 20.0  # with probes each second, none of which may fail
ROLLED_S = 600.0
TRAFFIC_S = 10.0  # before a change, and after it
FLIPS, POLICIES, SERVERS = 5, 20, 6
LEAVE_S = 5.0  # longer than it takes until all nodes know
MODE = "istio.io/dataplane-mode"
AMBIENT = {MODE: "ambient"}

Step = Callable[[Claims, Cluster], None]


def apps(claims: Claims, cluster: Cluster) -> None:
    """Pods of a namespace that is not in the mesh yet: they are enrolled as they run."""
    for name in (MESH, PLAIN):
        cluster.kubectl.apply(namespace(name, {}))
        cluster.kubectl.apply(scripts(name))
    cluster.apply("apps")
    claims.within(READY_S, "pods outside the mesh start", lambda: views.not_ready(_all(cluster)))
    claims.within(POLICY_S, "they reach each other", lambda: _reach(cluster))


def enrol(claims: Claims, cluster: Cluster) -> None:
    before = views.steadiness(cluster.pods())
    cluster.kubectl.apply(namespace(MESH, AMBIENT))
    claims.within(CAPTURED_S, "running pods are captured in place", cluster.uncaptured)
    claims.within(5, "none of them was restarted", lambda: _restarts(cluster, before))


def traffic(claims: Claims, cluster: Cluster) -> None:
    claims.within(POLICY_S, "each client reaches each server", lambda: _reach(cluster))
    claims.within(
        POLICY_S, "a pod outside the mesh reaches them", lambda: _stranger_reaches(cluster)
    )


def policy(claims: Claims, cluster: Cluster) -> None:
    """Identities decide: so all that passes has gone through the mesh."""
    with _applied(cluster, "policy"):
        for pod, where in (("other", MESH), ("stranger", PLAIN)):
            claims.within(POLICY_S, f"{pod} is refused", partial(_no, cluster, pod, where))
        claims.within(POLICY_S, "the client that it names is let in", lambda: _reach(cluster))
    claims.within(POLICY_S, "without it all are let in again", lambda: _stranger_reaches(cluster))


def strict(claims: Claims, cluster: Cluster) -> None:
    """From here on the namespace is STRICT."""
    cluster.apply("strict")
    host = _first(cluster, "app=host", PLAIN)
    for pod in ("stranger", host):
        claims.within(POLICY_S, f"{pod} is refused", partial(_no, cluster, pod, PLAIN))
    claims.within(POLICY_S, "the mesh's own pods are let in", lambda: _reach(cluster))


def probes(claims: Claims, cluster: Cluster) -> None:
    claims.within(POLICY_S, "every agent recognises its kubelet", lambda: unrecognised(cluster))
    cluster.apply("probes")

    def probed() -> list[views.Object]:
        return cluster.pods("app=probed")

    end_s = claims.monotonic_s() + READY_S  # for all of them
    for kind in ("http", "tcp", "grpc", "exec", "hook"):
        claims.within(
            max(end_s - claims.monotonic_s(), 1.0),
            f"a pod with {kind} probes becomes ready",
            partial(_named_ready, cluster, f"probe-{kind}"),
        )
    before = views.steadiness(probed())
    claims.throughout(
        STEADY_S, "no probe fails", lambda: views.changed(before, views.steadiness(probed()))
    )
    pod = next(each for each in probed() if each["metadata"]["name"] == "probe-http")
    host = _first(cluster, "app=host", PLAIN, pod["spec"]["nodeName"])
    for port, what in ((8080, "the probed port"), (8083, "another port")):
        target = views.url(views.addresses(pod)[0], port)
        claims.within(
            5, f"a process of the host is refused at {what}",
            partial(cluster.refused, host, target, PLAIN),
        )  # fmt: skip


def unrecognised(cluster: Cluster) -> str:
    seen = {node: status["kubelet"] for node, status in cluster.agents().items()}
    missed = [f"{node}: {each['reason']}" for node, each in seen.items() if not each["recognised"]]
    return "; ".join(missed) if seen else "no agents"


def early(claims: Claims, cluster: Cluster) -> None:
    """The first connection of a new pod, before it is ready."""
    cluster.apply("early")
    claims.within(READY_S, "a Job's first call succeeds, six times", lambda: _job(cluster))
    for name, what in (("init", "an init container"), ("hook", "a postStart hook")):
        claims.within(
            READY_S, f"{what} uses the network", partial(_named_ready, cluster, name),
        )  # fmt: skip
    cluster.delete("early")


def churn(claims: Claims, cluster: Cluster) -> None:
    """A cluster's everyday changes, to pods and policies that are in use."""
    cluster.apply("burst")
    claims.within(READY_S, "twenty Jobs at once, each call succeeds", lambda: _burst(cluster))
    cluster.delete("burst")
    for mode in ("none", "ambient") * FLIPS:
        cluster.kubectl.apply(namespace(MESH, {MODE: mode}))
    claims.within(CAPTURED_S, "after a label that flips all are captured", cluster.uncaptured)
    claims.within(POLICY_S, "the stranger is refused", partial(_no, cluster, "stranger", PLAIN))
    with called(claims, cluster, "its servers leave and join a STRICT mesh", is_cut=True):
        for change in (f"{MODE}=none", f"{MODE}-"):
            cluster.kubectl("label", "pods", "-n", MESH, "-l", "app=server", change)
            claims.sleep(LEAVE_S)
        claims.within(CAPTURED_S, "servers that came back are captured", cluster.uncaptured)
    with called(claims, cluster, "a policy is replaced"):
        for number in range(POLICIES):
            cluster.kubectl.apply(replaced(cluster, number))
    claims.within(POLICY_S, "other is refused", partial(_no, cluster, "other", MESH))
    cluster.delete("policy")
    cluster.apply("more")
    cluster.kubectl.rolled_out(MESH, "deployment/more", READY_S)
    with called(claims, cluster, "servers come and go", is_cut=True):
        for count in (SERVERS, 1):
            cluster.kubectl("scale", "-n", MESH, "deployment/more", f"--replicas={count}")
            cluster.kubectl.rolled_out(MESH, "deployment/more", READY_S)
    cluster.delete("more")


def replaced(cluster: Cluster, number: int) -> str:
    """The policy with one more principal, another one each time."""
    text = manifest("policy", cluster.settings)
    found = f"{cluster.settings.trust_domain}/ns/{MESH}/sa/client"
    assert found in text
    return text.replace(f"{found}", f"{found}, {found}-{number}")


def agents(claims: Claims, cluster: Cluster) -> None:
    with called(claims, cluster, "the agents are replaced"):
        _restart(claims, cluster, "tulle-agent")
    claims.within(CAPTURED_S, "all pods are captured still", cluster.uncaptured)
    claims.within(POLICY_S, "every kubelet is recognised again", lambda: unrecognised(cluster))


def ztunnels(claims: Claims, cluster: Cluster) -> None:
    before = views.steadiness(cluster.pods("app=probed"))
    with called(claims, cluster, "the ztunnels are replaced"):
        _restart(claims, cluster, "tulle-ztunnel")
    now = views.steadiness(cluster.pods("app=probed"))
    claims.figure("no probe failed meanwhile", views.changed(before, now), f"{len(now)} pods")
    claims.within(POLICY_S, "each client reaches each server", lambda: _reach(cluster))


def left(claims: Claims, cluster: Cluster, before: dict[str, views.Steadiness]) -> None:
    """After an uninstallation."""
    claims.within(READY_S, "the namespace is gone", lambda: _namespaces(cluster))
    claims.within(5, "no object is left", lambda: _objects(cluster))
    claims.within(30, "nothing is left on the nodes", lambda: _on_nodes(cluster))
    claims.within(5, "pods went on running", lambda: _restarts(cluster, before))
    claims.within(POLICY_S, "and reach each other", lambda: _reach(cluster))
    cluster.kubectl("rollout", "restart", "-n", MESH, "daemonset/client")
    claims.done(
        "new pods start", lambda: cluster.kubectl.rolled_out(MESH, "daemonset/client", READY_S)
    )


STEPS: dict[str, Step] = {
    each.__name__: each
    for each in (apps, enrol, traffic, policy, strict, probes, early, churn, agents, ztunnels)
}


def clean(cluster: Cluster) -> None:
    for name in (MESH, PLAIN):
        cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


# Questions


def _all(cluster: Cluster) -> list[views.Object]:
    return cluster.pods() + cluster.pods(where=PLAIN)


def _first(cluster: Cluster, selector: str, where: str = MESH, node: str = "") -> str:
    pods = cluster.pods(selector, where)
    return views.names(each for each in pods if node in ("", each["spec"]["nodeName"]))[0]


def _named_ready(cluster: Cluster, name: str) -> str:
    """With the last warning about the pod, if it is not ready."""
    pods = cluster.pods()
    wrong = views.not_ready(each for each in pods if each["metadata"]["name"] == name)
    if not wrong:
        return ""
    said = views.last_warning(cluster.kubectl.items("events", MESH), name)
    return f"{wrong}: {said}" if said else wrong


def _targets(cluster: Cluster) -> list[str]:
    """The service, and each server by each of its addresses."""
    pods = cluster.pods("app=server")
    found = [views.url(address) for pod in pods for address in views.addresses(pod)]
    services = cluster.kubectl.items("services", MESH)
    (service,) = (each for each in services if each["metadata"]["name"] == "server")
    return [*(views.url(address, 80) for address in service["spec"]["clusterIPs"]), *found]


def _reach(cluster: Cluster) -> str:
    targets = _targets(cluster)
    for name in views.names(cluster.pods("app=client")):
        cluster.get(name, *targets)
    return ""


def _stranger_reaches(cluster: Cluster) -> str:
    cluster.get("stranger", *_targets(cluster), where=PLAIN)
    return ""


def _no(cluster: Cluster, pod: str, where: str) -> str:
    answers = (cluster.refused(pod, target, where) for target in _targets(cluster))
    return next((each for each in answers if each), "")


def _restarts(cluster: Cluster, before: dict[str, views.Steadiness]) -> str:
    now = views.steadiness(cluster.pods())
    again = [name for name in before if name in now and now[name].restarts > before[name].restarts]
    return f"restarted: {', '.join(again)}" if again else ""


def _job(cluster: Cluster, name: str = "once") -> str:
    jobs = cluster.kubectl.items("jobs", MESH)
    (job,) = (each for each in jobs if each["metadata"]["name"] == name)
    status, wanted = job.get("status", {}), job["spec"]["completions"]
    succeeded, failed = status.get("succeeded", 0), status.get("failed", 0)
    return "" if (succeeded, failed) == (wanted, 0) else f"{succeeded} succeeded, {failed} failed"


def _burst(cluster: Cluster) -> str:
    return _job(cluster, "burst")


def _namespaces(cluster: Cluster) -> str:
    names = {each["metadata"]["name"] for each in cluster.kubectl.items("namespaces")}
    return f"{SYSTEM} is there" if SYSTEM in names else ""


_CLUSTER_WIDE = "clusterroles,clusterrolebindings,priorityclasses"


def _objects(cluster: Cluster) -> str:
    ours = cluster.kubectl.items(_CLUSTER_WIDE, selector="app.kubernetes.io/part-of=tulle")
    found = [f"{each['kind']} {each['metadata']['name']}" for each in ours]
    return f"left: {', '.join(found)}" if found else ""


def _on_nodes(cluster: Cluster) -> str:
    """Names with `tulle` in them, where CNI and BPF file systems have ours."""
    for name in views.names(cluster.pods("app=host", PLAIN)):
        text = cluster.kubectl.exec(
            PLAIN, name, "find", "/host/cni", "/host/bpf", "-name", "*tulle*"
        )
        if text.strip():
            return f"left on the node of {name}: {' '.join(text.split()[:5])}"
    return ""


# Acts


@contextmanager
def _applied(cluster: Cluster, name: str) -> Iterator[None]:
    cluster.apply(name)
    try:
        yield
    finally:
        cluster.delete(name)


def _restart(claims: Claims, cluster: Cluster, name: str) -> None:
    cluster.kubectl("rollout", "restart", "-n", SYSTEM, f"daemonset/{name}")
    claims.done(
        f"{name} is rolled out",
        lambda: cluster.kubectl.rolled_out(SYSTEM, f"daemonset/{name}", ROLLED_S),
    )


@contextmanager
def called(claims: Claims, cluster: Cluster, what: str, *, is_cut: bool = False) -> Iterator[None]:
    """Traffic on every node, before, during and after what happens in the context. `is_cut`: open
    connections may break."""
    cluster.apply("caller")
    claims.done("callers start", lambda: cluster.kubectl.rolled_out(MESH, "ds/caller", READY_S))
    claims.within(READY_S, "they are answered", lambda: "" if cluster.counts().echoed else "none")
    before = cluster.counts()
    claims.sleep(TRAFFIC_S)
    yield
    claims.sleep(TRAFFIC_S)
    try:
        made = cluster.counts().since(before)
    except (CommandFailed, ValueError) as exc:
        claims.figure(f"no request fails while {what}", str(exc), "")
        return
    few = "" if made.answered > 100 else "hardly any request was made: it proves nothing"
    failed = f"{made.failed} failed" if made.failed else ""
    claims.figure(f"no request fails while {what}", failed or few, str(made))
    broken = f"{made.broken} broken" if made.broken and not is_cut else ""
    claims.figure(f"open connections while {what}", broken, f"{made.broken} broken")
