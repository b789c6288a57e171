"""The web server of the site and of `make serve`: whole requests only, with deadlines, and threads by kind of work.

One thread receives and sends (waitress), so that a client who is slow or silent holds a connection and nothing else. A request
goes to the threads of its lane once all of it is here. gunicorn is the parent process: it holds the port, starts a worker that
died again, and stops it in time. Plain Python: the application says what it needs in a `Site`.
"""

from .site import Deadlines, Head, Site

__all__ = ["Deadlines", "Head", "Site", "serve"]


def serve(site: Site) -> None:
    """Answer requests until SIGTERM or SIGINT."""
    from .process import Process

    Process(site).run()
