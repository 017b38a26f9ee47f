"""Keys of the settings directory that set nothing: told as sentences, for a typing mistake would stay unseen. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from caa.config.setting import AnySetting


def warnings(
    keys: Iterable[str], rows: Sequence[AnySetting], *, others: Mapping[str, Sequence[AnySetting]]
) -> Sequence[str]:
    """One sentence for each key that is none of `rows`; `others` are rows that count elsewhere, by where."""
    known = {row.env for row in rows if row.env}
    elsewhere = {row.env: where for where, section in others.items() for row in section if row.env}
    return [_sentence(key, known, elsewhere=elsewhere) for key in sorted(set(keys) - known)]


def _sentence(key: str, known: Iterable[str], *, elsewhere: Mapping[str, str]) -> str:
    if key in elsewhere:
        return f"CAA_CONFIG_DIR: {key} is not used here, it belongs to {elsewhere[key]}"
    near = get_close_matches(key, sorted(known), n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"CAA_CONFIG_DIR: {key} is no setting and is not used{hint}"
