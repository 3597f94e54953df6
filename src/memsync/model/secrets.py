"""Takes passwords and keys out of texts that people will see."""

import re

_URL = re.compile(r"https?://[^\s'\"<>)]+")
_QUERY = re.compile(r"(/[^\s?'\"]*)\?[^\s'\"<>)]*")
_NAMED_SECRET = re.compile(
    r"""((?:key|token|secret|authorization|password)(?:\ provided)?\\*['"]?\s*[:=]\s*)
    (?:(\\*['"]).+?(?:\2|$) | (?:(?:bearer|basic)\s+)?[^\s'",;&)}\]]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_BEARER = re.compile(r"\b(bearer\s+)[^\s'\",;)}\]]*[\d._-][^\s'\",;)}\]]*", re.IGNORECASE)
_KEY = re.compile(r"\b(?:(?:sk|pk|pa|voy)[-_]|AIza|hf_)[-_A-Za-z0-9]{8,}")
_CREDENTIALS = re.compile(
    r"\b(?:[a-z][\w+.-]*:/{1,2}[^\s/@:]*:(?:\S*|(?!\d+\b)[^'\"\n]*)|https?:/{1,2}\S*)@\S*",
    re.IGNORECASE,
)
"""A URL with a password, which may hold spaces but begins like no port, or with a token. One that
was taken for a path has a single slash."""
_PARAMETER = re.compile(
    r"""((?:password|api[-_]?key|token|secret)\s*=\s*)(?:'(?:\\.|[^'])*'?|"[^"]*"?|[^\s&]+)""",
    re.IGNORECASE,
)
_QUERY_BEGIN = re.compile("[?#]")


def redacted(url: str) -> str:
    """`url` without password and query, fit for messages. Never raises."""
    scheme, slashes, rest = url.partition("//")
    place, *query = _QUERY_BEGIN.split(rest, maxsplit=1)
    if query and "@" in query[0]:
        # A password that was not percent-encoded, or a query: nobody can tell where the host is.
        return f"{scheme}{slashes}…"
    # The last @ ends the credentials, because such a password may hold / and @, too. Credentials
    # without a colon are dropped whole, because they may be a token.
    credentials, _, place = place.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{slashes}{user}@{place}" if colon else f"{scheme}{slashes}{place}"


def without_credentials(text: str) -> str:
    """The text without the passwords of URLs and of connection strings.

    For words of memsync's own, which may repeat what an operator typed.
    """
    text = _CREDENTIALS.sub(lambda m: redacted(re.sub(":/+", "://", m.group(), count=1)), text)
    return _PARAMETER.sub(r"\1***", text)


def masked(text: str) -> str:
    """The text without what may be a key of the service: in a URL, behind its name, by its form.

    For the words of libraries.
    """
    text = _URL.sub(lambda found: redacted(found.group()), text)
    text = _QUERY.sub(r"\1", text)
    text = _NAMED_SECRET.sub(lambda m: f"{m[1]}{m[2] or ''}***{m[2] or ''}", text)
    return _KEY.sub("***", _BEARER.sub(r"\1***", text))
