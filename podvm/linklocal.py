"""Containers do not reach the cloud's metadata services: firewall rules in the pod's network namespace.

A pod's packets leave through the tunnel, so the services they would reach are the worker node's, with its credentials.
Denied are link-local addresses and the services that have others; asking names (port 53) is allowed, because clusters
put DNS there (169.254.20.10 of NodeLocal DNSCache, the clouds' own resolvers). A container with CAP_NET_ADMIN in the
pod's namespace can remove the rules: pod security has to keep it from having that.
"""

import logging
import shutil
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network

from caa.errors import NetworkError
from caa.model.network import IPNetwork
from caa.net import netns

_log = logging.getLogger(__name__)

TABLE = "caa_link_local"
_NONE = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"  # whatever was there
_TIMEOUT = 10.0  # seconds
# 169.254.169.254 and the rest of RFC 3927; Alibaba; Azure's WireServer; AWS and GCP over IPv6.
_DENIED_4 = "169.254.0.0/16, 100.100.100.200"
_DENIED_6 = "fd00:ec2::254, fd20:ce::254"
_WIRE_SERVER = "168.63.129.16"
_NDP = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert"


def ruleset(allowed: Sequence[IPNetwork], verdict: str) -> str:
    """The nft script that puts the rules in place, whatever was there before.

    `verdict` is what happens to a denied packet. The same chain guards what the pod sends and what it forwards for
    containers with a namespace of their own.
    """
    four = ", ".join(str(network) for network in allowed if isinstance(network, IPv4Network))
    six = ", ".join(str(network) for network in allowed if not isinstance(network, IPv4Network))
    lines = [
        f"ip daddr {{ {four} }} return" if four else "",
        f"ip6 daddr {{ {six} }} return" if six else "",
        f"ip daddr {_WIRE_SERVER} tcp dport {{ 80, 32526 }} {verdict}",
        f"icmpv6 type {{ {_NDP} }} return",
        "meta l4proto { tcp, udp } th dport 53 return",
        f"ip daddr {{ {_DENIED_4} }} {verdict}",
        f"ip6 daddr {{ {_DENIED_6}, fe80::/10 }} {verdict}",
    ]
    rules = "".join(f"    {line}\n" for line in lines if line)
    hooks = "".join(
        f"  chain {hook} {{\n    type filter hook {hook} priority filter; policy accept;\n    jump deny\n  }}\n"
        for hook in ("output", "forward")
    )
    return f"{_NONE}table inet {TABLE} {{\n  chain deny {{\n{rules}  }}\n{hooks}}}\n"


def deny(pod_netns: str, allowed: Sequence[IPNetwork] = ()) -> None:
    """Put the rules in place; twice is once. Raises `NetworkError` when that cannot be done.

    A default route among the allowed networks means that everything is allowed: no rules then.
    """
    if any(network.prefixlen == 0 for network in allowed):
        _log.warning("containers may reach metadata services: %s is allowed", allowed)
        _run_inside(pod_netns, _NONE)
        return
    # A kernel may lack the part that rejects; a dropped packet is denied as well, only slower for the container.
    failure = _run_inside(pod_netns, ruleset(allowed, "reject with icmpx type admin-prohibited"))
    if failure and (failure := _run_inside(pod_netns, ruleset(allowed, "drop"))):
        raise NetworkError(
            f"containers could reach the cloud's metadata service: {failure} (the image needs nftables and its kernel "
            "modules; or allow it with LINK_LOCAL_ALLOW=0.0.0.0/0 on the worker)"
        )


def _run_inside(pod_netns: str, script: str) -> str:
    with netns.opened(pod_netns) as descriptor:
        return netns.inside(descriptor, lambda: _nft(script))


def _nft(script: str) -> str:
    """Run nft in this thread's namespace; "" for success, else the reason."""
    nft = shutil.which("nft")
    if nft is None:
        return "the program nft is not installed"
    try:
        done = subprocess.run(
            [nft, "-f", "-"], input=script, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"nft failed: {error}"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["nft failed"])[0]
