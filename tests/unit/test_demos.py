"""Demos: their files, the shell that runs their commands, what is shown, and recordings."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from minicluster.cli.app import app
from minicluster.cli.presenter import Left, Presenter
from minicluster.cluster import Cluster
from minicluster.demos import catalog, perform
from minicluster.demos.document import Command, Demo, File, Heading, Prose, missing, parse, read
from minicluster.demos.perform import Outcome, Unseen
from minicluster.demos.recording import Recording
from minicluster.demos.session import Session, ShellEnded, opened
from minicluster.errors import UsageError
from tests.fakes import FakeEngine
from tests.unit.samples import TOY
from tests.unit.test_docs import PAGES

WHERE = Path("mine.md")
CONSOLE = "```console\n$ true\n```\n"


def demo_of(body: str, about: str = "") -> Demo:
    return parse(WHERE, f"{about}# Mine\n\n{body}")


# The file


def test_a_file_is_read() -> None:
    text = """---
profile: etcd
size: {kv: 1}
set: {tls: false, quota: 5, version: "3.6"}
note: never run
order: 7
---

# A title

Some *prose*
in two lines.

```sh
# not a heading, and not run
```

## A step ##

~~~yaml file=web.yaml
a: |
  ```
~~~

```console within=1m30s timeout=5s
$ cat <<END | sort
> b
> a
> END
a
...
b

$ echo
```

```console fails
$ false
```
"""
    demo = parse(Path("x/mine.md"), text)
    settings = {"tls": "false", "quota": "5", "version": "3.6"}
    assert (demo.name, demo.title, demo.profile, demo.size, demo.settings) == (
        "mine", "A title", "etcd", {"kv": 1}, settings,
    )  # fmt: skip
    assert (demo.note, demo.order) == ("never run", 7)
    assert demo.parts == (
        Prose(11, "Some *prose*\nin two lines.\n\n```sh\n# not a heading, and not run\n```"),
        Heading(18, 2, "A step"),
        File(20, "web.yaml", "yaml", "a: |\n  ```\n"),
        Command(26, "cat <<END | sort\nb\na\nEND", ("a", "b"), within=90.0, timeout=5.0),
        Command(34, "echo", (), within=90.0, timeout=5.0),
        Command(38, "false", (), fails=True),
    )


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 0, "begins with its title"),
        ("prose\n\n# Title\n" + CONSOLE, 1, "begins with its title"),
        ("## Step\n" + CONSOLE, 1, "begins with its title"),
        ("# T\n\nprose\n", 1, "no command in this demo"),
        ("# T\n\n```console\n$ true\n", 3, "this block has no end"),
        ("# T\n\n````console\n$ true\n```\n", 3, "this block has no end"),
        ("# T\n\n```console\ntrue\n```\n", 4, "output in front of the first command"),
        ("# T\n\n```console\n\n```\n", 3, "no command in this block"),
        ("# T\n\n```console\n$ true\n$ \n```\n", 5, "no command after '$'"),
        ("# T\n\n```console within=soon\n$ true\n```\n", 3, "within=soon: not a duration"),
        ("# T\n\n```console within\n$ true\n```\n", 3, "within: no such option"),
        ("# T\n\n```console fails fails\n$ true\n```\n", 3, "fails is given twice"),
        ("# T\n\n```console quick\n$ true\n```\n", 3, "quick: no such option"),
        ("# T\n\n```yaml file=../x\na\n```\n" + CONSOLE, 3, "../x: not a file's name"),
        ("# T\n\n```yaml file=\na\n```\n" + CONSOLE, 3, "file=: not a file's name"),
        ("# T\n\n```file=x\na\n```\n" + CONSOLE, 3, "not a file"),
        ("---\nsize: {}\n# T\n", 1, "the front matter has no end"),
        ("---\nsize: [\n---\n# T\n" + CONSOLE, 3, "the front matter is not YAML"),
        ("---\n- a\n---\n# T\n" + CONSOLE, 2, "the front matter is not a mapping"),
        ("---\nnote: x\nsizes: {}\n---\n# T\n" + CONSOLE, 3, "no key 'sizes' in a demo"),
        ("---\nsize: 3\n---\n# T\n" + CONSOLE, 2, "size must be numbers of nodes by role"),
        ("---\nsize: {kv: -1}\n---\n# T\n" + CONSOLE, 2, "size must be"),
        ("---\norder: first\n---\n# T\n" + CONSOLE, 2, "order must be a number"),
        ("---\nset: {a: [1]}\n---\n# T\n" + CONSOLE, 2, "set must be settings by name"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(WHERE, text)
    assert refused.value.what.startswith(f"mine.md:{line}: ")
    assert what in refused.value.what


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path / "none.md")
    (tmp_path / "latin.md").write_bytes(b"\xe9")
    with pytest.raises(UsageError, match="It is not UTF-8"):
        read(tmp_path / "latin.md")


def test_what_bash_does_not_understand_is_refused_before_anything_starts() -> None:
    with pytest.raises(UsageError, match=r"mine.md:4: not a command of bash\n.*unexpected EOF"):
        perform.check_commands(demo_of("```console\n$ echo 'a\n```"))


@pytest.mark.parametrize(
    ("expected", "output", "lacking"),
    [
        ([], "anything\n", ""),
        (["a", "c"], "a\nb\nc\n", ""),
        (["a", "a"], "a\nb\n", "a"),
        (["c", "a"], "a\nb\nc\n", "a"),
        (["web 10/10"], "NAME   TASKS\n web    10/10  \n", ""),
        (["web 10/10"], "web 10/100\n", "web 10/10"),
        (["web-... Running ...s"], "web-5f-x  Running  3s\n", ""),
        (["a.c"], "abc\n", "a.c"),
        (["... x"], " x\n", "... x"),
    ],
)
def test_what_is_missing(expected: list[str], output: str, lacking: str) -> None:
    assert missing(expected, output) == lacking


# Which there are


def test_every_demo_of_a_profile_is_well_formed() -> None:
    found = [(read(path), profile) for path, profile in catalog.files()]
    assert {demo.name for demo, _profile in found} == {
        "failover", "rolling-update", "autoscale", "labels-and-services", "quorum", "leader", "secrets",
        "volumes-follow",
    }  # fmt: skip
    for demo, _profile in found:
        perform.check_commands(demo)
        assert len(demo.title) <= 44, demo.path  # the list fits into 80 columns
        for command in demo.commands:
            assert all(len(line) <= 78 for line in command.text.splitlines()), (demo.path, command.line)


@pytest.mark.parametrize(
    ("name", "profile"),
    [("failover", "swarm"), ("quorum", "etcd"), ("leader", "etcd"), ("autoscale", "kubernetes"), ("secrets", "swarm")],
)
def test_the_first_profile_that_has_it(name: str, profile: str) -> None:
    assert catalog.find(name).profile == profile


def test_a_demo_is_found_by_profile_and_by_path(tmp_path: Path) -> None:
    assert catalog.find("failover", "k8s").demo.title.startswith("Ten pods")
    with pytest.raises(UsageError, match=r"no demo 'failovr'\nDid you mean 'failover'"):
        catalog.find("failovr")
    with pytest.raises(UsageError, match="no demo 'autoscale' of profile swarm"):
        catalog.find("autoscale", "swarm")
    file = tmp_path / "mine.md"
    file.write_text("# Mine\n" + CONSOLE)
    with pytest.raises(UsageError, match="names no profile"):
        catalog.find(str(file))
    assert catalog.find(str(file), "etcd").profile == "etcd"
    with pytest.raises(UsageError, match="no profile named 'nosuch'"):
        catalog.find(str(file), "nosuch")
    file.write_text("---\nprofile: zk\n---\n# Mine\n" + CONSOLE)
    assert catalog.find(str(file)).profile == "zk"


def test_a_demo_in_a_profile_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    (tmp_path / "profile.yaml").write_text((TOY / "profile.yaml").read_text())
    (tmp_path / "demos/mine.md").write_text("# Mine\n" + CONSOLE)
    assert catalog.find("mine", str(tmp_path)).profile == str(tmp_path)
    assert catalog.find(str(tmp_path / "demos/mine.md")).profile == str(tmp_path)


# The shell


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path, {"PATH": "/usr/bin:/bin"})
    yield made
    made.close()


def test_variables_functions_and_the_folder_stay(session: Session, tmp_path: Path) -> None:
    assert session.run("a='x y'; f() { echo \"<$a>\"; }", 10) == (0, "")
    assert session.run("f", 10) == (0, "<x y>\n")
    assert session.run("mkdir new && cd new", 10) == (0, "")
    assert session.run("pwd", 10) == (0, f"{tmp_path}/new\n")
    assert session.run("cat <<'END'\n$a\nEND", 10) == (0, "$a\n")
    assert session.run("echo out; echo err >&2; (exit 3)", 10) == (3, "out\nerr\n")
    assert session.run("cat", 10) == (0, "")  # standard input has nothing


def test_output_comes_as_it_is_written(session: Session) -> None:
    got: list[tuple[float, str]] = []
    session.run("echo a; sleep 0.3; echo b", 10, lambda text: got.append((time.monotonic(), text)))
    assert "".join(text for _when, text in got) == "a\nb\n"
    assert len(got) == 2
    assert session.run("printf '%s' \"$(printf '\\303')\"; sleep 0.1; printf '\\251\\n'", 10)[1] == "é\n"
    assert session.run("printf '\\033[31mred\\033[0m\\n'", 10)[1] == "red\n"
    assert session.run("seq 100000", 20)[1].count("\n") == 100000


def test_a_command_that_takes_too_long_ends_with_the_shell(session: Session) -> None:
    with pytest.raises(ShellEnded, match=r"not ended after 0.3 s\nhere"):
        session.run("echo here; sleep 4711", 0.3)
    assert "4711" not in running()


def test_a_command_that_ends_the_shell(session: Session) -> None:
    with pytest.raises(ShellEnded, match=r"the shell ended with status 4\nbye"):
        session.run("echo bye; exit 4", 10)


def test_what_runs_in_the_background_goes_on_and_ends_with_the_demo(session: Session, tmp_path: Path) -> None:
    session.run("(trap '' TERM; while :; do date >> log; sleep 0.05; done) & sleep 4712 &", 10)
    while "4712" not in running():
        time.sleep(0.02)
    assert session.run("until [ -s log ]; do sleep 0.02; done; echo there", 10) == (0, "there\n")
    session.close()
    assert "4712" not in running()
    size = (tmp_path / "log").stat().st_size
    time.sleep(0.2)
    assert (tmp_path / "log").stat().st_size == size


def test_nothing_of_a_session_outlives_its_process(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    program = f"""
import os, pathlib
from minicluster.demos.session import Session
folder = pathlib.Path({str(tmp_path / "folder")!r})
session = Session(folder, {{"PATH": "/usr/bin:/bin"}}, folder)
session.run("sleep 4713 & echo > started", 10)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -9
    end = time.monotonic() + 30
    while (tmp_path / "folder").exists() or "4713" in running():
        assert time.monotonic() < end
        time.sleep(0.02)


def running() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(line for line in found if line.startswith("sleep"))


def test_the_environment_of_a_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINICLUSTER_FILE", "nosuch.yaml")
    with opened("toy", {"ETCD": "x"}, tmp_path) as (session, folder):
        assert session.run('echo "$MINICLUSTER $MINICLUSTER_FILE $ETCD $DEMO"', 10)[1] == f"toy none x {tmp_path}\n"
        status, said = session.run("minicluster version", 60)
        assert (status, said.split()[0]) == (0, "minicluster")
        assert not list(folder.iterdir())
    assert not folder.parent.exists()


# The performance


class Seen(Unseen):
    """Notes what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.outcomes: list[Outcome] = []
        self.waited: list[str] = []

    def told(self, part: Heading | Prose | File) -> None:
        self.parts.append(type(part).__name__)

    def waiting(self, output: str, seconds: float) -> None:
        self.waited.append(output)

    def ended(self, outcome: Outcome) -> None:
        self.parts.append("Command")
        self.outcomes.append(outcome)


@pytest.fixture
def toy(engine: FakeEngine) -> Cluster:
    return Cluster.up(str(TOY), name="toy", engine=engine)


def problems(toy: Cluster, body: str, **options: Any) -> list[str]:
    return [outcome.problem for outcome in perform.perform(toy, demo_of(body), Unseen(), **options)]


def test_a_demo_is_performed_in_order(toy: Cluster) -> None:
    seen = Seen()
    body = "Prose\n\n```text file=a\nhello\n```\n## Step\n```console\n$ cat a\nhello\n$ [ $MINICLUSTER = toy ]\n```\n"
    done = perform.perform(toy, demo_of(body), seen)
    assert seen.parts == ["Prose", "File", "Heading", "Command", "Command"]
    assert [(one.output, one.status, one.problem) for one in done] == [("hello\n", 0, ""), ("", 0, "")]


def test_a_command_is_repeated_until_all_is_as_expected(toy: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perform, "_AGAIN", 0.0)
    seen = Seen()
    body = "```console within=60s\n$ n=$((n+1)); echo $n; [ $n -gt 3 ]\n$ m=$((m+1)); echo $m\n2\n```\n"
    done = perform.perform(toy, demo_of(body), seen)
    assert [(one.output, one.problem) for one in done] == [("4\n", ""), ("2\n", "")]
    assert seen.waited == ["1\n", "2\n", "3\n", "1\n"]


def test_what_is_not_as_expected_ends_a_demo_unless_it_goes_on(toy: Cluster) -> None:
    body = "```console\n$ false\n$ true\n```\n```console fails\n$ true\n$ false\n```\n```console\n$ echo b\na\n```\n"
    assert problems(toy, body) == ["exit status 1"]
    assert problems(toy, body, goes_on=True) == [
        "exit status 1", "", "it succeeded, but should fail", "", "expected: a",
    ]  # fmt: skip
    late = "```console within=0.3s\n$ echo b\na\n```\n"
    assert problems(toy, late) == ["not within 0.3 s: expected: a"]
    slow = "```console timeout=0.3s\n$ sleep 60\n$ true\n```\n"
    assert problems(toy, slow, goes_on=True) == ["not ended after 0.3 s"]


def _interrupt(cluster: Cluster) -> None:
    assert len(cluster.spec.of_role("agent")) == 3
    raise KeyboardInterrupt


def test_a_demos_own_cluster_is_removed_whatever_happens(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    place = catalog.Place(demo_of(CONSOLE, "---\nsize: {agent: 3}\n---\n"), str(TOY))
    assert [one.problem for one in perform.check(place)] == [""]
    assert engine.containers("") == []
    with pytest.raises(KeyboardInterrupt), perform.own_cluster(place, "demo-mine") as cluster:
        _interrupt(cluster)
    assert engine.containers("demo-mine") == []
    with perform.own_cluster(place, "demo-mine", keep=True):
        pass
    assert engine.containers("demo-mine") != []
    with pytest.raises(UsageError, match="cluster demo-mine exists"), perform.own_cluster(place, "demo-mine"):
        pass


def test_a_cluster_that_a_demo_cannot_run_in(toy: Cluster, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    with pytest.raises(UsageError, match=r"cluster toy is of profile toy\nDemo mine is for etcd"):
        perform.existing_cluster(catalog.Place(demo_of(CONSOLE), "etcd"), "toy")
    big = catalog.Place(demo_of(CONSOLE, "---\nsize: {agent: 9}\n---\n"), str(TOY))
    with pytest.raises(UsageError, match=r"too small for demo mine\n`minicluster scale agent=9 -c toy`"):
        perform.existing_cluster(big, "toy")
    quick = catalog.Place(demo_of(CONSOLE, "---\nset: {failover: quick}\n---\n"), str(TOY))
    with pytest.raises(
        UsageError, match=r"lacks settings of demo mine\n`minicluster up --name toy --set failover=quick`"
    ):
        perform.existing_cluster(quick, "toy")
    assert perform.existing_cluster(catalog.Place(demo_of(CONSOLE), str(TOY)), "toy").name == "toy"


# The screen


def shown(body: str, toy: Cluster, *, width: int = 80, keys: str | None = None, terminal: bool = False) -> str:
    """What a presentation writes; with ``keys`` these are pressed, one after the other."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, highlight=False)
    pressed = iter(keys or "")
    key = (lambda: next(pressed)) if keys is not None else None
    presenter = Presenter(console, key=key, pauses=False)
    demo = demo_of(body)
    presenter.opens(demo)
    perform.perform(toy, demo, presenter, goes_on=True)
    return file.getvalue()


BODY = """Some *prose*.

## A step

```console
$ printf a; \\
> echo b
ab
$ echo c
d
```

```console fails
$ false
```
"""


@pytest.mark.parametrize("width", [80, 200])
def test_what_an_audience_sees(toy: Cluster, width: int) -> None:
    text = shown(BODY, toy, width=width)
    assert re.search(r"\n Mine +\n", text)
    for piece in ("Some prose.", "A step ──", "$ printf a; \\\n> echo b\nab\n", "$ echo c\nc\n✗ expected: d\n"):
        assert piece in text
    assert "$ false\n✓ it fails, as it should\n" in text
    assert max(map(len, text.splitlines())) <= min(width, 100)


def test_a_presenter_steps_with_keys(toy: Cluster) -> None:
    assert "Any key continues, q quits." in shown(BODY, toy, keys="    ")  # the step, and three commands
    with pytest.raises(Left):
        shown(BODY, toy, keys=" q")


def test_a_repeated_command_is_shown_once_it_is_as_expected(toy: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perform, "_AGAIN", 0.0)
    body = '```console within=60s\n$ n=$((n+1)); echo "is $n"\nis 3\n```\n'
    plain = shown(body, toy)
    assert "is 2" not in plain
    assert re.search(r"\nis 3\n✓ after \d+\.\d s\n", plain)
    assert "is 2" in shown(body, toy, terminal=True)  # and is replaced


# The recording


def test_a_recording_is_asciicast_v2(tmp_path: Path) -> None:
    """The rules of the format: a header, then events whose times do not decrease."""
    path = tmp_path / "x.cast"
    now = iter([10.0, 10.0, 10.5, 12.0])
    terminal = io.StringIO()
    with Recording(path, "A 'title', é", 80, 24, terminal, clock=lambda: next(now)) as recording:
        assert not path.exists()
        console = Console(file=cast(IO[str], recording), width=80, force_terminal=True, color_system="standard")
        console.print("one", style="red")
        console.print("zwei é")
    header, *events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (header["version"], header["width"], header["height"]) == (2, 80, 24)
    assert isinstance(header["timestamp"], int)
    assert header["title"] == "A 'title', é"
    assert all(isinstance(value, str) for value in header["env"].values())
    assert all(len(event) == 3 and event[1] == "o" and isinstance(event[2], str) for event in events)
    times = [event[0] for event in events]
    assert times == sorted(times)
    assert times[0] >= 0
    text = "".join(event[2] for event in events)
    assert text.replace("\r\n", "\n") == terminal.getvalue()
    assert "\x1b[31mone\x1b[0m\r\nzwei é\r\n" in text
    assert [file.name for file in tmp_path.iterdir()] == ["x.cast"]


def test_a_recording_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        Recording(tmp_path / "none/x.cast", "t", 80, 24)


# The command


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["demo", *words], prog_name="minicluster")


def test_the_list() -> None:
    rows = [line.split()[:2] for line in run().stdout.splitlines()]
    assert rows[0] == ["DEMO", "PROFILE"]
    assert rows.index(["failover", "swarm"]) < rows.index(["failover", "kubernetes"])
    assert max(map(len, run().stdout.splitlines())) <= 80
    mesos = [one for one in json.loads(run("--profile", "mesos", "-o", "json").stdout) if one["name"] == "failover"]
    assert "never run" in mesos[0]["note"]


def test_a_broken_demo_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    (tmp_path / "profile.yaml").write_text((TOY / "profile.yaml").read_text())
    (tmp_path / "demos/bad.md").write_text("nothing")
    (tmp_path / "demos/good.md").write_text("# Good\n" + CONSOLE)
    said = run("--profile", str(tmp_path)).stdout
    assert "Good" in said
    assert re.search(r"bad .*invalid: .*bad.md:1: a demo begins with its title", said)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("failover",), "a demo needs a terminal"),
        (("nosuch", "--auto"), "no demo 'nosuch'"),
        (("failover", "quorum", "--auto"), "several demos are named"),
        (("--auto",), "--auto needs a demo"),
        (("failover", "--check", "--auto"), "--check and --auto cannot be used together"),
        (("failover", "--check", "-c", "x"), "--check and --cluster cannot be used together"),
        (("failover", "--auto", "-o", "json"), "-o json needs --check"),
        (("failover", "--auto", "-c", "x", "--keep"), "--cluster and --keep cannot be used together"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], what: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert what in result.stderr


@pytest.fixture
def mine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    file = tmp_path / "mine.md"
    file.write_text(f"---\nprofile: {TOY}\n---\n# Mine\n\n```console\n$ echo a\na\n```\n")
    return file


def test_check_tells_what_failed_and_where(mine: Path, engine: FakeEngine) -> None:
    good = run(str(mine), "--check")
    assert good.exit_code == 0
    assert re.search(r"ok +\d\.\d s  echo a\nok +mine \(.*\): 1 commands", good.stdout)
    mine.write_text(mine.read_text().replace("\na\n```", "\nb\n```"))
    bad = run(str(mine), "--check")
    assert bad.exit_code == 1
    assert f"{mine}:7: expected: b\n          | a\nfailed" in bad.stdout
    answer = json.loads(run(str(mine), "--check", "--json").stdout)[0]
    assert (answer["verdict"], answer["failed"][0]["line"], answer["failed"][0]["output"]) == ("failed", 7, "a\n")
    assert engine.containers("") == []


def test_auto_runs_it(mine: Path, engine: FakeEngine) -> None:
    done = run(str(mine), "--auto")
    assert done.exit_code == 0
    assert f"$ minicluster up {TOY} --name demo-mine" in done.stdout.replace("\n", "")
    assert "$ echo a\na\n" in done.stdout
    assert "Cluster demo-mine is removed." in done.stdout
    assert engine.containers("") == []


def test_record_records_it(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    file = tmp_path / "x.cast"
    done = run(str(mine), "--auto", "--record", str(file))
    assert (done.exit_code, done.stdout) == (0, "")
    header, *events = [json.loads(line) for line in file.read_text().splitlines()]
    assert (header["version"], header["width"], header["height"], header["title"]) == (2, 80, 24, "Mine")
    text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(event[2] for event in events))
    assert "$ echo a\r\na\r\n" in text
    assert len(events) > 20  # it is typed


def test_the_page_shows_the_example_that_is_a_file() -> None:
    page = next(page for page in PAGES if page.name == "demos.md").read_text()
    assert (Path(__file__).parents[2] / "docs/examples/demo.md").read_text() in page
