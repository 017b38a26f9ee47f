"""What a wish becomes: mkosi's command line, names, refusals, papers."""

import json
import re
from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm import cli
from podvm.image import bill, recipe, workshop
from podvm.image.inputs import NAMES, Input
from podvm.image.recipe import Wish

AGENT = Input(name="kata-agent", source="path:/a", sha256="0" * 64)
RECIPE = Path(recipe.__file__).with_name("mkosi")
UNITS = RECIPE / "mkosi.extra/usr/lib/systemd/system"
MANIFEST = {
    "config": {"distribution": "debian"},
    "packages": [{"type": "deb", "name": "libc6", "version": "2.41-12+deb13u1", "architecture": "amd64"}],
}


def test_without_the_kata_agent_it_is_a_test_image_and_says_so():
    command = recipe.command(Wish())
    assert Wish().name == "podvm-production-amd64-test"
    assert "--environment=PODVM_VARIANT_ID=production-test" in command
    assert "--package=busybox-static" in command


def test_with_the_kata_agent_there_is_no_stand_in():
    wish = Wish(rows=(AGENT,), architecture="s390x", closed_policy=True)
    command = recipe.command(wish)
    assert wish.name == "podvm-production-s390x"
    assert "--environment=PODVM_VARIANT_ID=production" in command
    assert not [word for word in command if word.startswith("--package=")]
    assert [word for word in command if word.startswith("--profile")] == [
        "--profile=production",
        "--profile=closed-policy",
    ]


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"profile": "x"}, "no profile 'x': production, debug, byom"),
        ({"architecture": "x86"}, "no architecture 'x86': amd64, arm64, s390x, ppc64le"),
        ({"key_file": Path("k")}, "a production image lets nobody in"),
        ({"profile": "byom"}, "byom needs --authorized-key"),
        ({"tpm": "maybe"}, "--tpm maybe: known are required, auto, off"),
    ],
)
def test_what_cannot_be_is_refused(wish, reason):
    with pytest.raises(ConfigError, match=reason):
        Wish(**wish)


@pytest.mark.parametrize(
    ("wish", "presence"),
    [
        ({}, "auto"),
        ({"confidential": True}, "required"),
        ({"confidential": True, "tpm": "auto"}, "auto"),
        ({"confidential": True, "architecture": "s390x"}, "auto"),  # IBM Secure Execution has none
        ({"tpm": "off"}, "off"),
    ],
)
def test_the_image_says_whether_it_has_a_tpm(wish, presence):
    assert Wish(**wish).presence == presence


def test_a_confidential_image_has_a_name_and_a_profile_of_its_own():
    wish = Wish(confidential=True)
    assert wish.name == "podvm-production-confidential-amd64-test"
    assert "--profile=confidential" in recipe.command(wish)


@pytest.mark.parametrize("profile", [*recipe.PROFILES, "closed-policy", "confidential"])
def test_every_profile_has_a_recipe(profile):
    assert (RECIPE / "mkosi.profiles" / profile / "mkosi.conf").is_file()


@pytest.mark.parametrize("architecture", [name for _, name in recipe.ARCHITECTURES])
def test_every_architecture_has_a_kernel(architecture):
    found = [
        file for file in (RECIPE / "mkosi.conf.d").iterdir() if f"Architecture={architecture}\n" in file.read_text()
    ]
    assert len(found) == 1
    assert "linux-image" in found[0].read_text()


@pytest.mark.parametrize("policy", sorted(RECIPE.rglob("image-policy.rego")))
def test_a_policy_names_every_request_of_the_agent(policy):
    proto = (Path(recipe.__file__).parents[2] / "caa/wire/proto/src/agent.proto").read_text()
    requests = set(re.findall(r"rpc \w+\(([\w.]+)\)", proto))
    named = dict(re.findall(r"^default (\w+) := (true|false)$", policy.read_text(), re.MULTILINE))
    assert requests
    assert not {request.rpartition(".")[2] for request in requests} - set(named)
    allowed = {name for name, value in named.items() if value == "true"}
    assert allowed == ({"SetPolicyRequest"} if "closed" in str(policy) else set(named))


@pytest.mark.parametrize("image", [RECIPE, RECIPE / "mkosi.images/initrd"])
def test_no_unit_of_systemd_may_extend_a_pcr(image):
    masked = {link.name for link in (image / "mkosi.extra/etc/systemd/system").iterdir()}
    assert all(str(link.readlink()) == "/dev/null" for link in (image / "mkosi.extra/etc/systemd/system").iterdir())
    phases = {f"systemd-pcrphase{suffix}.service" for suffix in ("", "-initrd", "-sysinit")}
    assert phases | {"systemd-pcrmachine.service", "systemd-pcrfs-root.service", "systemd-tpm2-setup.service"} <= masked


def test_the_agent_waits_for_all_that_must_be_there_and_dies_without_it():
    unit = (RECIPE / "mkosi.extra/usr/lib/systemd/system/kata-agent.service").read_text()
    for name in ("process-user-data.service", "scratch-storage.service"):
        assert re.search(rf"^Requires=.*\b{name}", unit, re.MULTILINE)
        assert re.search(rf"^After=.*\b{name}", unit, re.MULTILINE)
    assert "FailureAction=poweroff" in unit


def test_scratch_space_is_made_when_it_is_asked_for_and_in_a_confidential_image_always():
    """The partition's unit and the one that encrypts it go together: neither may wait for a marker alone."""
    drop_ins = RECIPE / "mkosi.profiles/confidential/mkosi.extra/usr/lib/systemd/system"
    partition = (UNITS / "scratch-partition.service").read_text()
    assert "ConditionPathExists=/run/peerpod/scratch-space.marker\n" in partition
    assert "\nConditionPathExists=\n" in (drop_ins / "scratch-partition.service.d/10-confidential.conf").read_text()
    plain = re.search(r"^ExecStart=(.*)$", (UNITS / "scratch-storage.service").read_text(), re.MULTILINE)
    always = (drop_ins / "scratch-storage.service.d/10-confidential.conf").read_text()
    assert plain is not None
    assert "ExecStart=\nExecStart=" + plain[1].replace("storage $", "storage -always $") in always
    assert "scratch-partition.service" in (UNITS / "scratch-storage.service").read_text()


CALLS = {
    call
    for unit in (*RECIPE.rglob("*.service"), *RECIPE.rglob("*.conf"))
    for call in re.findall(r"^ExecStart=/usr/bin/python3 -I -S -m podvm (.*)$", unit.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_units_run_programs_of_ours_that_there_are(call):
    program, *words = call.split()
    assert f"\n{program} " in f"{cli.__doc__}"
    assert not [word for word in words if word.startswith("-") and f" {word}" not in f"{cli.__doc__}"]


def test_azure_is_told_where_there_is_azure():
    unit = (UNITS / "azure-ready.service").read_text()
    assert "ConditionVirtualization=microsoft\n" in unit
    assert "Restart=on-failure" in unit
    assert (UNITS / "multi-user.target.wants/azure-ready.service").readlink() == Path("../azure-ready.service")


@pytest.mark.parametrize("profile", ["production", "byom"])
def test_nobody_gets_a_shell(profile):
    text = (RECIPE / "mkosi.profiles" / profile / "mkosi.conf").read_text()
    removed = set(re.findall(r"^    (/\S+)$", text, re.MULTILINE))
    assert {"/usr/bin/sh", "/usr/bin/bash", "/usr/bin/dash", "/usr/bin/login", "/usr/sbin/sulogin"} <= removed
    assert "Autologin" not in text
    assert "rd.shell" not in text


def test_the_agent_s_socket_is_not_where_create_sandbox_empties():
    text = (RECIPE / "mkosi.extra/etc/agent-config.toml").read_text()
    address = re.search(r'^server_addr = "unix://(\S+)"$', text, re.MULTILINE)
    assert address is not None
    assert not address[1].startswith("/run/kata-containers")
    units = RECIPE / "mkosi.extra/usr/lib/systemd/system"
    assert f"PathExists={address[1]}\n" in (units / "agent-protocol-forwarder.path").read_text()
    assert f"-kata-agent-socket {address[1]} " in (units / "agent-protocol-forwarder.service").read_text()


def test_the_bill_is_the_same_for_the_same_image():
    document = bill.document(MANIFEST, [AGENT], image="podvm", version="1")
    assert document == bill.document(MANIFEST, [AGENT], image="podvm", version="1")
    whole = json.loads(document)
    assert whole["bomFormat"] == "CycloneDX"
    assert [one["name"] for one in whole["components"]] == ["kata-agent", "podvm", "libc6"]
    assert whole["components"][2]["purl"] == "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64"
    assert whole["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]


def test_another_image_has_another_serial_number():
    first = json.loads(bill.document(MANIFEST, [], image="podvm", version="1"))
    second = json.loads(bill.document(MANIFEST, [AGENT], image="podvm", version="1"))
    assert first["serialNumber"] != second["serialNumber"]


def test_every_name_of_an_input_has_a_unit_that_runs_it():
    units = "".join(file.read_text() for file in (RECIPE / "mkosi.extra/usr/lib/systemd/system").glob("*.service"))
    for name in set(NAMES) - {"pause-bundle"}:
        assert f"/usr/local/bin/{name}" in units


def test_the_build_tree_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr(workshop.os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="built as root"):
        workshop.opened(tmp_path, {})
