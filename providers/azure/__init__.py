"""Pod VMs as Azure virtual machines.

Read `translate.py` (what is asked of Azure), `shapes.py` (what it answers) and `codes.py` (what its errors mean), then
`fleet.py`, then `provider.py`. `client.py` alone knows the SDK; `rights.py` has what the identity has to be allowed.
`docs/providers/azure.md` is for operators.
"""

from caa.config.load import Settings
from caa.errors import ConfigError
from caa.provider import rows
from caa.provider.clock import Clock, RealClock
from caa.provider.contract import Provider
from caa.provider.ownership import refuse_illegal
from providers.azure import settings
from providers.azure.around import Operations, Surroundings, Waits, access
from providers.azure.client import Sdk
from providers.azure.fleet import Fleet
from providers.azure.provider import AzureProvider, Means
from providers.azure.shapes import LIMITS

SETTINGS = settings.SETTINGS

_REAL, _WAITS = RealClock(), Waits()


def make(values: Settings, *, clock: Clock = _REAL, waits: Waits = _WAITS) -> Provider:
    """The driver for these settings. Raises `ConfigError`; no I/O, the SDK is imported with the first call."""
    refuse_illegal(values[rows.TAGS], limits=LIMITS)
    rows.refuse_zones(values, settings.ZONE.kind)
    _refuse_conflicts(values)
    pacing = rows.pacing(values, clock)
    arm = Sdk(access(values, waits), pacing)
    around = Surroundings(arm, values, clock=clock)
    operations = Operations(values[rows.CATALOGUE_DIR] / "azure-operations")
    fleet = Fleet(arm, values[settings.RESOURCE_GROUP], operations=operations, clock=clock, waits=waits)
    return AzureProvider(values, Means(arm=arm, around=around, fleet=fleet, pacing=pacing, clock=clock))


def _refuse_conflicts(values: Settings) -> None:
    if values[settings.CLIENT_SECRET] and not (values[settings.CLIENT_ID] and values[settings.TENANT_ID]):
        raise ConfigError("AZURE_CLIENT_SECRET is set: set AZURE_CLIENT_ID and AZURE_TENANT_ID as well")
    if values[settings.TOKEN_FILE] and not (values[settings.CLIENT_ID] and values[settings.TENANT_ID]):
        raise ConfigError("AZURE_FEDERATED_TOKEN_FILE is set: set AZURE_CLIENT_ID and AZURE_TENANT_ID as well")
    whole = not values[settings.DISABLE_CVM] and values[settings.CVM_ENCRYPTION] == settings.WHOLE_DISK
    if whole and not values[rows.SECURE_BOOT]:
        raise ConfigError(
            "AZURE_CVM_ENCRYPTION=DiskWithVMGuestState needs ENABLE_SECURE_BOOT=true: Azure asks for both"
        )
    if whole and values[settings.ENCRYPTION_AT_HOST]:
        raise ConfigError(
            "AZURE_ENCRYPTION_AT_HOST and AZURE_CVM_ENCRYPTION=DiskWithVMGuestState exclude each other: unset one"
        )
