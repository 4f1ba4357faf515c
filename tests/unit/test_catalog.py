"""Which profiles there are, and the JSON Schema that editors check them with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from minicluster import paths
from minicluster.errors import UsageError
from minicluster.profile import catalog, folders
from tests.unit.samples import LEAST, TOY

Write = Callable[..., Path]

SCHEMA = Path(__file__).parents[2] / "docs" / "profile.schema.json"


def own(name: str, text: str = LEAST) -> Path:
    """Puts a profile into the user's own folder of them."""
    folder = paths.config_home() / "profiles" / name
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(text)
    return folder


def test_the_bundled_profiles_are_there() -> None:
    assert "swarm" in folders.names()
    assert catalog.load("swarm").bundled


@pytest.mark.parametrize("name", folders.names())
def test_a_bundled_profile_is_valid_to_the_last_template(name: str) -> None:
    assert catalog.validate(name).profile.name == name


def test_the_users_own_profiles_are_there_and_win_over_the_bundled() -> None:
    own("mine")
    folder = own("swarm", LEAST.replace("least", "swarm"))
    assert folders.names() == sorted(folders.names())
    assert "mine" in folders.names()
    assert folders.locate("swarm") == (folder, False)


def test_a_folder_without_a_profile_is_none() -> None:
    (paths.config_home() / "profiles" / "empty").mkdir(parents=True)
    assert "empty" not in folders.names()


def test_a_profile_is_found_by_its_folder_and_by_its_file() -> None:
    assert folders.locate(str(TOY)) == folders.locate(str(TOY / "profile.yaml")) == (TOY, False)


def test_a_profile_is_found_by_a_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOY)
    assert folders.locate(".") == (TOY, False)


def test_an_unknown_profile_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        folders.locate("swram")
    assert "'swarm'" in caught.value.fix


def test_a_folder_that_holds_no_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no profile\.yaml"):
        folders.locate(str(tmp_path))


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Check the path"):
        folders.locate(str(tmp_path / "nothing"))


def test_an_installed_package_takes_the_profiles_that_travel_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "minicluster"
    inside = package / "_profiles" / "inside"
    inside.mkdir(parents=True)
    (inside / "profile.yaml").write_text(LEAST)
    monkeypatch.setattr(folders, "__file__", str(package / "profile" / "folders.py"))
    assert folders.bundled_directory() == package / "_profiles"
    assert folders.names() == ["inside"]


# The schema


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == catalog.json_schema(), (
        "It is out of date: minicluster profile schema > docs/profile.schema.json"
    )


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(catalog.json_schema())
    return jsonschema.Draft202012Validator(catalog.json_schema())


@pytest.mark.parametrize("name", folders.names())
def test_a_bundled_profile_is_valid_by_the_schema(validator: Any, name: str) -> None:
    # Read by our own parser: to PyYAML, which is of YAML 1.1, the key "on" is a truth value. Editors are of 1.2.
    assert [error.message for error in validator.iter_errors(catalog.load(name).document.data)] == []


@pytest.mark.parametrize("value", ["{A: text}", "{A: 3}", "{A: true}", "{A: 1.5}"])
def test_the_schema_takes_the_environment_variables_that_the_code_takes(
    validator: Any, write_profile: Write, value: str
) -> None:
    text = LEAST + f"    env: {value}\n"
    catalog.load(str(write_profile(text)))
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("count: 1", "cuont: 1"), ("count: 1", "count: many"), ("name: least", "name: Least"), ("image: node", "")],
)
def test_the_schema_refuses_what_the_code_refuses(validator: Any, write_profile: Write, old: str, new: str) -> None:
    text = LEAST.replace(old, new)
    with pytest.raises(UsageError):
        catalog.load(str(write_profile(text)))
    assert not validator.is_valid(yaml.safe_load(text))
