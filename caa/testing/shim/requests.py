"""The larger requests as the shims fill them: CreateVM, CreateSandbox, CreateContainer, CopyFile. Pure."""

import json
import stat
from collections.abc import Iterator, Mapping

from caa.testing.shim.kinds import ContainerOptions, Habits, PodOptions
from caa.wire.proto import agent, hypervisor

HYPERVISOR = "io.katacontainers.config.hypervisor."
SANDBOX_NAME = "io.kubernetes.cri.sandbox-name"
SANDBOX_NAMESPACE = "io.kubernetes.cri.sandbox-namespace"
BASE = "/run/kata-containers"
SHARED = f"{BASE}/shared/containers"
BUNDLES = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
COPY_CHUNK = 1024 * 1024
SHM_SIZE = 64 * 1024 * 1024
UNLIMITED_CGROUP = "/kubepods/besteffort"

_ALWAYS = ("machine_type", "image", "cc_init_data", "default_gpu_model")
_CAPABILITIES = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
    AUDIT_WRITE
"""
_MASKED = """
    /proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats
    /proc/sched_debug /sys/firmware /proc/scsi
"""
_READONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"
_MOUNTS = (
    ("/proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "nosuid noexec nodev ro"),
)
_CGROUP_MOUNT = ("/sys/fs/cgroup", "cgroup", "nosuid noexec nodev relatime ro")


def create_vm(pod: PodOptions, sandbox: str, *, habits: Habits) -> hypervisor.CreateVMRequest:
    """CreateVM with the annotations that are always there, possibly empty."""
    sizes = {**dict.fromkeys(_ALWAYS, ""), "default_gpus": "0", **habits.sizes, **pod.hypervisor}
    annotations = {
        **{HYPERVISOR + name: value for name, value in sizes.items()},
        SANDBOX_NAME: pod.name,
        SANDBOX_NAMESPACE: pod.namespace,
        **pod.annotations,
    }
    return hypervisor.CreateVMRequest(id=sandbox, annotations=annotations, networkNamespacePath=pod.netns)


def create_sandbox(pod: PodOptions, sandbox: str) -> agent.CreateSandboxRequest:
    """CreateSandbox with the pod's name as hostname, its DNS lines, and the shared memory of its containers."""
    shm = agent.Storage(
        driver="ephemeral",
        source="shm",
        fstype="tmpfs",
        options=["noexec", "nosuid", "nodev", "mode=1777", f"size={SHM_SIZE}"],
        mount_point=f"{BASE}/sandbox/shm",
    )
    return agent.CreateSandboxRequest(
        hostname=pod.name, dns=pod.resolv_conf.split("\n"), storages=[shm], sandbox_id=sandbox
    )


def copy_file(path: str, data: bytes, *, habits: Habits, mode: int = 0o644) -> Iterator[agent.CopyFileRequest]:
    """A file in chunks of 1 MiB; an empty file is one request."""
    for offset in range(0, max(len(data), 1), COPY_CHUNK):
        yield agent.CopyFileRequest(
            path=path,
            file_size=len(data),
            file_mode=stat.S_IFREG | mode,
            dir_mode=habits.folder_mode,
            offset=offset,
            data=data[offset : offset + COPY_CHUNK],
        )


def pause(pod: PodOptions, sandbox: str, *, habits: Habits, files: Mapping[str, str]) -> agent.CreateContainerRequest:
    """The pod's first container: read-only, with the hostname; the agent runs its own pause program in it."""
    metadata = {
        "io.katacontainers.pkg.oci.container_type": "pod_sandbox",
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-log-directory": f"/var/log/pods/{pod.namespace}_{pod.name}",
        "nerdctl/network-namespace": pod.netns,
        **_identity(pod, sandbox),
    }
    options = ContainerOptions(name=sandbox, args=("/pause",), image="pause", mounts=files)
    request = _container(options, sandbox, habits=habits, metadata=metadata)
    request.OCI.Hostname = pod.name
    request.OCI.Root.Readonly = True
    request.OCI.Process.NoNewPrivileges = True
    del request.OCI.Process.User.AdditionalGids[:]
    request.OCI.Linux.Resources.CPU.Shares = 2
    request.OCI.Linux.MaskedPaths[:] = _MASKED.split()
    request.OCI.Linux.ReadonlyPaths[:] = _READONLY.split()
    return request


def container(
    options: ContainerOptions, name: str, *, pod: PodOptions, sandbox: str, habits: Habits
) -> agent.CreateContainerRequest:
    """Every further container; `name` is its 64-digit id."""
    metadata = {
        "io.katacontainers.pkg.oci.container_type": "pod_container",
        "io.kubernetes.cri.container-name": options.name,
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": options.image,
        **_identity(pod, sandbox),
    }
    request = _container(options, name, habits=habits, metadata=metadata)
    request.OCI.Mounts.append(_mount(_CGROUP_MOUNT))
    if options.memory_limit:
        request.OCI.Linux.Resources.Memory.Limit = options.memory_limit
    return request


def execute(container_id: str, exec_id: str, *, options: ContainerOptions) -> agent.ExecProcessRequest:
    """ExecProcess; of `options` the arguments, the environment, the folder and the terminal count."""
    return agent.ExecProcessRequest(container_id=container_id, exec_id=exec_id, process=_process(options))


def _identity(pod: PodOptions, sandbox: str) -> dict[str, str]:
    return {
        "io.kubernetes.cri.sandbox-id": sandbox,
        "io.kubernetes.cri.sandbox-name": pod.name,
        "io.kubernetes.cri.sandbox-namespace": pod.namespace,
        "io.kubernetes.cri.sandbox-uid": pod.uid or f"uid-{pod.name}",
    }


def _container(
    options: ContainerOptions, name: str, *, habits: Habits, metadata: Mapping[str, str]
) -> agent.CreateContainerRequest:
    metadata = {**metadata, "io.katacontainers.pkg.oci.bundle_path": f"{BUNDLES}/{name}"}
    rootfs = f"{BASE}/{name}/rootfs"
    pull = agent.Storage(
        driver="image_guest_pull",
        driver_options=["image_guest_pull=" + json.dumps({"metadata": metadata}, separators=(",", ":"))],
        source=options.image,
        fstype="overlay",
        mount_point=rootfs,
    )
    spec = agent.Spec(
        Version="1.0.2-dev",
        Process=_process(options),
        Root=agent.Root(Path=rootfs),
        Mounts=_mounts(options),
        Annotations=metadata,
        Linux=agent.Linux(
            Resources=agent.LinuxResources(),
            CgroupsPath=f"{UNLIMITED_CGROUP}/{name}",
            Namespaces=[agent.LinuxNamespace(Type=kind) for kind in ("ipc", "uts", habits.mount_namespace)],
        ),
    )
    capabilities = [habits.capability_prefix + capability for capability in _CAPABILITIES.split()]
    for kept in (spec.Process.Capabilities.Bounding, spec.Process.Capabilities.Effective):
        kept.extend(capabilities)
    spec.Process.Capabilities.Permitted.extend(capabilities)
    exec_id = name if habits.names_first_process else ""
    return agent.CreateContainerRequest(container_id=name, exec_id=exec_id, storages=[pull], OCI=spec)


def _process(options: ContainerOptions) -> agent.Process:
    return agent.Process(
        Terminal=options.tty,
        User=agent.User(AdditionalGids=[0]),
        Args=options.args,
        Env=options.env,
        Cwd=options.cwd,
    )


def _mounts(options: ContainerOptions) -> list[agent.Mount]:
    own = [_mount(mount) for mount in _MOUNTS]
    shm = agent.Mount(destination="/dev/shm", source=f"{BASE}/sandbox/shm", type="bind", options=["rbind"])
    binds = [
        agent.Mount(destination=path, source=source, type="bind", options=["rbind", "rprivate", "rw"])
        for path, source in options.mounts.items()
    ]
    return [*own, shm, *binds]


def _mount(entry: tuple[str, str, str]) -> agent.Mount:
    destination, kind, options = entry
    return agent.Mount(destination=destination, source=kind, type=kind, options=options.split())
