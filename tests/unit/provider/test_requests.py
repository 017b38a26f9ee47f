"""What a pod may ask for is checked before the cloud hears of it."""

import pytest

from caa.errors import InvalidRequest
from caa.model.ids import SandboxId
from caa.model.instance import Capabilities, LaunchRequest, Owner
from caa.provider.requests import image_of, refuse_name, refuse_user_data

AMI = r"ami-[0-9a-f]{8,17}"


def request(*, image: str = "", user_data: bytes = b"") -> LaunchRequest:
    owner = Owner(cluster="c", node="n")
    return LaunchRequest(name="n", sandbox=SandboxId("s"), owner=owner, token="t", user_data=user_data, image=image)


def image(asked: str, *allowed: str) -> str:
    return image_of(request(image=asked), default="ami-00000000", allowed=allowed, pattern=AMI)


def test_names() -> None:
    refuse_name("podvm-web-1", pattern=r"[a-z0-9-]+", limit=63)
    for name in ("", "no spaces", "x" * 64):
        with pytest.raises(InvalidRequest, match="instance name"):
            refuse_name(name, pattern=r"[a-z0-9-]+", limit=63)


@pytest.mark.parametrize(("base64", "size", "fits"), [(False, 100, True), (False, 101, False), (True, 76, False)])
def test_user_data(base64: bool, size: int, fits: bool) -> None:
    capabilities = Capabilities(user_data_limit=100, user_data_base64=base64)
    if fits:
        refuse_user_data(request(user_data=b"x" * size), capabilities)
    else:
        with pytest.raises(InvalidRequest, match="allows 100"):
            refuse_user_data(request(user_data=b"x" * size), capabilities)
    refuse_user_data(request(user_data=b"x" * size), Capabilities())


def test_images() -> None:
    assert image("") == "ami-00000000"
    assert image("ami-00000000") == "ami-00000000"
    assert image("ami-11111111", "ami-1*") == "ami-11111111"
    for asked, allowed in (("ami-22222222", "ami-1*"), ("ami-22222222", "none"), ("--user-data", "*")):
        with pytest.raises(InvalidRequest, match=r"io\.katacontainers\.config\.hypervisor\.image"):
            image(asked, allowed)
