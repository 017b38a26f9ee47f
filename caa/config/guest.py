"""Rows of the programs inside the pod VM; they come from the image's environment, not from the cluster's ConfigMap."""

from caa.config.kinds import duration, integer
from caa.config.setting import AnySetting, Setting

DISK_DETECT_MAX_ATTEMPTS: Setting[int] = Setting(
    name="disk_detect_max_attempts",
    env="CAA_DISK_DETECT_MAX_ATTEMPTS",
    kind=integer(1, 10_000),
    default=15,
    help="How often the forwarder looks for a data disk before it gives up. Nothing reads it yet.",
)
DISK_DETECT_RETRY_DELAY: Setting[float] = Setting(
    name="disk_detect_retry_delay",
    env="CAA_DISK_DETECT_RETRY_DELAY",
    kind=duration(),
    default=2.0,
    help="How long the forwarder waits between two looks for a data disk. Nothing reads it yet.",
)

GUEST_ROWS: tuple[AnySetting, ...] = (DISK_DETECT_MAX_ATTEMPTS, DISK_DETECT_RETRY_DELAY)
