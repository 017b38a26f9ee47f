"""What `caa certs` does: tell the certificates and their ends, rotate what is ours. Works beside a node that runs.

Each function takes the settings and returns the text to print and the exit status.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from caa.config import relay, tls_rows
from caa.config.load import Settings
from caa.errors import ConfigError, StateError
from caa.model.sandbox import Phase, Sandbox
from caa.node.certificates import pod_vm
from caa.node.parts import STORE
from caa.sandbox import records
from caa.wire.certs import ManualCertificates, NodeAuthority, utc_now
from caa.wire.expiry import Expiry, State, days, state_of

Outcome = tuple[str, int]


def show(settings: Settings) -> Outcome:
    """A line for each certificate, then how many pod VMs trust which CA; status 1 when one is not valid now."""
    if settings[tls_rows.DISABLE_TLS]:
        return "TLS is off (--disable-tls): there are no certificates\n", 0
    manual = _manual(settings)
    if manual is not None:
        return table(manual.expiries(), utc_now(), warning=_warning(settings))
    authority = _authority(settings)
    kept = _records(settings[relay.STATE_DIR] / STORE)
    pods = [found for one in kept if one.phase is Phase.RUNNING and (found := pod_vm(one, authority)) is not None]
    text, status = table([*authority.expiries(), *pods], utc_now(), warning=_warning(settings))
    return text + usage(authority.generations.names(), kept), status


def ca(settings: Settings) -> Outcome:
    """Make the next generation of the node's CA."""
    authority = _rotatable(settings)
    before = authority.current()
    name = authority.generations.add(utc_now())
    kept = f"CA {before} is kept until the last pod VM that trusts it is gone; caa node removes it then"
    return f"CA {name} is made: new pod VMs trust it. {kept}\n", 0


def client(settings: Settings) -> Outcome:
    """Make the client certificate of every generation anew."""
    authority = _rotatable(settings)
    names = authority.generations.names()
    for name in names:
        authority.issue_client(name)
    return f"new client certificates of CA {', '.join(names)}: the relay takes them at its next dial\n", 0


def table(expiries: Sequence[Expiry], now: datetime, *, warning: timedelta) -> Outcome:
    """The certificates in columns, the remedy below each that needs one."""
    states = [state_of(one, now, warning=warning) for one in expiries]
    width = max((len(one.subject) for one in expiries), default=0)
    lines = []
    for one, state in zip(expiries, states, strict=True):
        left = f"{days(one.ends - now):g} days left"
        span = f"{one.begins:%Y-%m-%d %H:%M} - {one.ends:%Y-%m-%d %H:%M}"
        lines.append(f"{one.subject:<{width}}  {span}  {left}  {state}")
        if state is not State.FINE:
            lines.append(f"    {one.remedy}")
    bad = any(state in (State.EXPIRED, State.EARLY) for state in states)
    return "".join(f"{line}\n" for line in lines), int(bad)


def usage(names: Sequence[str], kept: Sequence[Sandbox]) -> str:
    """How many pod VMs trust which generation."""
    counts = Counter(one.ca or names[0] for one in kept if one.ca or one.reached)
    new = {names[-1]: "; new ones will"}
    return "".join(f"pod VMs that trust CA {name}: {counts[name]}{new.get(name, '')}\n" for name in names)


def _warning(settings: Settings) -> timedelta:
    return timedelta(seconds=settings[tls_rows.CERT_WARNING])


def _manual(settings: Settings) -> ManualCertificates | None:
    cert, key = settings[tls_rows.CERT_FILE], settings[tls_rows.CERT_KEY]
    if cert is None or key is None:
        return None
    return ManualCertificates.load(settings[tls_rows.CACERT_FILE], cert, key_file=key)


def _authority(settings: Settings) -> NodeAuthority:
    lifetime = timedelta(seconds=settings[tls_rows.CLIENT_CERT_LIFETIME])
    return NodeAuthority.load(settings[relay.STATE_DIR], client_lifetime=lifetime)


def _rotatable(settings: Settings) -> NodeAuthority:
    if settings[tls_rows.DISABLE_TLS]:
        raise ConfigError("--disable-tls is set: there are no certificates to rotate")
    if settings[tls_rows.CERT_FILE] is not None:
        raise ConfigError(
            "CERT_FILE is set: these certificates are yours to renew. Replace the files (see "
            "docs/operations/certificates.md); the relay reads them at its next dial"
        )
    return _authority(settings)


def _records(store: Path) -> Sequence[Sandbox]:
    """What the store holds, read beside a node that has it open. None yet is none."""
    if not store.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT record, version FROM sandboxes").fetchall()
    except sqlite3.Error as error:
        raise StateError(f"the store {store} cannot be read: {error}") from error
    return [records.decode(text, version=version) for text, version in rows]
