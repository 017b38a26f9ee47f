"""The two shims' habits as data: deadlines, repetitions, names, sizes, as recorded with Kata 4.1.0."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """Which of Kata's shims to be."""

    GO = "go"
    RS = "runtime-rs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How one shim speaks. Times are seconds; None means that no deadline travels."""

    # hypervisor service
    one_hypervisor_connection: bool
    start_timeout: float
    stop_timeout: float | None
    stops: int  # StopVM calls at a pod's end, back to back
    stops_failed_create: bool  # one StopVM after a failed CreateVM
    stops_cancelled_start: (
        bool  # one StopVM when the caller gives up; otherwise the shim is killed, its connection closes
    )
    sizes: Mapping[str, str]  # what CreateVM says when the pod says nothing
    # agent connection
    metadata: Mapping[str, str]
    dial_pause: float  # between dials; the Go shim has none at all, which would burn a processor for the test
    idle_connection: bool  # a second connection that never sends anything
    # agent calls
    checks_first: bool
    listens_early: bool  # GetOOMEvent before the pause container, otherwise after it
    check_every: float
    check_timeout: float
    sandbox_timeout: float
    call_timeout: float
    stdin_timeout: float | None
    read_size: int
    names_first_process: bool  # exec_id is the container's id, otherwise absent
    closes_stdin: bool  # CloseStdin, otherwise an empty WriteStdin
    signals_after_exec: bool  # a SIGKILL to the exec that was just reaped, answered 5
    waits_twice: bool  # a second WaitProcess after the last SIGKILL, answered 5
    remove_timeout: int  # RemoveContainer's own field
    forgets_mounts: bool  # RemoveStaleVirtiofsShareMounts after each container
    destroys_sandbox: bool
    # specification
    capability_prefix: str
    mount_namespace: str
    folder_mode: int  # CopyFile's dir_mode


_GO = Habits(
    one_hypervisor_connection=False,
    start_timeout=600,
    stop_timeout=None,
    stops=1,
    stops_failed_create=False,
    stops_cancelled_start=False,
    sizes={"default_vcpus": "0", "default_memory": "0"},
    metadata={"containerd-namespace-ttrpc": "k8s.io"},
    dial_pause=0.005,
    idle_connection=False,
    checks_first=True,
    listens_early=False,
    check_every=5,
    check_timeout=30,
    sandbox_timeout=300,
    call_timeout=60,
    stdin_timeout=60,
    read_size=32768,
    names_first_process=True,
    closes_stdin=True,
    signals_after_exec=False,
    waits_twice=True,
    remove_timeout=0,
    forgets_mounts=True,
    destroys_sandbox=True,
    capability_prefix="CAP_",
    mount_namespace="mount",
    folder_mode=0x800001E8,  # Go's os.ModeDir | 0750
)

_RS = Habits(
    one_hypervisor_connection=True,
    start_timeout=10_000,  # meant milliseconds
    stop_timeout=1,
    stops=3,
    stops_failed_create=True,
    stops_cancelled_start=True,
    sizes={"default_vcpus": "1", "default_memory": "2048"},
    metadata={},
    dial_pause=0.1,
    idle_connection=True,
    checks_first=False,
    listens_early=True,
    check_every=30,
    check_timeout=90,
    sandbox_timeout=30,
    call_timeout=30,
    stdin_timeout=None,
    read_size=8192,
    names_first_process=False,
    closes_stdin=False,
    signals_after_exec=True,
    waits_twice=False,
    remove_timeout=10,
    forgets_mounts=False,
    destroys_sandbox=False,
    capability_prefix="",
    mount_namespace="mnt",
    folder_mode=0,
)


def habits(kind: Kind) -> Habits:
    """The habits of a shim."""
    return _GO if kind is Kind.GO else _RS


@dataclass(frozen=True, slots=True, kw_only=True)
class PodOptions:
    """The pod to run. `hypervisor` overrides what CreateVM says, by the annotation's last part (`machine_type`, ...).

    `annotations` overrides whole keys (an empty value stays empty); `policy` makes the Go shim send SetPolicy.
    """

    name: str = "pod"
    namespace: str = "default"
    netns: str = ""
    sandbox_id: str = ""
    uid: str = ""
    resolv_conf: str = "nameserver 10.96.0.10\n"
    hypervisor: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    policy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOptions:
    """One container. `mounts` maps a path in the container to a path in the guest (as `Pod.copy_file` returns it)."""

    name: str
    args: tuple[str, ...]
    image: str = "docker.io/library/busybox:1"
    env: tuple[str, ...] = ("PATH=/bin",)
    cwd: str = "/"
    tty: bool = False
    memory_limit: int = 0
    mounts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a finished process left."""

    stdout: bytes
    stderr: bytes
    exit_code: int
