"""What templates see of values that do not exist yet: objects that can only be joined into text.

A template is rendered when a cluster's spec is made; a join token, or the address at which a user reaches an endpoint,
exists only later. A condition on such a value, a filter or a loop would work on something else than the value,
without an error. So every operation but joining raises :class:`NotYet`, which names the value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from minicluster.model.deferred import marker

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment


class NotYet(Exception):
    """A template does something with a deferred value that takes the value itself."""


class HasNul(Exception):
    """A template makes a text with a NUL in it."""


class _Opaque:
    """Refuses everything that Python and Jinja ask of a value."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise NotYet(self._called())

    def _called(self) -> str:
        raise NotImplementedError

    __bool__ = __str__ = __repr__ = __format__ = __hash__ = __iter__ = __len__ = __contains__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __mul__ = __rmul__ = __mod__ = __rmod__ = __int__ = __float__ = __index__ = __call__ = _refuse


class Deferred(_Opaque):
    """A text that is not complete: parts of it come later. ``~`` and output join it with anything, ``+`` with texts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._marked = marker(name)

    def _called(self) -> str:
        return self._name

    def __add__(self, other: object) -> Deferred:
        return _join([self, self._text(other)])

    def __radd__(self, other: object) -> Deferred:
        return _join([self._text(other), self])

    def _text(self, other: object) -> object:
        """What ``+`` joins. With a number it would be a sum, which a deferred value cannot have."""
        return other if isinstance(other, (str, Deferred)) else self._refuse()

    def __getitem__(self, _key: object) -> NoReturn:
        self._refuse()


class DeferredGroup(_Opaque):
    """A name with deferred values as its attributes, such as ``client.directory``."""

    def __init__(self, name: str, attributes: Mapping[str, str]) -> None:
        self._name = name
        self._attributes = {attribute: Deferred(value) for attribute, value in attributes.items()}

    def _called(self) -> str:
        return self._name

    def __dir__(self) -> Iterable[str]:
        return self._attributes

    def __getattr__(self, name: str) -> Deferred:
        try:
            return self.__dict__["_attributes"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None


def _join(parts: Iterable[object]) -> Deferred:
    texts = [part if isinstance(part, Deferred) else shown(part) for part in parts]
    first = next(part for part in texts if isinstance(part, Deferred))
    joined = Deferred(first._called())
    joined._marked = "".join(map(marked, texts))
    return joined


def concat(parts: Iterable[object]) -> str | Deferred:
    """Parts of a template's output as one; not complete where one of them is not."""
    parts = list(parts)
    if any(isinstance(part, Deferred) for part in parts):
        return _join(parts)
    return "".join(str(shown(part)) for part in parts)


def shown(value: object) -> str | Deferred:
    """A value as it is put out.

    Raises:
        HasNul: it could be taken for the marker of a deferred value.
    """
    if isinstance(value, Deferred):
        return value
    text = str(value)
    if "\0" in text:
        raise HasNul
    return text


def marked(value: str | Deferred) -> str:
    """The text for the spec, with markers."""
    return value._marked if isinstance(value, Deferred) else value


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that refuses deferred values, each of which would take their text for what it is not."""

    @functools.wraps(function)  # copies what Jinja marks functions with that take the context or the environment
    def guarded(*args: Any, **options: Any) -> Any:
        for value in (*args, *options.values()):
            if isinstance(value, _Opaque):
                value._refuse()
        return function(*args, **options)

    return guarded


@functools.cache
def environment() -> SandboxedEnvironment:
    """Jinja's immutable sandbox, strict about undefined names, with deferred values."""
    from jinja2 import StrictUndefined, UndefinedError, nodes, pass_environment
    from jinja2.compiler import CodeGenerator, Frame
    from jinja2.filters import make_attrgetter
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import missing

    class Generator(CodeGenerator):
        """Generates code that leaves it to :func:`shown` and :func:`concat` to make text of values."""

        def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
            self.write("environment.concat((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
            self.write(finalize.src)

        def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
            self.write(")")

    class Environment(ImmutableSandboxedEnvironment):
        code_generator_class = Generator

    Environment.concat = staticmethod(concat)  # type: ignore[assignment]

    @pass_environment
    def join(
        env: SandboxedEnvironment, value: Iterable[Any], d: str = "", attribute: str | int | None = None
    ) -> object:
        """Jinja's own ``join``, whose parts may be deferred."""
        items = value if attribute is None else map(make_attrgetter(env, attribute), value)
        return concat([part for item in items for part in (d, item)][1:])

    class Missing(UndefinedError):
        """Has the object that lacks an attribute."""

        def __init__(self, of: object, message: str) -> None:
            super().__init__(message)
            self.of = of

    class Undefined(StrictUndefined):
        """Names an object as a profile's author knows it."""

        def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None, **more: Any) -> None:
            super().__init__(hint, obj, name, **more)
            if "exc" not in more:
                self._undefined_exception = functools.partial(Missing, obj)  # type: ignore[assignment]

        @property
        def _undefined_message(self) -> str:
            message: str = super()._undefined_message
            if "has no attribute" not in message:
                return message
            of = self._undefined_obj
            called = of._called() if isinstance(of, DeferredGroup) else f"the {type(of).__name__.lower()}"
            return f"{called} has no attribute {self._undefined_name!r}"

    made = Environment(
        undefined=Undefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, finalize=shown
    )
    filters: dict[str, Callable[..., Any]] = {**made.filters, "join": join}
    made.filters |= {name: _guarded(function) for name, function in filters.items()}
    tests: dict[str, Any] = made.tests
    made.tests |= {name: _guarded(function) for name, function in tests.items()}
    return made
