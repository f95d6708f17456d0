"""The way to a server: straight, or through a proxy where the environment names one, as it does for every AWS tool."""

from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import PoolManager, ProxyManager
from urllib3.exceptions import LocationValueError
from urllib3.util import make_headers, parse_url

from components.step import UserError


def pool_for(url: str, **options: Any) -> PoolManager:
    """Connections to the server of a URL, through HTTPS_PROXY or HTTP_PROXY unless NO_PROXY exempts it.

    `options` are urllib3's. Raises UserError where the variable names no proxy.
    """
    server = urlsplit(url)
    proxy = getproxies().get(server.scheme)
    if not proxy or proxy_bypass(server.netloc):
        return PoolManager(**options)
    with suppress(LocationValueError):
        named = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        if named.host:
            headers = make_headers(proxy_basic_auth=unquote(named.auth)) if named.auth else None
            return ProxyManager(named.url, proxy_headers=headers, **options)
    # What it is instead is not shown: there may be a password in it.
    raise UserError(f"{server.scheme.upper()}_PROXY must be http(s)://host:port")
