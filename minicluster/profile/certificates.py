"""The certificates that a profile asks for: rendered, and refused where none could be issued."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from minicluster.errors import ProfileError
from minicluster.model import spec
from minicluster.model.spec import LOCALHOST

if TYPE_CHECKING:
    from minicluster.profile import schema
    from minicluster.profile.scope import Node, Scope

_LONGEST = 64  # bytes of a common name: ub-common-name of RFC 5280


def certificate(
    scope: Scope, wanted: schema.Certificate, *at: str | int, node: Node | None = None, bind_address: str = ""
) -> spec.CertificateSpec:
    """One for a node is valid for every address under which the node is reached.

    Raises:
        ProfileError: a template fails, or gives what cannot be in a certificate.
    """
    inner = scope.inner(*at)
    common_name = inner.text(wanted.common_name, "common_name")
    if not 1 <= len(common_name.encode()) <= _LONGEST:
        what = f"a common name has 1 to {_LONGEST} bytes, not {len(common_name.encode())}"
        raise ProfileError(f"{inner.where('common_name')}: {what}", "", "Write another one.")
    names = inner.words(wanted.names, "names")
    for i, name in enumerate(names):
        if not name.isascii():
            what = f"{inner.where('names', i)}: {name!r} is not a name in ASCII"
            raise ProfileError(what, "", "Write it as DNS has it (xn--...).")
    addresses = inner.words(wanted.addresses, "addresses")
    for i, address in enumerate(addresses):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            what = f"{inner.where('addresses', i)}: {address!r} is not an IP address"
            raise ProfileError(what, "", "Names go into `names`.") from None
    reached = (node.address, LOCALHOST, bind_address) if node else ()
    return spec.CertificateSpec(
        directory=wanted.directory or "",
        common_name=common_name,
        organization=inner.text(wanted.organization, "organization"),
        names=(*((node.name, "localhost") if node else ()), *names),
        addresses=tuple(dict.fromkeys([*reached, *addresses])),
        issuer=wanted.issuer,
    )
