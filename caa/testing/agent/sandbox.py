"""The sandbox: its containers, what they share, and how a container is made from a request."""

import json
import os
import re
import shutil
from pathlib import Path

from caa.testing.agent import kernel, resources, spec, storage
from caa.testing.agent.answers import error, no_such_container
from caa.testing.agent.cgroups import OomWatch, hierarchies
from caa.testing.agent.container import Container
from caa.testing.agent.images import Images
from caa.testing.agent.oom import OomEvents
from caa.testing.agent.options import Options
from caa.testing.agent.runc import Runc
from caa.testing.agent.spec import Placement
from caa.testing.agent.storage import Mounts
from caa.wire.proto import agent

INVALID = "EINVAL: Invalid argument"
CONTAINER_TYPE = "io.katacontainers.pkg.oci.container_type"
IMAGE_NAME = "io.kubernetes.cri.image-name"
PAUSE = ("/bin/sleep", "2147483647")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Sandbox:
    """Everything the agent holds. One a process, as with the real agent."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.base = options.base
        self.hierarchies = hierarchies(Path("/proc/self/mounts").read_text())
        self.allowance = kernel.own_allowance()
        self.oom = OomEvents()
        self.images = Images(folder=options.images, fallback=options.rootfs, built=options.work / "busybox")
        self._containers: dict[str, Container] = {}
        self._making: set[str] = set()
        self._mounts = Mounts()
        self._hostname = ""
        self._cgroup = f"{options.cgroup_parent}/agent-{os.getpid()}"
        self._pause: Container | None = None
        for folder in ("runc", "calls", "bundles"):
            (options.work / folder).mkdir(parents=True, exist_ok=True)
        self._runc = Runc(options.work / "runc", options.work / "calls")

    def create(self, request: agent.CreateSandboxRequest) -> None:
        """Empty the base folder, our own socket in it included, as the real agent does; mount what is shared."""
        if request.sandbox_id and not _NAME.fullmatch(request.sandbox_id):
            raise error(13, INVALID)
        empty(self.base)
        self._hostname = request.hostname
        if request.sandbox_id:
            self._cgroup = f"{self.options.cgroup_parent}/{request.sandbox_id}"
        for wanted in request.storages:
            self._mounts.add(wanted)

    def container(self, name: str) -> Container:
        """The container; error 13 as for signal, stats, pause."""
        found = self._containers.get(name)
        if found is None:
            raise no_such_container(name)
        return found

    def container_of_process(self, name: str) -> Container:
        """The container; error 3 as for wait, read, write."""
        found = self._containers.get(name)
        if found is None:
            raise error(3, "InvalidContainerId")
        return found

    async def create_container(self, request: agent.CreateContainerRequest) -> None:
        """Make it all or nothing. A name that is taken, or a request without a specification, is an error 13."""
        name = request.container_id
        taken = name in self._containers or name in self._making
        if taken or not _NAME.fullmatch(name) or not request.HasField("OCI"):
            raise error(13, INVALID)
        self._making.add(name)
        container = Container(name, cgroup=f"{self._cgroup}/{name}", runc=self._runc, mounts=Mounts())
        try:
            await self._make(container, request)
        except BaseException:
            await self._take_down(container)
            raise
        finally:
            self._making.discard(name)
        self._containers[name] = container
        self._watch(container)

    async def execute(self, request: agent.ExecProcessRequest) -> None:
        container = self.container(request.container_id)
        description = spec.process(request.process, allowance=self.allowance)
        await container.execute(request.exec_id, description)

    async def update(self, request: agent.UpdateContainerRequest) -> None:
        container = self.container(request.container_id)
        await self._runc.update(container.name, resources.convert(request.resources))

    async def remove(self, name: str) -> None:
        container = self._containers.pop(name, None)
        if container is None:
            raise error(13, "Invalid container id")
        await self._take_down(container)

    async def destroy(self) -> None:
        """Kill and remove everything that is left; twice is once."""
        while self._containers:
            _, container = self._containers.popitem()
            await self._take_down(container)
        self._mounts.clear()
        self.hierarchies.remove(self._cgroup)
        self.hierarchies.prune(self.options.cgroup_parent)

    async def _make(self, container: Container, request: agent.CreateContainerRequest) -> None:
        bundle = self._bundle(container.name)
        bundle.mkdir()
        for wanted in request.storages:
            container.mounts.add(wanted)
        is_pause = request.OCI.Annotations.get(CONTAINER_TYPE) == "pod_sandbox"
        rootfs = self._root(container, request, bundle=bundle)
        config = spec.config(
            self._own_spec(request.OCI, is_pause=is_pause),
            placement=Placement(rootfs=str(rootfs), cgroup=container.cgroup, namespaces=self._namespaces(request)),
            allowance=self.allowance,
        )
        (bundle / "config.json").write_text(json.dumps(config))
        terminal = request.OCI.Process.Terminal
        container.first(await self._runc.create(container.name, bundle, terminal=terminal))
        if is_pause:
            self._pause = container

    def _root(self, container: Container, request: agent.CreateContainerRequest, *, bundle: Path) -> Path:
        pulled = storage.image_of(request)
        image = self.images.find(pulled or request.OCI.Annotations.get(IMAGE_NAME, "") or "busybox")
        point = self.base / container.name / "rootfs"
        container.mounts.root(image, point, scratch=bundle)
        return point

    def _own_spec(self, asked: agent.Spec, *, is_pause: bool) -> agent.Spec:
        # The real agent runs the pause program of its own bundle, whatever the request says.
        own = agent.Spec()
        own.CopyFrom(asked)
        if is_pause:
            own.Process.Args[:] = PAUSE
        if not own.Hostname and self._pause is None:
            own.Hostname = self._hostname
        return own

    def _namespaces(self, request: agent.CreateContainerRequest) -> dict[str, str]:
        pause = self._pause.init_pid if self._pause is not None else None
        shared = {kind: f"/proc/{pause}/ns/{kind}" if pause else "" for kind in ("uts", "ipc")}
        pid = f"/proc/{pause}/ns/pid" if pause and request.sandbox_pidns else ""
        network = {"network": str(self.options.netns)} if self.options.netns else {}
        return {"mount": "", **shared, "pid": pid, **network}

    def _watch(self, container: Container) -> None:
        folder = self.hierarchies.folder("memory", container.cgroup)
        if folder is not None and folder.is_dir():
            unified = self.hierarchies.unified
            container.watch = OomWatch(folder, unified=unified, report=lambda: self.oom.report(container.name))

    async def _take_down(self, container: Container) -> None:
        await container.remove(self.hierarchies)
        if self._pause is container:
            self._pause = None
        shutil.rmtree(self._bundle(container.name), ignore_errors=True)
        shutil.rmtree(self.base / container.name, ignore_errors=True)

    def _bundle(self, name: str) -> Path:
        return self.options.work / "bundles" / name


def empty(folder: Path) -> None:
    """Remove all that is in `folder`, but nothing that is mounted there."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            if entry.is_mount():
                continue
            empty(entry)
            if not any(entry.iterdir()):
                entry.rmdir()
        else:
            entry.unlink()
