"""Pod VMs as process trees in namespaces of their own, for demonstrations and tests: no cloud, no image, NO ISOLATION.

Read `machine.py` (the "hardware"), then `client.py`, then `provider.py`. `docs/providers/local.md` is for operators.
"""

import sys
import time
from pathlib import Path

import structlog

from caa.config.load import Settings
from caa.errors import ConfigError
from caa.provider.contract import Provider
from providers.local import client, settings, translate
from providers.local.cgroups import Cgroups
from providers.local.provider import LocalProvider

SETTINGS = settings.SETTINGS

_log = structlog.get_logger(__name__)


def make(values: Settings) -> Provider:
    """The driver for these settings. Raises `ConfigError` in a cluster, unless an operator insists."""
    if values[settings.CLUSTER] and not values[settings.ALLOW_INSECURE]:
        raise ConfigError(
            "CLOUD_PROVIDER: 'local' gives pods no isolation and does not run in a cluster "
            "(KUBERNETES_SERVICE_HOST is set); choose another provider, or set CAA_ALLOW_INSECURE_LOCAL=1"
        )
    site = translate.Site(
        state_dir=values[settings.STATE_DIR],
        subnet=values[settings.SUBNET],
        bridge=values[settings.BRIDGE],
        agent_command=values[settings.AGENT_COMMAND],
        python=sys.executable,
    )
    _log.warning("local pod VMs are processes of this node: no isolation", state_dir=str(site.state_dir))
    hierarchies = translate.hierarchies(Path("/proc/self/mountinfo").read_text())
    machines = client.LocalMachines(site, Cgroups(hierarchies, site.cgroup_parent))
    return LocalProvider(machines, problems=lambda: client.problems(site, hierarchies), clock=time.time)
