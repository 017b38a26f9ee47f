"""Which addresses count, and in which order."""

from caa.provider.addresses import Nic, reachable

FIRST = Nic(private=("10.0.0.5", "fd00::5"), public=("198.51.100.7",))
SECOND = Nic(private=("10.0.1.5",), public=("198.51.100.8",))


def texts(*nics: Nic, public: bool) -> list[str]:
    return [str(one) for one in reachable(nics, public=public)]


def test_private_ones_interface_by_interface() -> None:
    assert texts(FIRST, SECOND, public=False) == ["10.0.0.5", "fd00::5", "10.0.1.5"]


def test_public_ones_first_and_private_ones_are_not_lost() -> None:
    assert texts(FIRST, SECOND, public=True) == [
        "198.51.100.7", "198.51.100.8", "10.0.0.5", "fd00::5", "10.0.1.5",
    ]  # fmt: skip


def test_not_there_yet() -> None:
    assert texts(public=False) == []
    assert texts(Nic(), public=False) == []
    assert texts(Nic(private=("0.0.0.0",)), public=False) == []
    assert texts(Nic(private=("10.0.0.5",)), SECOND, public=True) == []


def test_no_address_twice() -> None:
    assert texts(FIRST, FIRST, public=False) == ["10.0.0.5", "fd00::5"]
