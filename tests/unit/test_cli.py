"""The command line: what each command runs, with which settings, and how errors leave it."""

import base64
import gzip
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from caa import __version__
from caa.cli import DEMO, DOCTOR, DRIVER, DRIVER_NAMES, LOGS, LOOP, NODE, RELAY, World, find, main
from caa.config.identity import CLOUD_PROVIDER
from caa.config.kinds import BOOL, STRING
from caa.config.lifetimes import GC_INTERVAL
from caa.config.load import Settings
from caa.config.node import ENABLE_SCRATCH_SPACE, FORWARDER_PORT, PAUSE_IMAGE, PEERPODS_LIMIT_PER_NODE
from caa.config.setting import Setting
from caa.config.tls_rows import DISABLE_TLS
from caa.errors import CaaError, ConfigError, StateError
from caa.userdata import initdata

ROOT = Path(__file__).parents[2]
REGION: Setting[str] = Setting(name="region", env="REGION", flag="region", kind=STRING, default="x", help="A region.")
TOKEN: Setting[str] = Setting(
    name="token", env="TOKEN", flag="token", kind=STRING, default="", help="A token.", secret=True
)
PUBLIC: Setting[bool] = Setting(
    name="public", env="PUBLIC", flag="public", kind=BOOL, default=False, help="An address."
)


class Driver:
    settings = (REGION, TOKEN, PUBLIC)

    def make(self, values: Settings) -> None:
        if values[PUBLIC] and values[REGION] == "hidden":
            raise ConfigError("REGION and PUBLIC exclude each other")


class Stage(World):
    """A world that remembers what was run; `fail` is raised by the node."""

    def __init__(self, environ: Mapping[str, str] | None = None, fail: Exception | None = None) -> None:
        super().__init__(environ or {}, self._find, self._replace)
        object.__setattr__(self, "settings", [])
        object.__setattr__(self, "reads", [])
        object.__setattr__(self, "logs", [])
        object.__setattr__(self, "replaced", [])
        object.__setattr__(self, "fail", fail)

    settings: list[Settings]
    reads: list[Callable[[], Settings]]
    logs: list[Any]
    replaced: list[Any]
    fail: Exception | None

    def _find(self, target: str) -> Any:
        return {
            NODE: self._node,
            LOOP: lambda outcome: outcome,
            LOGS: lambda *words, **more: self.logs.append((words, more)),
            DRIVER_NAMES: lambda: ("cloud", "local"),
            DRIVER: self._driver,
            RELAY: find(RELAY),
            DOCTOR: self._doctor,
        }[target]

    def _node(self, settings: Settings, read: Callable[[], Settings]) -> None:
        self.settings.append(settings)
        self.reads.append(read)
        if self.fail:
            raise self.fail

    def _doctor(self, settings: Settings) -> tuple[str, int]:
        self.settings.append(settings)
        return "error   image: there is none\n", 1

    def _driver(self, name: str) -> Driver:
        if name not in ("cloud", "local"):
            raise ConfigError(f"CLOUD_PROVIDER: {name!r} is not a known provider")
        return Driver()

    def _replace(self, program: str, words: list[str], environ: Mapping[str, str]) -> None:
        self.replaced.append((program, words, environ))


def test_node_takes_our_settings_and_the_driver_s() -> None:
    stage = Stage({"CLOUD_PROVIDER": "cloud", "FORWARDER_PORT": "1", "REGION": "eu"})
    assert main(["node", "--forwarder-port", "2", "--public"], stage) == 0
    (settings,) = stage.settings
    assert (settings[FORWARDER_PORT], settings[REGION], settings[PUBLIC]) == (2, "eu", True)


def test_the_driver_s_name_alone_is_the_reference_s_way_to_call() -> None:
    stage = Stage({"CLOUD_PROVIDER": "local"})
    assert main(["cloud", "-region", "us", "-enable-scratch-space", "-public=false", "-pause-image=a=b"], stage) == 0
    (settings,) = stage.settings
    assert settings[CLOUD_PROVIDER] == "cloud"
    assert (settings[REGION], settings[ENABLE_SCRATCH_SPACE], settings[PUBLIC]) == ("us", True, False)
    assert settings[PAUSE_IMAGE] == "a=b"


@pytest.mark.parametrize("words", [["--cloud-provider", "cloud"], ["-cloud-provider=cloud"]])
def test_a_flag_chooses_the_driver(words: list[str]) -> None:
    stage = Stage()
    assert main(["node", *words, "--region=r"], stage) == 0
    assert stage.settings[0][CLOUD_PROVIDER] == "cloud"


def test_a_negative_number_is_a_value_and_a_switch_stands_alone() -> None:
    stage = Stage()
    assert main(["node", "--peerpods-limit-per-node", "-1", "--disable-tls"], stage) == 0
    assert stage.settings[0][PEERPODS_LIMIT_PER_NODE] == -1
    assert stage.settings[0][DISABLE_TLS] is True


def test_the_settings_directory_lies_between_default_and_environment(tmp_path: Path) -> None:
    files = {"CLOUD_PROVIDER": "cloud\n", "REGION": "of-file", "FORWARDER_PORT": "1", "GC_INTERVAL": "1h", "other": "x"}
    for key, text in files.items():
        (tmp_path / key).write_text(text)
    stage = Stage({"FORWARDER_PORT": "2"})
    assert main(["node", "--config-dir", str(tmp_path), "--gc-interval=2h"], stage) == 0
    (settings,) = stage.settings
    assert settings[CLOUD_PROVIDER] == "cloud"
    assert (settings[REGION], settings[FORWARDER_PORT], settings[GC_INTERVAL]) == ("of-file", 2, 7200)
    assert [settings.origin(row).value for row in (REGION, FORWARDER_PORT, GC_INTERVAL)] == [
        "settings directory",
        "environment",
        "flag",
    ]


def test_the_node_can_read_its_settings_again(tmp_path: Path) -> None:
    (tmp_path / "REGION").write_text("one")
    stage = Stage({"CAA_CONFIG_DIR": str(tmp_path), "CLOUD_PROVIDER": "cloud"})
    assert main(["node"], stage) == 0
    (tmp_path / "REGION").write_text("two")
    assert (stage.settings[0][REGION], stage.reads[0]()[REGION]) == ("one", "two")


@pytest.mark.parametrize("words", [["node"], ["relay"], ["config", "show"]])
def test_a_settings_directory_that_is_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--config-dir", "/nowhere"], Stage()) == 2
    assert "CAA_CONFIG_DIR: /nowhere cannot be read: No such file" in capsys.readouterr().err


def test_logs_are_set_up_with_the_secrets_to_hide() -> None:
    stage = Stage({"TOKEN": "hunter2-hunter2", "LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG"})
    assert main(["node"], stage) == 0
    assert stage.logs == [(("debug", "json"), {"secrets": ("hunter2-hunter2",)})]


def test_relay_becomes_a_lean_process() -> None:
    stage = Stage({"CONTROL_PLANE_GRACE": "90s", "PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "not for the relay"})
    assert main(["relay", "--socket", "/s", "-pods-dir", "/p", "--run-dir=/r", "--state-dir=/v"], stage) == 0
    ((program, words, environ),) = stage.replaced
    assert program == words[0] == sys.executable
    text = " ".join(words)
    assert "--hypervisor-socket /s --pods-dir /p --run-dir /r --state-dir /v" in text
    assert "--grace-seconds 90 --dial-timeout-seconds 300 --link-grace-seconds 300 --successor-wait-seconds 20" in text
    assert environ == {"PATH": "/bin"}


def test_demo_gets_its_arguments_untouched() -> None:
    stage = Stage()
    assert main(["demo", "--json", "--pods", "3", "--help", "-x"], stage) == 0
    assert stage.replaced[0][:2] == (
        sys.executable,
        [sys.executable, "-m", DEMO, "--json", "--pods", "3", "--help", "-x"],
    )


@pytest.mark.parametrize(
    ("error", "status"), [(ConfigError("A_KEY: wrong"), 2), (StateError("the store"), 1), (CaaError("other"), 1)]
)
def test_an_error_of_ours_is_one_line(error: CaaError, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node"], Stage(fail=error)) == status
    assert capsys.readouterr().err == f"caa: error: {error}\n"


def test_an_error_that_is_not_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        main(["node"], Stage(fail=ZeroDivisionError()))


def test_an_interrupt_ends_quietly() -> None:
    assert main(["node"], Stage(fail=KeyboardInterrupt())) == 130  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [["node"], ["relay"], ["doctor"], ["config", "check"], ["config", "show"]])
def test_a_wrong_setting_exits_2_before_anything_runs(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage({"PROXY_TIMEOUT": "five"})
    assert main(words, stage) == 2
    assert "PROXY_TIMEOUT (--proxy-timeout): 'five' from the environment is not valid" in capsys.readouterr().err
    assert stage.settings == stage.replaced == []


@pytest.mark.parametrize("words", [["nonsense"], ["node", "--nonsense"], ["node", "word"], ["relay", "--region", "x"]])
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words, Stage()) == 2
    assert "Error:" in capsys.readouterr().err


def test_an_unknown_driver_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node"], Stage({"CLOUD_PROVIDER": "fog"})) == 2
    assert "'fog' is not a known provider" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("AAAA", "not of gzip data"),
        (base64.b64encode(gzip.compress(b"x = 1")).decode(), "algorithm is missing"),
    ],
)
def test_default_initdata_is_checked_at_the_start(value: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node"], Stage({"INITDATA": value, "VXLAN_PORT": "x"})) == 2
    text = capsys.readouterr().err
    assert problem in text
    assert "initdata from INITDATA" in text
    assert "VXLAN_PORT" in text


def test_settings_that_do_not_go_together_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage({"CLOUD_PROVIDER": "cloud", "REGION": "hidden"})
    assert main(["config", "check"], stage) == 0
    assert main(["config", "check", "--public"], stage) == 2
    assert "REGION and PUBLIC exclude each other" in capsys.readouterr().err


def test_good_default_initdata_is_taken() -> None:
    assert main(["config", "check"], Stage({"INITDATA": initdata.encode(initdata.DUMMY)})) == 0


def test_doctor_prints_what_it_found_and_exits_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage({"CLOUD_PROVIDER": "cloud", "TOKEN": "hunter2"})
    assert main(["doctor", "--region=eu"], stage) == 1
    assert capsys.readouterr().out == "error   image: there is none\n"
    assert stage.settings[0][REGION] == "eu"
    assert stage.logs[0][1]["secrets"] == ("hunter2",)


def test_show_hides_secrets_and_tells_origins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--region=eu"], Stage({"TOKEN": "hunter2"})) == 0
    text = capsys.readouterr().out
    assert "hunter2" not in text
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert {"TOKEN = ********** (environment)", "REGION = eu (flag)", "PUBLIC = false (default)"} <= lines


def test_help_lists_the_driver_s_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cloud", "-help"], Stage()) == 0
    text = capsys.readouterr().out
    assert "--region" in text
    assert "--proxy-timeout" in text


def test_help_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], Stage()) == 0
    assert "..." not in capsys.readouterr().out.replace("[ARGS]...", "")


def test_no_command_shows_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], Stage()) == 2
    assert "relay" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word], Stage()) == 0
    assert capsys.readouterr().out.startswith(f"caa {__version__} (Python 3.")


def test_the_page_of_settings_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "docs"]) == 0
    assert (ROOT / "docs" / "settings.md").read_text() == capsys.readouterr().out, (
        "run: caa config docs > docs/settings.md"
    )


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "caa", "version"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.startswith(f"caa {__version__}")


def test_relay_s_command_line_loads_neither_asyncio_nor_drivers() -> None:
    program = (
        "import sys; from caa.cli import main; main(['relay', '--help']);"
        "print([name for name in sys.modules if name in ('asyncio', 'google.protobuf', 'structlog', 'cryptography')"
        " or name.startswith(('providers', 'caa.node', 'caa.wire', 'caa.sandbox'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
