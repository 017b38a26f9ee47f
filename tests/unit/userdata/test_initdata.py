"""Initdata: what is accepted, what is refused and how that is said, and hostile texts."""

import base64
import gzip
import hashlib
import resource
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InitdataError
from caa.userdata import initdata

HEAD = 'algorithm = "sha384"\nversion = "0.1.0"\n[data]\n'
GOOD = HEAD + "\"aa.toml\" = '''\n[token_configs]\n'''\n\"policy.rego\" = '''\npackage agent_policy\n'''\n"


def test_good_initdata() -> None:
    found = initdata.parse(GOOD)
    assert found.algorithm == "sha384"
    assert found.digest == hashlib.sha384(GOOD.encode()).hexdigest()
    assert dict(found.data) == {"aa.toml": "[token_configs]\n", "policy.rego": "package agent_policy\n"}
    assert "agent_policy" not in repr(found)


def test_the_dummy_has_the_digest_that_verifiers_know() -> None:
    found = initdata.parse(initdata.DUMMY)
    assert found.digest == initdata.DUMMY_DIGEST == "adb48cc14fea9403d3d51f3b5f5068fd4d80445a14e94f1b3d5dbabaad66478d"
    assert dict(found.data) == {"aa.toml": ""}
    pcr8 = hashlib.sha256(bytes(32) + bytes.fromhex(found.digest)).hexdigest()
    assert pcr8 == "4b58b30becd30d16f7f60d56b32661d921ae0d3310c6a89f5d552f9bfee921a9"  # reference/podvm.md 2.1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "algorithm is missing"),
        ("not toml", "not TOML (at line 1"),
        (GOOD.replace("sha384", "md5"), "algorithm is 'md5', allowed are sha256, sha384, sha512"),
        (GOOD.replace('"sha384"', "256"), "algorithm is a int"),
        (GOOD.replace('"sha384"', '["sha256"]'), "algorithm is a list"),
        (GOOD.replace("0.1.0", "0.2.0"), "version is '0.2.0', allowed is '0.1.0'"),
        (GOOD.replace('version = "0.1.0"\n', ""), "version is missing"),
        ('algorithm = "sha256"\nversion = "0.1.0"\n', "[data]"),
        ('algorithm = "sha256"\nversion = "0.1.0"\ndata = 5', "[data]"),
        (HEAD + "a = 5", "all strings"),
        (HEAD + "a = '" + "x" * (2 * 1024 * 1024) + "'", "allowed are 1048576 bytes"),
        (HEAD + "a = '" + "ä" * (1024 * 1024 - 80) + "'", "allowed are 1048576 bytes"),
        (HEAD + "a = '\ud800'", "not Unicode"),
        (HEAD + "a = '''never closed", "line 4 has no end"),
        (HEAD + "a = 1979-13-45", "not TOML"),
    ],
)
def test_bad_initdata_names_the_annotation(text: str, problem: str) -> None:
    with pytest.raises(InitdataError) as caught:
        initdata.parse(text)
    assert initdata.ANNOTATION in str(caught.value)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_error_shows_nothing_of_the_text() -> None:
    with pytest.raises(InitdataError) as caught:
        initdata.parse(HEAD + "\"cdh.toml\" = 'a'\n\"cdh.toml\" = 'hunter2'\nhunter2 hunter2", "INITDATA")
    assert "hunter2" not in str(caught.value)
    assert "initdata from INITDATA" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a." * 200_000 + "a = 1",
        "[" + "a." * 7000 + "a]",
        "a = " + "[" * 16_000,
        "a = " + "{a=" * 5000,
        "a = " + "1" * 16_000,
        "\n".join(f"a{number} = 1" for number in range(100_000)),
        '"""\\' * 200_000,
        '"a" = """' + '\\"""' * 200_000,
        "'''" * 300_001,
        '""' * 400_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_toml_is_refused_at_once(text: str) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InitdataError):
        initdata.parse(HEAD + text)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


_STRUCTURE = st.text(st.sampled_from(list("ab='\"\\\n#.[]{}, ")), max_size=60)


@given(_STRUCTURE)
def test_any_text_is_taken_or_refused(text: str) -> None:
    with suppress(InitdataError):  # every other exception fails the test
        assert initdata.parse(HEAD + text).digest


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_what_is_encoded_decodes(text: str) -> None:
    encoded = initdata.encode(text)
    assert initdata.decode(encoded) == text
    assert initdata.encode(text) == encoded
    assert gzip.decompress(base64.b64decode(encoded)) == text.encode()


def test_what_base64_w76_and_gzip_made_decodes() -> None:
    assert initdata.decode(base64.encodebytes(gzip.compress(GOOD.encode())).decode()) == GOOD


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        ("%%%", "not standard base64"),
        ("é", "not standard base64"),
        (_encoded(b"plain"), "not of gzip data"),
        ("", "cut off"),
        (_encoded(gzip.compress(b"x")[:-4]), "cut off"),
        (_encoded(gzip.compress(b"x") + b"more"), "followed by something"),
        (_encoded(gzip.compress(b"\xff\xfe")), "not UTF-8"),
        (_encoded(gzip.compress(bytes(50 * 1024 * 1024))), "unpacks to more than 1048576 bytes"),
        ("A" * (1024 * 1024 + 1), "allowed are 1048576"),
    ],
    ids=["percent", "accent", "plain", "empty", "cut", "more", "utf16", "bomb", "long"],
)
def test_bad_encodings_name_the_setting(encoded: str, problem: str) -> None:
    with pytest.raises(InitdataError, match="initdata from INITDATA") as caught:
        initdata.decode(encoded)
    assert problem in str(caught.value)
