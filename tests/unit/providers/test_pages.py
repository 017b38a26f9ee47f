"""The pages for operators have every setting of their driver, and explain the errors that send people to them."""

import re
from pathlib import Path
from types import ModuleType

import pytest

import providers.aws.codes
import providers.azure.codes
import providers.gcp.codes
from caa.config.setting import AnySetting
from caa.provider.rows import CLOUD_ROWS

CLOUDS = (providers.aws, providers.azure, providers.gcp)
WITH_WORDS = (providers.aws, providers.azure)  # whose tables have the settings' own words


def page(cloud: ModuleType) -> str:
    name = cloud.__name__.rpartition(".")[2]
    return (Path(__file__).parents[3] / "docs" / "providers" / f"{name}.md").read_text()


def rows(clouds: tuple[ModuleType, ...]) -> list[object]:
    return [
        pytest.param(cloud, row, id=f"{cloud.__name__}-{row.label}")
        for cloud in clouds
        for row in cloud.SETTINGS
        if row not in CLOUD_ROWS
    ]


def _default(row: AnySetting) -> str:
    shown = row.default
    if isinstance(shown, tuple):
        return ",".join(shown)
    return "" if shown in (None, "") else str(shown).lower() if isinstance(shown, bool) else str(shown)


@pytest.mark.parametrize(("cloud", "row"), rows(WITH_WORDS))
def test_the_table_has_the_settings_own_words(cloud: ModuleType, row: AnySetting) -> None:
    default = f"`{_default(row)}`" if _default(row) else ""
    key = row.env or f"--{row.flag}"
    assert f"| `{key}` | {default} | {row.help} |" in page(cloud)


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.__name__)
def test_every_setting_is_named(cloud: ModuleType) -> None:
    text = page(cloud)
    assert [row.label for row in cloud.SETTINGS if f"`{row.env or f'--{row.flag}'}`" not in text] == []


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.__name__)
def test_errors_that_send_people_to_the_page_are_explained_there(cloud: ModuleType) -> None:
    name = cloud.__name__.rpartition(".")[2]
    sent = {code for code, remedy in cloud.codes.CODES.remedies.items() if f"docs/providers/{name}.md" in remedy}
    assert sent
    named = set(re.findall(r"[A-Za-z_]+", page(cloud).split("## Troubleshooting by error text")[1]))
    assert {code for code in sent if code.removeprefix("Linked") not in named} == set()
