"""The command line, and the only reader of argv and the environment: a table of commands, each calls one function.

What a command runs is named here as "module:function" and imported when it is called, so that `caa relay` loads neither
the control plane nor a driver.
"""

import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any

import click

from caa import __version__
from caa.config import directory, keys
from caa.config.checks import NODE_CHECKS
from caa.config.guest import GUEST_ROWS
from caa.config.identity import CLOUD_PROVIDER
from caa.config.load import Check, Settings, load
from caa.config.node import INITDATA, LOG_FORMAT, LOG_LEVEL, NODE_ROWS
from caa.config.relay import (
    AGENT_LINK_GRACE,
    CONFIG_DIR,
    CONTROL_PLANE_GRACE,
    PODS_DIR,
    PROXY_TIMEOUT,
    RELAY_ROWS,
    RUN_DIR,
    SOCKET,
    STATE_DIR,
    SUCCESSOR_WAIT,
)
from caa.config.render import docs, show
from caa.config.setting import AnySetting
from caa.config.tls_rows import CACERT_FILE, CERT_FILE, CERT_KEY, TLS_ROWS
from caa.errors import CaaError, ConfigError, InitdataError
from caa.userdata import initdata

NODE = "caa.node.daemon:run"
RELAY = "caa.relay.launch:command"
LOOP = "asyncio:run"
LOGS = "caa.logs:configure"
DRIVER = "caa.provider.registry:driver"
DRIVER_NAMES = "caa.provider.registry:names"
CERTS = "caa.node.certs_command"
DOCTOR = "caa.node.doctor:examine"
MANUAL_CERTIFICATES = "caa.wire.certs:ManualCertificates.load"
DEMO = "caa.testing.demo"

_ONE_DASH = re.compile(r"-[a-z][a-z0-9-]+(=.*)?", re.DOTALL)
_PROVIDER_FLAG = f"--{CLOUD_PROVIDER.flag}"


@dataclass(frozen=True)
class World:
    """What the command line takes from the process it runs in; tests put something else in its place."""

    environ: Mapping[str, str]
    find: Callable[[str], Any]
    replace: Callable[[str, list[str], Mapping[str, str]], Any]


def find(target: str) -> Any:
    """Import "module:name" and return what it names; the name may have dots."""
    module, _, name = target.partition(":")
    return attrgetter(name)(import_module(module))


def main(arguments: Sequence[str] | None = None, world: World | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for a wrong setting or usage, 1 for any other error of ours."""
    world = world or World(os.environ, find, os.execve)
    try:
        status = Commands().main(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name="caa",
            standalone_mode=False,
            obj=world,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except CaaError as error:
        click.echo(f"caa: error: {error}", err=True)
        return 2 if isinstance(error, ConfigError) else 1
    return status if isinstance(status, int) else 0


class Commands(click.Group):
    """The table of commands. Any other word that names a driver is `caa node` with it, as in the reference."""

    def __init__(self) -> None:
        super().__init__(
            "caa",
            help="Peer-pods cloud API adaptor: one confidential VM per Kubernetes pod.",
            params=[_version_option()],
            context_settings={"max_content_width": 120},
        )
        self.add_command(_node_command("node", run_node, text="Run the control plane of a worker node."))
        self.add_command(
            SettingsCommand("relay", run_relay, rows=_relay_rows, help="Run the data plane of a worker node.")
        )
        text = "Ask the cloud whether pods can start. Exit status 1 when they cannot."
        self.add_command(_node_command("doctor", run_doctor, text=text))
        self.add_command(_config_group())
        self.add_command(_certs_group())
        self.add_command(_demo_command())
        self.add_command(click.Command("version", callback=_version, help="Print the version."))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of the table, or `caa node` for a driver's name."""
        command = super().get_command(ctx, cmd_name)
        world: World = ctx.obj
        if command is None and cmd_name in world.find(DRIVER_NAMES)():
            return _node_command(
                cmd_name, run_node, text=f"Run the control plane with the driver {cmd_name}.", provider=cmd_name
            )
        return command


Rows = Callable[[World, Sequence[str]], Sequence[AnySetting]]
Read = Callable[[], Settings]
Act = Callable[[World, Read], object]


class SettingsCommand(click.Command):
    """A command whose flags are rows. They are known only once the arguments are, since a driver adds its own.

    `first` are arguments that stand before those of the user.
    """

    def __init__(
        self, name: str, act: Act, *, rows: Rows, checks: Sequence[Check] = (), first: Sequence[str] = (), **more: Any
    ) -> None:
        super().__init__(name, **more)
        self._act = act
        self._find_rows = rows
        self._checks = checks
        self._first = first
        self._rows: Sequence[AnySetting] = ()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Make the flags, then parse; a flag may have one dash, as Go's have."""
        words = [*self._first, *(f"-{word}" if _ONE_DASH.fullmatch(word) else word for word in args)]
        self._rows = self._find_rows(ctx.obj, words)
        self.params = [_option(row) for row in self._rows if row.flag]
        return super().parse_args(ctx, words)

    def invoke(self, ctx: click.Context) -> object:
        """Act, with what loads the settings; again and again, since files of the settings directory may change."""
        world: World = ctx.obj
        given = {row.flag: ctx.params[row.name] for row in self._rows if row.flag}
        flags = {flag: text for flag, text in given.items() if text is not None}

        def read() -> Settings:
            files = _files(world, flags)
            return load(self._rows, world.environ, flags=flags, files=files, checks=self._checks)

        return self._act(world, read)


def run_node(world: World, read: Read) -> None:
    """Set up the logs and run the control plane until it is told to stop."""
    settings = read()
    world.find(LOGS)(settings[LOG_LEVEL], settings[LOG_FORMAT], secrets=settings.secrets())
    world.find(LOOP)(world.find(NODE)(settings, read))


def run_doctor(world: World, read: Read) -> int:
    """Print what the driver's check finds."""
    settings = read()
    world.find(LOGS)(settings[LOG_LEVEL], settings[LOG_FORMAT], secrets=settings.secrets())
    text, status = world.find(LOOP)(world.find(DOCTOR)(settings))
    click.echo(text, nl=False)
    return int(status)


def run_relay(world: World, read: Read) -> None:
    """Become the relay: a lean process, started anew so that nothing of this one stays in its memory."""
    settings = read()
    command = world.find(RELAY)(
        hypervisor_socket=str(settings[SOCKET]),
        pods_dir=str(settings[PODS_DIR]),
        run_dir=str(settings[RUN_DIR]),
        state_dir=str(settings[STATE_DIR]),
        extra=(
            "--grace-seconds",
            f"{settings[CONTROL_PLANE_GRACE]:g}",
            "--dial-timeout-seconds",
            f"{settings[PROXY_TIMEOUT]:g}",
            "--link-grace-seconds",
            f"{settings[AGENT_LINK_GRACE]:g}",
            "--successor-wait-seconds",
            f"{settings[SUCCESSOR_WAIT]:g}",
        ),
    )
    world.replace(command[0], command, _bare(world.environ))


def _bare(environ: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter may need to start. The rest stays here: the relay has no use for cloud credentials."""
    return {name: environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in environ}


def driver_sections(world: World) -> dict[str, Sequence[AnySetting]]:
    """The rows of every driver that this build has, by heading."""
    sections: dict[str, Sequence[AnySetting]] = {}
    for name in world.find(DRIVER_NAMES)():
        try:
            sections[f"Driver `{name}`"] = world.find(DRIVER)(name).settings
        except ConfigError:  # a driver of a later version, or its library is not installed
            continue
    return sections


def _node_command(name: str, act: Act, *, text: str, provider: str = "") -> SettingsCommand:
    checks = (*NODE_CHECKS, Check((INITDATA,), _initdata_problem))
    first = [f"{_PROVIDER_FLAG}={provider}"] if provider else []
    return SettingsCommand(name, act, rows=_node_rows, checks=checks, first=first, help=text)


def _node_rows(world: World, words: Sequence[str]) -> Sequence[AnySetting]:
    """Our rows and those of the driver that arguments or environment choose; `ConfigError` when there is none such."""
    given = {row.flag: _values(f"--{row.flag}", words) for row in (CLOUD_PROVIDER, CONFIG_DIR)}
    flags = {flag: values[-1] for flag, values in given.items() if values}
    name = load((CLOUD_PROVIDER,), world.environ, flags=flags, files=_files(world, flags))[CLOUD_PROVIDER]
    return (*NODE_ROWS, *world.find(DRIVER)(name).settings)


def _files(world: World, flags: Mapping[str, str]) -> Mapping[str, str]:
    """The settings directory, where environment or flag name one."""
    return directory.read(load((CONFIG_DIR,), world.environ, flags=flags)[CONFIG_DIR])


def _relay_rows(_world: World, _words: Sequence[str]) -> Sequence[AnySetting]:
    return RELAY_ROWS


def _values(flag: str, words: Sequence[str]) -> list[str]:
    """What stands after `flag`, as `--flag value` or `--flag=value`, in order."""
    found = []
    for before, word in zip(("", *words), words, strict=False):
        if before == flag:
            found.append(word)
        elif word.startswith(f"{flag}="):
            found.append(word.removeprefix(f"{flag}="))
    return found


def _option(row: AnySetting) -> click.Option:
    default = row.kind.show(row.default)
    notes = [
        f"env {row.env}" if row.env else "",
        f"default {default}" if default else "",
        "secret" if row.secret else "",
    ]
    text = f"{row.help} [{', '.join(filter(None, notes))}]" if any(notes) else row.help
    alone = {"is_flag": False, "flag_value": "true"} if row.kind.switch else {}
    return click.Option([f"--{row.flag}", row.name], type=str, help=text, metavar=row.kind.name.upper(), **alone)  # type: ignore[arg-type]


def _initdata_problem(settings: Settings) -> str:
    encoded = settings[INITDATA]
    try:
        if encoded:
            initdata.parse(initdata.decode(encoded), INITDATA.env)
    except InitdataError as error:
        return str(error)
    return ""


def _config_group() -> click.Group:
    group = click.Group("config", help="Look at the settings.")
    group.add_command(_node_command("show", _show, text="Print the effective settings and where each came from."))
    group.add_command(_node_command("check", _check, text="Check the settings; exit status 2 when one is wrong."))
    group.add_command(click.Command("docs", callback=_docs, help="Print the page docs/settings.md."))
    return group


def _show(_world: World, read: Read) -> None:
    click.echo(show(read()), nl=False)


def _check(world: World, read: Read) -> None:
    """Beyond what every start checks: files that settings name are opened, and keys that set nothing are named."""
    settings = read()
    cert, key = settings[CERT_FILE], settings[CERT_KEY]
    if cert is not None and key is not None:
        world.find(MANUAL_CERTIFICATES)(settings[CACERT_FILE], cert, key_file=key)
    world.find(LOGS)(settings[LOG_LEVEL], settings[LOG_FORMAT], secrets=settings.secrets())
    world.find(DRIVER)(settings[CLOUD_PROVIDER]).make(settings)  # refuses what does not go together; opens nothing
    rows = [item.row for item in settings]
    for warning in keys.warnings(directory.read(settings[CONFIG_DIR]), rows, others=_elsewhere(world)):
        click.echo(f"caa: warning: {warning}", err=True)
    click.echo(f"ok: {len(settings)} settings, driver {settings[CLOUD_PROVIDER]}")


def _elsewhere(world: World) -> dict[str, Sequence[AnySetting]]:
    """Rows that the node with its chosen driver does not read, by whose they are."""
    drivers = {heading.replace("Driver", "the driver"): rows for heading, rows in driver_sections(world).items()}
    return {**drivers, "the inside of the pod VM": GUEST_ROWS}


@click.pass_context
def _docs(context: click.Context) -> None:
    own = [row for row in NODE_ROWS if row not in RELAY_ROWS]
    sections = {"Worker node: `caa node` and `caa relay`": RELAY_ROWS, "Worker node: `caa node`": own}
    drivers = driver_sections(context.obj)
    click.echo(docs({**sections, **drivers, "Inside the pod VM": GUEST_ROWS}), nl=False)


def _certs_group() -> click.Group:
    """What an operator sees and does of the node's certificates, whether `caa node` runs or not."""
    group = click.Group("certs", help="Look at the links' certificates, and rotate them.")
    rotate = click.Group("rotate", help="Make new certificates; pods go on.")
    group.add_command(rotate)
    ca = "Make a new CA, for new pod VMs. The old one goes with its last pod VM."
    client = "Make new client certificates. The relay takes them when it dials next."
    for parent, name, text in (
        (group, "show", "Print the certificates and their ends. Exit status 1 when one is not valid."),
        (rotate, "ca", ca),
        (rotate, "client", client),
    ):
        parent.add_command(SettingsCommand(name, _certs(name), rows=_certs_rows, checks=NODE_CHECKS, help=text))
    return group


def _certs(name: str) -> Act:
    def act(world: World, read: Read) -> int:
        text, status = world.find(f"{CERTS}:{name}")(read())
        click.echo(text, nl=False)
        return int(status)

    return act


def _certs_rows(_world: World, _words: Sequence[str]) -> Sequence[AnySetting]:
    return (STATE_DIR, CONFIG_DIR, *TLS_ROWS)


def _demo_command() -> click.Command:
    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        "demo",
        params=[words],
        callback=_demo,
        help="Run one pod VM on this machine, from the Kata socket to the container and back.",
        short_help="Run one pod VM here, from the Kata socket to the container.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


@click.pass_context
def _demo(context: click.Context, words: tuple[str, ...]) -> None:
    world: World = context.obj
    world.replace(sys.executable, [sys.executable, "-m", DEMO, *words], world.environ)


def _version() -> None:
    click.echo(f"caa {__version__} (Python {platform.python_version()})")


def _version_option() -> click.Option:
    """As click makes it; taken from a command that wears it."""
    text = f"caa {__version__} (Python {platform.python_version()})"
    wearer = click.version_option(__version__, message=text, help="Print the version.")(click.Command("version"))
    (option,) = (parameter for parameter in wearer.params if isinstance(parameter, click.Option))
    return option
