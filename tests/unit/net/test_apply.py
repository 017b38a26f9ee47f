"""Plans on a recorded kernel: order, undo, and what counts as done."""

import errno
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from caa.errors import NetworkError
from caa.net import apply, ops, traffic
from caa.net import messages as m
from caa.net.codec import KernelRefused
from caa.net.ops import Side


@dataclass
class Kernel:
    """Knows some links, refuses what it is told to, and remembers every request."""

    links: dict[str, int]
    refuse: dict[int, list[int]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    disciplines: list[traffic.Qdisc] = field(default_factory=list)
    rules: list[traffic.Filter] = field(default_factory=list)

    def link(self, name: str) -> m.Link | None:
        return m.Link(index=self.links[name], name=name) if name in self.links else None

    def change(self, kind: int, body: bytes, *, flags: int = 0, what: str = "") -> None:
        self.seen.append(kind)
        if self.refuse.get(kind):
            number = self.refuse[kind].pop(0)
            if number:
                raise KernelRefused(number, text="told to", what=what)

    def filters(self, index: int) -> list[traffic.Filter]:
        return self.rules

    def qdiscs(self) -> list[traffic.Qdisc]:
        return self.disciplines


@dataclass
class Both:
    host: Kernel
    pod: Kernel
    pod_descriptor: int = 5


VXLAN = ops.AddVxlan(
    device="vxlan1",
    vni=1,
    port=4789,
    local=ip_address("10.0.0.1"),
    remote=ip_address("10.0.0.2"),
    mtu=1450,
)
UP = ops.ChangeLink(side=Side.POD, device="vxlan1", up=True)
INGRESS = ops.AddIngress(side=Side.POD, device="eth0")
REDIRECT = ops.Redirect(side=Side.POD, device="eth0", target="vxlan1")


def both(**pod) -> Both:
    return Both(Kernel({"ens5": 2}), Kernel({"eth0": 2, "vxlan1": 3}, **pod))


def test_in_order():
    spaces = both()
    apply.apply([VXLAN, UP, INGRESS, REDIRECT], spaces)
    assert spaces.host.seen == [m.RTM_NEWLINK]
    assert spaces.pod.seen == [m.RTM_NEWLINK, traffic.RTM_NEWQDISC, traffic.RTM_NEWTFILTER]


def test_a_failure_undoes_backwards_and_is_raised():
    spaces = both(refuse={traffic.RTM_NEWTFILTER: [errno.EPERM]})
    spaces.pod.disciplines = [traffic.Qdisc(index=2, kind="ingress", parent=traffic.INGRESS_PARENT)]
    with pytest.raises(NetworkError, match=r"refused to redirect eth0 to vxlan1: Operation not permitted.*told to"):
        apply.apply([VXLAN, UP, INGRESS, REDIRECT], spaces)
    assert spaces.pod.seen[-2:] == [traffic.RTM_DELQDISC, m.RTM_DELLINK]


def test_what_was_there_before_is_not_undone():
    spaces = both(refuse={traffic.RTM_NEWTFILTER: [errno.EPERM], traffic.RTM_NEWQDISC: [errno.EEXIST]})
    with pytest.raises(NetworkError):
        apply.apply([INGRESS, REDIRECT], spaces)
    assert spaces.pod.seen == [traffic.RTM_NEWQDISC, traffic.RTM_NEWTFILTER]


def test_a_failing_undo_does_not_hide_the_error(caplog):
    spaces = both(refuse={m.RTM_NEWLINK: [errno.EPERM], m.RTM_DELLINK: [errno.EBUSY]})
    with pytest.raises(NetworkError, match="set the link vxlan1 up"):
        apply.apply([VXLAN, UP], spaces)
    assert "while undoing a failed network set-up" in caplog.text


def test_matchall_where_the_kernel_has_no_u32():
    spaces = both(refuse={traffic.RTM_NEWTFILTER: [errno.ENOENT, 0]})
    assert apply.perform(REDIRECT, spaces)
    assert spaces.pod.seen == [traffic.RTM_NEWTFILTER] * 2


def test_neither_classifier_is_an_error():
    spaces = both(refuse={traffic.RTM_NEWTFILTER: [errno.ENOENT, errno.ENOENT]})
    with pytest.raises(NetworkError, match="redirect eth0 to vxlan1"):
        apply.perform(REDIRECT, spaces)


def test_an_interface_called_as_one_of_the_host_is_named_in_the_pod():
    """Linux before 6.15 looks for the name in the namespace that the request is sent from."""
    spaces = Both(Kernel({"eth0": 2}, refuse={m.RTM_NEWLINK: [errno.EEXIST, 0]}), Kernel({"vxlan-1": 3}))
    assert apply.perform(replace(VXLAN, device="eth0"), spaces)
    assert spaces.host.seen == [m.RTM_NEWLINK] * 2
    assert spaces.pod.seen == [m.RTM_NEWLINK]


def test_an_interface_that_cannot_be_named_does_not_stay():
    spaces = Both(
        Kernel({"eth0": 2}, refuse={m.RTM_NEWLINK: [errno.EEXIST, 0]}),
        Kernel({"vxlan-1": 3}, refuse={m.RTM_NEWLINK: [errno.EPERM]}),
    )
    with pytest.raises(NetworkError, match="refused to make the tunnel eth0"):
        apply.perform(replace(VXLAN, device="eth0"), spaces)
    assert spaces.pod.seen == [m.RTM_NEWLINK, m.RTM_DELLINK]


def test_a_tunnel_that_is_there_is_not_made_again_under_another_name():
    spaces = both()
    spaces.host.refuse = {m.RTM_NEWLINK: [errno.EEXIST]}
    with pytest.raises(NetworkError, match="File exists"):
        apply.perform(VXLAN, spaces)
    assert spaces.host.seen == [m.RTM_NEWLINK]


@pytest.mark.parametrize(
    "op",
    [
        ops.DeleteLink(side=Side.POD, device="none"),
        ops.DeleteIngress(side=Side.POD, device="none"),
        ops.ClearRedirect(side=Side.POD, device="none"),
    ],
)
def test_removing_the_absent_is_done(op):
    spaces = both()
    assert not apply.perform(op, spaces)
    assert spaces.pod.seen == []


def test_a_link_that_vanishes_meanwhile_is_deleted():
    spaces = both(refuse={m.RTM_DELLINK: [errno.ENODEV]})
    assert not apply.perform(ops.DeleteLink(side=Side.POD, device="eth0"), spaces)


def test_ingress_with_filters_of_others_stays():
    spaces = both(rules=[traffic.Filter(priority=9, kind="bpf")])
    assert not apply.perform(ops.DeleteIngress(side=Side.POD, device="eth0"), spaces)
    assert spaces.pod.seen == []


def test_a_missing_interface_is_named():
    with pytest.raises(NetworkError, match="cannot set the link eth7 up: there is no interface eth7"):
        apply.perform(ops.ChangeLink(side=Side.HOST, device="eth7", up=True), both())
