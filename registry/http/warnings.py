"""`Warning` headers, which clients of registries show. Source: RFC 7234, section 5.5."""

import re

_CODE = 299
"""The code of a warning that stays with the response."""

_NOT_QUOTABLE = re.compile(r"[^ !#-\[\]-~]")


def write_warning(text: str) -> str:
    """Return the value of the header. Characters that need an escape become `'`."""
    quoted = _NOT_QUOTABLE.sub("'", text)
    return f'{_CODE} - "{quoted}"'
