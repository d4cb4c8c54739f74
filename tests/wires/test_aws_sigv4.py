"""Signature Version 4: what botocore signs is accepted, whatever is changed in it is refused, and what we sign is what botocore would."""

import datetime
import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given
from hypothesis import strategies as st

from freehold.wires import _aws_sigv4 as sigv4
from freehold.wires import _aws_sigv4_verify as verifying
from freehold.wires._aws_chunked import Chunked
from freehold.wires._aws_refused import SignatureRefused

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "AQoDYXdzEPT//wEXAMPLE="
REGION, SERVICE = "us-east-1", "bedrock"

SEGMENT = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12)
PATHS = st.lists(SEGMENT.map(lambda text: quote(text, safe="")), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
QUERY = st.dictionaries(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
    st.text(max_size=8),
    max_size=3,
).map(
    lambda pairs: "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs.items()
    )
)
HEADER_VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(["X-Amz-Target", "X-Custom", "Content-Type", "Accept"]), HEADER_VALUE, max_size=3
)


def now_s() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def signed_by_botocore(
    path: str = "/model/m/converse",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"{}",
    *,
    token: str | None = None,
    auth: Callable[..., Any] = botocore.auth.SigV4Auth,
    service: str = SERVICE,
    **options: Any,
) -> verifying.Head:
    url = f"https://bedrock.example:8443{path}" + (f"?{query}" if query else "")
    request = AWSRequest("POST", url, headers=headers or {}, data=body)
    auth(BotoCredentials(KEY, SECRET, token), service, REGION, **options).add_auth(request)
    parts = urlsplit(request.url)
    sent = [("Host", "bedrock.example:8443"), *request.headers.items()]
    return verifying.Head("POST", parts.path + (f"?{parts.query}" if parts.query else ""), sent)


def secret_of(access_key_id: str, _: str | None) -> str | None:
    return SECRET if access_key_id == KEY else None


def accepted(head: verifying.Head, body: bytes, *, at_s: float | None = None) -> verifying.Claim:
    return verifying.verify(head, body, secret_of, now_s=now_s() if at_s is None else at_s)[0]


def refused(head: verifying.Head, body: bytes, said: str, *, at_s: float | None = None) -> SignatureRefused:
    with pytest.raises(SignatureRefused, match=said) as caught:
        accepted(head, body, at_s=at_s)
    assert SECRET not in str(caught.value)
    return caught.value


def with_header(head: verifying.Head, name: str, value: str) -> verifying.Head:
    kept = [(one, said) for one, said in head.headers if one.lower() != name.lower()]
    return verifying.Head(head.method, head.target, [*kept, (name, value)])


def header(head: verifying.Head, name: str) -> str:
    return next(value for one, value in head.headers if one.lower() == name.lower())


# ------------------------------------------------------------------------------------------- botocore's word


@given(PATHS, QUERY, HEADERS, st.binary(max_size=60), st.sampled_from([None, TOKEN]))
def test_what_botocore_signs_is_accepted(
    path: str, query: str, headers: dict[str, str], body: bytes, token: str | None
) -> None:
    claim = accepted(signed_by_botocore(path, query, headers, body, token=token), body)
    assert (claim.access_key_id, claim.session_token) == (KEY, token)
    assert (claim.scope.region, claim.scope.service) == (REGION, SERVICE)


@given(PATHS, QUERY, st.sampled_from([None, TOKEN]))
def test_a_presigned_address_is_accepted(path: str, query: str, token: str | None) -> None:
    head = signed_by_botocore(
        path, query, {}, b"", token=token, auth=botocore.auth.SigV4QueryAuth, expires=600
    )
    claim = accepted(head, b"")
    assert claim.presigned
    assert claim.session_token == token
    refused(head, b"", "Signature expired", at_s=now_s() + 601)


@given(PATHS, st.binary(max_size=60))
def test_s3_takes_paths_as_they_are(path: str, body: bytes) -> None:
    head = signed_by_botocore(path + "//a/../b", "", {}, body, auth=botocore.auth.S3SigV4Auth, service="s3")
    assert accepted(head, body).scope.service == "s3"


@given(PATHS, QUERY, st.binary(max_size=60), st.sampled_from([None, TOKEN]))
def test_what_we_sign_is_what_botocore_signs(path: str, query: str, body: bytes, token: str | None) -> None:
    theirs = signed_by_botocore(path, query, {"Content-Type": "application/json"}, body, token=token)
    at = datetime.datetime.strptime(header(theirs, "x-amz-date"), "%Y%m%dT%H%M%SZ").replace(
        tzinfo=datetime.UTC
    )
    signer = sigv4.Signer(
        sigv4.Credentials(KEY, SECRET, token), host="bedrock.example:8443", region=REGION, service=SERVICE
    )
    ours = dict(signer.headers("POST", theirs.target, body, at_s=int(at.timestamp())))
    assert ours[b"authorization"].decode() == header(theirs, "authorization")
    assert ours.get(b"x-amz-security-token", b"").decode() == (token or "")


def test_the_first_of_awss_own_vectors() -> None:
    """get-vanilla, https://github.com/awslabs/aws-c-auth/tree/main/tests/aws-signing-test-suite"""
    signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    credential = f"{KEY}/20150830/us-east-1/service/aws4_request"
    head = verifying.Head(
        "GET",
        "/",
        [
            ("Host", "example.amazonaws.com"),
            ("X-Amz-Date", "20150830T123600Z"),
            ("Authorization", f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature={signature}"),
        ],
    )  # fmt: skip
    assert accepted(head, b"", at_s=1440938160).access_key_id == KEY


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/", "/"), ("//", "/"), ("/./", "/"), ("/a/..", "/"), ("/..", "/"), ("//a//b/./c/../d//", "/a/b/d/"),
        ("/example space/", "/example%20space/"), ("/ሴ", "/%E1%88%B4"), ("/v2%3A0", "/v2%253A0"), ("/-._~aZ9", "/-._~aZ9"),
    ],
)  # fmt: skip
def test_paths_are_normalised_and_encoded_again(path: str, canonical: str) -> None:
    assert sigv4.canonical_path(path, "bedrock") == canonical


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("b=2&a=1", "a=1&b=2"), ("a=b&a=a", "a=a&a=b"), ("p1=&p", "p=&p1="), ("ሴ=bar", "%E1%88%B4=bar"),
        ("a=%7e%2F&b=x y", "a=~%2F&b=x%20y"), ("&&a=1&", "a=1"), ("A=1&a=1", "A=1&a=1"),
    ],
)  # fmt: skip
def test_queries_are_sorted_and_encoded_once(query: str, canonical: str) -> None:
    assert sigv4.canonical_query(query) == canonical


# ------------------------------------------------------------------------------------------------- forgeries


@given(st.data())
def test_whatever_is_changed_is_refused(data: st.DataObject) -> None:
    body = b'{"messages":[]}'
    head = signed_by_botocore("/model/a%3A0/converse", "x=1", {"X-Amz-Thing": "one two"}, body, token=TOKEN)
    authorization = header(head, "authorization")
    what = data.draw(
        st.sampled_from(["method", "path", "query", "body", "date", "token", "header", "host", "signature", "region", "key"])
    )  # fmt: skip
    match what:
        case "method":
            head = verifying.Head("PUT", head.target, head.headers)
        case "path":
            head = verifying.Head(head.method, head.target.replace("a%3A0", "b%3A0"), head.headers)
        case "query":
            head = verifying.Head(
                head.method, head.target + data.draw(st.sampled_from(["0", "&y=", "&x=0"])), head.headers
            )
        case "body":
            place = data.draw(st.integers(0, len(body) - 1))
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        case "date":
            date = header(head, "x-amz-date")
            head = with_header(head, "X-Amz-Date", date[:-2] + str((int(date[-2]) + 1) % 10) + "Z")
        case "token":
            head = with_header(head, "X-Amz-Security-Token", TOKEN + "x")
        case "header":
            head = with_header(head, "X-Amz-Thing", "one  three")
        case "host":
            head = with_header(head, "Host", "bedrock.example")
        case "signature":
            place = data.draw(st.integers(1, 64))
            digit = "0" if authorization[-place] != "0" else "1"
            changed = (
                authorization[: len(authorization) - place]
                + digit
                + authorization[len(authorization) - place + 1 :]
            )
            head = with_header(head, "Authorization", changed)
        case "region":
            head = with_header(head, "Authorization", authorization.replace(REGION, "eu-west-1"))
        case _:
            head = with_header(head, "Authorization", authorization.replace(KEY, "AKIDOTHER"))
    refused(head, body, "signature we calculated|token included")


@given(st.text(max_size=60), st.sampled_from(["", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 Credential="]))
def test_hostile_headers_are_refused_in_words(junk: str, start: str) -> None:
    refused(verifying.Head("POST", "/", [("host", "h"), ("authorization", start + junk)]), b"", ".")


@given(st.text(max_size=60))
def test_hostile_queries_are_refused_in_words(junk: str) -> None:
    refused(verifying.Head("GET", "/?X-Amz-Signature=" + junk, [("host", "h")]), b"", ".")


@pytest.mark.parametrize(
    ("old", "new", "aws_type", "said"),
    [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", "IncompleteSignatureException", "algorithm"),
        ("Credential=", "Credentials=", "IncompleteSignatureException", "'Credential' parameter"),
        ("/aws4_request", "/aws5_request", "IncompleteSignatureException", "5 slash-delimited"),
        ("SignedHeaders=host;", "SignedHeaders=", "IncompleteSignatureException", "'Host' or ':authority'"),
        ("SignedHeaders=host;", "SignedHeaders=absent;host;", "IncompleteSignatureException", "'absent'"),
        ("SignedHeaders=host;", "SignedHeaders=z;host;", "IncompleteSignatureException", "sorted"),
        (";x-amz-thing", "", "IncompleteSignatureException", "not signed: x-amz-thing"),
        ("Signature=", "Signature=Z", "InvalidSignatureException", "does not match"),
        (KEY, "AKIDOTHER", "UnrecognizedClientException", "security token"),
    ],
)  # fmt: skip
def test_refusals_have_awss_names(old: str, new: str, aws_type: str, said: str) -> None:
    head = signed_by_botocore(headers={"X-Amz-Thing": "1"})
    head = with_header(head, "Authorization", header(head, "authorization").replace(old, new))
    assert refused(head, b"{}", said).aws_type == aws_type


def test_no_signature_at_all_is_said() -> None:
    error = refused(verifying.Head("POST", "/", [("host", "h")]), b"", "Missing Authentication Token")
    assert error.aws_type == "MissingAuthenticationTokenException"


def test_another_services_signature_is_refused() -> None:
    head = signed_by_botocore(service="s3")
    with pytest.raises(SignatureRefused, match="correct service"):
        verifying.claimed(head, now_s=now_s(), services={"bedrock"})


@pytest.mark.parametrize(
    ("off_s", "said"),
    [(301, "Signature expired"), (-301, "not yet current"), (290, None), (-290, None)],
)
def test_a_clock_may_be_off_by_five_minutes(off_s: int, said: str | None) -> None:
    head = signed_by_botocore()
    if said is None:
        accepted(head, b"{}", at_s=now_s() + off_s)
    else:
        refused(head, b"{}", said, at_s=now_s() + off_s)


def test_two_dates_that_disagree_are_refused() -> None:
    head = signed_by_botocore()
    day = header(head, "x-amz-date")[:8]
    changed = header(head, "authorization").replace(f"/{day}/", "/20200101/")
    refused(with_header(head, "Authorization", changed), b"{}", "does not match YYYYMMDD")


def test_an_impossible_date_is_refused() -> None:
    head = signed_by_botocore()
    changed = header(head, "authorization").replace(header(head, "x-amz-date")[:8], "20259999")
    head = with_header(with_header(head, "X-Amz-Date", "20259999T000000Z"), "Authorization", changed)
    refused(head, b"{}", "ISO-8601")


# -------------------------------------------------------------------------------------- bodies of other kinds


def signed_with(payload: str, headers: dict[str, str]) -> tuple[verifying.Head, Chunked, float]:
    """A head whose `x-amz-content-sha256` says `payload`, and the chain that begins with it."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = sigv4.Scope(date[:8], REGION, "s3")
    said = {"host": "h", "x-amz-content-sha256": payload, "x-amz-date": date, **headers}
    canonical = sigv4.canonical_request("PUT", "/k", said, payload, service="s3")
    key = sigv4.signing_key(SECRET, scope)
    seed = sigv4.signature(key, sigv4.string_to_sign(date, scope, canonical))
    names = ";".join(sorted(said))
    authorization = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope},SignedHeaders={names},Signature={seed}"
    head = verifying.Head("PUT", "/k", [*said.items(), ("authorization", authorization)])
    return head, Chunked(payload, key, date, str(scope), seed), now_s()


def chunked_body(chain: Chunked, pieces: list[bytes], trailer: str = "") -> bytes:
    out, before = b"", chain.seed
    empty = hashlib.sha256(b"").hexdigest()
    for piece in [*pieces, b""]:
        before = chain.link("AWS4-HMAC-SHA256-PAYLOAD", before, empty, hashlib.sha256(piece).hexdigest())
        out += f"{len(piece):x};chunk-signature={before}\r\n".encode() + piece + (b"\r\n" if piece else b"")
    if trailer:
        signed = chain.link(
            "AWS4-HMAC-SHA256-TRAILER", before, hashlib.sha256(f"{trailer}\n".encode()).hexdigest()
        )
        out += f"{trailer}\r\nx-amz-trailer-signature:{signed}\r\n".encode()
    return out + b"\r\n"


def test_a_payload_that_its_sender_left_unsigned_is_accepted_as_such() -> None:
    head, _, at = signed_with("UNSIGNED-PAYLOAD", {})
    assert verifying.verify(head, b"anything", secret_of, now_s=at)[1] == b"anything"


def test_a_hash_that_is_not_the_bodys_is_refused() -> None:
    head, _, _ = signed_with(hashlib.sha256(b"one").hexdigest(), {})
    refused(head, b"two", "does not match")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
def test_chunks_are_joined(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    head, chain, at = signed_with(
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", {"x-amz-decoded-content-length": str(len(whole))}
    )
    assert verifying.verify(head, chunked_body(chain, pieces), secret_of, now_s=at)[1] == whole


@given(st.data())
def test_a_changed_chunk_is_refused(data: st.DataObject) -> None:
    head, chain, _ = signed_with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", {})
    body = bytearray(chunked_body(chain, [b"first", b"second"]))
    place = data.draw(st.integers(0, len(body) - 3))
    body[place] ^= 1
    refused(head, bytes(body), "does not match|not chunked|cut off|trailer")


@pytest.mark.parametrize("end", [1, 40, 90, 100, 180])
def test_chunks_that_break_off_are_refused(end: int) -> None:
    head, chain, _ = signed_with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", {})
    refused(head, chunked_body(chain, [b"first", b"second"])[:-end], "not chunked|cut off|trailer")


def test_a_trailers_signature_and_checksum_are_checked() -> None:
    head, chain, at = signed_with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", {})
    right = chunked_body(chain, [b"hello"], "x-amz-checksum-crc32:NhCmhg==")
    assert verifying.verify(head, right, secret_of, now_s=at)[1] == b"hello"
    refused(head, right.replace(b"NhCmhg", b"NhCmhh"), "does not match")
    wrong = chunked_body(chain, [b"hello"], "x-amz-checksum-crc32:AAAAAA==")
    assert refused(head, wrong, "x-amz-checksum-crc32").aws_type == "BadDigest"


def test_unsigned_chunks_with_a_checksum_are_joined() -> None:
    head, _, at = signed_with("STREAMING-UNSIGNED-PAYLOAD-TRAILER", {})
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    assert verifying.verify(head, body, secret_of, now_s=at)[1] == b"hello"
    refused(head, body.replace(b"hello", b"jello"), "x-amz-checksum-crc32")
    refused(head, body.replace(b"crc32:", b"crc64:"), "not known")


def test_the_chunks_of_awss_documentation() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html: 65 kB of the letter a in two chunks."""
    scope = sigv4.Scope("20130524", "us-east-1", "s3")
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    chain = Chunked("", sigv4.signing_key(secret, scope), "20130524T000000Z", str(scope), seed)
    empty = hashlib.sha256(b"").hexdigest()
    signatures = [seed]
    for piece in (b"a" * 65536, b"a" * 1024, b""):
        digest = hashlib.sha256(piece).hexdigest()
        signatures.append(chain.link("AWS4-HMAC-SHA256-PAYLOAD", signatures[-1], empty, digest))
    assert signatures[1:] == [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]


def test_other_kinds_of_streaming_are_refused_by_name() -> None:
    head, _, _ = signed_with("STREAMING-AWS4-HMAC-SHA256-EVENTS", {})
    refused(head, b"", "STREAMING-AWS4-HMAC-SHA256-EVENTS.*served are")


def test_credentials_never_show_their_secret() -> None:
    assert SECRET not in repr(sigv4.Credentials(KEY, SECRET))
    assert hmac.compare_digest(repr(sigv4.Credentials(KEY, SECRET)), f"Credentials({KEY})")
