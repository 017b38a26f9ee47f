"""The firewall rules that keep tunnel packets out of connection tracking.

Each flow of a pod gets an outer source port of its own, so without them a busy node fills the conntrack table
(cloud-api-adaptor#2015). One table per port, replaced as a whole in one transaction.
"""

import json
import logging
import shutil
import subprocess

_log = logging.getLogger(__name__)

_TIMEOUT = 10.0  # seconds; a commit takes 4-16 ms (`dependencies.md` 4)
_HOOKS = ("prerouting", "output")


def table_name(port: int) -> str:
    """The nft table of the VXLAN port, in the family `inet`."""
    return f"caa_notrack_{port}"


def ruleset(port: int) -> str:
    """The nft script that puts the rules in place, whatever was there before."""
    table = table_name(port)
    chains = "".join(
        f"  chain {hook} {{\n"
        f"    type filter hook {hook} priority raw; policy accept;\n"
        f"    udp dport {port} notrack\n"
        "  }\n"
        for hook in _HOOKS
    )
    return f"add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{chains}}}\n"


def install(port: int) -> bool:
    """Put the rules in place; twice is once. False, with a warning, when `nft` is missing or refuses."""
    failure = _run("-f", "-", script=ruleset(port))
    if failure is not None:
        _log.warning(
            "no notrack rules for UDP port %d, a busy node may fill its conntrack table: %s "
            "(install nftables, or raise net.netfilter.nf_conntrack_max)",
            port,
            failure,
        )
    return failure is None


def remove(port: int) -> None:
    """Remove the rules; absent is success."""
    table = table_name(port)
    failure = _run("-f", "-", script=f"add table inet {table}\ndelete table inet {table}\n")
    if failure is not None and shutil.which("nft") is not None:
        _log.warning("the nft table inet %s is left behind: %s", table, failure)


def installed(port: int) -> bool:
    """Whether both rules stand, for the health check."""
    nft = shutil.which("nft")
    if nft is None:
        return False
    command = [nft, "-j", "list", "table", "inet", table_name(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        return False
    rules = [item["rule"] for item in json.loads(done.stdout)["nftables"] if "rule" in item]
    return {rule["chain"] for rule in rules if {"notrack": None} in rule["expr"]} == set(_HOOKS)


def _run(*arguments: str, script: str) -> str | None:
    """Run nft on `script`; None for success, else the reason."""
    nft = shutil.which("nft")
    if nft is None:
        return "the program nft is not installed"
    try:
        done = subprocess.run(
            [nft, *arguments], input=script, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"nft failed: {error}"
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[0] if done.stderr else "nft failed"
