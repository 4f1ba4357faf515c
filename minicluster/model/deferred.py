"""Deferred values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

DEFERRED = re.compile(r"@\{([a-z0-9_.-]+)\}")

#: A late value that the cluster's authority gives; see :meth:`minicluster.pki.Authority.secret`.
SECRET = re.compile(r"@\{secret\.([a-z0-9_]+)\.(hex|base64|uuid|ec)\}")


#: Late values of the client's certificate: PEM, once more in base64.
CLIENT_PARTS = ("ca_base64", "certificate_base64", "key_base64")


def fill(argv: Sequence[str], values: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Puts late values in. An argument that is nothing but a late value with several parts becomes as many arguments.

    >>> fill(["join", "@{token}", "@{names}"], {"token": "T", "names": ["a", "b"]})
    ['join', 'T', 'a', 'b']
    """

    def one(match: re.Match[str]) -> str:
        value = values[match[1]]
        return value if isinstance(value, str) else " ".join(value)

    result: list[str] = []
    for argument in argv:
        whole = DEFERRED.fullmatch(argument)
        value = values[whole[1]] if whole else None
        if value is not None and not isinstance(value, str):
            result.extend(value)
        else:
            result.append(DEFERRED.sub(one, argument))
    return result
