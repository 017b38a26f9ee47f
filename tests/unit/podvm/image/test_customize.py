"""What may be changed in a finished image, and what would open it; tests/image changes and boots one."""

from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import cli, customize


@pytest.mark.parametrize(
    "argument", ["roothash=0", "init=/bin/sh", "rd.shell", "root=/dev/vda", "a\nb", "systemd.debug-shell"]
)
def test_an_argument_that_opens_the_image_is_refused(argument):
    with pytest.raises(ConfigError, match="the builder sets this itself, or it opens the image"):
        customize.Changes(arguments=(argument,))


@pytest.mark.parametrize("path", ["etc/x", "/etc/../../x"])
def test_a_file_stays_in_the_image(path):
    with pytest.raises(ConfigError, match="absolute path in the image"):
        customize.Changes(files=((Path("x"), path),))


@pytest.mark.parametrize("path", ["/var/lib/x", "/run/x", "/tmp/x", "//var/x"])
def test_a_file_is_seen_in_the_guest(path):
    with pytest.raises(ConfigError, match="would not be seen in the guest"):
        customize.Changes(files=((Path("x"), path),))


@pytest.mark.parametrize(
    ("path", "text"),
    [("/", "'/' is a folder"), ("/etc", "'/etc' is a folder"), ("/etc/hostname/x", "/etc/hostname is a file")],
)
def test_a_file_in_place_of_a_folder_is_refused(tmp_path, path, text):
    root, file = tmp_path / "root", tmp_path / "x"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("podvm")
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text("VARIANT_ID=production\n")
    file.write_text("x")
    with pytest.raises(ConfigError, match=text):
        customize._change(root, customize.Changes(files=((file, path),)))


@pytest.mark.parametrize(("option", "name"), [("--agent", "agent"), ("--authorized-key", "authorized_key")])
def test_a_file_that_is_not_there_is_named_with_its_option(tmp_path, option, name):
    with pytest.raises(ConfigError, match=f"{option}: there is no file"):
        customize.Changes(**{name: tmp_path / "none"})


@pytest.mark.parametrize("leads_to", ["../../outside", "/../outside", "second"])
def test_a_link_of_the_image_leads_nowhere_else(tmp_path, leads_to):
    """An image is somebody's file: its links are never followed on the machine that customises it."""
    root, file, outside = tmp_path / "root", tmp_path / "x", tmp_path / "outside"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text("VARIANT_ID=production\n")
    (root / "etc").mkdir()
    (root / "etc/second").symlink_to(outside)
    (root / "etc/link").symlink_to(leads_to)
    outside.mkdir()
    file.write_text("x")
    with pytest.raises(ConfigError, match="/etc/link is a link that leads elsewhere"):
        customize._change(root, customize.Changes(files=((file, "/etc/link/x"),)))
    assert list(outside.iterdir()) == []


def test_an_image_does_not_replace_itself(tmp_path):
    (raw := tmp_path / "podvm.raw").write_bytes(b"disk")
    for to, text in ((raw, "the image itself"), (tmp_path / "none/new.raw", "there is no folder")):
        with pytest.raises(ConfigError, match=text):
            customize.customize(raw, customize.Changes(), cache=tmp_path, to=to)
    assert raw.read_bytes() == b"disk"


def test_a_missing_image_is_named(tmp_path, capsys):
    assert cli.main(["--cache", str(tmp_path), "customize", str(tmp_path / "none.raw")]) == 1
    assert "there is no image" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["x", "/no/such:/etc/x"])
def test_a_file_to_add_has_to_be_there(text):
    with pytest.raises(ConfigError, match="FILE:/PATH/IN/IMAGE is needed, and FILE has to exist"):
        customize.parse_file(text)
