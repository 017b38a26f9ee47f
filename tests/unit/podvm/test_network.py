"""Waiting for the pod VM's own interface, on an injected clock."""

from ipaddress import ip_address, ip_interface

import pytest

from caa.errors import DeadlineExceeded
from caa.net.inspect import Underlay
from podvm import network
from podvm.clock import Clock

WORKER = ip_address("192.168.77.1")
FOUND = Underlay(interface="ens1", address=ip_interface("192.168.77.2/24"), mtu=1500)


class Time:
    def __init__(self) -> None:
        self.at = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, sleep=self.sleep)


def test_an_interface_that_is_there_is_not_waited_for():
    time = Time()
    assert network.wait_for_underlay(WORKER, lambda to: FOUND, clock=time.clock()) is FOUND
    assert time.slept == []


def test_a_late_interface_is_found():
    time = Time()
    answers = [None, None, FOUND]
    assert network.wait_for_underlay(WORKER, lambda to: answers.pop(0), clock=time.clock()) is FOUND
    assert len(time.slept) == 2


def test_the_wait_ends_after_three_minutes():
    time = Time()
    with pytest.raises(DeadlineExceeded, match=r"reached the worker 192\.168\.77\.1 within 180 s"):
        network.wait_for_underlay(WORKER, lambda to: None, clock=time.clock())
    assert 180 <= time.at - 100 < 181
