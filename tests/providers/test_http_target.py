"""What may stand in the head of an outgoing request, and what is refused before a byte is sent."""

import pytest

from freehold.core.errors import BadRequest
from freehold.providers._http import Target, header_block


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x", b"a\r\nevil: 1"),
        (b"x", b"a\nb"),
        (b"x", b"\0"),
        (b"x y", b"a"),
        (b"", b"a"),
        (b"x\r\n", b"a"),
        (b"x:", b"a"),
    ],
)
def test_a_header_that_could_end_its_line_is_refused_without_repeating_its_value(name, value):
    with pytest.raises(BadRequest) as caught:
        header_block([(name, value)])
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("name", [b"Host", b"content-length", b"Transfer-Encoding", b"connection", b"expect"])
def test_framing_headers_belong_to_the_client(name):
    with pytest.raises(BadRequest, match="written by the HTTP client"):
        header_block([(name, b"1")])


@pytest.mark.parametrize("path", ["", "v1", "/a b", "/a\r\nx: y", "/ü", "/a#b", "http://other/"])
def test_a_path_that_is_no_path_is_refused(path):
    with pytest.raises(BadRequest) as caught:
        Target("http://h").head("POST", path)
    assert caught.value.field == "path"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "ftp://h",
        "http://",
        "http://h:99999",
        "http://u:p@h",
        "http://h/?q",
        "http://h\r\n",
        "http://a b/",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(url):
    with pytest.raises(BadRequest) as caught:
        Target(url)
    assert caught.value.field == "url"
    assert "p@h" not in str(caught.value)


def test_a_target_never_shows_its_credentials():
    target = Target("https://h", headers=[(b"authorization", b"Bearer secret")], proxy="http://u:secret@p:1")
    assert "secret" not in repr(target) + repr(target.proxy) + str(target)
