"""What a tunnel's device says about whose it is: its alias, as written and as read again. Pure.

The alias is where `ip -details link` shows it to people, and it lives exactly as long as the tunnel: a node that has
lost its records learns from it which pod the tunnel is for.
"""

import re

from caa.model.ids import SandboxId
from caa.model.network import Whose

_LONGEST = 255  # bytes; IFALIASZ without the zero byte, linux/if.h
_KUBE_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_LABEL = re.compile(
    rf"caa (?P<sandbox>[A-Za-z0-9][A-Za-z0-9_.-]{{0,127}})(?: (?P<namespace>{_KUBE_NAME})/(?P<pod>{_KUBE_NAME}))?"
)


def label(whose: Whose) -> str:
    """The alias of a pod's tunnel; only the sandbox where the pod's names do not fit or are not known."""
    short = f"caa {whose.sandbox}"
    full = f"{short} {whose.pod_namespace}/{whose.pod_name}"
    known = whose.pod_namespace and whose.pod_name and len(full.encode()) <= _LONGEST
    return full if known else short


def read(alias: str) -> Whose | None:
    """Whose tunnel it is; None when the alias is not one of ours."""
    found = _LABEL.fullmatch(alias)
    if found is None:
        return None
    return Whose(
        sandbox=SandboxId(found["sandbox"]),
        pod_name=found["pod"] or "",
        pod_namespace=found["namespace"] or "",
    )
