"""What may be changed in a finished image, and what would open it; tests/image changes and boots one."""

from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import cli, customize


@pytest.mark.parametrize("argument", ["roothash=0", "init=/bin/sh", "rd.shell", "root=/dev/vda", "a\nb"])
def test_an_argument_that_opens_the_image_is_refused(argument):
    with pytest.raises(ConfigError, match="the builder sets this itself, or it opens the image"):
        customize.Changes(arguments=(argument,))


@pytest.mark.parametrize("path", ["etc/x", "/etc/../../x"])
def test_a_file_stays_in_the_image(path):
    with pytest.raises(ConfigError, match="absolute path in the image"):
        customize.Changes(files=((Path("x"), path),))


def test_a_missing_image_is_named(tmp_path, capsys):
    assert cli.main(["--cache", str(tmp_path), "customize", str(tmp_path / "none.raw")]) == 1
    assert "there is no image" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["x", "/no/such:/etc/x"])
def test_a_file_to_add_has_to_be_there(text):
    with pytest.raises(ConfigError, match="FILE:/PATH/IN/IMAGE is needed, and FILE has to exist"):
        customize.parse_file(text)
