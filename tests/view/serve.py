"""A viewer's server in a thread."""

import threading
from contextlib import contextmanager

from heatproof.view import serving
from heatproof.view.viewer import Viewer


@contextmanager
def served(viewer: Viewer):
    """The address of a server that is up, stopped at the end."""
    server, up = serving.Server(viewer, 0), threading.Event()
    thread = threading.Thread(target=server.run, args=(lambda url: up.set(),), daemon=True)
    thread.start()
    assert up.wait(30)
    try:
        yield server.url
    finally:
        server.stop()
        thread.join(10)
