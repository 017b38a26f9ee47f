"""What is in the images as they were built, and what mkosi makes of the recipe for every profile and architecture."""

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podvm.image import recipe, workshop
from podvm.image.recipe import Wish

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.needs("debootstrap", "unshare", "openssl"),
]
CACHE = Path(recipe.__file__).resolve().parents[2] / ".cache" / "image"
UNITS = "usr/lib/systemd/system"
WAYS_IN = re.compile(
    r"(ba|da|z|k|c|tc|rba)?sh|sshd?|su|sudo|login|sulogin|agetty|getty|dropbear|telnetd?|socat|nc|ncat"
)
PHASES = ("systemd-pcrphase", "systemd-pcrphase-initrd", "systemd-pcrphase-sysinit", "systemd-pcrmachine")


def programs(tree: Path) -> set[str]:
    """The names of everything that can be run, links too."""
    folders = (tree / place for place in ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "usr/lib/openssh"))
    return {file.name for folder in folders if folder.is_dir() for file in folder.iterdir()}


def text(tree: Path, path: str) -> str:
    return (tree / path).read_text()


def test_production_lets_nobody_in(built: Any, tree: Callable[[Path], Path]) -> None:
    root = tree(built.file("raw"))
    assert {name for name in programs(root) if WAYS_IN.fullmatch(name)} == set()
    assert not list(root.glob("etc/ssh")) + list(root.glob("root/.ssh/*")) + list(root.glob(f"{UNITS}/ssh*.service"))
    assert not list(root.glob("etc/systemd/system/*.wants/*getty*"))
    assert "VARIANT_ID=production-test" in text(root, "usr/lib/os-release")
    words = text(root, "etc/passwd").splitlines()
    assert [line.split(":")[0] for line in words if line.split(":")[2] == "0"] == ["root"]
    assert [line for line in text(root, "etc/shadow").splitlines() if line.split(":")[1] not in ("*", "!", "!*")] == []
    the_rest_of_the_recipe_is_there(root, presence="auto")


def test_cpython_is_what_the_guest_needs_and_no_more(built: Any, tree: Callable[[Path], Path]) -> None:
    """xfsprogs has the whole of it installed, and ICU, for a program that no pod VM needs."""
    root = tree(built.file("raw"))
    (library,) = root.glob("usr/lib/python3*")
    assert not list(library.rglob("*.py")) + list(library.rglob("__pycache__")) + list(root.glob("usr/lib/*/libicu*"))
    assert {"mkfs.xfs", "mkfs.ext4", "python3"} <= programs(root)
    assert not (library / "tkinter").exists()
    python = sum(file.stat().st_size for file in library.rglob("*.so")) + (root / "usr/bin/python3").stat().st_size
    assert python < 12 << 20
    for program in ("mkfs.xfs", "mkfs.ext4"):
        command = ["chroot", str(root), f"/usr/sbin/{program}", "-V"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0, program


def the_rest_of_the_recipe_is_there(root: Path, *, presence: str) -> None:
    """What every image has."""
    for unit in PHASES:
        assert str((root / f"etc/systemd/system/{unit}.service").readlink()) == "/dev/null"
    assert 'server_addr = "unix:///run/kata-agent/agent.sock"' in text(root, "etc/agent-config.toml")
    assert str((root / "etc/kata-opa/default-policy.rego").readlink()) == "/run/peerpod/policy.rego"
    tmpfiles = text(root, "usr/lib/tmpfiles.d/podvm.conf")
    assert "C /run/peerpod/policy.rego 0600 root root - /etc/kata-opa/image-policy.rego" in tmpfiles
    assert "default CreateContainerRequest := true" in text(root, "etc/kata-opa/image-policy.rego")
    assert f"PROCESS_USER_DATA_OPTIONS=-tpm {presence}" in text(
        root, f"{UNITS}/process-user-data.service.d/20-tpm.conf"
    )
    assert (root / UNITS / "multi-user.target.wants/azure-ready.service").resolve().is_file()
    assert not [file for file in root.rglob("*.py") if "podvm" in file.parts or "caa" in file.parts]  # compiled alone
    assert {file.stat().st_mtime for file in root.rglob("*") if not file.is_symlink()} == {0}


def test_debug_lets_its_key_in_and_a_confidential_image_is_strict(debug: Any, tree: Callable[[Path], Path]) -> None:
    root = tree(debug.file("raw"))
    assert {"bash", "sh", "sshd", "ssh-keygen", "agetty", "strace"} <= programs(root)
    key = root / "root/.ssh/authorized_keys"
    assert key.read_text() == "ssh-ed25519 AAAAbuilt builder\n"
    assert not key.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    assert "VARIANT_ID=debug-test" in text(root, "usr/lib/os-release")
    assert "-always" in text(root, f"{UNITS}/scratch-storage.service.d/10-confidential.conf")
    the_rest_of_the_recipe_is_there(root, presence="required")


def test_systemd_finds_nothing_wrong_with_the_units(built: Any, tree: Callable[[Path], Path], tmp_path: Path) -> None:
    root = tree(built.file("raw"))
    recipe_units = Path(recipe.__file__).with_name("mkosi") / "mkosi.extra" / UNITS
    ours = sorted(f.name for f in recipe_units.iterdir() if f.suffix in (".service", ".path") and "@" not in f.name)
    shop = workshop.opened(CACHE, {"/image": root})
    verify = "systemd-analyze verify --root=/image --recursive-errors=no --man=no"
    said = shop.run(["sh", "-c", f"{verify} {' '.join(ours)} 2>&1 || true"], "verify the units")
    # In an image without guest components three programs are missing; their units have conditions for that.
    wrong = [line for line in said.splitlines() if "/usr/local/bin/" not in line and line.strip()]
    assert len(ours) > 10
    assert wrong == []


@pytest.mark.needs("osslsigncode")
def test_the_uki_is_signed(debug: Any, built: Any) -> None:
    def verify(file: Path) -> subprocess.CompletedProcess[str]:
        command = ["osslsigncode", "verify", "-CAfile", debug.wish.signer.certificate, "-in", file]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "Signature verification: ok" in verify(debug.file("efi")).stdout
    assert "No signature found" in "".join((verify(built.file("efi")).stdout, verify(built.file("efi")).stderr))
    assert not list(CACHE.rglob("secure-boot.key"))  # no copy of the private key is left


@pytest.mark.parametrize("architecture", dict(recipe.ARCHITECTURES))
@pytest.mark.parametrize("profile", recipe.PROFILES)
@pytest.mark.parametrize("further", [{}, {"confidential": True, "closed_policy": True}], ids=["", "confidential"])
def test_the_recipe_is_whole(built: Any, architecture: str, profile: str, further: dict[str, bool]) -> None:
    """`mkosi summary`: every profile for every architecture, in a few tenths of a second each."""
    key = None if profile == "production" else Path(os.devnull)
    wish = Wish(architecture=architecture, profile=profile, key_file=key, **further)
    shop = workshop.opened(CACHE, {"/code": Path(recipe.__file__).resolve().parents[2]})
    call = [word for word in recipe.command(wish)[:-1] if not word.startswith(("--extra-tree", "--sandbox-tree"))]
    image = json.loads(shop.run([*call, "--json", "summary"], "ask mkosi"))["Images"][-1]
    uefi = architecture in recipe.WITH_UEFI
    assert image["Architecture"] == dict(recipe.ARCHITECTURES)[architecture]
    assert image["Profiles"][0] == profile
    assert (image["Format"], image["Bootloader"]) == ("disk", "uki" if uefi else "none")
    assert ("kernel" in image["SplitArtifacts"]) == (not uefi)
    assert len(image["RepartDirectories"]) == (2 if uefi else 1)
    assert [package for package in image["Packages"] if package.startswith("linux-image-")]
    assert ("openssh-server" in image["Packages"]) == (profile != "production")
    assert "systemd.volatile=state" in image["KernelCommandLine"]
    assert ("rd.shell" in image["KernelCommandLine"]) == (profile == "debug")
