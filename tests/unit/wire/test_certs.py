"""Certificates, proved by real TLS handshakes in memory with strict verification, and every broken state folder."""

import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from caa.errors import ConfigError, InvalidInput, StateError
from caa.wire import pki
from caa.wire.certs import ManualCertificates, NodeAuthority, ServerIdentity, TlsFiles, utc_now

NAME = "podvm-nginx-88a70031"


class Clock:
    """A clock that a test sets; it starts at the real time, since OpenSSL looks at that one."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> NodeAuthority:
    return NodeAuthority.load_or_create(tmp_path / "state", clock=clock)


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _client(files: TlsFiles) -> ssl.SSLContext:
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.load_verify_locations(files.ca_file)
    context.load_cert_chain(files.cert_file, files.key_file)
    return context


def _server(identity: ServerIdentity, tmp_path: Path) -> ssl.SSLContext:
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.load_verify_locations(cadata=identity.client_ca)
    pem = tmp_path / "guest.pem"
    pem.write_text(identity.cert + identity.key)
    context.load_cert_chain(pem)
    return context


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str = NAME) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a full exchange; raises what the end that refuses raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=name)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (one, two):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    two.write(b"hello")
    assert one.read() == b"hello"
    return one, two


def test_a_strict_handshake_succeeds_and_each_side_knows_the_other(authority: NodeAuthority, tmp_path: Path) -> None:
    identity = authority.server_identity(NAME)
    one, two = _handshake(_client(authority.client_files()), _server(identity, tmp_path), authority.server_name(NAME))
    assert one.getpeercert()["subjectAltName"] == (("DNS", NAME),)
    assert one.getpeercert()["subject"] == (
        (("organizationName", "agent-protocol-forwarder"),),
        (("commonName", NAME),),
    )
    assert two.getpeercert()["subject"][0] == (("organizationName", "cloud-api-adaptor"),)


def test_another_name_is_refused(authority: NodeAuthority, tmp_path: Path) -> None:
    server = _server(authority.server_identity(NAME), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(_client(authority.client_files()), server, "podvm-other-00000000")


def test_a_client_of_another_node_is_refused(authority: NodeAuthority, clock: Clock, tmp_path: Path) -> None:
    other = NodeAuthority.load_or_create(tmp_path / "other", clock=clock)
    files = TlsFiles(authority.client_files().ca_file, other.client_files().cert_file, other.client_files().key_file)
    with pytest.raises(ssl.SSLError):
        _handshake(_client(files), _server(authority.server_identity(NAME), tmp_path))


def test_a_pod_vm_cannot_pose_as_the_node(authority: NodeAuthority, tmp_path: Path) -> None:
    """A stolen server certificate is for servers only, on both ends of the link."""
    stolen = authority.server_identity("podvm-evil-00000000")
    pem = tmp_path / "stolen.pem"
    pem.write_text(stolen.cert + stolen.key)
    files = TlsFiles(authority.client_files().ca_file, str(pem), str(pem))
    with pytest.raises(ssl.SSLError):
        _handshake(_client(files), _server(authority.server_identity(NAME), tmp_path))


def test_a_client_certificate_does_not_make_a_server(authority: NodeAuthority, tmp_path: Path) -> None:
    files = authority.client_files()
    server = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    server.load_cert_chain(files.cert_file)
    server.load_verify_locations(files.ca_file)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(_client(files), server)


def test_an_expired_client_certificate_is_refused(tmp_path: Path, clock: Clock) -> None:
    clock.now -= timedelta(days=30)
    old = NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    files = old.client_files()
    with pytest.raises(ssl.SSLError):
        _handshake(_client(files), _server(old.server_identity(NAME), tmp_path))


def test_a_second_verifier_accepts_the_chains(authority: NodeAuthority, clock: Clock) -> None:
    """The Rust verifier of `cryptography` follows the CA/Browser rules; its opinion stands beside OpenSSL's."""
    store = Store([x509.load_pem_x509_certificate(authority.ca_pem.encode())])
    leaf = x509.load_pem_x509_certificate(authority.server_identity(NAME).cert.encode())
    client = x509.load_pem_x509_certificate(Path(authority.client_files().cert_file).read_bytes())
    builder = PolicyBuilder().store(store).time(clock.now)
    assert len(builder.build_server_verifier(x509.DNSName(NAME)).verify(leaf, [])) == 2
    assert builder.build_client_verifier().verify(client, []).subjects == [x509.DNSName("cloud-api-adaptor")]


def test_the_extensions_of_a_leaf(authority: NodeAuthority, clock: Clock) -> None:
    identity = authority.server_identity(NAME)
    leaf = x509.load_pem_x509_certificate(identity.cert.encode())
    ca = x509.load_pem_x509_certificate(authority.ca_pem.encode())
    extensions = leaf.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    key_id = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert key_id == ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.not_valid_before_utc >= ca.not_valid_before_utc
    assert leaf.not_valid_before_utc == clock.now - timedelta(minutes=15)
    assert leaf.not_valid_after_utc == clock.now + timedelta(days=730, minutes=15)
    assert identity.key.startswith("-----BEGIN PRIVATE KEY-----")  # PKCS#8
    assert isinstance(serialization.load_pem_private_key(identity.key.encode(), None), ec.EllipticCurvePrivateKey)


def test_the_ca_lives_ten_years_and_signs_leaves_only(authority: NodeAuthority, clock: Clock) -> None:
    ca = x509.load_pem_x509_certificate(authority.ca_pem.encode())
    assert ca.not_valid_after_utc == clock.now + timedelta(days=3650)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_every_pod_vm_gets_a_key_of_its_own_and_none_is_on_disk(authority: NodeAuthority, tmp_path: Path) -> None:
    one, two = authority.server_identity(NAME), authority.server_identity(NAME)
    assert one.key != two.key
    assert one.key not in repr(one)
    assert sorted(path.name for path in (tmp_path / "state").rglob("*")) == ["ca.crt", "ca.key", "tls"]


def test_modes(authority: NodeAuthority, tmp_path: Path) -> None:
    authority.client_files()
    folder = tmp_path / "state" / "tls"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_restart_keeps_the_ca_and_the_client_certificate(
    authority: NodeAuthority, tmp_path: Path, clock: Clock
) -> None:
    client = Path(authority.client_files().cert_file).read_text()
    again = NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    assert again.ca_pem == authority.ca_pem
    assert Path(again.client_files().cert_file).read_text() == client


def test_many_that_start_at_once_end_with_one_ca(tmp_path: Path, clock: Clock) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: NodeAuthority.load_or_create(tmp_path / "s", clock=clock).ca_pem, range(8)))
    assert len(set(made)) == 1
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["tls"]


def _client_end(authority: NodeAuthority) -> datetime:
    pem = Path(authority.client_files().cert_file).read_bytes()
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc - pki.CLOCK_SKEW


def test_the_client_certificate_is_renewed_when_a_third_is_left(authority: NodeAuthority, clock: Clock) -> None:
    start = clock.now
    assert _client_end(authority) == start + timedelta(hours=24)
    clock.now = start + timedelta(hours=15, minutes=59)
    assert _client_end(authority) == start + timedelta(hours=24)
    clock.now = start + timedelta(hours=16)
    assert _client_end(authority) == clock.now + timedelta(hours=24)


def test_a_clock_that_was_set_back_renews_the_certificate(authority: NodeAuthority, clock: Clock) -> None:
    authority.client_files()
    clock.now += timedelta(days=1)
    later = _client_end(authority)
    clock.now -= timedelta(hours=12)
    assert _client_end(authority) < later


@pytest.mark.parametrize("content", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_broken_client_certificate_is_made_anew(authority: NodeAuthority, content: str) -> None:
    path = Path(authority.client_files().cert_file)
    path.write_text(content)
    assert pki.load(Path(authority.client_files().cert_file).read_text()).key_pem


def test_a_client_certificate_of_another_ca_is_made_anew(
    authority: NodeAuthority, tmp_path: Path, clock: Clock
) -> None:
    other = NodeAuthority.load_or_create(tmp_path / "other", clock=clock)
    foreign = Path(other.client_files().cert_file).read_text()
    mine = Path(authority.client_files().cert_file)
    mine.write_text(foreign)
    authority.client_files()
    assert mine.read_text() != foreign


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_half_a_ca_says_what_to_do(authority: NodeAuthority, tmp_path: Path, clock: Clock, name: str) -> None:
    (tmp_path / "state" / "tls" / name).unlink()
    with pytest.raises(StateError, match=rf"{name} is missing.*[Rr]estore.*remove the folder"):
        NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    assert authority.current() == "1"


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
@pytest.mark.parametrize("content", ["", "garbage", "\x00\xff"])
def test_a_damaged_ca_says_what_to_do(
    authority: NodeAuthority, tmp_path: Path, clock: Clock, name: str, content: str
) -> None:
    (tmp_path / "state" / "tls" / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(StateError, match="damaged or do not belong together"):
        NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    assert authority.current() == "1"


def test_a_key_of_another_ca_is_noticed(authority: NodeAuthority, tmp_path: Path, clock: Clock) -> None:
    NodeAuthority.load_or_create(tmp_path / "other", clock=clock)
    key = (tmp_path / "other" / "tls" / "ca.key").read_text()
    (tmp_path / "state" / "tls" / "ca.key").write_text(key)
    with pytest.raises(StateError, match="do not belong together") as caught:
        NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    assert "PRIVATE" not in str(caught.value)
    assert authority.current() == "1"


def test_a_key_that_others_can_read_is_refused(authority: NodeAuthority, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "state" / "tls" / "ca.key").chmod(0o640)
    with pytest.raises(StateError, match="chmod 600"):
        NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    assert authority.current() == "1"


def test_an_expired_ca_gets_a_successor(authority: NodeAuthority, tmp_path: Path, clock: Clock) -> None:
    old = authority.ca_pem
    clock.now += timedelta(days=3651)
    again = NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    assert again.current() == "2"
    assert again.ca_pem != old
    with pytest.raises(StateError, match="it expired on"):
        again.client_files("1")
    assert again.server_identity(NAME, "2").client_ca == again.ca_pem


def test_no_leaf_outlives_its_ca(authority: NodeAuthority, clock: Clock) -> None:
    clock.now += timedelta(days=3649)
    leaf = x509.load_pem_x509_certificate(authority.server_identity(NAME).cert.encode())
    assert leaf.not_valid_after_utc == clock.now + timedelta(days=1)


def test_a_state_directory_that_cannot_be_one(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot keep the node's CA"):
        NodeAuthority.load_or_create(tmp_path / "file", clock=clock)


@pytest.mark.parametrize("name", ["", "pödvm"])
def test_names_that_no_certificate_can_bear(authority: NodeAuthority, name: str) -> None:
    with pytest.raises(InvalidInput):
        authority.server_identity(name)


def test_a_long_name_is_whole_in_the_san(authority: NodeAuthority) -> None:
    name = "podvm-" + "a" * 90
    leaf = x509.load_pem_x509_certificate(authority.server_identity(name).cert.encode())
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == [name]
    assert len(leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value) == 64


def test_the_clock_of_production_knows_its_zone() -> None:
    assert utc_now().tzinfo is UTC


@pytest.fixture
def manual(tmp_path: Path, clock: Clock) -> tuple[Path, Path, Path, pki.Identity]:
    """An operator's CA, client certificate and key, as files."""
    ca = pki.create_authority("operator", "ca", lifetime=timedelta(days=9), now=clock.now)
    client = pki.issue(ca, pki.Profile("operator", "", timedelta(days=1), server=False), now=clock.now)
    paths = tmp_path / "ca.crt", tmp_path / "tls.crt", tmp_path / "tls.key"
    for path, text in zip(paths, (ca.cert_pem, client.cert_pem, client.key_pem), strict=True):
        path.write_text(text)
    return (*paths, ca)


def test_manual_certificates_are_used_as_they_are(manual, tmp_path: Path, clock: Clock) -> None:
    ca_file, cert_file, key_file, ca = manual
    certificates = ManualCertificates.load(ca_file, cert_file, key_file=key_file)
    assert certificates.client_files() == TlsFiles(str(ca_file), str(cert_file), str(key_file))
    assert (certificates.current(), certificates.generation_of(str(ca_file))) == ("", "")
    assert certificates.server_name(NAME) == "podvm-server"
    assert certificates.server_identity(NAME) == ServerIdentity(ca.cert_pem)
    guest = pki.issue(ca, pki.Profile("operator", "podvm-server", timedelta(days=1), server=True), now=clock.now)
    server = _server(ServerIdentity(ca.cert_pem, guest.cert_pem, guest.key_pem), tmp_path)
    _, two = _handshake(_client(certificates.client_files()), server, certificates.server_name(NAME))
    assert two.getpeercert()["subject"] == ((("organizationName", "operator"),),)


def test_manual_certificates_without_a_ca(manual) -> None:
    _, cert_file, key_file, _ = manual
    certificates = ManualCertificates.load(None, cert_file, key_file=key_file)
    assert certificates.client_files().ca_file == ""
    assert certificates.server_identity(NAME) == ServerIdentity("")


@pytest.mark.parametrize(("index", "setting"), [(0, "CACERT_FILE"), (1, "CERT_FILE"), (2, "CERT_KEY")])
@pytest.mark.parametrize("change", ["missing", "garbage", "binary"])
def test_a_bad_manual_file_names_its_setting(manual, index: int, setting: str, change: str) -> None:
    path = manual[index]
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(b"garbage" if change == "garbage" else b"\xff\x00")
    with pytest.raises(ConfigError, match=f"^{setting}: {path}"):
        ManualCertificates.load(*manual[:2], key_file=manual[2])


def test_a_manual_key_of_another_certificate(manual) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
    manual[2].write_bytes(other.private_bytes(*pem, serialization.NoEncryption()))
    with pytest.raises(ConfigError, match="CERT_KEY"):
        ManualCertificates.load(*manual[:2], key_file=manual[2])


def test_a_manual_key_with_a_password(manual) -> None:
    key = serialization.load_pem_private_key(manual[2].read_bytes(), None)
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    manual[2].write_bytes(key.private_bytes(*pem, serialization.BestAvailableEncryption(b"x")))
    with pytest.raises(ConfigError, match="without a password"):
        ManualCertificates.load(*manual[:2], key_file=manual[2])
