"""`python -m tests.bench.boot IMAGE`: where the time of a pod VM's boot goes; root, on a libvirtd of its own.

python -m tests.bench.boot .cache/image/tiny --write                  # kernel and initramfs, booted directly
python -m tests.bench.boot build/podvm-production-amd64.raw --write   # a disk, with firmware and a TPM
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from caa.errors import ConfigError
from caa.model.ids import SandboxId, instance_name
from caa.testing import spaces
from caa.testing.demo import observe, world
from caa.testing.demo.console import followed
from caa.testing.demo.daemons import Daemons, Paths
from caa.testing.libvirtd import Libvirtd
from caa.testing.shim.kinds import PodOptions
from caa.testing.shim.shim import Shim
from tests.bench import waterfall
from tests.bench.programs import ROOT
from tests.bench.report import put

PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Image:
    """What to boot: its settings, and in a few words what they mean."""

    settings: Mapping[str, str]
    words: str


def _image(given: Path, pool: Path) -> Image:
    if (given / "vmlinux").is_file():
        cmdline = (given / "cmdline").read_text().strip()
        files = {"LIBVIRT_KERNEL": str(given / "vmlinux"), "LIBVIRT_INITRD": str(given / "initrd.cpio")}
        return Image({**files, "LIBVIRT_CMDLINE": cmdline}, "direct boot")
    if not given.is_file():
        raise ConfigError(f"{given} is neither a folder with vmlinux, initrd.cpio and cmdline nor a disk image")
    command = ["qemu-img", "convert", "-O", "qcow2", str(given), str(pool / "bench.qcow2")]
    subprocess.run(command, check=True, capture_output=True)
    return Image({"LIBVIRT_VOL_NAME": "bench.qcow2", "LIBVIRT_TPM": "true"}, "UEFI and a TPM")


async def _boot(paths: Paths, daemon: Libvirtd, *, number: int) -> waterfall.Boot:
    """One pod from CreateVM to its sandbox, and its end."""
    name, sandbox = f"pod{number}", SandboxId(os.urandom(32).hex())
    await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{number + 10}")
    options = PodOptions(name=name, namespace="bench", netns=str(world.NETNS / name), sandbox_id=sandbox)
    wall, monotonic = time.time(), time.monotonic()
    console = daemon.pool / f"{instance_name(name, sandbox)}-console.log"
    async with followed(console, since=monotonic) as watch:
        pod = await Shim(str(paths.hypervisor)).start(options)
    calls = {one.name: one for one in pod.timings}
    log = await asyncio.to_thread(paths.log("node").read_text)
    await pod.stop()
    await asyncio.to_thread(world.detach, name)
    return waterfall.boot(
        steps=observe.node_steps(log, sandbox=sandbox, began=wall),
        started=observe.vm_started(log, sandbox=sandbox, began=wall),
        clock_began=watch.clock_began,
        console=watch.text,
        answered=calls["StartVM"].began_ms + calls["StartVM"].took_ms,
    )


async def _boots(
    daemon: Libvirtd, settings: Mapping[str, str], *, folder: Path, times: int
) -> Sequence[waterfall.Boot]:
    paths = Paths(folder)
    daemons = Daemons(paths, "libvirt", {**os.environ, **settings})
    await daemons.start()
    try:
        done = []
        for number in range(times + 1):  # the first one fills the page cache
            done.append(await _boot(paths, daemon, number=number))
            print(f"boot {number}: {done[-1].total:.0f} ms", file=sys.stderr, flush=True)
        return done[1:]
    finally:
        await daemons.stop()


def _measured(given: argparse.Namespace) -> waterfall.Column:
    cache = ROOT / ".cache" / "libvirtd"
    with (
        tempfile.TemporaryDirectory(prefix="caa-lv-") as base,
        tempfile.TemporaryDirectory(prefix="caa-") as folder,
        spaces.worker_node(),
        Libvirtd(Path(base), cache=cache, callers_network=True) as daemon,
    ):
        daemon.define_pool_and_network()
        Path(folder).chmod(0o755)
        image = _image(given.image.resolve(), daemon.pool)
        settings = {
            "LIBVIRT_URI": daemon.uri,
            "LIBVIRT_ACCELERATION": given.acceleration,
            "LIBVIRT_CPU": "1",
            "LIBVIRT_MEMORY": str(given.memory),
            "LIBVIRT_ADDRESS_TIMEOUT": "10m",
            "PROXY_TIMEOUT": "10m",
            "HOST_INTERFACE": "caalv150",
            **image.settings,
        }
        boots = asyncio.run(_boots(daemon, settings, folder=Path(folder), times=given.boots))
    how = "emulated" if given.acceleration == "qemu" else given.acceleration
    words = f"{image.words}, {how}, 1 vCPU, {given.memory} MiB, the fastest of {given.boots} boots"
    fastest = min(boots, key=lambda one: one.total)  # on a machine that does other things too, nothing else repeats
    return waterfall.Column(given.name or given.image.stem, words, fastest.stages, fastest.total)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.boot", description="The boot waterfall of an image.")
    parser.add_argument("image", type=Path, help="a folder as `make image IMAGE=tiny` makes it, or a disk image")
    parser.add_argument("--name", default="", help="the column's title (default: the file's or folder's name)")
    parser.add_argument("--boots", type=int, default=5, help="boots to take the fastest of (default %(default)s)")
    parser.add_argument("--memory", type=int, default=512, help="MiB of the VM (default %(default)s)")
    parser.add_argument("--acceleration", default="qemu", choices=["qemu", "kvm", "auto"], help="default %(default)s")
    parser.add_argument("--write", action="store_true", help=f"put the column into {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def main() -> None:
    """Measure one image and print the table with its column."""
    given = _arguments()
    column = _measured(given)
    table = waterfall.table(waterfall.with_column(PAGE.read_text(), column))
    print(table)
    if given.write:
        put(PAGE, "boot", table)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
