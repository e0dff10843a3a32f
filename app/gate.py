"""Who asks: every path under `/v1` is answered only where a key says so, and before any of the body is read."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors
from batchord.errors import BatchordError
from batchord.service.keys import authenticate


class Gate:
    """Finds the tenant, which `app.deps.TenantDep` gives to a route, or answers 401."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            headers = Headers(scope=scope)
            try:
                tenant = await authenticate(
                    scope["app"].state.backend, headers.get("authorization", ""), _named_hosts(headers)
                )
            except BatchordError as error:
                await errors.answer(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)


def _named_hosts(headers: Headers) -> list[str]:
    """Give the host that the request is for, and that of the page from which a browser sent it."""
    urls = [f"//{headers['host']}"] if "host" in headers else []
    return [_host(url) for url in [*urls, *headers.getlist("origin")]]


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url
