"""Rows and values as text for people: the effective settings, and the page of documentation."""

from collections.abc import Mapping, Sequence

from caa.config.load import Settings
from caa.config.setting import AnySetting

_PREFACE = """\
# Settings

This page is rendered by `caa config docs`; do not edit it.

Each setting comes from its default, then a file of its key's name in the settings directory (`CAA_CONFIG_DIR`), then a
non-empty environment key, then a flag; the later wins. Blanks around a value are dropped. A value that is not allowed
stops the program with an error that names the key, the value and what is allowed; all of them are reported at once.
`caa config show` prints the effective settings and where each came from. Durations are written as in Go: `5m`, `1h30m`,
`150ms`. Flags may be written with one dash or two.

A setting marked "live" takes effect within seconds when its file changes, while `caa node` runs; one that is not is
named in an error of the log and waits for the next start. A wrong value changes nothing and is named too.
"""


def show(settings: Settings) -> str:
    """One line a setting, `KEY = value  (origin)`, in columns; secrets are redacted, long values cut."""
    lines = [(_key(item.row), item.text or '""', item.origin) for item in settings]
    width = max((len(key) for key, _, _ in lines), default=0)
    return "".join(f"{key:<{width}} = {text}  ({origin})\n" for key, text, origin in lines)


def docs(sections: Mapping[str, Sequence[AnySetting]]) -> str:
    """A Markdown page with one table a section; `sections` is by heading, in order."""
    parts = [_PREFACE]
    for heading, rows in sections.items():
        table = "".join(_line(row) for row in rows)
        parts.append(f"\n## {heading}\n\n| key | flag | default | allowed | meaning |\n|---|---|---|---|---|\n{table}")
    return "".join(parts)


def _key(row: AnySetting) -> str:
    return row.env or f"--{row.flag}"


def _line(row: AnySetting) -> str:
    default = row.kind.show(row.default)
    said = (("required", row.required), ("secret", row.secret), ("live", row.live))
    marks = [mark for mark, on in said if on]
    meaning = row.help + (f" ({', '.join(marks)})" if marks else "")
    cells = (
        f"`{row.env}`" if row.env else "",
        f"`--{row.flag}`" if row.flag else "",
        f"`{default}`" if default else "",
        row.kind.allowed,
        meaning,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
