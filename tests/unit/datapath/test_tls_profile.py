"""Names of versions and cipher suites, and what the reasons of failures mean."""

import ssl

import pytest

from caa.datapath import tls


def test_versions() -> None:
    assert tls.minimum_version("") == tls.minimum_version("VersionTLS12") == 0x0303
    assert tls.minimum_version("VersionTLS13") == 0x0304
    with pytest.raises(tls.TlsError, match="VersionTLS10"):
        tls.minimum_version("VersionTLS10")


def test_iana_names_become_openssl_names_that_openssl_knows() -> None:
    given = [
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "",
    ]
    names = tls.cipher_names(given)
    assert names == [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(":".join(names))
    known = {cipher["name"] for cipher in context.get_ciphers()}
    assert set(names) <= known
    for wrong in ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", "TLS_NOPE", "TLS_PSK_WITH_AES_128_GCM_SHA256"):
        with pytest.raises(tls.TlsError, match=wrong):
            tls.cipher_names([wrong])


def test_missing_files_are_named() -> None:
    files = tls.TlsFiles(ca="/nowhere/ca.pem", cert="/nowhere/c.pem", key="/nowhere/c.key")
    with pytest.raises(tls.TlsError, match=r"/nowhere/ca\.pem: No such file"):
        tls.client_context(files)
    with pytest.raises(tls.TlsError, match="needs a CA file"):
        tls.server_context(tls.TlsFiles())
    with pytest.raises(tls.TlsError, match="no CA file"):
        tls.client_context(tls.TlsFiles())
    files = tls.TlsFiles()
    files.ciphers = ("NO-SUCH-SUITE",)
    with pytest.raises(tls.TlsError, match="NO-SUCH-SUITE"):
        tls.client_context(files, skip_verify=True)


def test_an_end_of_file_may_be_retried_and_an_alert_may_not() -> None:
    alert, end = ssl.SSLError(1, "x"), ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    end.reason = "UNEXPECTED_EOF_WHILE_READING"
    assert tls.is_final(alert)
    assert not tls.is_final(end)
    assert not tls.is_final(ConnectionResetError(104, "Connection reset by peer"))
    assert not tls.is_final(TimeoutError("no TLS handshake within 10 s"))
    assert tls.reason(alert) == "tlsv13 alert certificate required"
    assert tls.reason(ConnectionResetError(104, "Connection reset by peer")) == "Connection reset by peer"


@pytest.mark.parametrize(
    ("reason", "final"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", True),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", True),
        ("WRONG_VERSION_NUMBER", True),
        ("UNEXPECTED_EOF_WHILE_READING", False),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", False),
        ("SSLV3_ALERT_BAD_RECORD_MAC", False),
        (None, False),
    ],
)
def test_a_refusal_is_final_and_a_broken_way_is_not(reason: str | None, final: bool) -> None:
    error = tls.SSLError(1, "text")
    error.reason = reason
    assert tls.is_final(error) is final
    assert not tls.is_final(ConnectionResetError())


def test_an_expired_certificate_says_whose_it_is_and_what_to_do() -> None:
    ours, theirs = ssl.SSLError(1, "x"), ssl.SSLCertVerificationError(1, "x")
    ours.reason = "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    theirs.verify_message = "certificate has expired"
    assert "caa certs show" in tls.reason(ours)
    assert tls.is_curable(f"pod VM x: {tls.reason(ours)}")
    assert "only a new pod VM gets another one" in tls.reason(theirs)
    assert not tls.is_curable(tls.reason(theirs))
    theirs.verify_message = "certificate is not yet valid"
    assert "compare the clocks" in tls.reason(theirs)
    assert not tls.is_curable("tlsv1 alert unknown ca")
