"""``-v``: logs the engine's calls, the steps of plans and tracebacks to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from minicluster.model.events import Event, Listener

LOGGER = "minicluster"  #: the engine's calls are logged by "minicluster.engine"
_KEY = "minicluster.verbose"


def enabled() -> bool:
    """Whether ``-v`` was given to the command that runs."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and _KEY in ctx.meta


def _enable(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or _KEY in ctx.meta or ctx.resilient_parsing:
        return
    import logging

    class ToStderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(self.format(record), file=sys.stderr, flush=True)

    ctx.meta[_KEY] = True
    handler = ToStderr()
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(LOGGER)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def disable() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    ctx.find_root().call_on_close(disable)


#: Stands on every command and group, so that it may be written before or after a command's name.
OPTION = click.Option(
    ["-v", "--verbose"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_enable,
    help="Log engine calls and plan steps to stderr",
)


def log_events(listener: Listener) -> Listener:
    """A listener that logs the steps of plans, and passes every event on."""
    import logging

    logger = logging.getLogger(LOGGER)

    def listen(event: Event) -> None:
        if event.kind == "plan":
            logger.debug("plan: %s", event.text)
        elif event.kind == "start":
            logger.debug("start: %s", _step(event))
        elif event.kind == "end":
            logger.debug("end: %s (%.3f s)", _step(event), event.seconds)
        listener(event)

    return listen


def _step(event: Event) -> str:
    return event.text or f"{event.phase} {event.subject}".strip()


def log_error(error: BaseException) -> None:
    """Logs an error's traceback."""
    if enabled():
        import logging

        logging.getLogger(LOGGER).debug("traceback", exc_info=error)
