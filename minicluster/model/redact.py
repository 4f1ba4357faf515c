"""Replaces what must not leave this machine: keys, tokens, and passwords in URLs, settings and assignments."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from minicluster.model.deferred import readable

HIDDEN = "***"
_SHORTEST = 4  # characters: a shorter value is part of too many words to be replaced everywhere

_NAME = r"pass(?:word|wd|phrase|code)|[_-]pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?"
_SECRET_NAME = re.compile(
    rf"passw(?:or)?d|passphrase|passcode|secret|credential|apikey|(?:^|[^a-z])(?:{_NAME})s?(?:$|[^a-z])"
    r"|tokens?[0-9]*$|(?<!com)(?<!by)pass[0-9]*$"
    r"|(?:^|[^a-z])(?:key|auth)s?[0-9]*$|[^a-z]pwd[0-9]*$|(?-i:[a-z](?:Key|Auth|Pwd))$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_PLAIN = frozenset(("true", "false", "none", "null"))  # values that are no secrets, whatever their name is
_SUBSTITUTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]+"), HIDDEN),  # PEM, encoded once more as in a kubeconfig
    (re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)[^\s/\"'<>\\]{1,500}@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(r"\bSWM(?:TKN|KEY)-[A-Za-z0-9+/=-]+"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),  # a JSON web token
    (re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"), HIDDEN),  # kubeadm's and kubelet's bootstrap tokens
    (
        re.compile(r"\b(bearer|authorization[\"']?\s*[:=]\s*[\"']?basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE),
        rf"\1 {HIDDEN}",
    ),
    (
        re.compile(
            rf"((?<![a-z0-9_.-])[a-z0-9_.-]{{0,80}}(?:(?:{_NAME})[a-z0-9_-]{{0,40}}|[_-](?:key|auth))\\{{0,3}}[\"']?\s*[=:]\s*\\{{0,3}})(?!\*\*\*)"
            r"(\"(?:[^\"\\]|\\.)*\"|\"[^\"]*\"|'[^']*'|[^\s\"',;&}]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)
_USER_INFO = re.compile(r"[a-z][a-z0-9+.-]*://([^\s/@]*(?:@[^\s/@]*)*)@", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a setting or variable of this name has a secret in it.

    >>> is_secret_name("PG_PASSWORD"), is_secret_name("acl.token"), is_secret_name("ENCRYPTION_KEY")
    (True, True, True)
    >>> is_secret_name("tick_time"), is_secret_name("PWD")
    (False, False)
    """
    return _SECRET_NAME.search(name) is not None


def names_secret(text: str) -> bool:
    """Whether a word of a text is the name of a secret, as in a line of a configuration file.

    >>> names_secret("requirepass hunter2"), names_secret("--level=3")
    (True, False)
    """
    return any(map(is_secret_name, _WORD.findall(text)))


def secrets_in(values: Mapping[str, str]) -> set[str]:
    """The secrets among settings or variables: those of such a name, and the passwords in URLs."""
    found = {value for name, value in values.items() if is_secret_name(name) and value.lower() not in _PLAIN}
    for value in values.values():
        for user_info in _USER_INFO.findall(value):
            password = user_info.partition(":")[2] or user_info
            found |= {password, unquote(password)}
    return found


class Redactor:
    """Redacts texts and plain data.

    >>> Redactor(["hunter2"]).text("the word is hunter2, at http://me:pw@host, password: x")
    'the word is ***, at http://***@host, password: ***'
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
        longest_first = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def text(self, text: str) -> str:
        """A text without secrets."""
        if self._known:
            text = self._known.sub(HIDDEN, text)
        for pattern, replacement in _SUBSTITUTIONS:
            text = pattern.sub(replacement, text)
        return text

    def data(self, value: Any) -> Any:
        """Plain JSON data without secrets: also what is under such a name is hidden."""
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): HIDDEN
                if isinstance(item, str) and item and is_secret_name(str(key))
                else self.data(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.data(item) for item in value]
        return self.text(value) if isinstance(value, str) else value


def readable_words(command: Sequence[str]) -> list[str]:
    """A command for people, without secrets: also the word after an option of such a name is hidden.

    >>> readable_words(["login", "--password", "hunter2", "http://me:pw@host"])
    ['login', '--password', '***', 'http://***@host']
    """
    redactor, before = Redactor(), ["", *command][:-1]
    return [
        HIDDEN if option.startswith("-") and is_secret_name(option) else redactor.text(readable(word))
        for option, word in zip(before, command, strict=True)
    ]


def _forms(secret: str) -> set[str]:
    """A secret as it may be written: plain, in JSON, in a URL, in base64."""
    encoded = base64.b64encode(secret.encode()).decode()
    forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}
    return forms | {encoded, encoded.rstrip("=")}
