"""What is checked of a launch request before any cloud hears of it: name, user data, image. No I/O.

The name, the image and the numbers come from a pod, so they are hostile until they passed here.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from caa.errors import InvalidRequest
from caa.model.instance import Capabilities, LaunchRequest

IMAGE_ANNOTATION = "io.katacontainers.config.hypervisor.image"


def refuse_name(name: str, *, pattern: str, limit: int) -> None:
    """Raise `InvalidRequest` unless `name` matches `pattern` as a whole and has at most `limit` characters."""
    if len(name) > limit or not re.fullmatch(pattern, name):
        raise InvalidRequest(f"instance name {name[:80]!r} is not valid: at most {limit} characters, like {pattern}")


def refuse_user_data(request: LaunchRequest, capabilities: Capabilities) -> None:
    """Raise `InvalidRequest` when the user data is more than the cloud takes. The node has told which file is large."""
    size = len(request.user_data)
    cost = (size + 2) // 3 * 4 if capabilities.user_data_base64 else size
    limit = capabilities.user_data_limit
    if limit is not None and cost > limit:
        raise InvalidRequest(f"the user data takes {cost} bytes, this cloud allows {limit}: shorten the initdata")


def image_of(request: LaunchRequest, *, default: str, allowed: Sequence[str], pattern: str) -> str:
    """The image to boot: the annotation's if it is allowed, else `default`.

    `allowed` are patterns as of a shell (`*`, `?`); `default` is always allowed. `pattern` is what an image of this
    cloud looks like. Raises `InvalidRequest`, naming the annotation and IMAGE_ALLOWLIST.
    """
    asked = request.image
    if not asked or asked == default:
        return default
    if not re.fullmatch(pattern, asked):
        raise InvalidRequest(f"the annotation {IMAGE_ANNOTATION} is {asked[:120]!r}, which is no image of this cloud")
    if not any(fnmatchcase(asked, one) for one in allowed):
        raise InvalidRequest(
            f"the annotation {IMAGE_ANNOTATION} asks for {asked[:120]!r}, which is not among the images that "
            f"IMAGE_ALLOWLIST allows: {', '.join(allowed) or 'none'}"
        )
    return asked
