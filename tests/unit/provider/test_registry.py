"""Names of drivers: built-in ones, those of other people, and those that are not there."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from caa.errors import ConfigError
from caa.provider import registry

OURS = ("alibabacloud", "aws", "azure", "byom", "gcp", "ibmcloud", "ibmcloud-powervs", "libvirt", "local")
POINT = EntryPoint(name="mycloud", value="drivers_of_a_test.mycloud", group=registry.GROUP)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `drivers_of_a_test` to put driver modules into."""
    folder = tmp_path / "drivers_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "mycloud.py").write_text("SETTINGS = ()\ndef make(settings): return 'made'\n")
    (folder / "needy.py").write_text("import a_library_of_nobody\n")
    (folder / "empty.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("drivers_of_a_test")]:
        del sys.modules[name]


def test_the_built_in_names() -> None:
    assert registry.names(installed=()) == OURS
    assert registry.names(installed=(POINT,)) == tuple(sorted((*OURS, "mycloud")))
    assert set(OURS) <= set(registry.names())


def test_local_is_there() -> None:
    found = registry.driver("local", installed=())
    assert found.name == "local"
    assert "LOCAL_STATE_DIR" in [row.env for row in found.settings]
    assert callable(found.make)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'ibmcloudpowervs' is not a known provider.*ibmcloud-powervs.*mycloud"):
        registry.driver("ibmcloudpowervs", installed=(POINT,))


def test_somebody_elses_driver(modules: Path) -> None:
    found = registry.driver("mycloud", installed=(POINT,))
    assert found.settings == ()


def test_a_built_in_name_cannot_be_taken_over() -> None:
    thief = EntryPoint(name="local", value="drivers_of_a_test.mycloud", group=registry.GROUP)
    assert registry.driver("local", installed=(thief,)).make.__module__ == "providers.local"


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("drivers_of_a_test.absent", "not part of this build"),
        ("package_of_nobody.aws", "not part of this build"),
        ("drivers_of_a_test.needy", r"needs the library 'a_library_of_nobody'.*peerpods-caa\[aws\]"),
        ("drivers_of_a_test.empty", "needs SETTINGS and make"),
    ],
)
def test_a_driver_that_cannot_be_loaded_says_why(modules: Path, module: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        registry.driver("aws", installed=(), built_in={"aws": module})


def test_every_built_in_module_is_named_after_its_driver() -> None:
    assert dict(registry.BUILT_IN) == {name: f"providers.{name.replace('-', '_')}" for name in OURS}
