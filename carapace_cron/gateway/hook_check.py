"""Is what a plugin marked with `hookimpl` really a hook? Asked before it is registered, with help if not."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pluggy
from aiohttp import web

from carapace_cron.errors import ConfigurationError
from carapace_cron.gateway.hookspecs import HostHooks, Route

MAY_BE_ASYNC = frozenset({"start", "stop", "identify"})
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HOST_HOOKS = frozenset(name for name in vars(HostHooks) if not name.startswith("_"))


def implemented_hooks(manager: pluggy.PluginManager, plugin: object) -> dict[str, Any]:
    """Hook name → the marked function, for all that `plugin` marks."""
    found: dict[str, Any] = {}
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            found[options["specname"] or name] = getattr(plugin, name)
    return found


def check_hooks(manager: pluggy.PluginManager, plugin_id: str, plugin: object) -> tuple[str, ...]:
    """The names of the plugin's hooks. Raises `ConfigurationError` for one that nobody would call.

    Wrong argument names are found by pluggy itself when the plugin is registered.
    """
    hooks = implemented_hooks(manager, plugin)
    if not hooks:
        remedy = "@hookimpl (carapace_cron.hookspecs) on each function that implements a hook"
        raise _error(plugin_id, "implements no hook", type(plugin).__qualname__, plugin, remedy)
    for name, function in hooks.items():
        _check_hook(manager, plugin_id, name, function)
    return tuple(sorted(hooks))


def _check_hook(manager: pluggy.PluginManager, plugin_id: str, name: str, function: Any) -> None:
    where = f"{function.__qualname__}{inspect.signature(function)}"
    options = getattr(function, f"{manager.project_name}_impl", {})
    caller = getattr(manager.hook, name, None)
    if caller is None or not caller.has_spec():
        if not options.get("optionalhook"):
            raise _error(plugin_id, f'unknown hook "{name}"', where, function, _nearest(name, manager))
    elif name in _HOST_HOOKS:
        if options.get("wrapper") or options.get("hookwrapper"):
            raise _error(plugin_id, f'hook "{name}" as a wrapper', where, function, "a plain implementation")
        if inspect.iscoroutinefunction(function) and name not in MAY_BE_ASYNC:
            remedy = f"def instead of async def; only {', '.join(sorted(MAY_BE_ASYNC))} may be async"
            raise _error(plugin_id, f'hook "{name}" as a coroutine', where, function, remedy)


def each_call(caller: pluggy.HookCaller, **arguments: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One call per plugin, in the order of registration, so that one's failure is not another's."""
    for implementation in caller.get_hookimpls():
        wanted = {name: arguments[name] for name in implementation.argnames}
        yield implementation.plugin_name, partial(implementation.function, **wanted)


def fault_of_route(route: Route) -> str | None:
    """Why the router would not take it, in a sentence; None when it does."""
    if route.method not in _METHODS:
        return f"method {route.method!r}: expected one of {', '.join(_METHODS)}"
    try:
        web.UrlDispatcher().add_route(route.method, route.path, _nobody)
    except (ValueError, TypeError, AttributeError) as error:
        return f"path {route.path!r}: {error}"
    return None


async def _nobody(request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


def _nearest(name: str, manager: pluggy.PluginManager) -> str:
    known = [hook for hook, caller in vars(manager.hook).items() if caller.has_spec()]
    close = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"one of {', '.join(sorted(known))}"


def _error(plugin_id: str, what: str, where: str, thing: object, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"plugin {plugin_id}: {what}\n  where: {where}\n  file: {_file_of(thing)}\n  what would do: {remedy}"
    )


def _file_of(thing: object) -> str:
    try:
        return inspect.getsourcefile(thing if callable(thing) else type(thing)) or "unknown"
    except TypeError:
        return "unknown"
