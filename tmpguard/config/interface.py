"""Detects whether an application is ASGI or WSGI."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final, Literal

from tmpguard.core.errors import ConfigurationError

Interface = Literal["asgi", "wsgi"]

#: Where middlewares keep the application that they wrap.
_INNER: Final = ("app", "wsgi_app", "asgi_app", "application", "_app", "wrapped", "__wrapped__", "func")

_DEPTH: Final = 20

_ARTICLES: Final = {"asgi": "an ASGI", "wsgi": "a WSGI"}


def interface_of(app: object) -> Interface:
    """Detect the interface of ``app`` from its call signature.

    Raises ConfigurationError if it cannot be detected, or if ``app`` is neither.
    """
    if not callable(app) or inspect.isclass(app):
        raise ConfigurationError(f"{app!r} is not an application: give an ASGI or a WSGI application")
    found = _interface(app, _DEPTH)
    if found is None:
        raise ConfigurationError(
            f'{app!r} may be an ASGI or a WSGI application: give interface="asgi" or interface="wsgi"'
        )
    return found


def check_wrapped(app: object, expected: Interface) -> None:
    """Raise ConfigurationError, naming the right middleware, if ``app`` clearly has another interface.

    ``expected`` is the interface of the middleware that is to wrap it.
    """
    if inspect.isclass(app) or not callable(app):
        return
    package = type(app).__module__.partition(".")[0]
    if package == "mangum":
        raise ConfigurationError(
            f"{_kind(app)} is the handler of a Lambda function: wrap the application inside it, "
            "Mangum(TmpGuardMiddleware(app)) with tmpguard.asgi's"
        )
    if _positional(app) == ["request"]:
        raise ConfigurationError(
            f"tmpguard.{expected}.TmpGuardMiddleware is not for Django's MIDDLEWARE: "
            'put "tmpguard.django.TmpGuardMiddleware" there'
        )
    found = _interface(app, _DEPTH)
    if found is not None and found != expected:
        raise ConfigurationError(
            f"{_kind(app)} is {_ARTICLES[found]} application, which tmpguard.{expected} cannot wrap: "
            f"from tmpguard.{found} import TmpGuardMiddleware"
        )


def _kind(app: object) -> str:
    """How an error names ``app``: the function, or the class of the object."""
    return getattr(app, "__qualname__", None) or type(app).__qualname__


def no_attribute(middleware: object, app: object, name: str, instead: str) -> AttributeError:
    """The error for looking up an attribute of the application on the middleware that wraps it."""
    text = f"{type(middleware).__name__!r} object has no attribute {name!r}"
    if not name.startswith("_") and _has(app, name):
        text += f", which the application has: do not replace the application, {instead}"
    return AttributeError(text, name=name, obj=middleware)


def _has(app: object, name: str) -> bool:
    try:
        return hasattr(app, name)
    except Exception:  # for example, a proxy that is not bound yet
        return False


def checked_interface(value: object, app: object) -> Interface:
    """The interface that the caller names, otherwise the detected one. Raises ConfigurationError."""
    if value is None:
        return interface_of(app)
    if value not in ("asgi", "wsgi"):
        raise ConfigurationError(f'interface={value!r} is neither "asgi" nor "wsgi"')
    return "asgi" if value == "asgi" else "wsgi"


def _interface(app: Callable[..., object], depth: int) -> Interface | None:
    call = app if inspect.isroutine(app) else getattr(app, "__call__", app)  # noqa: B004
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call):
        return "asgi"
    parameters = _positional(app)
    if parameters is not None:
        if parameters[:1] in (["environ"], ["env"]) or len(parameters) == 2:
            return "wsgi"
        if len(parameters) == 3:
            return "asgi"
        if parameters == ["scope"]:
            raise ConfigurationError(
                f"{app!r} is an ASGI 2 application, which takes the scope alone: "
                "asgiref.compatibility.guarantee_single_callable turns it into an ASGI 3 application"
            )
    for name in _INNER if depth else ():
        inner = inspect.getattr_static(app, name, None)
        inner = None if inner is None else getattr(app, name, None)
        if callable(inner) and inner is not app and not inspect.isclass(inner):
            found = _interface(inner, depth - 1)
            if found is not None:
                return found
    return None


def _positional(app: Callable[..., object]) -> list[str] | None:
    """The names of the required positional parameters; None if the application accepts any arguments."""
    try:
        # The wrapper's own signature, not that of the function it claims to wrap.
        parameters = inspect.signature(app, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
