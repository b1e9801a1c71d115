"""One exchange over HTTP, with whom it is meant for, that ends in time.

A timeout of a socket is one for each read, and whoever sends a byte now and then never meets it. What is bounded is the answer's status line
and headers, from the beginning of the exchange. Connecting, and agreeing on TLS, have the same time each before that.
"""

import http.client
import io
import socket
import ssl
import time
import urllib.request
from functools import partial
from typing import Any

__all__ = ["NoRedirects", "exchanges", "proxies"]


class _Until(io.RawIOBase):
    """Reads a socket, until a moment."""

    def __init__(self, source: socket.socket, ends: float) -> None:
        super().__init__()
        self._source = source
        self._ends = ends

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As a socket does it; raises `TimeoutError` when the time is over."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._source.settimeout(left)
        return self._source.recv_into(buffer)


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, ends: float, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self._file = self.fp  # while this file is open the socket stays so, whoever closes it
        self.fp = io.BufferedReader(_Until(sock, ends))

    def close(self) -> None:
        """Closes the socket, too."""
        self._file.close()
        super().close()


class _Http(http.client.HTTPConnection):
    def __init__(self, host: str, /, **more: Any) -> None:
        super().__init__(host, **more)
        self.response_class = partial(_Answer, ends=time.monotonic() + more["timeout"])  # type: ignore[assignment]  # it is called, no more


class _Https(_Http, http.client.HTTPSConnection):
    pass


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """See `urllib.request.HTTPHandler`."""
        return self.do_open(_Http, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(context=tls)
        self._tls = tls

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """See `urllib.request.HTTPSHandler`."""
        return self.do_open(_Https, req, context=self._tls)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A secret must not follow a redirect to somebody else, nor may a page that says 200 to whoever comes pass for who was meant."""

    def redirect_request(self, *_: object) -> None:
        """Follow none: it is an answer that is no success."""


def proxies() -> urllib.request.ProxyHandler:
    """The environment's, for https alone: what goes in clear may be a secret that is for this machine, and a proxy would read it."""
    return urllib.request.ProxyHandler(
        {name: url for name, url in urllib.request.getproxies().items() if name == "https"}
    )


def exchanges(tls: ssl.SSLContext) -> list[urllib.request.BaseHandler]:
    """What makes an opener's exchanges end within the timeout that it is given, and `proxies`."""
    return [proxies(), _HttpHandler(), _HttpsHandler(tls)]
