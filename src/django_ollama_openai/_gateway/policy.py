"""The last gate: policies, and what they hold until a request has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .. import _conf
from .._connections import close_expired_connections
from .._threads import in_separate_thread
from ..exceptions import GatewayError, Unavailable
from .flow import Flow, call, uninterrupted
from .outcome import CANCELLED, Outcome, failure_of

if TYPE_CHECKING:
    from .admission import Admission

__all__ = ["POLICY_TIMEOUT", "BasePolicy", "Hold", "Holds", "policies"]

#: Seconds that a policy may take under ASGI to admit a request, or to settle one hold.
POLICY_TIMEOUT: Final = 10.0

logger = logging.getLogger("django_ollama_openai")


class BasePolicy:
    """Decides whether a request that passed all other gates may be answered.

    A site names its policies by dotted path in ``POLICIES``. Each is created once in every process,
    without arguments, and is called for every request, from many threads and event loops.
    """

    def admit(self, admission: Admission[Any]) -> Hold | None:
        """Admit a request.

        Return a :class:`Hold` to be notified when the request has ended, else ``None``. Headers
        that are set in ``admission.headers`` are sent with the response, also with an error.

        Under WSGI this runs in the thread of the request, without a time limit.

        Raises:
            GatewayError: The request is refused; the client gets this error. Holds of earlier
                policies are settled with it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define admit()")

    async def aadmit(self, admission: Admission[Any]) -> Hold | None:
        """Async version of :meth:`admit`; runs it in a thread unless overridden.

        After ``POLICY_TIMEOUT`` (10) seconds the client gets a 503. Neither that nor a disconnect
        interrupts the policy; a hold that it returns later is settled at once.
        """
        return await in_separate_thread(self.admit, admission)


class Hold:
    """Something that a policy holds for one request, such as a reservation of a quota."""

    def settle(self, outcome: Outcome) -> None:
        """Release or charge what is held.

        Exactly one of :meth:`settle` and :meth:`asettle` is called, exactly once: when the request
        is finished, failed, cancelled or refused by a later policy, and before the client gets the
        end of the response. An exception is logged and does not affect the client.
        """
        raise NotImplementedError(f"{type(self).__name__} must define settle()")

    async def asettle(self, outcome: Outcome) -> None:
        """Async version of :meth:`settle`; runs it in a thread unless overridden.

        The client waits for it for up to ``POLICY_TIMEOUT`` (10) seconds; then the settlement goes
        on in the background, and an error is logged.
        """
        await in_separate_thread(self.settle, outcome)


def policies(settings: _conf.Settings) -> list[BasePolicy]:
    """Return the site's policies, in the order in which they are called.

    Raises:
        ImproperlyConfigured: One of them cannot be imported or created.
    """
    return [_conf.make(path, BasePolicy, "POLICIES") for path in settings.POLICIES]


class Holds:
    """All that policies hold for one request; ``acquired`` once the request has passed them all."""

    __slots__ = ("_held", "acquired")

    def __init__(self) -> None:
        self._held: list[tuple[BasePolicy, Hold]] = []
        self.acquired = False

    def acquire(self, policies: Iterable[BasePolicy], admission: Admission[Any]) -> Flow[None]:
        """Have each of ``policies`` admit the request.

        Raises:
            GatewayError: One has refused it, or takes too long; nothing is held any more.
            TypeError: One has returned something that is not a hold.
        """
        try:
            for policy in policies:
                hold = yield from call(partial(_admit, policy), partial(_aadmit, policy), admission)
                if hold is not None:
                    self._held.append((policy, hold))
        except GeneratorExit:
            raise
        except BaseException as error:
            if not isinstance(error, GatewayError):
                # For the log: the traceback names a line, but no class.
                error.add_note(f"The policy {_name(policy)} was admitting the request.")
            yield from self.settle(failure_of(error))
            raise
        self.acquired = True

    def hand_over(self) -> Holds:
        """Return what is held; from now on the caller has to settle it."""
        handed = Holds()
        handed._held, self._held = self._held, []
        return handed

    def __bool__(self) -> bool:
        return bool(self._held)

    def settle(self, outcome: Outcome) -> Flow[None]:
        """Settle all that is held, the latest first. A disconnect does not interrupt it."""
        held, self._held = self._held[::-1], []
        if held:
            yield from call(_settle, _asettle, held, outcome)


def _admit(policy: BasePolicy, admission: Admission[Any]) -> Hold | None:
    try:
        hold = _checked(policy.admit(admission))
    except (asyncio.CancelledError, GeneratorExit) as error:
        raise _not_of_the_request(error) from error
    # A stream may last minutes: a database connection is not kept for it.
    close_expired_connections()
    return hold


async def _aadmit(policy: BasePolicy, admission: Admission[Any]) -> Hold | None:
    admitting = asyncio.ensure_future(policy.aadmit(admission))
    try:
        await asyncio.wait({admitting}, timeout=POLICY_TIMEOUT)
    except asyncio.CancelledError:
        _in_background(_settle_late(policy, admitting, Outcome(finish_reason=CANCELLED)))
        raise
    if admitting.done():
        try:
            return _checked(admitting.result())
        except (asyncio.CancelledError, GeneratorExit) as error:
            raise _not_of_the_request(error) from error
    logger.error("The policy %s takes longer than %g s", _name(policy), POLICY_TIMEOUT)
    refusal = Unavailable()
    _in_background(_settle_late(policy, admitting, Outcome(error=refusal)))
    raise refusal


async def _settle_late(
    policy: BasePolicy, admitting: asyncio.Future[Hold | None], outcome: Outcome
) -> None:
    try:
        hold = _checked(await admitting)
    except (Exception, asyncio.CancelledError) as error:
        # The request has ended without it.
        logger.warning("The policy %s failed late", _name(policy), exc_info=error)
    else:
        if hold is not None:
            await _asettle_one(policy, hold, outcome)


def _not_of_the_request(error: BaseException) -> RuntimeError:
    """Return the error to raise for one of a policy that would pass for the end of the request."""
    return RuntimeError(f"A policy raised {type(error).__name__}.")


def _checked(hold: Any) -> Hold | None:
    if hold is None or isinstance(hold, Hold):
        return hold
    raise TypeError(f"A policy returned {type(hold).__name__!r}, which is not a Hold.")


def _settle(held: list[tuple[BasePolicy, Hold]], outcome: Outcome) -> None:
    for number, (policy, hold) in enumerate(held, start=1):
        try:
            hold.settle(outcome)
        except Exception as error:
            _log_failure(policy, error)
        except BaseException:
            # Such as the end of a worker.
            _settle(held[number:], outcome)
            raise


async def _asettle(held: list[tuple[BasePolicy, Hold]], outcome: Outcome) -> None:
    await uninterrupted(_asettle_all(held, outcome))


async def _asettle_all(held: list[tuple[BasePolicy, Hold]], outcome: Outcome) -> None:
    for policy, hold in held:
        settling = _in_background(_asettle_one(policy, hold, outcome))
        _, late = await asyncio.wait({settling}, timeout=POLICY_TIMEOUT)
        if late:
            logger.error(
                "A settlement of the policy %s takes longer than %g s",
                _name(policy),
                POLICY_TIMEOUT,
            )


async def _asettle_one(policy: BasePolicy, hold: Hold, outcome: Outcome) -> None:
    try:
        await hold.asettle(outcome)
    except (Exception, asyncio.CancelledError) as error:
        _log_failure(policy, error)


def _log_failure(policy: BasePolicy, error: BaseException) -> None:
    logger.error("A settlement of the policy %s failed", _name(policy), exc_info=error)


def _name(policy: BasePolicy) -> str:
    return f"{type(policy).__module__}.{type(policy).__qualname__}"


#: Tasks that outlive their request. The event loop itself holds its tasks weakly.
_background: set[asyncio.Task[None]] = set()


def _in_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task
