"""How this site is served: which requests share threads, how large a body may be, and where large ones wait."""

from typing import Any

from django.conf import settings

from lorasite.env import env
from lorasite.static_files import collect_static_files
from webserver import Head, Site
from webserver import serve as serve_site

# Number of threads by kind of work. Uploads and data tasks compute for seconds, sign-ins hash passwords, and a prediction
# waits for its batch. A stream holds its thread while it is open; more of them than the generator answers at once wait for it.
LANES = {"pages": 6, "polls": 4, "sign-ins": 2, "uploads": 2, "predictions": 4, "streams": 32, "probes": 1, "alive": 1}
PROBES = {"/healthz": "alive", "/readyz": "probes", "/metrics": "probes"}
POSTS = {"/login": "sign-ins", "/api/login": "sign-ins", "/predict": "predictions", "/api/predict": "predictions"}
POSTS |= dict.fromkeys(("/chat", "/chat/stream", "/v1/chat/completions", "/v1/completions"), "streams")
RECOMMENDATIONS = ("/models/recommend", "/api/models/recommend")
DATA = ("/datasets/", "/api/datasets/")
FORM_BYTES = 1 << 20  # room for a form's other fields beside the file
UPLOADS_WAITING = 8  # uploads of the largest size that fit in the folder; more are refused with Retry-After


def lane_of(head: Head) -> str:
    """Return the name of the lane whose threads answer a request."""
    path = head.path.rstrip("/")
    if head.path in PROBES and head.method in ("GET", "HEAD"):
        return PROBES[head.path]
    if path in RECOMMENDATIONS:
        return "predictions"
    if head.method == "POST" and path in POSTS:
        return POSTS[path]
    is_data = f"{path}/".startswith(DATA)
    if is_data and (head.method == "POST" or path.endswith("/download")):
        return "uploads"
    if head.method == "GET" and (path.startswith(("/api/", "/v1/")) or "HX_REQUEST" in head.headers):
        return "polls"
    return "pages"


def body_limit(head: Head) -> int:
    """Return how many bytes of a request's body are received.

    The views have lower limits and explain them; this one is for requests without a view or without a length.
    """
    multipart = head.headers.get("CONTENT_TYPE", "").lower().startswith("multipart/form-data")
    if multipart and head.path in settings.UPLOAD_ADDRESSES:
        return int(settings.UPLOAD_LIMIT) + FORM_BYTES
    return int(settings.API_BODY_LIMIT)


def join_address(host: str, port: int) -> str:
    """Return host:port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def load_application() -> Any:
    # Imported here because the server calls this in its worker process: an application must not be loaded before a fork.
    from lorasite.wsgi import application

    return application


def site() -> Site:
    return Site(
        load=load_application,
        address=join_address(env.host, env.port),
        name="lorasite-web",
        lanes=LANES,
        lane_of=lane_of,
        body_limit=body_limit,
        folder=settings.FILE_UPLOAD_TEMP_DIR,
        folder_bytes=UPLOADS_WAITING * (settings.UPLOAD_LIMIT + FORM_BYTES),
    )


def serve() -> None:
    collect_static_files()
    serve_site(site())
