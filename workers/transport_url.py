"""From the user's Redis URL to Celery's broker settings. Not for connecting."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from batchord.errors import ConfigError

ALIAS = "batchord"
"""The name of our transport in kombu's table; see `workers.transport.install`."""


def broker_settings(redis_url: str) -> dict[str, str]:
    """What to set in Celery's configuration, so that this Redis is the broker, by our transport.

    Takes `redis://`, `rediss://` (certificates are verified, unless its query says otherwise),
    `unix:///path?db=n` and `redis+socket:///path?virtual_host=n`. Raises ConfigError for any other.
    """
    url = urlsplit(redis_url)
    query = dict(parse_qsl(url.query))
    database = query.pop("virtual_host", query.pop("db", ""))
    match url.scheme:
        case "unix" | "redis+socket":
            settings = {"broker_url": _socket_url(url, database)}
        case "redis":
            settings = {"broker_url": _tcp_url(url, ALIAS, database)}
        case "rediss":
            # kombu takes no alias of a TLS scheme, but a transport by name; and without an option it would not use TLS.
            tls = {"ssl_cert_reqs": "required"} | {
                name: query.pop(name) for name in list(query) if name.startswith("ssl_")
            }
            settings = {
                "broker_url": f"{_tcp_url(url, 'rediss', database)}?{urlencode(tls)}",
                "broker_transport": ALIAS,
            }
        case _:
            raise ConfigError(f"{url.scheme}:// is no Redis URL: use redis://, rediss:// or unix:///path")
    if query:
        raise ConfigError(f"The Redis URL has options that Celery does not know: {', '.join(sorted(query))}")
    return settings


def _socket_url(url: SplitResult, database: str) -> str:
    return f"{ALIAS}+socket://{url.netloc}{url.path}?virtual_host={database or 0}"


def _tcp_url(url: SplitResult, scheme: str, database: str) -> str:
    return f"{scheme}://{url.netloc}/{database or url.path.strip('/') or 0}"
