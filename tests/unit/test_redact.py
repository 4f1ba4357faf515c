"""What leaves this machine has no secrets in it, and remains readable."""

from __future__ import annotations

import base64
import json

import pytest

from minicluster.model.redact import Redactor, is_secret_name, secrets_in

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"
SECRET = 'p"a/s w+ord'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nx", "***\nx"),
        (r'"-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\n"', r'"***\n"'),
        ("-----BEGIN RSA PRIVATE KEY-----\ncut off", "***"),
        ("client-key-data: LS0tLS1CRUdJTiBFQyBQUklWQVRF", "client-key-data: ***"),
        (
            "docker swarm join --token SWMTKN-1-3pu6hszjas19-8vxv8rssmk 10.0.0.2",
            "docker swarm join --token *** 10.0.0.2",
        ),
        ("SWMKEY-1-abc+/d=", "***"),
        ("kubeadm join abcdef.0123456789abcdef", "kubeadm join ***"),
        (f"got {TOKEN}.", "got ***."),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("Authorization: Basic bWU6cHc=", "Authorization: Basic ***"),
        ("basic authentication is on", "basic authentication is on"),
        ("http://me:pw@proxy:3128/x", "http://***@proxy:3128/x"),
        ("redis://default:p@ss@host:1 and ssh://root@host", "redis://***@host:1 and ssh://***@host"),
        ("password: hunter", "password: ***"),
        ('{"db_password": "a b", "n": 1}', '{"db_password": ***, "n": 1}'),
        (r'{"password": "a\"b", "n": 1}', '{"password": ***, "n": 1}'),
        (r'msg="{\"token\":\"abc\"}"', r'msg="{\"token\":\***'),  # rather too much
        ("PG_PASSWORD=x y", "PG_PASSWORD=*** y"),
        ("ENCRYPTION_KEY=x y", "ENCRYPTION_KEY=*** y"),
        ("--acl-token=abc", "--acl-token=***"),
        ("level=info listening on https://127.0.0.1:2379", "level=info listening on https://127.0.0.1:2379"),
        ("PWD=/ tick_time=500 initial-cluster-state=new", "PWD=/ tick_time=500 initial-cluster-state=new"),
        ("image sha256:" + "a" * 64, "image sha256:" + "a" * 64),
        ("compass: north, passed=3", "compass: north, passed=3"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert Redactor().text(text) == expected


@pytest.mark.parametrize(
    "form",
    [SECRET, json.dumps(SECRET), "p%22a%2Fs%20w%2Bord", base64.b64encode(SECRET.encode()).decode()],
)
def test_known_secrets_in_every_form(form: str) -> None:
    said = Redactor([SECRET]).text(f"it is {form}!")
    assert said.replace('"', "") == "it is ***!"


def test_a_word_that_is_too_short_is_hidden_under_its_name_only() -> None:
    redactor = Redactor(["no"])
    assert redactor.text("no node") == "no node"
    assert redactor.data({"password": "no", "other": ["no"]}) == {"password": "***", "other": ["no"]}


def test_data_keeps_its_shape() -> None:
    data = {"tokens": 3, "token": "abc", "nested": [{"x": "http://a:b@c"}], "none": None}
    assert Redactor().data(data) == {"tokens": 3, "token": "***", "nested": [{"x": "http://***@c"}], "none": None}


def test_secrets_among_settings() -> None:
    found = secrets_in({"db.password": "one1", "proxy": "http://me:two%202@host", "tick_time": "500"})
    assert found == {"one1", "two%202", "two 2"}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("PASSWORD", True),
        ("apiToken", True),
        ("acl.tokens", True),
        ("API_KEY", True),
        ("compass", False),
        ("key", True),
        ("ENCRYPTION_KEY", True),
        ("signingKey", True),
        ("BASIC_AUTH", True),
        ("MYSQL_PWD", True),
        ("requirepass", True),
        ("PWD", False),
        ("OLDPWD", False),
        ("SSH_AUTH_SOCK", False),
        ("monkey", False),
    ],
)
def test_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize("unit", ["a1", "a.", "A-", "x:/", "eyJ", "password"])
def test_a_long_line_is_read_once(unit: str) -> None:
    """A pattern that begins anew at each of its characters would take hours, and the whole suite with it."""
    line = unit * 200_000
    assert len(Redactor(["hunter2"]).text(line)) <= len(line)
