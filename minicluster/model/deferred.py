"""Deferred values: places in a spec's texts that are filled in when their value exists.

Some values exist only while a cluster is bootstrapped, such as a join token, or only where its user is, such as the
address at which an endpoint is reached. A text of the spec holds a *marker* in their place: the value's name between
two NULs. Arguments, environment variables and text files cannot hold a NUL, so no text of a profile or a user looks
like one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

DEFERRED = re.compile(r"\0([a-z0-9_.-]+)\0")

#: A value that is derived from the key of the cluster's authority; see :meth:`minicluster.pki.Authority.secret`.
SECRET = re.compile(r"\0secret\.([a-z0-9_]+)\.(hex|base64|uuid|ec)\0")

#: What docker's configuration on this machine has for registries, as the text of a docker client's ``config.json``.
REGISTRY_CREDENTIALS = "registries.credentials"

#: Values of the client's certificate: PEM, base64-encoded once more.
CLIENT_PARTS = ("ca_base64", "certificate_base64", "key_base64")


def marker(name: str) -> str:
    """What stands in a text for the value of that name."""
    return f"\0{name}\0"


def readable(text: str) -> str:
    r"""A text for people: ``<NAME>`` where a value comes later.

    >>> readable("--token=\0captured.token\0")
    '--token=<captured.token>'
    """
    return DEFERRED.sub(r"<\1>", text)


def fill(texts: Sequence[str], values: Mapping[str, str | Sequence[str]]) -> list[str]:
    r"""Replaces markers by values; those of other names stay. An argument that is only a list becomes its items.

    >>> fill(["join", "\0token\0", "\0names\0"], {"token": "T", "names": ["a", "b"]})
    ['join', 'T', 'a', 'b']
    """

    def one(match: re.Match[str]) -> str:
        value = values.get(match[1], match[0])
        return value if isinstance(value, str) else " ".join(value)

    result: list[str] = []
    for text in texts:
        whole = DEFERRED.fullmatch(text)
        value = values.get(whole[1]) if whole else None
        if value is not None and not isinstance(value, str):
            result.extend(value)
        else:
            result.append(DEFERRED.sub(one, text))
    return result
