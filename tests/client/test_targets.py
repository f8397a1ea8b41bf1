"""URLs from settings and from untrusted responses."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.client.targets import Target
from registry.errors import UpstreamProtocolError

HERE = Target.parse("https://registry.example/v2/a/tags/list?n=1")


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://R.Example", "https://r.example", "/"),
        ("https://r.example:443/a?b=c#d", "https://r.example", "/a?b=c"),
        ("http://r.example:443/", "http://r.example:443", "/"),
        ("http://[::1]:80/x", "http://[::1]", "/x"),
        ("/v2/?n=2", "https://registry.example", "/v2/?n=2"),
        ("//other/x", "https://other", "/x"),
        ("?last=é&n=%20", "https://registry.example", "/v2/a/tags/list?last=%C3%A9&n=%20"),
    ],
)
def test_urls(url: str, origin: str, path: str) -> None:
    target = Target.parse(url, HERE)
    assert (target.origin, target.path) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "keys.json",
        "//host/keys",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "https://",
        "https:///keys",
        "https://user@127.0.0.1/",
        "https://user:secret-word@127.0.0.1/",
        "https://:@127.0.0.1/",
        "https://registry.example@127.0.0.1/",
        "https://127.0.0.1:0/",
        "https://127.0.0.1:70000/",
        "https://127.0.0.1:x/",
        "https://127.0.0.1/\n",
        "https://127.0.0.1/\r\nX: y",
        "https://127.0.0.1/\ud800",
        "https://[::1/",
        "https://r%2eexample/",
        "https://r\u3002example/",
    ],
)
def test_urls_that_name_no_place(url: str) -> None:
    with pytest.raises(UpstreamProtocolError, match="URL") as caught:
        Target.parse(url)
    assert "secret-word" not in caught.value.message


@given(st.text(max_size=40) | st.text(max_size=40).map("https://{}".format))
@example("https://\ud800")
@example("https://%")
def test_no_url_does_more_than_be_refused(text: str) -> None:
    for base in (None, HERE):
        try:
            target = Target.parse(text, base)
        except UpstreamProtocolError:
            continue
        assert target.scheme in {"http", "https"}
        assert target.host
        assert f"{target.authority}{target.path}".isascii()
        assert " " not in target.path
        assert Target.parse(f"{target.origin}{target.path}") == target
