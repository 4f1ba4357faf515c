"""The files of a node: those of its profile with secrets put in, freshly issued certificates, the authority itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from minicluster.engine.protocol import File
from minicluster.model.deferred import SECRET, fill

if TYPE_CHECKING:
    from minicluster.pki import Authority
    from minicluster.plan.steps import PutFiles


def node_files(action: PutFiles, authority: Authority, values: Mapping[str, str]) -> list[File]:
    """What a step writes into a container. ``values``: deferred values other than secrets."""
    from minicluster import pki

    def secret(match: re.Match[str]) -> str:
        return authority.secret(match[1], match[2])

    texts = fill([SECRET.sub(secret, file.content) for file in action.files], values)
    files = [File(f.path, t.encode(), f.mode, f.uid, f.gid) for f, t in zip(action.files, texts, strict=True)]
    for wanted in action.certificates:
        issued = authority.issue(wanted)
        files += [
            File(f"{wanted.directory}/ca.pem", issued.ca),
            File(f"{wanted.directory}/cert.pem", issued.certificate),
            File(f"{wanted.directory}/key.pem", issued.key, 0o600),
        ]
    if action.authority:
        files.append(File(pki.PATH, authority.dump(), 0o600))
    return files
