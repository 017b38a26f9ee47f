"""A finished image with some files or kernel arguments changed: verity, UKI and measurements made anew, offline."""

import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from caa.attest import pe
from caa.errors import ConfigError
from podvm.image import recipe, workshop
from podvm.image.cache import locked
from podvm.image.sign import UKIFY, Signer
from podvm.image.workshop import Workshop

_CODE = Path(__file__).parents[2]
_UKI = "EFI/BOOT"
# The UKI's name on the EFI partition, and what systemd-repart calls that architecture.
_ARCHITECTURES = MappingProxyType({"BOOTX64.EFI": "x86-64", "BOOTAA64.EFI": "arm64"})
_AGENT = "/usr/local/bin/kata-agent"
_KEYS = "/root/.ssh/authorized_keys"
_SECTIONS = ((".linux", "linux"), (".initrd", "initrd"), (".osrel", "os-release"), (".uname", "uname"))
# As systemd reads them: `-` and `_` are one. What starts a shell or another unit, or takes what a host brings.
_FORBIDDEN = (
    "roothash", "usrhash", "systemd.verity", "root=", "init=", "rd.shell", "rd.break", "systemd.unmask",
    "systemd.debug_shell", "systemd.unit", "systemd.wants", "systemd.run", "systemd.volatile",
    "systemd.import_credentials", "systemd.set_credential", "emergency", "rescue", "single", "\n", "\0",
)  # fmt: skip
_UNSEEN = ("var", "run", "tmp", "dev", "proc", "sys")  # other file systems lie over them


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to change. `files` are (file here, path in the image); `arguments` go to the kernel's command line."""

    files: tuple[tuple[Path, str], ...] = ()
    arguments: tuple[str, ...] = ()
    authorized_key: Path | None = None
    agent: Path | None = None
    signer: Signer | None = None

    def __post_init__(self) -> None:
        """Raises `ConfigError` for what would undo the measurement or leave the image."""
        for argument in self.arguments:
            if any(word in argument.replace("-", "_") for word in _FORBIDDEN):
                raise ConfigError(f"--set-kernel-arg {argument!r}: the builder sets this itself, or it opens the image")
        for option, file in (("--agent", self.agent), ("--authorized-key", self.authorized_key)):
            if file is not None and not file.is_file():
                raise ConfigError(f"{option}: there is no file {file}")
        for _, path in self.files:
            if not path.startswith("/") or ".." in PurePosixPath(path).parts:
                raise ConfigError(f"--add-file: {path!r} has to be an absolute path in the image")
            top = "".join(PurePosixPath(path).parts[1:2])
            if top in _UNSEEN:
                raise ConfigError(
                    f"--add-file: {path!r} would not be seen in the guest, where /{top} is made at each boot: choose "
                    "another folder"
                )


def customize(raw: Path, changes: Changes, *, cache: Path, to: Path) -> list[Path]:
    """Write the changed image and its papers beside `to`; `raw` stays as it is. Raises `ConfigError`."""
    if not raw.is_file():
        raise ConfigError(f"there is no image {raw}")
    if to.resolve() == raw.resolve():
        raise ConfigError(f"--output: {to} is the image itself, which stays as it is: name another file")
    if not to.parent.is_dir():
        raise ConfigError(f"--output: there is no folder {to.parent}")
    with locked(cache):
        return _customize(raw, changes, cache=cache, to=to)


def _customize(raw: Path, changes: Changes, *, cache: Path, to: Path) -> list[Path]:
    work = cache / "work" / f"customize-{to.stem}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    image = {"/image": raw.resolve().parent}
    shop = workshop.opened(cache, {"/code": _CODE, "/out": work, **image})
    try:
        uki = _take_apart(shop, f"/image/{raw.name}", work=work)
        old = pe.parse(uki.read_bytes())
        if old.is_signed and changes.signer is None:
            raise ConfigError(
                "this image is signed for Secure Boot: give --secure-boot-key and --secure-boot-certificate"
            )
        _change(work / "root", changes)
        if changes.signer is not None:
            changes.signer.copy(work / "keys")
        _put_together(shop, work, old=old, name=uki.name, changes=changes)
        return _deliver(work, to)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _take_apart(shop: Workshop, raw: str, *, work: Path) -> Path:
    """The files of the root partition in `work`/root; the UKI as a file, called as on the EFI partition."""
    table = json.loads(shop.run(["sfdisk", "--json", raw], "read the partitions"))["partitiontable"]
    unit = int(table.get("sectorsize", 512))
    names = [part.get("name", "") for part in table["partitions"]]
    esp = next((part for part in table["partitions"] if part.get("name", "").lower() == "esp"), None)
    root = next((part for part in table["partitions"] if re.fullmatch(r"root-[a-z0-9-]+", part.get("name", ""))
                 and "verity" not in part["name"]), None)  # fmt: skip
    if esp is None or root is None:
        raise ConfigError(
            f"{raw} is no image of ours with a UKI: it has the partitions {', '.join(names) or 'none'}; "
            "an image for machines without UEFI (s390x, ppc64le) is built anew"
        )
    for name, part in (("esp", esp), ("root.erofs", root)):
        _cut(shop, raw, name=name, start=part["start"] * unit, size=part["size"] * unit)
    shop.run(["fsck.erofs", "--extract=/out/root", "--preserve", "/out/root.erofs"], "unpack the root file system")
    shop.run(["mcopy", "-i", "/out/esp", f"::/{_UKI}/*", "/out/"], "read the EFI partition")
    (work / "root.erofs").unlink()
    found = sorted(work.glob("*.EFI"))
    if len(found) != 1 or found[0].name not in _ARCHITECTURES:
        raise ConfigError(f"{raw}: one UKI is expected in {_UKI}, there is {[file.name for file in found]}")
    return found[0]


def _cut(shop: Workshop, raw: str, *, name: str, start: int, size: int) -> None:
    command = [
        "dd",
        f"if={raw}",
        f"of=/out/{name}",
        "bs=1M",
        "iflag=skip_bytes,count_bytes",
        "conv=sparse",
        "status=none",
    ]
    shop.run([*command, f"skip={start}", f"count={size}"], f"copy the partition {name}")


def _change(root: Path, changes: Changes) -> None:
    release = (root / "usr/lib/os-release").read_text()
    variant = re.search(r"^VARIANT_ID=\"?([a-z-]+)", release, re.MULTILINE)
    if changes.authorized_key is not None:
        if variant is None or not variant[1].startswith("debug"):
            raise ConfigError("--authorized-key: only a debug image lets anybody in; build one with --profile debug")
        _place(root, _KEYS, file=changes.authorized_key, mode=0o600)
    for file, path in changes.files:
        _place(root, path, file=file, mode=0o755 if os.access(file, os.X_OK) else 0o644)
    if changes.agent is not None:
        _place(root, _AGENT, file=changes.agent, mode=0o755)


def _place(root: Path, path: str, *, file: Path, mode: int) -> None:
    """Copy without following links of the image out of it; times are 0 as everywhere in an image."""
    place = root
    for part in PurePosixPath(path).parts[1:-1]:
        place /= part
        if place.is_symlink():
            place = _inside(root, place)
        if place.exists() and not place.is_dir():
            raise ConfigError(f"--add-file: {path!r}: /{place.relative_to(root)} is a file in the image")
        place.mkdir(mode=0o755, exist_ok=True)
    target = place / PurePosixPath(path).name
    if target.is_dir() and not target.is_symlink():
        raise ConfigError(f"--add-file: {path!r} is a folder in the image: name the file in it")
    target.unlink(missing_ok=True)
    shutil.copyfile(file, target)
    target.chmod(mode)
    for changed in (target, *target.parents):
        if changed == root.parent:
            break
        os.utime(changed, (0, 0))


def _inside(root: Path, link: Path) -> Path:
    target = link.readlink()
    there = root / str(target).lstrip("/") if target.is_absolute() else link.parent / target
    if there.is_symlink() or not Path(os.path.normpath(there)).is_relative_to(root):
        raise ConfigError(f"--add-file: /{link.relative_to(root)} is a link that leads elsewhere, name the real folder")
    return there


def _put_together(shop: Workshop, work: Path, *, old: pe.Image, name: str, changes: Changes) -> None:
    """As mkosi does it: root and verity, then the UKI with the new root hash, then the EFI partition."""
    recipe_folder = _CODE / "podvm/image/mkosi"
    (work / "root/efi" / _UKI).mkdir(parents=True)
    seed = re.search(r"^Seed=(\S+)", (recipe_folder / "mkosi.conf").read_text(), re.MULTILINE)
    if seed is None:
        raise ConfigError(f"{recipe_folder}/mkosi.conf has no Seed=")
    repart = [
        "env", "SOURCE_DATE_EPOCH=0", "systemd-repart", "--dry-run=no", "--json=short", "--no-pager", "--offline=yes",
        f"--seed={seed[1]}", "--root=/out/root", "--sector-size=512", f"--architecture={_ARCHITECTURES[name]}",
        *(f"--definitions=/code/podvm/image/mkosi/{folder}" for folder in ("partitions", "partitions.uefi")),
    ]  # fmt: skip
    first = [*repart, "--empty=create", "--size=auto", "--defer-partitions=esp", "/out/new.raw"]
    rows = json.loads(shop.run(first, "make the root partition and its hashes"))
    root_hash = next(row["roothash"] for row in rows if row.get("roothash"))
    cmdline = (old.section(".cmdline") or b"").rstrip(b"\0\n").decode()
    kept = [word for word in cmdline.split() if not word.startswith("roothash=")]
    (work / "cmdline").write_text(" ".join([*kept, *changes.arguments, f"roothash={root_hash}"]))
    _make_uki(shop, work, old=old, name=name, sign=changes.signer is not None)
    shop.run([*repart, "/out/new.raw"], "make the EFI partition")


def _make_uki(shop: Workshop, work: Path, *, old: pe.Image, name: str, sign: bool) -> None:
    word = name.removeprefix("BOOT").removesuffix(".EFI").lower()
    options = [f"--efi-arch={word}", f"--stub=/out/root/usr/lib/systemd/boot/efi/linux{word}.efi.stub"]
    for section, part in _SECTIONS:
        content = old.section(section)
        if content is None:
            raise ConfigError(f"the image's UKI has no section {section}")
        (work / part).write_bytes(content)
        value = content.rstrip(b"\0").decode() if part == "uname" else f"/out/{part}"
        options.append(f"--{part}={'@' if part == 'os-release' else ''}{value}")
    options += UKIFY if sign else ()
    shop.run(["ukify", "build", *options, "--cmdline=@/out/cmdline", "--output=/out/new.efi"], "make the UKI")
    target = work / "root/efi" / _UKI / name
    shutil.copyfile(work / "new.efi", target)
    for changed in (target, *target.parents[:4]):
        os.utime(changed, (0, 0))


def _deliver(work: Path, to: Path) -> list[Path]:
    stem = to.name.removesuffix(".raw")
    made = [to, to.with_name(f"{stem}.efi"), to.with_name(f"{stem}.pcrs.json")]
    shutil.move(work / "new.raw", made[0])
    shutil.move(work / "new.efi", made[1])
    made[2].write_bytes(recipe.measurements(made[1].read_bytes()))
    (sums := to.with_name(f"{stem}.SHA256SUMS")).write_bytes(recipe.sums(made))
    return [*made, sums]


def parse_file(text: str) -> tuple[Path, str]:
    """`FILE:/PATH/IN/IMAGE` of the command line; raises `ConfigError`."""
    file, colon, path = text.rpartition(":")
    if not colon or not Path(file).is_file():
        raise ConfigError(f"--add-file {shlex.quote(text)}: FILE:/PATH/IN/IMAGE is needed, and FILE has to exist")
    return Path(file), path
