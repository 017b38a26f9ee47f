"""Pod VMs as Compute Engine instances.

Read `translate.py` (what is asked of Compute Engine) and `shapes.py` (what it answers), then `launch.py`, then
`provider.py`. `client.py` alone knows Google's SDK. `docs/providers/gcp.md` is for operators.
"""

from caa.config.load import Settings
from caa.config.node import EXTERNAL_NETWORK_VIA_PODVM
from caa.errors import ConfigError
from caa.provider import rows
from caa.provider.clock import Clock, RealClock
from caa.provider.contract import Provider
from caa.provider.ownership import refuse_illegal
from caa.provider.threads import Threads
from providers.gcp import settings
from providers.gcp.client import Access, Sdk, Workers, refuse_credentials
from providers.gcp.provider import GcpProvider, Means
from providers.gcp.shapes import LIMITS, TAG_LIMITS, accelerators
from providers.gcp.surroundings import Surroundings, Waits
from providers.gcp.translate import network_path

SETTINGS = settings.SETTINGS

_THREADS = 16  # calls at a time, beside those that wait for an operation
_REAL, _WAITS = RealClock(), Waits()


def make(values: Settings, *, clock: Clock = _REAL, waits: Waits = _WAITS) -> Provider:
    """The driver for these settings. Raises `ConfigError`; no I/O, the SDK is imported in a thread by the first call,
    which is the node's look for its instances when it starts, not a pod."""
    refuse_illegal(values[rows.TAGS], limits=TAG_LIMITS)
    try:
        refuse_illegal(values[settings.LABELS], limits=LIMITS)
    except ConfigError as error:
        raise ConfigError(str(error).replace("TAGS:", "GCP_LABELS:")) from error
    rows.refuse_zones(values, settings.ZONE.kind)
    _refuse_network(values)
    accelerators(values[settings.ACCELERATORS])
    refuse_credentials(values[settings.CREDENTIALS], universe=values[settings.UNIVERSE])
    pacing = rows.pacing(values, clock)
    workers = Workers(calls=Threads(_THREADS, "gcp"), waits=Threads(_waiting(values), "gcp-wait"))
    gce = Sdk(lambda: _access(values, waits), pacing, workers=workers)
    around = Surroundings(gce, values, clock=clock)
    return GcpProvider(values, Means(gce=gce, around=around, pacing=pacing, clock=clock, waits=waits))


def _waiting(values: Settings) -> int:
    return max(_THREADS, values[rows.CREATES_AT_ONCE])


def _refuse_network(values: Settings) -> None:
    if not rows.given(values, EXTERNAL_NETWORK_VIA_PODVM):
        return
    outside, inside = values[settings.EXTERNAL_NETWORK], values[settings.NETWORK]
    if not outside or network_path(outside, values[settings.PROJECT]) == network_path(inside, values[settings.PROJECT]):
        raise ConfigError(
            "EXTERNAL_NETWORK_VIA_PODVM is set, which needs a second interface in another network: set "
            "GCP_EXTERNAL_NETWORK (and GCP_EXTERNAL_SUBNETWORK) to another one than GCP_NETWORK"
        )


def _access(values: Settings, waits: Waits) -> Access:
    return Access(
        credentials=values[settings.CREDENTIALS],
        project=values[settings.PROJECT],
        compute=values[settings.COMPUTE_ENDPOINT],
        resource_manager=values[settings.RESOURCE_MANAGER_ENDPOINT],
        universe=values[settings.UNIVERSE],
        read_timeout=waits.read_timeout,
        wait_timeout=waits.long_poll,
        connections=_waiting(values),
    )
