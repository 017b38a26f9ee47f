"""How an image gets into each cloud: the commands, what is left open, what is refused."""

import tomllib
from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import cli, convert, publish

DOCS = Path(publish.__file__).parents[2] / "docs/podvm-image.md"


@pytest.mark.parametrize("provider", sorted(publish.ways()))
def test_every_way_in_fills_in_what_is_given(provider):
    way = publish.way(provider)
    given = {place: f"my-{place}" for place in way.places}
    lines = publish.commands(provider, "podvm-1", file="/images/a b.raw", places=given)
    assert not [line for line in lines if "<" in line or "{name}" in line]
    assert any("'/images/a b.raw'" in line for line in lines)
    assert any("podvm-1" in line for line in lines) == any("{name}" in text for text in way.commands)


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


@pytest.mark.parametrize("provider", sorted(publish.ways()))
def test_a_dry_run_prints_the_conversion_and_every_command(provider, capsys):
    words = ["publish", "/images/podvm.raw", "--provider", provider, "--name", "podvm-1", "--dry-run"]
    assert cli.main(words) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    way = publish.way(provider)
    assert first == f"python -m podvm.image convert /images/podvm.raw --format {way.form}"
    assert lines == publish.commands(provider, "podvm-1", file=f"/images/podvm{convert.FORMS[way.form][0]}", places={})
    assert len(lines) == len(way.commands)


def test_nothing_is_published_by_itself(capsys):
    assert cli.main(["publish", "podvm.raw", "--provider", "aws"]) == 1
    assert "--dry-run prints the commands of the cloud's own program" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "reason"), [("bucket", "NAME=VALUE is needed"), ("moon=1", "no place 'moon'")])
def test_a_wrong_place_is_refused(place, reason, capsys):
    assert cli.main(["publish", "p.raw", "--provider", "aws", "--place", place, "--dry-run"]) == 1
    assert reason in capsys.readouterr().err


def test_the_page_has_a_row_for_every_provider():
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    for provider, way in publish.ways().items():
        (row,) = [line for line in rows if line.startswith(f"| {provider} ")]
        assert way.form in row
        assert all(place in row for place in way.places), (provider, row)


def test_every_cloud_s_program_is_called_by_its_name():
    table = tomllib.loads(Path(publish.__file__).with_name("publish.toml").read_text())
    programs = {name: {line.split()[0] for line in row["commands"]} for name, row in table.items()}
    assert programs == {
        "libvirt": {"virsh"},
        "aws": {"aws"},
        "azure": {"az"},
        "gcp": {"gcloud"},
        "ibmcloud": {"ibmcloud"},
        "alibabacloud": {"aliyun"},
        "byom": {"dd"},
    }
