"""A pytest plugin: clusters for tests. It is there once minicluster is installed; docs/testing.md tells how it is used.

What it costs a run that uses no cluster is the import of this module, so the rest is imported when first needed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.model.events import Event
    from minicluster.testing.pool import Pool, PooledCluster
    from minicluster.testing.session import Run

Scope = Literal["function", "class", "module", "package", "session"]

_TTL = "24h"
_HELP = {
    "reuse": "keep shared clusters for the next run",
    "keep": "keep the clusters of tests that fail, to look at",
    "ttl": "how long clusters are kept by these two, such as 30m or 2h; a day by default",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minicluster", "clusters for tests")
    group.addoption("--minicluster-reuse", action="store_true", help=_HELP["reuse"])
    group.addoption("--minicluster-keep", action="store_true", help=_HELP["keep"])
    group.addoption("--minicluster-ttl", metavar="TIME", default=_TTL, help=_HELP["ttl"])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "minicluster(profile, *, scope='session', isolated=True, size=..., set=..., image=..., port=...): "
        "the cluster that the fixture `cluster` gives to the test",
    )
    if config.getoption("--minicluster-ttl") != _TTL:
        from minicluster.errors import UsageError
        from minicluster.model.durations import seconds

        try:
            seconds(config.getoption("--minicluster-ttl"))
        except UsageError as error:
            raise pytest.UsageError(f"--minicluster-ttl: {error}") from None
    config.stash[_STATE] = _State(config)


class Factory:
    """Makes clusters; what the fixture ``minicluster`` gives."""

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
        """A running cluster, every node of it ready: the same one for the same arguments, as long as its scope lasts.

        Args:
            profile: name or folder; "swarm" by default.
            scope: how long it lasts. One of scope "session" is shared with the other processes of pytest-xdist.
            isolated: each test that uses it has it for itself, and finds it empty where the profile can reset it.
                Otherwise tests leave it to each other as it is, and those of other processes use it at the same time.
            label: tells it from another one with the same arguments.
            wait: seconds to wait for the tests of other processes that use it.
            asked: ``size``, ``set``, ``image``, ``port`` and what else :meth:`minicluster.Cluster.up` takes.

        Raises:
            MiniclusterError: it could not be made, or mended.
        """
        return self._state.lend(profile, asked, scope=scope, isolated=isolated, label=label, wait=wait)


@pytest.fixture(scope="session")
def minicluster(pytestconfig: pytest.Config) -> Factory:
    """Makes clusters: ``minicluster("etcd", size={"kv": 3})``. For tests, and for fixtures of any scope."""
    return Factory(pytestconfig.stash[_STATE])


@pytest.fixture
def cluster(request: pytest.FixtureRequest, minicluster: Factory) -> Cluster:
    """The cluster that the marker ``minicluster`` of the test, its class or its module asks for."""
    marker = request.node.get_closest_marker("minicluster")
    if marker is None:
        raise pytest.UsageError(
            "the fixture `cluster` gives what a marker asks for, and this test has none: "
            'write @pytest.mark.minicluster("etcd"), or use the fixture `minicluster`'
        )
    return minicluster(*marker.args, **marker.kwargs)


@dataclass
class _Given:
    """What a fixture was given, and how it asked."""

    lent: PooledCluster
    isolated: bool
    wait: float
    generation: int  #: of the cluster
    parameter: object  #: of the fixture


class _State:
    """What one process knows of the run's clusters."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.worker = getattr(config, "workerinput", None)  # of pytest-xdist
        self._run: Run | None = None
        self._pool: Pool | None = None
        self.item: pytest.Item | None = None
        self.used: dict[str, list[PooledCluster]] = {}  #: by the test's id, in this test
        # Definition of a fixture that outlives its test -> what it was given, and how.
        self._askers: dict[Any, list[_Given]] = {}
        self._setting_up: list[tuple[Any, object]] = []  # those that are being set up, with parameters, innermost last
        self.kept: list[str] = []
        self.others: list[Mapping[str, Any]] = []  # what the other processes spent
        self.lost = False  # another process ended before it could tell
        self.problems: list[str] = []  # what went wrong at the end

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

    def lend(
        self, profile: str | None, asked: Mapping[str, Any], *, scope: Scope, isolated: bool, label: str, wait: float
    ) -> Cluster:
        item = self.item
        asker = max((d.scope for d, _parameter in self._setting_up), key=_SCOPES.index, default="function")
        if scope in _SCOPES and _SCOPES.index(scope) < _SCOPES.index(asker):
            raise pytest.UsageError(
                f"minicluster: a fixture of scope {asker} asks for a cluster of scope {scope}, which goes before it"
            )
        place = "" if scope == "session" else _place(item, scope)
        lent = self.pool.get(profile, asked, place=place, label=label)
        made = self._take(lent, isolated, wait)
        if self._setting_up:
            definition, parameter = self._setting_up[-1]
            if definition.scope != "function":
                given = _Given(lent, isolated, wait, lent.generation, parameter)
                self._askers.setdefault(definition, []).append(given)
        self._uses(lent)
        return made

    @contextmanager
    def setting_up(self, definition: Any, parameter: object) -> Iterator[None]:
        """Within the block a fixture is being set up."""
        self._askers.pop(definition, None)  # what it was given the last time
        self._setting_up.append((definition, parameter))
        try:
            yield
        finally:
            self._setting_up.pop()

    def before(self, item: pytest.Item) -> None:
        """Gets those clusters ready again that fixtures of earlier tests were given and this test uses."""
        self.item = item
        self.used.clear()
        info = getattr(item, "_fixtureinfo", None)  # items of other plugins may have none
        definitions = [d for of_name in info.name2fixturedefs.values() for d in of_name] if info else []
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        again = {
            id(given.lent): given
            for definition in definitions
            for given in self._askers.get(definition, ())
            if definition.cached_result is not None
            and given.parameter is parameters.get(definition.argname)
            and self.pool.has(given.lent)
        }
        # In the same order everywhere, so that two processes do not wait for each other.
        for given in sorted(again.values(), key=lambda given: given.lent.name):
            self._take(given.lent, given.isolated, given.wait)
            self._uses(given.lent)
            if given.lent.generation != given.generation:
                self._forget(given.lent, item)

    def _forget(self, lent: PooledCluster, item: pytest.Item) -> None:
        """Lets fixtures that were given what is another cluster now be set up anew, with all that rests on them."""
        for definition, given in list(self._askers.items()):
            if any(one.lent is lent for one in given):
                definition.finish(item._request)  # type: ignore[attr-defined]

    def _take(self, lent: PooledCluster, isolated: bool, wait: float) -> Cluster:
        from minicluster.errors import Interrupted

        try:
            return lent.take(isolated=isolated, timeout=wait)
        except Interrupted as error:
            raise KeyboardInterrupt from error  # to pytest any other error is one of the test alone

    def _uses(self, lent: PooledCluster) -> None:
        if self.item is not None:
            its = self.used.setdefault(self.item.nodeid, [])
            if lent not in its:
                its.append(lent)
                lent.failed = False

    def after(self, item: pytest.Item, nextitem: pytest.Item | None, *, failed: bool) -> None:
        """Gives clusters back, keeps those of a test that failed, and takes down those whose scope is over."""
        used = self.used.get(item.nodeid, [])
        try:
            for lent in [lent for lent in used if self.run.keep and (lent.failed or failed)]:
                self.kept.append(lent.name)
                self.pool.retire(lent)
                self._forget(lent, item)
        finally:
            for lent in used:
                lent.back()
        if self._pool:
            going_on = {_place(nextitem, scope) for scope in _SCOPES[:-1]} if nextitem else set()
            self._pool.end(lambda place: place not in going_on)

    def _tell(self, event: Event) -> None:
        """Shows what takes long: that an image is built, or an engine started."""
        if event.kind == "note" or (event.kind == "progress" and event.text.startswith(("building", "pulling"))):
            capture = self.config.pluginmanager.getplugin("capturemanager")
            reporter = self.config.pluginmanager.getplugin("terminalreporter")
            if capture and reporter:
                with capture.global_and_fixture_disabled():
                    reporter.ensure_newline()
                    reporter.write_line(f"minicluster: {event.text}")


_STATE = pytest.StashKey[_State]()
_SCOPES: tuple[Scope, ...] = ("function", "class", "module", "package", "session")  #: the narrowest first


def _place(item: pytest.Item | None, scope: Scope) -> str:
    """Which function, class, module or package a test is in, as a text."""
    if scope not in _SCOPES:
        raise pytest.UsageError(f"minicluster: no scope is called {scope!r}: {', '.join(_SCOPES)}")
    if item is None:
        raise pytest.UsageError(f"minicluster: outside of a test there is no {scope}; ask with scope='session'")
    kinds: dict[str, type[pytest.Collector]] = {
        "class": pytest.Class,
        "module": pytest.Module,
        "package": pytest.Package,
    }
    # As pytest has it: what is in no class, or in no package, counts as one with its module.
    parent = (item.getparent(kinds[scope]) or item.getparent(pytest.Module)) if scope in kinds else None
    return f"{scope} {(parent or item).nodeid}"


# Along the way of a test


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    state = request.config.stash[_STATE]
    with state.setting_up(fixturedef, getattr(request, "param", None)):
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[_STATE].before(item)


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
        from minicluster.testing.pool import describe

        for lent in item.config.stash[_STATE].used.get(item.nodeid, ()):
            if lent.cluster and not lent.failed:
                for title, text in describe(lent.cluster).items():
                    report.sections.append((f"minicluster {lent.name}: {title}", text))
            lent.failed = True
    return report


# Along the way of a run


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: tells a worker whose clusters it makes."""
    node.workerinput["minicluster"] = node.config.stash[_STATE].run.dump()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """pytest-xdist: hears what a worker spent."""
    state = node.config.stash[_STATE]
    told = getattr(node, "workeroutput", {}).get("minicluster")
    if told:
        state.others.append(told)
    elif error:
        state.lost = True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """The end: the process that owns the run's clusters takes them down, once the others are through."""
    result = yield
    state = session.config.stash[_STATE]
    pool = state.pool_if_any
    if state.worker is not None:
        if pool and pool.used:
            about = {"problems": pool.leave(), "spent": pool.spent.dump(), "kept": state.kept}
            session.config.workeroutput["minicluster"] = about  # type: ignore[attr-defined]
    elif (pool and pool.used) or state.others or state.lost:
        for told in state.others:
            state.pool.spent.add(told["spent"])
            state.kept += told["kept"]
            state.problems += told["problems"]
        state.problems += state.pool.finish()
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    state = config.stash[_STATE]
    pool = state.pool_if_any
    for problem in state.problems:
        terminalreporter.write_line(f"minicluster: {problem}", red=True)
    if state.worker is None and pool and str(pool.spent):
        terminalreporter.write_line(f"minicluster: {pool.spent}")
        for name in dict.fromkeys(state.kept):
            terminalreporter.write_line(
                f"minicluster: kept to look at: {name} (`minicluster status {name}`, `minicluster down {name}`)"
            )
