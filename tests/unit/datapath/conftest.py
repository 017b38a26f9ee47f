"""The two ends of a session."""

import pytest

from caa.datapath.door import Door
from caa.datapath.session import Session
from tests.fakes.datapath.session_ends import IDENTITY, SECRET, connect


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def relay() -> Session:
    return Session(IDENTITY, SECRET)


@pytest.fixture
def forwarder(relay: Session, door: Door) -> Session:
    return connect(relay, door)[0]
