"""Keys and certificates as PEM text: P-256, with the extensions that strict verifiers ask for. No files, no clock.

Python 3.13 verifies with X509_V_FLAG_X509_STRICT and refuses a leaf without Authority Key Identifier
(design/dependencies.md 6); Go asks for the extended key usage of the role.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from caa.errors import InvalidInput

# How far a pod VM's clock may be from ours, either way: 10 minutes, and 5 to spare. The reference has 5 minutes, for a
# clock that is behind.
CLOCK_SKEW = timedelta(minutes=15)
_COMMON_NAME_LIMIT = 64  # RFC 5280, ub-common-name


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its private key, as PEM and ready for use."""

    cert_pem: str
    key_pem: str = field(repr=False)
    certificate: x509.Certificate = field(repr=False)
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a leaf is for: a server under `name`, or a client (whose `name` may be "")."""

    organisation: str
    name: str
    lifetime: timedelta
    server: bool


def create_authority(organisation: str, name: str, *, lifetime: timedelta, now: datetime) -> Identity:
    """A self-signed CA that may sign leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(organisation, name)
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, issuer=subject, key=key)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
    )
    return _identity(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Identity, profile: Profile, *, now: datetime) -> Identity:
    """A fresh key and its certificate, never valid before or after its CA; raises `InvalidInput` for a bad name.

    It is valid for `lifetime`, and for `CLOCK_SKEW` before and after that.
    """
    if profile.server and not (profile.name.isascii() and profile.name):
        raise InvalidInput(f"a server certificate needs an ASCII name, not {profile.name!r}")
    key = ec.generate_private_key(ec.SECP256R1())
    ca = authority.certificate
    builder = (
        _builder(_subject(profile.organisation, profile.name), issuer=ca.subject, key=key)
        .not_valid_before(max(now - CLOCK_SKEW, ca.not_valid_before_utc))
        .not_valid_after(min(now + profile.lifetime + CLOCK_SKEW, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(_role(profile), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issuer_key_id(ca), critical=False)
    )
    if profile.name:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(profile.name)]), critical=False)
    return _identity(builder.sign(authority.key, hashes.SHA256()), key)


def load(pem: str) -> Identity:
    """The first certificate and the private key of a PEM text; raises `ValueError` unless they match."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        key = serialization.load_pem_private_key(_key_block(pem), password=None)
    except (TypeError, UnsupportedAlgorithm) as error:  # TypeError: the key asks for a password
        raise ValueError("a key that cannot be used") from error
    if key.public_key() != certificate.public_key():
        raise ValueError("the key does not belong to the certificate")
    return Identity(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        _key_pem(key),  # type: ignore[arg-type]  # what fits a certificate can be written
        certificate,
        key,  # type: ignore[arg-type]
    )


def issued_by(leaf: x509.Certificate, authority: Identity) -> bool:
    """Whether the authority signed the leaf."""
    try:
        leaf.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _key_block(pem: str) -> bytes:
    """From the first private key block on; OpenSSL's loader looks at the first block only."""
    head, begin, tail = pem.partition("PRIVATE KEY-----")
    if not begin:
        raise ValueError("no private key")
    return (head[head.rfind("-----BEGIN") :] + begin + tail).encode()


def _builder(subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
    )


def _subject(organisation: str, name: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)]
    if name:
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME_LIMIT]))
    return x509.Name(parts)


def _role(profile: Profile) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH if profile.server else ExtendedKeyUsageOID.CLIENT_AUTH]
    )


def _issuer_key_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    key_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _identity(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    return Identity(certificate.public_bytes(serialization.Encoding.PEM).decode(), _key_pem(key), certificate, key)


def _key_pem(key: CertificateIssuerPrivateKeyTypes) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
