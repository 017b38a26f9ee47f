"""Rules over several settings of the control plane; each returns a sentence with the remedy, "" when all is well."""

from caa.config.load import Check, Settings
from caa.config.setting import AnySetting
from caa.config.tls import only_tls13
from caa.config.tls_rows import (
    CACERT_FILE,
    CERT_FILE,
    CERT_KEY,
    DISABLE_TLS,
    TLS_CIPHER_SUITES,
    TLS_MIN_VERSION,
    TLS_SKIP_VERIFY,
)

_FILES: tuple[AnySetting, ...] = (CACERT_FILE, CERT_FILE, CERT_KEY)


def _certificate_files(settings: Settings) -> str:
    """All three files, or none; with TLS_SKIP_VERIFY the CA is not needed, and not allowed."""
    needed = _FILES[1:] if settings[TLS_SKIP_VERIFY] else _FILES
    there = [row.label for row in _FILES if settings[row]]
    missing = [row.label for row in needed if not settings[row]]
    if there and missing:
        return f"{', '.join(there)} set without {' and '.join(missing)}: set all of them, or none"
    return ""


def _skip_verify(settings: Settings) -> str:
    if settings[TLS_SKIP_VERIFY] and settings[CACERT_FILE]:
        return f"{TLS_SKIP_VERIFY.label} contradicts {CACERT_FILE.label}: unset one of them"
    return ""


def _disable_tls(settings: Settings) -> str:
    rows: tuple[AnySetting, ...] = (*_FILES, TLS_SKIP_VERIFY, TLS_MIN_VERSION, TLS_CIPHER_SUITES)
    useless = [row.label for row in rows if settings[row]]
    if settings[DISABLE_TLS] and useless:
        return f"{DISABLE_TLS.label} contradicts {', '.join(useless)}: unset one side"
    return ""


def _suites(settings: Settings) -> str:
    suites = settings[TLS_CIPHER_SUITES]
    if only_tls13(suites) and settings[TLS_MIN_VERSION] != "VersionTLS13":
        return (
            f"{TLS_CIPHER_SUITES.label} names TLS 1.3 suites only while TLS 1.2 is allowed: "
            f"set {TLS_MIN_VERSION.label} to VersionTLS13, or add TLS 1.2 suites"
        )
    return ""


NODE_CHECKS: tuple[Check, ...] = (
    Check((*_FILES, TLS_SKIP_VERIFY), _certificate_files),
    Check((CACERT_FILE, TLS_SKIP_VERIFY), _skip_verify),
    Check((*_FILES, TLS_SKIP_VERIFY, TLS_MIN_VERSION, TLS_CIPHER_SUITES, DISABLE_TLS), _disable_tls),
    Check((TLS_MIN_VERSION, TLS_CIPHER_SUITES), _suites),
)
