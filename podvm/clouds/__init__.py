"""Where a pod VM finds its user data: one module a source, asked in the order of `sources`.

The machine says itself in which cloud it is (`machine`), so no metadata service but that cloud's is ever asked. In a
cloud whose service is the way, disks are not looked at: a pod's own volume could be labelled like a config drive.
"""

from podvm.clouds.alibabacloud import AlibabaCloud
from podvm.clouds.aws import Aws
from podvm.clouds.azure import Azure
from podvm.clouds.contract import Source
from podvm.clouds.gcp import Gcp
from podvm.clouds.ibmcloud import IbmCloud
from podvm.clouds.machine import Machine
from podvm.clouds.nocloud import ConfigDrive, NoCloud


def sources(machine: Machine | None = None) -> tuple[Source, ...]:
    """Every source, in the order in which they are asked (`reference/podvm.md` 1.7)."""
    here = machine or Machine()
    clouds = (Azure(here), Aws(here), Gcp(here), AlibabaCloud(here))
    return (NoCloud(), *clouds, ConfigDrive(here), IbmCloud(here))
