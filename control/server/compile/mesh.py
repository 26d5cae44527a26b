"""Objects → everything that nodes receive. Pure: same objects, same mesh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from control.model.intent import Intent, NamespaceIntent
from control.model.policy import Policy, PolicyScope
from control.model.workload import Service, TunnelProtocol, Workload
from control.server.compile.endpoints import places
from control.server.compile.holdings import Holdings
from control.server.compile.host_ports import host_port_notes
from control.server.compile.labels import label_notes
from control.server.compile.memo import MeshMemo
from control.server.compile.mutual_tls import MutualTls, compile_mutual_tls
from control.server.compile.notes import notes_on
from control.server.compile.pods import compile_namespaces, pod_uid, probe_notes
from control.server.compile.policies import PolicyStatus
from control.server.compile.remarks import remarks
from control.server.compile.selection import with_selection
from control.server.compile.services import compile_service, is_in_mesh, service_key
from control.server.compile.settings import Settings
from control.server.compile.workloads import (
    Compiler,
    is_workload,
    make_compiler,
    selects,
    tunnel_protocol,
    workload_uid,
)
from control.server.sources import objects
from control.server.sources.objects import AuthorizationPolicy, Objects
from control.server.sources.problem import Problem


@dataclass(frozen=True, slots=True)
class CompiledMesh:
    """Each mapping is keyed by the resource's name on the wire."""

    workloads: Mapping[str, Workload]
    services: Mapping[str, Service]
    policies: Mapping[str, Policy]
    pods: Mapping[str, Intent]
    statuses: tuple[PolicyStatus, ...]
    # (node, namespace, service account) of every pod that has not ended: the certificates that a
    # node may ask for.
    identities: frozenset[tuple[str, str, str]]
    namespaces: Mapping[str, NamespaceIntent] = field(default_factory=dict)
    notes: tuple[Problem, ...] = ()
    pod_notes: tuple[Problem, ...] = ()  # among `notes`: those that no claim changes
    # Compiles reports of captured pods.
    compiler: Compiler | None = field(default=None, compare=False)
    # Policies of the pods whose objects have no address, by workload; reports place these pods.
    unplaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


EMPTY = CompiledMesh({}, {}, {}, {}, (), frozenset())


def compile_mesh(
    found: Objects,
    settings: Settings,
    captured: frozenset[str],
    holdings: Holdings | None = None,
    memo: MeshMemo | None = None,
    believed: Callable[[Iterable[Intent]], frozenset[str]] | None = None,
) -> CompiledMesh:
    """`captured` are the uids of pods whose capture some node reported to be in force; `believed`
    gives those that count as captured without a report. `holdings` and `memo` are those of the
    compilation before, which makes this one cheaper and no different.
    """
    if settings.release_all:
        # Pods leave one after the other, and those that are out have no identity any more: to the
        # others they would be strangers.
        found = replace(found, authorization_policies=(), peer_authentications=())
    memo = MeshMemo() if memo is None else memo
    policies: dict[str, Policy] = {}
    statuses: list[PolicyStatus] = []
    selecting: dict[str, list[AuthorizationPolicy]] = defaultdict(list)
    for each, compiled in memo.policies.compile(found.authorization_policies, settings):
        statuses.append(compiled.status)
        if compiled.policy is None:
            continue
        policies[compiled.policy.key] = compiled.policy
        if compiled.policy.scope is PolicyScope.WORKLOAD_SELECTOR:
            everywhere = each.meta.namespace == settings.root_namespace
            selecting["" if everywhere else each.meta.namespace].append(each)
    mutual_tls = compile_mutual_tls(found.peer_authentications, settings)
    policies.update((each.key, each) for each in mutual_tls.policies)
    holdings = Holdings() if holdings is None else holdings
    pods = memo.intents(found, settings)
    if believed is not None:
        captured |= believed(pods)
    holdings.follow(found, captured)
    enrolled = frozenset(each.uid for each in pods if each.enrolled)
    compiler = make_compiler(found, settings, captured, holdings, memo.slices, enrolled)
    workloads = memo.workloads(found, compiler, lambda pod: _names(pod, selecting, mutual_tls))
    endpoints = compiler.endpoints
    workloads += places(endpoints, holdings, compiler.localities, settings)
    services = [
        compile_service(
            each, settings, holdings, endpoints.partial.get(service_key(each, settings), ())
        )
        for each in found.services
        if is_in_mesh(each)
    ]
    services += (
        made.service
        for pod in found.pods
        if is_workload(pod) and (made := compiler.host_ports(pod)) is not None
    )
    said = (*statuses, *mutual_tls.statuses)
    inside = (pod for pod in found.pods if pod.host_ports and pod_uid(pod.meta) in enrolled)
    asks = mutual_tls.policies_of
    strict = host_port_notes(inside, lambda pod: bool(asks(pod.meta.namespace, pod.meta.labels)))
    pod_notes = (*probe_notes(found, pods), *strict, *label_notes(found))
    all_statuses = tuple(with_selection(said, found, settings.root_namespace))
    return CompiledMesh(
        workloads={each.uid: each for each in workloads},
        services={each.key: each for each in services},
        policies=policies,
        pods={each.uid: each for each in pods},
        statuses=all_statuses,
        identities=frozenset(
            (pod.node, pod.meta.namespace, pod.service_account)
            for pod in found.pods
            if pod.node and not pod.is_terminal
        ),
        notes=(*notes_on(all_statuses), *pod_notes, *remarks(holdings)),
        pod_notes=pod_notes,
        namespaces={each.name: each for each in compile_namespaces(found, pods, settings)},
        compiler=compiler,
        unplaced={
            workload_uid(pod.meta, settings): _names(pod, selecting, mutual_tls)
            for pod in found.pods
            if not pod.is_terminal and (pod.is_placed_by_node or not pod.addresses)
        },
    )


def noted(mesh: CompiledMesh) -> CompiledMesh:
    """The mesh with the notes that fit the claims as they are now."""
    said = () if mesh.compiler is None else remarks(mesh.compiler.holdings)
    return replace(mesh, notes=(*notes_on(mesh.statuses), *mesh.pod_notes, *said))


def knows_place(mesh: CompiledMesh, pod: objects.PodObject, settings: Settings) -> bool:
    """False if `recapture` cannot tell where the pod is: its node moved it to other addresses than
    its object has."""
    return not pod.is_placed_by_node or workload_uid(pod.meta, settings) in mesh.unplaced


def recapture(
    mesh: CompiledMesh,
    pods: Iterable[objects.PodObject],
    settings: Settings,
    captured: Container[str],
) -> dict[str, Workload | None]:
    """The workloads of `pods` that differ once `captured` are captured, by name, None for one that
    is gone: the same as a whole compilation would find, at the price of these pods."""
    changed: dict[str, Workload | None] = {}
    rivals: dict[str, objects.PodObject] = {}
    for pod in pods:
        name = workload_uid(pod.meta, settings)
        is_captured = pod_uid(pod.meta) in captured
        if mesh.compiler is not None:
            for each in mesh.compiler.holdings.capture(pod, is_captured):
                rivals[workload_uid(each.meta, settings)] = each
        if name in rivals:
            rivals[name] = pod  # another's report found it where it was before
        before = mesh.workloads.get(name)
        after = _recaptured(mesh, name, pod, tunnel_protocol(pod, is_captured))
        if after != before:
            changed[name] = after
    # A captured pod takes an address from one that is not.
    for name, pod in rivals.items():
        before = changed[name] if name in changed else mesh.workloads.get(name)
        if mesh.compiler is not None and before is not None:
            after = mesh.compiler.placed(before, pod)
            if after != before:
                changed[name] = after
    return changed


def _recaptured(
    mesh: CompiledMesh, name: str, pod: objects.PodObject, protocol: TunnelProtocol
) -> Workload | None:
    known = mesh.workloads.get(name)
    if name not in mesh.unplaced or mesh.compiler is None:
        return None if known is None else replace(known, tunnel_protocol=protocol)
    if not mesh.compiler.has_workload(pod):
        return None
    made = mesh.compiler.workload(pod, mesh.unplaced[name])
    return replace(made, tunnel_protocol=protocol)


def _names(
    pod: objects.PodObject,
    selecting: Mapping[str, list[AuthorizationPolicy]],
    mutual_tls: MutualTls,
) -> tuple[str, ...]:
    """Names of the policies of this pod: those that select it, and its STRICT."""
    meta = pod.meta
    candidates = [*selecting.get("", ()), *selecting.get(meta.namespace, ())]
    names = {
        f"{each.meta.namespace}/{each.meta.name}"
        for each in candidates
        if selects(each.selector, meta.labels)
    }
    return tuple(sorted([*names, *mutual_tls.policies_of(meta.namespace, meta.labels)]))
