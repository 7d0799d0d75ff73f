"""The viewer's server: on this machine only, nothing but the page and its thumbnails, nothing from elsewhere."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from heatproof.errors import InvalidInput, MissingExtra
from heatproof.view.viewer import Viewer
from heatproof.view.warming import warmed

#: The only address that the viewer listens on, and the port by default.
HOST, PORT = "127.0.0.1", 7860
#: Routes of gradio that hand out or take files, or reach elsewhere: the viewer needs none of them.
CLOSED = (
    "docs",
    "redoc",
    "openapi.json",
    "upload",
    "file=",
    "file/",
    "proxy=",
    "stream",
    "component_server",
    "deep_link",
    "vibe",
    "runs",
    "monitoring",
)
#: How many thumbnails are kept.
THUMBNAILS = 512
#: The page may load what this server sends, and nothing else.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'self'"
)


def listening(port: int) -> socket.socket:
    """A socket on this machine's own address; port 0 takes a free one.

    Raises:
        InvalidInput: the port is taken, or may not be used; the message names a free one.
    """
    if not 0 <= port <= 65535:
        raise InvalidInput(f"--port must lie in 0 … 65535. Got {port}.")
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # a port that was just given up can be taken again
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen(128)
    except OSError as error:
        found.close()
        why = "is taken" if not isinstance(error, PermissionError) else "may not be used by this user"
        raise InvalidInput(f"Port {port} {why}. Try --port {_free(port)}, or --port 0 for any that is free.") from None
    return found


def _free(port: int) -> int:
    """A port above this one that is free now."""
    for other in range(max(port + 1, 1024), min(port + 100, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((HOST, other))
            except OSError:
                continue
            return other
    return 0


def application(viewer: Viewer) -> Any:
    """The web application.

    Raises:
        MissingExtra: gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
        from fastapi import FastAPI, Response
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise MissingExtra('The viewer needs gradio. Install it: pip install "heatproof[view]".') from error

    from heatproof.view.drawing import thumbnail
    from heatproof.view.layout import Page, style, theme

    page = Page(viewer)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    count = page.answers.count
    drawn = lru_cache(maxsize=THUMBNAILS)(lambda key: thumbnail(viewer.thumbnail(key)))

    @app.get("/thumb/{key}")
    def small(key: int) -> Response:
        if not 0 <= key < count:
            return Response(status_code=404)
        return Response(drawn(key), media_type="image/jpeg", headers={"Cache-Control": "max-age=600"})

    gr.mount_gradio_app(
        app, page.blocks(), path="", server_name=HOST, allowed_paths=[], blocked_paths=["/"], footer_links=[],
        run_history=False, ssr_mode=False, pwa=False, mcp_server=False, show_error=True, max_file_size=1,
        theme=theme(), head=style(),
    )  # fmt: skip
    app.add_middleware(_Closed)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return app


class _Closed:
    """Refuses the routes that the viewer does not need, and says what the page may load."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self._refused(scope["path"]):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return

        async def policed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode()),
                                      (b"x-content-type-options", b"nosniff")]  # fmt: skip
            await send(message)

        await self._app(scope, receive, policed if scope["type"] == "http" else send)

    @staticmethod
    def _refused(path: str) -> bool:
        rest = path.lstrip("/").removeprefix("gradio_api/")
        return rest.startswith(CLOSED)


class Server:
    """A server for one viewer on a socket that listens already."""

    def __init__(self, viewer: Viewer, port: int = PORT):
        self._socket = listening(port)
        try:
            import uvicorn

            self._server = uvicorn.Server(
                uvicorn.Config(application(viewer), log_level="error", ws="none", timeout_graceful_shutdown=1)
            )
        except ImportError as error:
            self._socket.close()
            raise MissingExtra('The viewer needs gradio. Install it: pip install "heatproof[view]".') from error
        except BaseException:
            self._socket.close()
            raise
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/"

    def run(self, ready: Callable[[str], None] = lambda url: None) -> None:
        """Serves until it is stopped; `ready` is called with the address once it answers."""
        threading.Thread(target=self._tell, args=(ready,), daemon=True).start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Stops serving."""
        self._server.should_exit = True

    def _tell(self, ready: Callable[[str], None]) -> None:
        waiting = threading.Event()
        while not self._server.started:
            if self._server.should_exit or waiting.wait(0.02):
                return
        with suppress(Exception):  # what is loaded at the first request is loaded before anybody waits for it
            warmed(self.url)
        ready(self.url)
