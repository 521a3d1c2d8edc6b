"""A folder on a port of this machine, as a browser needs it: pages from disk may not read their neighbours."""

import contextlib
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing: the tests look at what the browser got."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Say nothing of a browser that has left a page before all of it was there."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)


@contextlib.contextmanager
def served(folder):
    """Serve a folder to this machine alone; yield the address, which ends with a slash."""
    server = _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
