"""The page for operators has every setting of `azure`: its own with default and meaning, the shared ones by name."""

import re
from pathlib import Path

import pytest

import providers.azure
from caa.config.setting import AnySetting
from caa.provider.rows import CLOUD_ROWS
from providers.azure.codes import CODES

PAGE = (Path(__file__).parents[3] / "docs" / "providers" / "azure.md").read_text()
OWN = [row for row in providers.azure.SETTINGS if row not in CLOUD_ROWS]


def _default(row: AnySetting) -> str:
    shown = row.default
    text = "" if shown in (None, "", ()) else str(shown).lower() if isinstance(shown, bool) else str(shown)
    return ",".join(shown) if isinstance(shown, tuple) else text


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.env)
def test_the_table_has_the_settings_own_words(row: AnySetting) -> None:
    default = f"`{_default(row)}`" if _default(row) else ""
    assert f"| `{row.env}` | {default} | {row.help} |" in PAGE


@pytest.mark.parametrize("row", CLOUD_ROWS, ids=lambda row: row.env)
def test_what_all_clouds_share_is_named(row: AnySetting) -> None:
    assert f"`{row.env}`" in PAGE


def test_errors_that_send_people_to_the_page_are_explained_there() -> None:
    sent = {code for code, remedy in CODES.remedies.items() if "docs/providers/azure.md" in remedy}
    assert sent
    table = PAGE.split("## Troubleshooting by error text")[1]
    named = set(re.findall(r"[A-Z][A-Za-z]+", table))
    assert {code for code in sent if code.removeprefix("Linked") not in named} == set()
