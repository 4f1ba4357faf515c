"""A pytest plugin: clusters for tests. Installing minicluster activates it; see docs/testing.md.

A run that uses no cluster pays for the import of this module, so everything else is imported on first use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.model.events import Event
    from minicluster.operations.chaos import Chaos
    from minicluster.testing.pool import Pool, PooledCluster
    from minicluster.testing.session import Run

Scope = Literal["function", "class", "module", "package", "session"]

_TTL = "24h"
_HELP = {
    "file": "the project file that minicluster(NAME) reads (default: $MINICLUSTER_FILE, else the nearest "
    "minicluster.yaml above the test); 'none': none",
    "reuse": "keep shared clusters for the next run",
    "keep": "keep the clusters of failed tests, for debugging",
    "ttl": "how long --minicluster-reuse and --minicluster-keep keep clusters: 30m, 2h (default: 24h)",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minicluster", "clusters for tests")
    group.addoption("--minicluster-file", metavar="FILE", help=_HELP["file"])
    group.addoption("--minicluster-reuse", action="store_true", help=_HELP["reuse"])
    group.addoption("--minicluster-keep", action="store_true", help=_HELP["keep"])
    group.addoption("--minicluster-ttl", metavar="TIME", default=_TTL, help=_HELP["ttl"])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "minicluster(profile, *, scope='session', isolated=True, size=..., set=..., image=..., port=..., mounts=...): "
        "the cluster of the fixture `cluster`",
    )
    if config.getoption("--minicluster-ttl") != _TTL:
        from minicluster.errors import UsageError
        from minicluster.model.durations import seconds

        try:
            seconds(config.getoption("--minicluster-ttl"), "--minicluster-ttl")
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None
    config.stash[_STATE] = _State(config)


class ClusterFactory:
    """The value of the fixture ``minicluster``: called with a profile, it returns a running cluster."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def __call__(
        self,
        profile: str | None = None,
        *,
        scope: Scope = "session",
        isolated: bool = True,
        label: str = "",
        wait: float = 600.0,
        **asked: Any,
    ) -> Cluster:
        """A running cluster with every node ready: the same one for the same arguments, as long as its scope lasts.

        Args:
            profile: a cluster of the project file, of which it gets one of its own; else a profile's name or folder;
                "swarm" by default.
            scope: how long it lasts. One of scope "session" is shared with the other processes of pytest-xdist.
            isolated: no other test uses it at the same time, and it is reset before each test if its profile can do
                that. Otherwise it is never reset, and tests of other processes use it at the same time.
            label: distinguishes clusters whose other arguments are equal.
            wait: seconds to wait for tests of other processes that use it.
            asked: ``size``, ``set``, ``image``, ``port``, ``mounts``, ``registries``, ``ca`` and the other arguments of
                :meth:`minicluster.Cluster.up`.

        Raises:
            MiniclusterError: it could be neither created nor repaired.
        """
        __tracebackhide__ = True
        from minicluster.errors import MiniclusterError

        try:
            return self._state.acquire(profile, asked, scope=scope, isolated=isolated, label=label, wait=wait)
        except (MiniclusterError, pytest.UsageError) as error:
            raise error.with_traceback(None) from None  # its text says all: the frames of this plugin are in the way


@pytest.fixture(scope="session")
def minicluster(pytestconfig: pytest.Config) -> ClusterFactory:
    """Starts clusters: ``minicluster("etcd", size={"kv": 3})``. For tests, and for fixtures of any scope."""
    return ClusterFactory(pytestconfig.stash[_STATE])


@pytest.fixture
def cluster(request: pytest.FixtureRequest, minicluster: ClusterFactory) -> Cluster:
    """The cluster of the marker ``minicluster`` of the test, its class or its module."""
    marker = request.node.get_closest_marker("minicluster")
    if marker is None:
        pytest.fail(
            "the fixture `cluster` needs a marker: "
            'add @pytest.mark.minicluster("etcd"), or use the fixture `minicluster`',
            pytrace=False,
        )
    from minicluster.errors import MiniclusterError

    try:
        return minicluster(*marker.args, **marker.kwargs)
    except MiniclusterError as error:  # of the marker: no frame is the user's
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Callable[..., Chaos]:
    """Faults at random during a block: ``with chaos(cluster, every=5, keep_quorum=True):``, as :meth:`Cluster.chaos`.

    A report of the test has the seed, by which they can be repeated, and a line of JSON for each fault.
    """

    def tell(run: Chaos) -> None:
        lines = "\n".join(one.dump(run.seed) for one in run.rounds)
        request.node.add_report_section("call", f"minicluster {run.cluster}: chaos, seed {run.seed}", lines)

    def begin(cluster: Cluster, nodes: Sequence[str] = (), **given: Any) -> Chaos:
        run = cluster.chaos(nodes, **given)
        run.done = tell
        return run

    return begin


@dataclass
class _Use:
    """A cluster that a fixture has, and how the fixture asked for it."""

    pooled: PooledCluster
    isolated: bool
    wait: float
    generation: int  #: of the cluster at that time
    parameter: object  #: of the fixture, if it is parametrized


class _State:
    """The clusters of one process of the run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.worker = getattr(config, "workerinput", None)  # of pytest-xdist
        self._run: Run | None = None
        self._pool: Pool | None = None
        self.item: pytest.Item | None = None
        self.used: dict[str, list[PooledCluster]] = {}  #: by the test's id; only of the current test
        self._uses: dict[Any, list[_Use]] = {}  # by the definition of a fixture that outlives its test
        self._setting_up: list[tuple[Any, object]] = []  # fixtures being set up and their parameters, innermost last
        self.kept: list[str] = []
        self.others: list[Mapping[str, Any]] = []  #: reports of the other processes
        self.lost = False  #: another process ended without a report
        self.problems: list[str] = []  #: what went wrong at the end

    @property
    def run(self) -> Run:
        if self._run is None:
            from minicluster.model.durations import seconds
            from minicluster.testing.session import Run

            option = self.config.getoption
            if self.worker:
                self._run = Run.load(self.worker["minicluster"])
            else:
                self._run = Run.begin(
                    reuse=option("--minicluster-reuse"),
                    keep=option("--minicluster-keep"),
                    ttl=seconds(option("--minicluster-ttl")),
                )
        return self._run

    @property
    def pool(self) -> Pool:
        if self._pool is None:
            from minicluster.testing.pool import Pool

            self._pool = Pool(self.run, self._tell)
        return self._pool

    @property
    def pool_if_any(self) -> Pool | None:
        return self._pool

    def acquire(
        self, profile: str | None, asked: Mapping[str, Any], *, scope: Scope, isolated: bool, label: str, wait: float
    ) -> Cluster:
        item = self.item
        asker = max((d.scope for d, _parameter in self._setting_up), key=_SCOPES.index, default="function")
        if scope in _SCOPES and _SCOPES.index(scope) < _SCOPES.index(asker):
            raise pytest.UsageError(
                f"minicluster: a fixture of scope {asker} cannot use a cluster of scope {scope}, which ends earlier"
            )
        place = "" if scope == "session" else _place(item, scope)
        profile, asked, base = self._defined(profile, asked)
        pooled = self.pool.get(profile, asked, place=place, label=label, base=base)
        cluster = self._acquire(pooled, isolated, wait)
        if self._setting_up:
            definition, parameter = self._setting_up[-1]
            if definition.scope != "function":
                use = _Use(pooled, isolated, wait, pooled.generation, parameter)
                self._uses.setdefault(definition, []).append(use)
        self._mark_used(pooled)
        return cluster

    def _defined(self, name: str | None, asked: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any], str]:
        """The profile, the arguments and the beginning of the name of a cluster, of the project file or not.

        What the file has of ports is left out: a cluster at a terminal may have them, and so may other processes.
        """
        from minicluster.project import find

        folder = self.item.path.parent if self.item is not None else self.config.rootpath
        named = self.config.getoption("--minicluster-file")
        found = find.find(folder, named and (named if named == find.NONE else str(Path(named).absolute())))
        if name is None or found is None:
            return name, asked, ""
        from minicluster import projects
        from minicluster.project import definition
        from minicluster.project.load import load

        project = load(found[0], named=found[1])
        if name not in project.clusters:
            return name, asked, ""
        definition.check_files(project, name)
        made = {**definition.shape(project.clusters[name]), **projects.trusted(project, name)}
        for key, value in asked.items():
            made[key] = {**made.get(key, {}), **value} if isinstance(value, Mapping) else value
        return made.pop("profile"), made, name

    @contextmanager
    def setting_up(self, definition: Any, parameter: object) -> Iterator[None]:
        """Within the block a fixture is being set up."""
        self._uses.pop(definition, None)  # of its previous set-up
        self._setting_up.append((definition, parameter))
        try:
            yield
        finally:
            self._setting_up.pop()

    def before(self, item: pytest.Item) -> None:
        """Acquires the clusters of fixtures that were set up for earlier tests and that this test uses."""
        self.item = item
        self.used.clear()
        # pytest has no public name for the definitions of a test's fixtures. Items of other plugins may have none.
        info = getattr(item, "_fixtureinfo", None)
        definitions = [d for of_name in info.name2fixturedefs.values() for d in of_name] if info else []
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        again = {
            id(use.pooled): use
            for definition in definitions
            for use in self._uses.get(definition, ())
            if definition.cached_result is not None
            and use.parameter is parameters.get(definition.argname)
            and self.pool.has(use.pooled)
        }
        # In the same order everywhere, so that two processes do not wait for each other.
        for use in sorted(again.values(), key=lambda use: use.pooled.name):
            self._acquire(use.pooled, use.isolated, use.wait)
            self._mark_used(use.pooled)
            if use.pooled.generation != use.generation:
                self._finish_fixtures(use.pooled, item)

    def _finish_fixtures(self, pooled: PooledCluster, item: pytest.Item) -> None:
        """Finishes the fixtures that have a cluster which is another one now: they and their users are set up again."""
        for definition, uses in list(self._uses.items()):
            if any(use.pooled is pooled for use in uses):
                # As pytest finishes a fixture whose parameter has changed; it has no public name for a test's request.
                definition.finish(item._request)  # type: ignore[attr-defined]

    def _acquire(self, pooled: PooledCluster, isolated: bool, wait: float) -> Cluster:
        from minicluster.errors import Interrupted

        try:
            return pooled.acquire(isolated=isolated, timeout=wait)
        except Interrupted as error:
            raise KeyboardInterrupt from error  # any other exception fails the test, and the run goes on

    def _mark_used(self, pooled: PooledCluster) -> None:
        if self.item is not None:
            used = self.used.setdefault(self.item.nodeid, [])
            if pooled not in used:
                used.append(pooled)
                pooled.failed = False

    def after(self, item: pytest.Item, nextitem: pytest.Item | None, *, failed: bool) -> None:
        """Releases the test's clusters, keeps those of a failed test, and removes those whose scope is over."""
        used = self.used.get(item.nodeid, [])
        try:
            for pooled in [pooled for pooled in used if self.run.keep and (pooled.failed or failed)]:
                self.kept.append(pooled.name)
                self.pool.keep_for_debugging(pooled)
                self._finish_fixtures(pooled, item)
        finally:
            for pooled in used:
                if left := pooled.heal():
                    # In the summary under the name of this test: its teardown is under way.
                    warnings.warn(f"{pooled.name}: healed after the test: {'; '.join(left)}", stacklevel=1)
                pooled.release()
        if self._pool:
            current = {_place(nextitem, scope) for scope in _SCOPES[:-1]} if nextitem else set()
            self._pool.end(lambda place: place not in current)

    def _tell(self, event: Event) -> None:
        """Shows what takes long: an image is built or pulled, or an engine is started."""
        if event.takes_long:
            capture = self.config.pluginmanager.getplugin("capturemanager")
            reporter = self.config.pluginmanager.getplugin("terminalreporter")
            if capture and reporter:
                with capture.global_and_fixture_disabled():
                    reporter.ensure_newline()
                    reporter.write_line(f"minicluster: {event.text}")


_STATE = pytest.StashKey[_State]()
_SCOPES: tuple[Scope, ...] = ("function", "class", "module", "package", "session")  #: the narrowest first


def _place(item: pytest.Item | None, scope: Scope) -> str:
    """The function, class, module or package of a test, as a text."""
    if scope not in _SCOPES:
        raise pytest.UsageError(f"minicluster: unknown scope {scope!r}; must be one of {', '.join(_SCOPES)}")
    if item is None:
        raise pytest.UsageError(f"minicluster: outside of a test there is no {scope}; use scope='session'")
    kinds: dict[str, type[pytest.Collector]] = {
        "class": pytest.Class,
        "module": pytest.Module,
        "package": pytest.Package,
    }
    # As in pytest: a test outside of a class or package belongs to its module.
    parent = (item.getparent(kinds[scope]) or item.getparent(pytest.Module)) if scope in kinds else None
    return f"{scope} {(parent or item).nodeid}"


# Hooks of a test


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    __tracebackhide__ = True
    state = request.config.stash[_STATE]
    with state.setting_up(fixturedef, getattr(request, "param", None)):
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    __tracebackhide__ = True
    try:
        item.config.stash[_STATE].before(item)
    except Exception as error:
        from minicluster.errors import MiniclusterError  # a run without clusters does not import it

        if isinstance(error, (MiniclusterError, pytest.UsageError)):
            raise error.with_traceback(None) from None
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    failed = True
    try:
        result = yield
        failed = False
        return result
    finally:
        item.config.stash[_STATE].after(item, nextitem, failed=failed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        from minicluster.testing.report import describe

        for pooled in item.config.stash[_STATE].used.get(item.nodeid, ()):
            if pooled.cluster and not pooled.failed:
                for title, text in describe(pooled.cluster).items():
                    report.sections.append((f"minicluster {pooled.name}: {title}", text))
            pooled.failed = True
    return report


# Hooks of a run


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: sends a worker the run to which its clusters belong."""
    node.workerinput["minicluster"] = node.config.stash[_STATE].run.dump()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """pytest-xdist: receives a worker's report."""
    state = node.config.stash[_STATE]
    report = getattr(node, "workeroutput", {}).get("minicluster")
    if report:
        state.others.append(report)
    elif error:
        state.lost = True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """The process that owns the run's clusters removes them, after the other processes have ended."""
    result = yield
    state = session.config.stash[_STATE]
    pool = state.pool_if_any
    if state.worker is not None:
        if pool and pool.used:
            own = {"problems": pool.leave(), "stats": pool.stats.dump(), "kept": state.kept}
            session.config.workeroutput["minicluster"] = own  # type: ignore[attr-defined]
    elif (pool and pool.used) or state.others or state.lost:
        for report in state.others:
            state.pool.stats.add(report["stats"])
            state.kept += report["kept"]
            state.problems += report["problems"]
        state.problems += state.pool.finish()
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    state = config.stash[_STATE]
    pool = state.pool_if_any
    for problem in state.problems:
        terminalreporter.write_line(f"minicluster: {problem}", red=True)
    if state.worker is None and pool and str(pool.stats):
        terminalreporter.write_line(f"minicluster: {pool.stats}")
        for name in dict.fromkeys(state.kept):
            terminalreporter.write_line(
                f"minicluster: kept for debugging: {name} (`minicluster status {name}`, `minicluster down {name}`)"
            )
