"""What CreateVM says about a pod, made into a `PodSpec` or refused; pure, and the only reader of annotation keys.

Both shims send nine annotations, always present and possibly empty (`reference/kata.md` 6.1). Who the pod is comes
under containerd's or CRI-O's keys, what it asks for under Kata's hypervisor prefix. Everything here came from a pod's
author, so every value is checked and an error names the annotation.
"""

import re
from collections.abc import Mapping

from caa.errors import InvalidInput
from caa.model.instance import Sizing
from caa.model.sandbox import PodSpec

HYPERVISOR_PREFIX = "io.katacontainers.config.hypervisor."
MACHINE_TYPE = HYPERVISOR_PREFIX + "machine_type"
IMAGE = HYPERVISOR_PREFIX + "image"
VCPUS = HYPERVISOR_PREFIX + "default_vcpus"
MEMORY = HYPERVISOR_PREFIX + "default_memory"
GPUS = HYPERVISOR_PREFIX + "default_gpus"
GPU_MODEL = HYPERVISOR_PREFIX + "default_gpu_model"
INITDATA = HYPERVISOR_PREFIX + "cc_init_data"

NAME_KEYS = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.cri-o.KubeName", "io.kubernetes.cri-o.SandboxName")
NAMESPACE_KEYS = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri-o.Namespace")

# What runtime-rs sends for a pod that asked for nothing: its configuration's default_vcpus and default_memory.
RUNTIME_RS_DEFAULTS = (1, 2048)

_CRIO_NAME = re.compile(r"k8s_(?P<pod>[^_]+)_(?P<namespace>[^_]+)_[^_]+_\d+")
_KUBE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NUMBER = re.compile(r"(?P<whole>\d{1,7})(\.(?P<fraction>\d{1,9}))?")
_LONGEST_TEXT = 512  # the longest image id known, a GCP image path, has about 200 characters
_LONGEST_PATH = 4096  # PATH_MAX


def pod_spec(annotations: Mapping[str, str], netns: str) -> PodSpec:
    """Make CreateVM's annotations and network namespace path into a `PodSpec`.

    Missing and empty annotations mean "not asked"; unknown ones are ignored. Raises `InvalidInput` naming the
    annotation or the field. Initdata is only carried here: `BootData.validate` looks into it.
    """
    pod, namespace = _who(annotations)
    return PodSpec(
        pod_name=pod,
        pod_namespace=namespace,
        netns=_netns(netns),
        sizing=_sizing(annotations),
        image=_text(annotations, IMAGE),
        initdata=annotations.get(INITDATA, ""),
    )


def _who(annotations: Mapping[str, str]) -> tuple[str, str]:
    name_key, name = _first(annotations, NAME_KEYS)
    namespace_key, namespace = _first(annotations, NAMESPACE_KEYS)
    composed = _CRIO_NAME.fullmatch(name)
    if composed:  # CRI-O's own name of the sandbox; Kubernetes names hold no '_', so this cannot be a pod's name
        name, namespace = composed["pod"], namespace or composed["namespace"]
    return _kube_name(name_key, name), _kube_name(namespace_key, namespace)


def _first(annotations: Mapping[str, str], keys: tuple[str, ...]) -> tuple[str, str]:
    """The first of `keys` that is not empty, with its value."""
    for key in keys:
        if annotations.get(key):
            return key, annotations[key]
    return keys[0], ""


def _kube_name(key: str, value: str) -> str:
    """Names reach logs, tags and instance names, so nothing but a name's characters may pass."""
    if value and not _KUBE_NAME.fullmatch(value):
        raise InvalidInput(f"annotation {key}: {value[:64]!r} is not a Kubernetes name")
    return value


def _netns(path: str) -> str:
    if not path:
        raise InvalidInput(
            "CreateVM needs networkNamespacePath, the request has none: the Kata configuration must leave the pod's "
            'network namespace alone (internetworking_model="none"; disable_new_netns is true for the Go shim, '
            "false for runtime-rs)"
        )
    if not path.startswith("/") or len(path) > _LONGEST_PATH or not path.isprintable():
        raise InvalidInput(f"networkNamespacePath {path[:128]!r} is not an absolute path")
    return path


def _sizing(annotations: Mapping[str, str]) -> Sizing:
    """What the pod asks for.

    runtime-rs always sends its configuration's defaults, 1 vCPU and 2048 MiB, where the Go shim sends "0". A pod that
    asked for nothing must get the provider's default instance type under both shims, so exactly this pair counts as
    "not asked". The price: a pod that really asks for exactly 1 vCPU and 2048 MiB gets the default type too; it can
    name a machine type, or ask for 2049 MiB. Any other pair is taken as it is.
    """
    vcpus, memory = _vcpus(annotations), _integer(annotations, MEMORY)
    if (vcpus, memory) == RUNTIME_RS_DEFAULTS:
        vcpus, memory = 0, 0
    return Sizing(
        instance_type=_text(annotations, MACHINE_TYPE),
        vcpus=vcpus,
        memory_mib=memory,
        gpus=_integer(annotations, GPUS),
        gpu_model=_text(annotations, GPU_MODEL),
    )


def _vcpus(annotations: Mapping[str, str]) -> int:
    """runtime-rs sends a float ("1.5"); a part of a CPU needs a whole one."""
    found = _number(annotations, VCPUS)
    return int(found["whole"]) + bool(int(found["fraction"] or "0")) if found else 0


def _integer(annotations: Mapping[str, str], key: str) -> int:
    found = _number(annotations, key)
    if found and found["fraction"]:
        raise InvalidInput(f"annotation {key}: {found[0]!r} is not a whole number")
    return int(found["whole"]) if found else 0


def _number(annotations: Mapping[str, str], key: str) -> re.Match[str] | None:
    value = annotations.get(key, "")
    if not value:
        return None
    found = _NUMBER.fullmatch(value) if value.isascii() else None  # \d alone takes any alphabet's digits
    if found is None:
        raise InvalidInput(f"annotation {key}: {value[:64]!r} is not a number (0 to 9999999, 0 means the default)")
    return found


def _text(annotations: Mapping[str, str], key: str) -> str:
    value = annotations.get(key, "")
    if len(value) > _LONGEST_TEXT or not value.isprintable():
        raise InvalidInput(f"annotation {key}: {value[:64]!r} is not a printable text of at most {_LONGEST_TEXT}")
    return value
