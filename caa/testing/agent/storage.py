"""What CreateSandbox and CreateContainer ask to be mounted: shared memory, empty volumes, root file systems."""

from pathlib import Path

from caa.testing.agent import kernel
from caa.testing.agent.answers import error
from caa.wire.proto import agent

GUEST_PULL = "image_guest_pull"


def image_of(request: agent.CreateContainerRequest) -> str | None:
    """The image that the guest is to pull, or None when the request brings no such storage."""
    for storage in request.storages:
        if storage.driver == GUEST_PULL:
            return storage.source
    return None


class Mounts:
    """Mount points of one owner, taken down in reverse."""

    def __init__(self) -> None:
        self._points: list[Path] = []

    def add(self, storage: agent.Storage) -> None:
        """Mount one storage. Drivers: `ephemeral` (a tmpfs), `local` (a folder), a guest pull (see `root`)."""
        point = Path(storage.mount_point)
        if storage.driver == GUEST_PULL:
            return
        if storage.driver not in ("ephemeral", "local"):
            raise error(13, f"Failed to find the storage handler {storage.driver}")
        point.mkdir(parents=True, exist_ok=True)
        if storage.driver == "ephemeral":
            self._mount("tmpfs", point, options=list(storage.options))

    def root(self, image: Path, point: Path, *, scratch: Path) -> None:
        """A writable root file system at `point` over the files of `image`, its changes in `scratch`."""
        upper, work = scratch / "upper", scratch / "work"
        for folder in (upper, work, point):
            folder.mkdir(parents=True, exist_ok=True)
        self._mount("overlay", point, options=[f"lowerdir={image}", f"upperdir={upper}", f"workdir={work}"])

    def clear(self) -> None:
        while self._points:
            kernel.unmount(str(self._points.pop()))

    def _mount(self, kind: str, point: Path, *, options: list[str]) -> None:
        try:
            kernel.mount(kind, str(point), options=options)
        except OSError as problem:
            raise error(13, f"cannot mount {kind} at {point}: {problem.strerror}") from problem
        self._points.append(point)
