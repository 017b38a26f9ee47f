"""What a wish becomes: mkosi's command line, names, refusals, papers."""

import json
import re
from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import bill, customize, publish, recipe, workshop
from podvm.image.inputs import NAMES, Input
from podvm.image.recipe import Wish

AGENT = Input(name="kata-agent", source="path:/a", sha256="0" * 64)
RECIPE = Path(recipe.__file__).with_name("mkosi")
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
    ],
)
def test_what_cannot_be_is_refused(wish, reason):
    with pytest.raises(ConfigError, match=reason):
        Wish(**wish)


@pytest.mark.parametrize("profile", [*recipe.PROFILES, "closed-policy"])
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


# --- publishing and changing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", sorted(publish.ways()))
def test_every_way_in_fills_in_what_is_given(provider):
    way = publish.way(provider)
    given = {place: f"my-{place}" for place in way.places}
    lines = publish.commands(provider, "podvm-1", file="/images/a b.raw", places=given)
    assert not [line for line in lines if "<" in line or "{name}" in line]
    assert any("'/images/a b.raw'" in line for line in lines)
    assert any("podvm-1" in line for line in lines)


def test_what_is_not_given_is_left_open():
    assert publish.commands("gcp", "n", file="f", places={})[0] == "gcloud storage cp f gs://<bucket>/n.tar.gz"


@pytest.mark.parametrize(
    ("provider", "name", "places", "reason"),
    [
        ("moon", "n", {}, "no way to publish to 'moon': libvirt, "),
        ("aws", "a b", {}, "'a b' is no image name"),
        ("aws", "n", {"x": "1"}, "aws has no place 'x', but bucket"),
    ],
)
def test_a_wrong_publication_is_refused(provider, name, places, reason):
    with pytest.raises(ConfigError, match=reason):
        publish.commands(provider, name, file="f", places=places)


def test_a_value_cannot_become_a_command():
    (line, *_) = publish.commands("gcp", "n", file="f", places={"bucket": "b; reboot"})
    assert "'b; reboot'" in line


@pytest.mark.parametrize("argument", ["roothash=0", "init=/bin/sh", "rd.shell", "root=/dev/vda", "a\nb"])
def test_an_argument_that_opens_the_image_is_refused(argument):
    with pytest.raises(ConfigError, match="the builder sets this itself, or it opens the image"):
        customize.Changes(arguments=(argument,))


@pytest.mark.parametrize("path", ["etc/x", "/etc/../../x"])
def test_a_file_stays_in_the_image(path):
    with pytest.raises(ConfigError, match="absolute path in the image"):
        customize.Changes(files=((Path("x"), path),))


def test_the_build_tree_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr(workshop.os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="built as root"):
        workshop.opened(tmp_path, {})
