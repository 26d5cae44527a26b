"""A lab's life: up, in use, down. This file has the order of the steps, other files the steps."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.cli.manifests import Ref
from agent.lab import netns, objects, plan, process, services, topology, waypoints
from agent.lab.daemons import PINS, Daemons
from agent.lab.manifests import Manifests
from agent.lab.netns import NETNS_FOLDER, inode, inside
from agent.lab.pods import LabPods
from agent.lab.spec import LabSpec, PodSpec, load
from agent.lab.state import LabState, PodRecord, Store, remove_if_empty
from control.kit import socket_folder
from control.kit.errors import ConfigError, KernelError, MeshError

RUN_DIR = Path("/run/tulle")
# A signal may be delivered to any thread, but the main thread alone acts on it, when it next runs.
# So the main thread must not block without a bound while others work.
SIGNAL_POLL_S = 0.1
STARTS_AT_ONCE = 8  # pods that start side by side: more only makes a small machine slower
DAEMON_GRACE_S = 5.0
NFT_TIMEOUT_S = 10.0
TIME_WAIT = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait")
TIME_WAIT_DEFAULT_S = "120"
_FOLDERS = ("manifests", "hosts", "logs", waypoints.FOLDER)

Progress = Callable[[str], None]


def quiet(_: str) -> None:
    """Progress for callers that want none."""


@dataclass(frozen=True, slots=True)
class Options:
    nodes: int = 0  # 0: those of lab.yaml
    workers: int = 1
    unmeshed: bool = False
    keep: bool = False  # on failure, leave what was built
    addresses: str = "all"  # or on-demand: what ztunnels are told of


class Lab:
    """The lab whose state is below `run_dir`. Methods raise MeshError and its kinds."""

    def __init__(self, run_dir: Path = RUN_DIR, progress: Progress = quiet) -> None:
        self.run_dir = run_dir.absolute()  # the processes we start work in other folders
        self.store = Store(self.run_dir)
        self.progress = progress
        self._writing = threading.Lock()  # guards the working copy and all that follows from it
        self._stopping = threading.Event()

    def up(self, folder: Path, options: Options | None = None) -> None:
        options = options or Options()
        spec, manifests = read_folder(folder, options.nodes)
        with self.store.exclusive():
            if self.store.exists():
                name = self.store.load().lab
                raise ConfigError(f"lab {name!r} is up already; take it down: tulle lab down")
            state = plan_lab(spec, folder, options)
            self.store.save(state)
            try:
                self._build(state, spec, manifests)
            except BaseException as exc:
                if not options.keep:
                    how = "interrupted" if isinstance(exc, KeyboardInterrupt) else "it failed"
                    self.progress(f"{how}: taking down what was built")
                    self._tear_down(state)
                raise

    def down(self) -> bool:
        """Remove everything; False when no lab was up."""
        with self.store.exclusive():
            if not self.store.exists():
                self.store.forget()
                return False
            self._tear_down(self.store.load())
        return True

    def pod(self, namespace: str, name: str) -> tuple[LabState, PodRecord]:
        state = self.store.load()
        return state, state.pod(namespace, name)

    def exec(self, namespace: str, name: str, command: Sequence[str]) -> int:
        """Run `command` in a pod on our own streams; its exit code."""
        state, record = self.pod(namespace, name)
        return LabPods(self.run_dir, state).call(record, command)

    def run(
        self,
        namespace: str,
        name: str,
        command: Sequence[str],
        *,
        data: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `command` in a pod and catch its output."""
        state, record = self.pod(namespace, name)
        return LabPods(self.run_dir, state).run(record, command, data, timeout_s)

    # The working copy, and all that follows from it

    @property
    def manifests_folder(self) -> Path:
        return self.run_dir / "manifests"

    def refresh(self, state: LabState, manifests: Manifests) -> None:
        """Bring names and virtual addresses in line with the working copy."""
        pods = LabPods(self.run_dir, state)
        for key, record in state.pods.items():
            found = manifests.find(Ref("Pod", *key.split("/")))
            if found is not None:
                write_in_place(pods.hosts(record), services.hosts_text(manifests, found[1].value))
        rules = services.nft_text(services.virtuals(manifests))
        for node in state.nodes:
            load_rules(node.netns, rules)

    def launch(self, state: LabState, manifests: Manifests, records: Iterable[PodRecord]) -> None:
        """Register and start pods side by side; each joins its services once it is ready."""
        # Without a mesh there is nobody to tell a waypoint about it.
        chosen = [each for each in records if not (state.unmeshed and each.spec.waypoint)]
        pool = ThreadPoolExecutor(STARTS_AT_ONCE)
        try:
            futures = [pool.submit(self._launch_one, state, manifests, pod) for pod in chosen]
            while wait(futures, timeout=SIGNAL_POLL_S).not_done:
                pass
            errors = [error for future in futures if (error := future.exception()) is not None]
        except BaseException:
            with self._writing:  # from here on no thread starts or writes anything
                self._stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        for error in errors:
            if not isinstance(error, MeshError):
                raise error
        if errors:
            raise MeshError("\n".join(map(str, errors)))
        for record in chosen:  # again: a pod without a readiness check may end a little later
            LabPods(self.run_dir, state).check_alive(record)

    def _launch_one(self, state: LabState, manifests: Manifests, record: PodRecord) -> None:
        pods, started = LabPods(self.run_dir, state, self.progress), time.monotonic()
        pods.register(record)
        with self._going_on():
            pods.start(record)
            self.store.save(state)
        pods.wait_ready(record, self._stopping)
        with self._going_on():
            found = manifests.find(Ref("Pod", record.spec.namespace, record.spec.name))
            if found is not None:
                found[1].replace(objects.with_ready(found[1].value, True))
                manifests.save(self.manifests_folder, {found[0]})
            self.refresh(state, manifests)
        self.progress(f"pod {record.spec.key} is ready ({time.monotonic() - started:.1f} s)")

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Hold the lock; MeshError once the start has been given up."""
        with self._writing:
            if self._stopping.is_set():
                raise MeshError("interrupted")
            yield

    # Up

    def _build(self, state: LabState, spec: LabSpec, manifests: Manifests) -> None:
        for name in _FOLDERS:
            (self.run_dir / name).mkdir(mode=0o755, exist_ok=True)
        for node, node_spec in zip(state.nodes, spec.nodes, strict=True):
            manifests.put(objects.node_object(node_spec, node.address), objects.NODES_FILE)
        objects.allocate_services(manifests)
        for record in state.pods.values():
            place(state, manifests, record)
        manifests.save(self.manifests_folder)
        self.progress(f"{len(state.nodes)} nodes and {len(state.pods)} pods: network")
        topology.build_router(state.lab)
        topology.build_control(state.lab)
        daemons = Daemons(self.run_dir, state, self.progress)
        if not state.unmeshed:
            daemons.start_control()
            self.store.save(state)
        for node in state.nodes:
            topology.build_node(state.lab, node)
        for record in state.pods.values():
            topology.build_pod(
                record.netns, state.node(record.spec.node), record.link, record.address
            )
        self.refresh(state, manifests)
        if not state.unmeshed:
            self._start_mesh(state, daemons)
        self.progress("starting pods")
        self.launch(state, manifests, state.pods.values())

    def _start_mesh(self, state: LabState, daemons: Daemons) -> None:
        self.progress("waiting for the control plane")
        daemons.wait_control()
        self.progress("starting agent and ztunnel of each node")
        with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
            list(pool.map(daemons.make_token, [node.name for node in state.nodes]))
        for node in state.nodes:
            daemons.start_agent(node)
            daemons.start_ztunnel(node)
        self.store.save(state)
        for node in state.nodes:
            daemons.wait_agent(node.name)
            daemons.wait_ztunnel(node)
            self.progress(f"agent and ztunnel of {node.name} are up")

    # Down

    def _tear_down(self, state: LabState) -> None:
        """Remove everything, from any half-made state: any part may be missing."""
        self.progress("stopping pods")
        LabPods(self.run_dir, state).stop(list(state.pods.values()))
        self.progress("stopping the mesh's processes")
        process.stop(state.processes.values(), DAEMON_GRACE_S)
        inodes = {found for name in state.namespaces() if (found := inode(name)) is not None}
        process.stop(process.in_namespaces(inodes), 0.5)
        daemons = Daemons(self.run_dir, state)
        for node in state.nodes:
            daemons.uninstall(node)
            process.remove_cgroup(process.cgroup2_root() / "tulle" / node.name)
        process.remove_cgroup(Path(state.cgroup))
        for name in state.namespaces():
            netns.remove(name)
        for folder in (Path(state.cgroup).parent, process.cgroup2_root() / "tulle", PINS):
            remove_if_empty(folder)
        for name in (*_FOLDERS, "control", *(node.name for node in state.nodes)):
            shutil.rmtree(self.run_dir / name, ignore_errors=True)
        socket_folder.remove_abandoned()
        self.store.forget()


def read_folder(folder: Path, nodes: int) -> tuple[LabSpec, Manifests]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    spec = load(folder / "lab.yaml")
    manifests = Manifests.load(folder)
    objects.check_pods(spec, manifests)
    return (spec.spread(nodes) if nodes else spec), manifests


def plan_lab(spec: LabSpec, folder: Path, options: Options) -> LabState:
    """Plan all names and addresses, before anything is made; ConfigError if names collide."""
    nodes = [
        plan.node_plan(spec.name, node.name, index, node.ztunnel)
        for index, node in enumerate(spec.nodes, 1)
    ]
    state = LabState(
        lab=spec.name,
        folder=str(folder.resolve()),
        unmeshed=options.unmeshed,
        workers=options.workers,
        addresses=options.addresses,
        cgroup=str(process.cgroup2_root() / "tulle-lab" / spec.name),
        nodes=nodes,
    )
    if process.has_members(Path(state.cgroup)):
        # Not below our run folder: perhaps in another container, which shares our kernel.
        raise ConfigError(
            f"a lab named {spec.name!r} is up already (processes in {state.cgroup}): take it down "
            "with its --run-dir, or give this one another name in lab.yaml"
        )
    for pod in spec.pods:
        state.pods[pod.key] = plan_pod(state, pod)
    names = state.namespaces()
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two of the lab's pods and nodes would both be called {name}")
        if (NETNS_FOLDER / name).exists():
            raise ConfigError(f"network namespace {name} exists already: is it another lab's?")
    return state


def plan_pod(state: LabState, spec: PodSpec) -> PodRecord:
    """Plan a new instance of a pod: with a fresh uid, address and link."""
    state.links_made += 1
    taken = [pod.address.v4 for pod in state.pods.values()]
    return PodRecord(
        spec=spec,
        uid=str(uuid.uuid4()),
        netns=plan.pod_netns(state.lab, spec.namespace, spec.name),
        link=f"pod{state.links_made}",
        address=plan.pod_address(state.node(spec.node).index, taken),
    )


def place(state: LabState, manifests: Manifests, record: PodRecord) -> str:
    """Write a pod's place into the working copy; the name of the changed file."""
    found = manifests.find(Ref("Pod", record.spec.namespace, record.spec.name))
    if found is None:
        raise ConfigError(f"pod {record.spec.key} is in no manifest")
    value = objects.placed(
        found[1].value,
        node=record.spec.node,
        host=state.node(record.spec.node).address,
        address=record.address,
        uid=record.uid,
        ready=False,
    )
    found[1].replace(value)
    return found[0]


def load_rules(netns: str, rules: str) -> None:
    try:
        done = subprocess.run(
            ["nsenter", f"--net={NETNS_FOLDER / netns}", "--", "nft", "-f", "-"],
            input=rules,
            text=True,
            capture_output=True,
            timeout=NFT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KernelError(f"nft in {netns}: nothing in {NFT_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise KernelError(f"nft in {netns}: {done.stderr.strip()}")
    _forget_soon(netns)


def _forget_soon(netns: str) -> None:
    """A pod that is enrolled as it runs has no direct path until conntrack has forgotten what it
    did before: two minutes on a real host, which is long for somebody who watches."""
    with inside(netns), suppress(FileNotFoundError):
        if TIME_WAIT.read_text().strip() == TIME_WAIT_DEFAULT_S:
            TIME_WAIT.write_text("1")


def write_in_place(path: Path, text: str) -> None:
    """Write without a new inode (pods have it bind-mounted) and at once (they may be reading)."""
    if path.exists() and path.read_text() == text:
        return
    with open(path, "r+" if path.exists() else "w") as file:
        file.write(text)
        file.truncate()
