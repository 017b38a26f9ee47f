"""What the node's own instance metadata says (IMDSv2): asked only for what is not set, in parallel, for a moment."""

import asyncio
import http.client
from collections.abc import Iterable
from urllib.parse import urlsplit

from caa.provider.threads import Threads

_TIMEOUT = 2.0  # seconds a question; off EC2 nobody answers
_OK = 200

REGION, SUBNET, GROUPS, ADDRESS = "region", "subnet", "groups", "address"


async def facts(endpoint: str, wanted: Iterable[str], *, threads: Threads) -> dict[str, str]:
    """The texts of what is wanted (`REGION`, `SUBNET`, `GROUPS` with one a line, `ADDRESS`); what nobody tells is left
    out."""
    host = urlsplit(endpoint).netloc
    token = await threads.run(lambda: _ask(host, "/latest/api/token", method="PUT"))
    if not token:
        return {}
    names = sorted(set(wanted))
    found = await asyncio.gather(*(_fact(host, token, name=name, threads=threads) for name in names))
    return {name: text for name, text in zip(names, found, strict=True) if text}


async def _fact(host: str, token: str, *, name: str, threads: Threads) -> str:
    def ask(path: str) -> str:
        return _ask(host, f"/latest/meta-data/{path}", token=token)

    if name in (REGION, ADDRESS):
        return await threads.run(lambda: ask({REGION: "placement/region", ADDRESS: "local-ipv4"}[name]))
    mac = await threads.run(lambda: ask("mac"))
    item = {SUBNET: "subnet-id", GROUPS: "security-group-ids"}[name]
    return await threads.run(lambda: ask(f"network/interfaces/macs/{mac}/{item}")) if mac else ""


def _ask(host: str, path: str, *, method: str = "GET", token: str = "") -> str:
    headers = {"X-aws-ec2-metadata-token": token} if token else {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read(4096).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return text if answer.status == _OK else ""
