"""Environments with little in them, as in CI: closed standard streams, no home directory, one that is read-only."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicluster import paths
from minicluster.engine import client_config
from minicluster.engine.docker.client_side import proxies
from minicluster.errors import MiniclusterError, UsageError
from minicluster.host import spool
from minicluster.project import find

MINICLUSTER = f"{sys.executable} -m minicluster"


def run(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line], env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    done = run(f"{MINICLUSTER} profile list {closed}", DOCKER_HOST=f"unix://{tmp_path}/none")
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr


def test_an_error_has_its_status_without_a_stderr(tmp_path: Path) -> None:
    assert run(f"{MINICLUSTER} up nothing-like-this 2>&-", DOCKER_HOST=f"unix://{tmp_path}/none").returncode == 2


def test_no_home_directory_is_one_plain_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(cls: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(none))
    for place in (paths.data_home, paths.config_home, paths.cache_home, client_config._folder):
        with pytest.raises(UsageError, match="no home directory") as error:
            place()
        assert "HOME" in error.value.fix


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null"])
def test_a_home_that_cannot_be_written_is_a_usage_error(home: str) -> None:
    from minicluster.host.flock import take

    with pytest.raises(MiniclusterError) as error:
        take(Path(home) / "x.lock")
    assert "Set XDG_DATA_HOME or HOME" in error.value.fix


@pytest.mark.parametrize("locale", ["xx_YY.bogus", "C", "POSIX"])
def test_any_locale_will_do(locale: str, tmp_path: Path) -> None:
    done = run(f"{MINICLUSTER} profile list", LC_ALL=locale, LANG=locale, DOCKER_HOST=f"unix://{tmp_path}/none")
    assert (done.returncode, done.stderr) == (0, "")


# Proxies


@pytest.fixture
def unproxied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(client_config, "settings", dict)
    return monkeypatch


def test_nodes_get_this_process_s_proxies(unproxied: pytest.MonkeyPatch) -> None:
    assert proxies("unix:///x", "172.28.3.4") == {}
    unproxied.setenv("https_proxy", "http://user:pw@proxy:3128")
    unproxied.setenv("NO_PROXY", "work")
    env = proxies("unix:///x", "172.28.3.4")
    assert env["HTTPS_PROXY"] == env["https_proxy"] == "http://user:pw@proxy:3128"
    assert env["NO_PROXY"] == env["no_proxy"] == "work,localhost,127.0.0.1,0.0.0.0,172.28.3.0/24"
    assert "HTTP_PROXY" not in env


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:3128", "localhost:3128", "http://[::1]:3128"])
def test_a_proxy_on_the_loopback_is_none_for_nodes(unproxied: pytest.MonkeyPatch, proxy: str) -> None:
    unproxied.setenv("HTTP_PROXY", proxy)
    assert proxies("unix:///x", "172.28.3.4") == {}


def test_the_docker_clients_own_settings_come_first(unproxied: pytest.MonkeyPatch) -> None:
    unproxied.setenv("HTTP_PROXY", "http://other:1")
    settings = {"proxies": {"default": {"httpProxy": "http://proxy:3128"}}}
    unproxied.setattr(client_config, "settings", lambda: settings)
    assert proxies("unix:///x", "172.28.3.4")["HTTP_PROXY"] == "http://proxy:3128"


def test_a_proxy_that_is_no_address_is_left_out(unproxied: pytest.MonkeyPatch) -> None:
    unproxied.setenv("HTTP_PROXY", "http://[::1")
    assert proxies("unix:///x", "172.28.3.4") == {}
    unproxied.setenv("HTTPS_PROXY", "http://proxy:3128")
    unproxied.setenv("NO_PROXY", "[::1,work")
    assert proxies("unix:///x", "172.28.3.4")["NO_PROXY"].startswith("[::1,work,")


# Temporary files


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """A usual folder for temporary files with 1 GB of space, and a further one with 2."""
    found = {name: tmp_path / name for name in ("usual", "further")}
    for place in found.values():
        place.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(spool.tempfile, "gettempdir", lambda: str(found["usual"]))
    monkeypatch.setattr(spool, "_PLACES", (str(found["further"]),))
    space = {str(found["usual"]): 1, str(found["further"]): 2}
    monkeypatch.setattr(spool, "_free", lambda place: space[place])
    return found


def test_what_is_large_goes_where_there_is_space(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert spool.folder() == str(places["further"])
    monkeypatch.setenv("TMPDIR", str(places["usual"]))  # the user's own choice
    assert spool.folder() == str(places["usual"])


def test_a_folder_that_cannot_be_written_has_no_space(tmp_path: Path) -> None:
    assert spool._free(str(tmp_path)) > 0
    assert spool._free(str(tmp_path / "none")) == -1
    if os.geteuid():
        assert spool._free("/proc") == -1


def test_no_room_is_one_plain_sentence(places: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="a temporary file cannot be written") as error, spool.writing():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(places["further"]) in error.value.why
    assert "TMPDIR" in error.value.fix
    with pytest.raises(ConnectionResetError), spool.writing():
        raise ConnectionResetError


def test_no_folder_for_temporary_files_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(spool.tempfile, "gettempdir", none)
    with pytest.raises(UsageError, match="no folder for temporary files"):
        spool.folder()


# Home directories


def test_a_user_who_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match=r"no home directory for ~no\.such\.user in ~no\.such\.user/x"):
        paths.expanded("~no.such.user/x")
    assert paths.expanded("a/~b") == Path("a/~b")


def test_without_a_home_folder_a_project_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", home)
    (tmp_path / find.NAME).touch()
    (tmp_path / "inner").mkdir()
    assert find.search(tmp_path / "inner") == tmp_path / find.NAME
