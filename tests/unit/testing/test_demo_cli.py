"""Where the demo puts its sockets."""

import pytest

from caa.testing.demo.cli import short_directory


@pytest.mark.parametrize(("given", "used"), [("/tmp", "/tmp"), ("/t", "/t"), ("/home/" + "x" * 80, "/tmp")])
def test_a_long_tmpdir_is_not_used(given: str, used: str) -> None:
    assert short_directory(given) == used
