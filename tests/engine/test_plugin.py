"""The pytest plugin in real runs of pytest: however they end, nothing is left but what should be kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, etcd_called, eventually, remains

KIND = "t-plug"  #: a profile like etcd's, so that its clusters can be distinguished

FIXTURE = """
import os, signal, time
import pytest

@pytest.fixture(scope="session")
def etcd(minicluster):
    return minicluster(os.environ["PROFILE"], size={"kv": 1})

def put(cluster, value="b"):
    assert cluster.node("kv-1").exec(["etcdctl", "put", "a", value]).stdout == "OK\\n"

def get(cluster):
    return cluster.node("kv-1").exec("etcdctl get a --print-value-only").stdout.strip()
"""


@pytest.fixture(scope="module")
def kind(outer: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return etcd_called(outer, tmp_path_factory.mktemp("profiles") / KIND)


@pytest.fixture
def runs(outer: Shell, kind: Path, tmp_path: Path) -> Iterator[Runs]:
    found = Runs(outer, kind, tmp_path)
    yield found
    left = remains(outer, KIND)
    for name in clusters(outer):
        outer.minicluster("down", name, ok=False)
    assert left == {}


def clusters(shell: Shell) -> list[str]:
    """Names of the profile's clusters, by their labels."""
    out = shell.docker("ps", "-a", "--filter", f"label=io.minicluster.profile={KIND}", "--format", "{{.Names}}").out
    return sorted({name.rpartition("-kv-")[0] for name in out.split()})


class Runs:
    """Runs of pytest on files written for the test."""

    def __init__(self, shell: Shell, kind: Path, folder: Path) -> None:
        self.shell, self.kind, self.folder = shell, kind, folder

    def write(self, text: str, name: str = "test_it.py") -> None:
        (self.folder / name).write_text(textwrap.dedent(FIXTURE) + textwrap.dedent(text))

    def start(self, *options: str) -> subprocess.Popen[str]:
        env = os.environ | self.shell.env | {"PROFILE": str(self.kind)}
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *options, str(self.folder)]
        return subprocess.Popen(
            words,
            env=env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str) -> str:
        return ended(self.start(*options))


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=180)
    return output


def outcomes(output: str) -> dict[str, int]:
    last = output.strip().splitlines()[-1]
    return {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error)", last)}


def operations(output: str) -> dict[str, int]:
    """How many clusters were created, repaired, …, according to the summary."""
    line = next(line for line in output.splitlines() if " s on clusters: " in line)
    return {what: int(number) for number, what in re.findall(r"(\d+) ([a-z ]+) in [\d.]+ s", line)}


def test_every_test_gets_a_healthy_and_empty_cluster(runs: Runs) -> None:
    runs.write("""
        @pytest.fixture(scope="session")
        def three(minicluster):
            return minicluster(os.environ["PROFILE"], size={"kv": 3})

        def test_puts(three):
            put(three)

        def test_finds_it_empty(three):
            assert get(three) == ""

        def test_kills_two_of_three(three):
            put(three)
            three.kill(["kv-2", "kv-3"])

        def test_finds_it_whole(three):
            assert three.status().phase == "ready"
            assert get(three) == ""

        def test_grows_it(three):
            three.node("kv-3").pause()
            three.node("kv-3").unpause()
            three.stop("kv-2")

        def test_is_asked_again(minicluster, three):
            again = minicluster(os.environ["PROFILE"], size={"kv": 3})
            assert again.name == three.name
            assert {n.status().ready for n in again.nodes("kv")} == {True}
    """)
    output = runs.run()
    assert outcomes(output) == {"passed": 6}, output
    assert operations(output)["created"] == 1
    assert operations(output)["repaired"] == 2
    assert operations(output)["removed"] == 1


def test_a_test_that_destroys_its_cluster_affects_no_other(runs: Runs) -> None:
    runs.write("""
        def test_destroys(etcd):
            import subprocess
            subprocess.run(["docker", "rm", "-f", "-v", f"{etcd.name}-kv-1"], check=True)
            subprocess.run(["docker", "volume", "rm", f"{etcd.name}-kv-1-var-lib-etcd"], check=True)

        def test_goes_on(etcd):
            put(etcd)

        def test_takes_it_down(etcd):
            etcd.down()

        def test_goes_on_again(etcd):
            put(etcd)
    """)
    output = runs.run()
    assert outcomes(output) == {"passed": 4}, output


@pytest.mark.long
def test_scopes(runs: Runs) -> None:
    runs.write(
        """
        import subprocess
        names = {}

        def there():
            out = subprocess.run(["docker", "ps", "--format", "{{.Names}}"], capture_output=True, text=True).stdout
            return {name.rpartition("-kv-")[0] for name in out.split()}

        def ask(minicluster, scope, label=""):
            return minicluster(os.environ["PROFILE"], size={"kv": 1}, scope=scope, label=label).name

        class TestOne:
            def test_1(self, minicluster):
                for scope in ("function", "class", "module", "session"):
                    names[scope] = ask(minicluster, scope)
                names["another"] = ask(minicluster, "function", "another")
                assert len(set(names.values())) == 5
                assert set(names.values()) <= there()

            def test_2(self, minicluster):
                assert names["function"] not in there()
                assert names["another"] not in there()
                for scope in ("class", "module", "session"):
                    assert names[scope] == ask(minicluster, scope)

        def test_3(minicluster):
            assert names["class"] not in there()
            for scope in ("module", "session"):
                assert names[scope] == ask(minicluster, scope)
    """,
        "test_1.py",
    )
    runs.write(
        """
        import test_1

        @pytest.mark.minicluster(os.environ["PROFILE"], size={"kv": 1})
        def test_4(cluster):
            assert test_1.names["module"] not in test_1.there()
            assert cluster.name == test_1.names["session"]

        def test_without_a_marker(cluster):
            pass
    """,
        "test_2.py",
    )
    output = runs.run("-p", "no:randomly")
    assert outcomes(output) == {"passed": 4, "error": 1}, output
    assert "add @pytest.mark.minicluster" in output


@pytest.mark.long
def test_the_report_of_a_failure_has_the_clusters_state(runs: Runs) -> None:
    runs.write("""
        def test_fails(etcd):
            assert get(etcd) == "something"

        def test_passes(etcd):
            put(etcd)

        def test_cannot_be_set_up(minicluster):
            minicluster(os.environ["PROFILE"], size={"kv": 2})

        def test_fails_too(etcd):
            assert get(etcd) == "something"

        @pytest.fixture(scope="session")
        def wide(minicluster):
            return minicluster(os.environ["PROFILE"], size={"kv": 1}, scope="module")

        def test_asks_for_what_goes_before_it(wide):
            pass

        @pytest.mark.skip
        def test_is_skipped(etcd):
            pass

        @pytest.fixture
        def broken(etcd):
            raise RuntimeError("in set-up")

        def test_errs(broken):
            pass
    """)
    output = runs.run()
    assert outcomes(output) == {"failed": 3, "passed": 1, "error": 2}, output
    assert output.count(": status ---") == 3  # each that used it and failed
    assert "a fixture of scope session cannot use a cluster of scope module" in output
    name = re.search(rf"minicluster ({KIND}-\w+): status", output)
    assert name
    assert f"{name[1]} ({KIND}): ready" in output
    assert f"minicluster {name[1]}: plan" in output
    assert "start kv-1: run the node" in output
    assert f"minicluster {name[1]}: log of kv-1" in output
    assert "elected leader" in output
    assert "--size kv=2" in output


def test_interrupted(runs: Runs) -> None:
    runs.write("""
        def test_waits(etcd):
            put(etcd)
            print("waiting")
            time.sleep(100)
    """)
    process = runs.start("-s")
    assert process.stdout
    for line in process.stdout:
        if "waiting" in line:
            break
    process.send_signal(signal.SIGINT)
    output = ended(process)
    assert process.returncode == 2, output
    assert "KeyboardInterrupt" in output
    assert remains(runs.shell, KIND) == {}


@pytest.mark.long
def test_interrupted_while_a_cluster_starts(runs: Runs) -> None:
    runs.write("""
        def test_waits(etcd):
            pass
    """)
    process = runs.start()
    eventually(lambda: remains(runs.shell, KIND).get("containers"), within=30)
    process.send_signal(signal.SIGINT)
    output = ended(process)
    assert process.returncode == 2, output
    assert remains(runs.shell, KIND) == {}


@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.long), "2"])
def test_killed(runs: Runs, workers: str) -> None:
    """kill -9 of all processes of the run."""
    runs.write("""
        @pytest.mark.parametrize("i", range(2))
        def test_waits(etcd, minicluster, i):
            own = minicluster(os.environ["PROFILE"], size={"kv": 1}, scope="function", isolated=False)
            time.sleep(100)
    """)
    process = runs.start("-n", workers)
    eventually(lambda: len(clusters(runs.shell)) >= 2, within=60)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    eventually(lambda: not remains(runs.shell, KIND), within=60)


SHARING = """
    @pytest.mark.parametrize("i", range(12))
    def test_shares(minicluster, i):
        cluster = minicluster(os.environ["PROFILE"], size={"kv": 1}, isolated=%s)
        %s
        key = f"k{i}"
        assert cluster.node("kv-1").exec(["etcdctl", "put", key, "x"]).stdout == "OK\\n"
        time.sleep(0.1)
        found = cluster.node("kv-1").exec("etcdctl get --prefix k --keys-only").stdout.split()
        assert key in found
        assert %s
"""


def test_workers_share_one_cluster(runs: Runs) -> None:
    runs.write(SHARING % ("False", "", "True"))
    output = runs.run("-n", "4")
    assert outcomes(output) == {"passed": 12}, output
    assert operations(output)["created"] == 1
    assert operations(output)["removed"] == 1
    assert "reset" not in operations(output)


@pytest.mark.long
def test_isolated_tests_take_turns(runs: Runs) -> None:
    runs.write(SHARING % ("True", "", "found == [key]"))
    output = runs.run("-n", "4")
    assert outcomes(output) == {"passed": 12}, output
    assert operations(output)["created"] == 1
    assert operations(output)["reset"] == 11


@pytest.mark.long
def test_a_worker_is_killed(runs: Runs) -> None:
    kill = """if i == 5:
            minicluster(os.environ["PROFILE"], size={"kv": 1}, scope="function")
            os.kill(os.getpid(), 9)"""
    runs.write(SHARING % ("True", kill, "found == [key]"))
    output = runs.run("-n", "2")
    assert outcomes(output) == {"passed": 11, "failed": 1}, output
    assert "crashed" in output
    # Shared clusters were removed with the run; the killed worker's own by its reaper.
    eventually(lambda: not remains(runs.shell, KIND), within=30)


@pytest.mark.long
def test_two_runs_at_once(runs: Runs) -> None:
    runs.write("""
        def test_puts(etcd):
            put(etcd, str(os.getpid()))
            time.sleep(2)
            assert get(etcd) == str(os.getpid())
    """)
    processes = [runs.start() for _ in range(2)]
    for output in [ended(process) for process in processes]:
        assert outcomes(output) == {"passed": 1}, output


@pytest.mark.long
def test_reuse(runs: Runs) -> None:
    runs.write("""
        def test_puts(etcd):
            assert get(etcd) == ""
            put(etcd)
    """)
    first = runs.run("--minicluster-reuse")
    assert operations(first)["created"] == 1, first
    there = clusters(runs.shell)
    assert len(there) == 1
    leases = {c["cluster"]: c["lease"] for c in runs.shell.minicluster("ls", "-o", "json").json}
    assert leases[there[0]].startswith(("23 h 59 min", "24 h", "1 d"))
    processes = [
        runs.start("--minicluster-reuse", "--minicluster-ttl=2h"),
        runs.start("--minicluster-reuse", "--minicluster-ttl=2h"),
    ]
    for output in [ended(process) for process in processes]:
        assert outcomes(output) == {"passed": 1}, output
        assert "created" not in operations(output)
        assert operations(output)["reset"] == 1
    assert clusters(runs.shell) == there
    leases = {c["cluster"]: c["lease"] for c in runs.shell.minicluster("ls", "-o", "json").json}
    assert leases[there[0]].startswith(("1 h 59 min", "2 h"))
    runs.shell.minicluster("down", *there)


@pytest.mark.long
def test_keep(runs: Runs) -> None:
    runs.write("""
        def test_fails(etcd):
            put(etcd)
            assert False

        def test_passes(etcd):
            assert get(etcd) == ""

        def test_passes_too(minicluster):
            minicluster(os.environ["PROFILE"], size={"kv": 1}, scope="function")
    """)
    output = runs.run("--minicluster-keep")
    assert outcomes(output) == {"failed": 1, "passed": 2}, output
    (kept,) = clusters(runs.shell)
    assert f"minicluster: kept for debugging: {kept}" in output
    assert runs.shell.minicluster("exec", "-c", kept, "kv-1", "--", "etcdctl", "get", "a").out == "a\nb\n"
    time.sleep(2)  # a reaper that did not know would remove it now
    assert clusters(runs.shell) == [kept]
    runs.shell.minicluster("down", kept)


@pytest.mark.long
def test_a_fault_that_a_test_leaves_is_healed_and_named(runs: Runs) -> None:
    runs.write("""
        def test_leaves_it(etcd):
            etcd.fault.dns("kv-1")
            assert len(etcd.faults()) == 1

        def test_has_none(etcd):
            assert etcd.faults() == ()
            assert etcd.exec("kv-1", ["getent", "hosts", "kv-1"]).exit_code == 0
    """)
    output = runs.run()
    assert outcomes(output) == {"passed": 2}, output
    told = output.partition("warnings summary")[2]
    assert "test_leaves_it" in told
    assert re.search(r"healed after the test: dns kv-1", told), told


@pytest.mark.long
def test_chaos_beside_a_test_is_in_its_report(runs: Runs) -> None:
    runs.write("""
        @pytest.mark.parametrize("works", [True, False])
        def test_it(minicluster, chaos, works):
            three = minicluster(os.environ["PROFILE"], size={"kv": 3})
            with chaos(three, every=2, kinds=["partition"], keep_quorum=True, seed=7) as run:
                end = time.monotonic() + 60
                while not run.rounds and time.monotonic() < end:
                    time.sleep(0.1)
            assert run.rounds[0].kind == "partition"
            assert run.summary.seed == 7
            assert three.faults() == ()
            assert works
    """)
    output = runs.run()
    assert outcomes(output) == {"passed": 1, "failed": 1}, output
    assert "chaos, seed 7" in output
    assert '"kind": "partition"' in output


def test_no_engine(runs: Runs) -> None:
    runs.write("""
        def test_it(etcd):
            pass
    """)
    output = Runs(Shell({"DOCKER_HOST": f"unix://{runs.folder}/none.sock"}), runs.kind, runs.folder).run()
    assert outcomes(output) == {"error": 1}, output
    assert "the engine of DOCKER_HOST does not answer" in output


def test_a_worker_that_crashes_needs_no_engine(runs: Runs) -> None:
    runs.write("""
        def test_crashes():
            os._exit(3)
    """)
    output = Runs(Shell({"DOCKER_HOST": f"unix://{runs.folder}/none.sock"}), runs.kind, runs.folder).run("-n", "1")
    assert outcomes(output) == {"failed": 1}, output
    assert "minicluster: the engine of DOCKER_HOST does not answer" in output


def test_a_run_without_clusters_imports_nothing(runs: Runs) -> None:
    runs.write("""
        def test_it():
            import sys
            assert not {m for m in sys.modules if m.startswith("minicluster")} - {
                "minicluster", "minicluster.testing", "minicluster.testing.plugin"
            }
            assert "docker" not in sys.modules
    """)
    output = runs.run()
    assert outcomes(output) == {"passed": 1}, output
    assert "minicluster: " not in output
