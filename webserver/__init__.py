"""The web server of the site and of `make serve`: whole requests only, with deadlines, and threads by kind of work.

One thread receives and sends (waitress), so a slow or silent client occupies a connection and nothing else. A request goes to the
threads of its lane once all of it has arrived. gunicorn is the parent process: it holds the port, restarts a worker that died, and
stops it in time. This package is plain Python; the application describes itself in a `Site`.
"""

from .site import Deadlines, Head, Site

__all__ = ["Deadlines", "Head", "Site", "serve"]


def serve(site: Site) -> None:
    """Answer requests until SIGTERM or SIGINT."""
    from .process import Process  # gunicorn and waitress: not needed to describe a Site

    Process(site).run()
