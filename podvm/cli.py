"""The guest's command line: the reference's programs and flags, as `python -m podvm <program>`.

process-user-data [provision-files] [flags]
                    files from user data and initdata, the initdata digest into PCR 8 of the TPM
    -source NAME                   nocloud, azure, aws, gcp, alibabacloud, configdrive, ibmcloud; else by the machine
    -user-data-fetch-timeout 180   seconds for the fetching as a whole
    -tpm auto|required|off         required: no TPM, or a failure, stops the boot; auto: only a failure does
    -tpm-device /dev/tpmrm0
    -unmeasured-attestation        take aa.toml and cdh.toml from user data, which nobody measures
setup-scratch-storage [flags]
                    LUKS2 with a key of this boot for unpacked images, when scratch-space.marker is there
    -always                        also without the marker, as far as possible: for images of confidential VMs
    -integrity=false               no HMAC per sector
    -device /dev/vdb               this one, instead of the partition labelled trusted_store
azure-ready         tells Azure that the machine is up; does nothing elsewhere
agent-protocol-forwarder [flags]
                    the pod's network, then the lean forwarder in this process's place; a notify service
    -kata-agent-socket, -pod-namespace, -listen, -config, -disable-tls, -ca-cert-file, -cert-file, -cert-key,
    -tls-min-version, -tls-cipher-suites     as the reference's forwarder has them
    -allow-link-local NETWORKS     what containers may reach of 169.254.0.0/16 and other metadata addresses
boot [flags of both] -- <agent command>
                    both and the agent, where there is no systemd
    -machine /                     the folder below which the machine says in which cloud it is
"""

import os
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType

from caa.datapath.flags import FlagError, Flags
from caa.errors import CaaError
from caa.model.network import IPNetwork
from caa.userdata import paths
from podvm import azure_ready, boot, forwarder, prepare, provision, scratch, tpm
from podvm.clouds import sources
from podvm.clouds.machine import Machine
from podvm.measure import Presence, Tpm
from podvm.progress import log_to_console, say

Defaults = Mapping[str, str | bool | int | float]

_USER_DATA: Defaults = MappingProxyType(
    {
        "source": "",
        "user-data-fetch-timeout": provision.FETCH_SECONDS,
        "tpm": Presence.AUTO.value,
        "tpm-device": str(tpm.DEVICE),
        "unmeasured-attestation": False,
    }
)
_SCRATCH: Defaults = MappingProxyType({"always": False, "integrity": True, "device": ""})
_FORWARDER: Defaults = MappingProxyType({**forwarder.public_flags(), "config": paths.FORWARDER, "allow-link-local": ""})


def main(argv: Sequence[str]) -> int:
    """Run one program; its exit status: 2 after a wrong command line."""
    program, rest = (argv[0] if argv else "-h"), list(argv[1:])
    try:
        if program == "process-user-data":
            return _process_user_data(rest)
        if program == "setup-scratch-storage":
            return _set_up_scratch(Flags(_SCRATCH, rest))
        if program == "azure-ready":
            return _tell_azure(rest)
        if program == "agent-protocol-forwarder":
            return _run_forwarder(forwarder_options(Flags(_FORWARDER, rest)))
        if program == "boot":
            options = boot_options(rest)
            return boot.boot(options, sources(Machine(options.machine)))
    except FlagError as error:
        say(f"{program}: {error}")
        return 2
    sys.stdout.write(__doc__ or "")
    return 0 if program in ("-h", "--help", "help") else 2


def boot_options(argv: Sequence[str]) -> boot.Options:
    """The options of `boot`; everything behind `--` is the agent's command line. Raises `FlagError`."""
    split = list(argv).index("--") if "--" in argv else len(argv)
    agent = tuple(argv[split + 1 :])
    if not agent:
        raise FlagError("the agent's command is missing: boot [flags] -- <agent command>")
    flags = Flags({**_USER_DATA, "tpm": Presence.OFF.value, "machine": "/", **_FORWARDER}, argv[:split])
    return boot.Options(
        agent=agent,
        environ=os.environ,
        machine=Path(flags.text("machine")),
        forwarder=forwarder_options(flags),
        rules=_rules(flags),
    )


def forwarder_options(flags: Flags) -> prepare.Options:
    """The forwarder's flags as options."""
    return prepare.Options(
        agent_socket=flags.text("kata-agent-socket"),
        pod_namespace=flags.text("pod-namespace"),
        listen=flags.text("listen"),
        config=flags.text("config"),
        disable_tls=flags.given("disable-tls"),
        ca_file=flags.text("ca-cert-file"),
        cert_file=flags.text("cert-file"),
        key_file=flags.text("cert-key"),
        min_version=flags.text("tls-min-version"),
        cipher_suites=_words(flags.text("tls-cipher-suites")),
        allow_link_local=tuple(map(_network, _words(flags.text("allow-link-local")))),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _network(text: str) -> IPNetwork:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise FlagError(f"-allow-link-local {text}: an address or a network is needed, as in 169.254.20.10") from None


def _process_user_data(argv: list[str]) -> int:
    log_to_console()
    flags = Flags(_USER_DATA, argv[1:] if argv[:1] == ["provision-files"] else argv)
    return provision.run(sources(), _rules(flags))


def _tell_azure(argv: list[str]) -> int:
    Flags({}, argv)
    log_to_console()
    return azure_ready.run()


def _set_up_scratch(flags: Flags) -> int:
    log_to_console()
    options = scratch.Options(
        always=flags.given("always"), integrity=flags.given("integrity"), device=flags.text("device")
    )
    return scratch.run(options)


def _rules(flags: Flags) -> provision.Rules:
    if flags.text("tpm") not in list(Presence):
        raise FlagError(f"-tpm {flags.text('tpm')}: known are {', '.join(Presence)}")
    return provision.Rules(
        unmeasured_attestation=flags.given("unmeasured-attestation"),
        source=flags.text("source"),
        fetch_seconds=flags.number("user-data-fetch-timeout"),
        tpm=Tpm(presence=Presence(flags.text("tpm")), device=Path(flags.text("tpm-device"))),
    )


def _run_forwarder(options: prepare.Options) -> int:
    log_to_console()
    try:
        command = [*prepare.prepare(options), f"-notify-socket={os.environ.get('NOTIFY_SOCKET', '')}"]
        return os.execv(command[0], command)  # noqa: S606  # the lean stage takes this process over
    except (CaaError, OSError) as error:
        say(f"agent-protocol-forwarder cannot start: {error}")
        return 1
