"""What becomes of errors that no view expects."""

import polars as pl
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from web.error_responses import ErrorMiddleware


def panicking_view(request: HttpRequest) -> HttpResponse:
    """Let polars write a date out of range, over which its Rust code panics."""
    return HttpResponse(pl.Series([2**31 - 1], dtype=pl.Int32).cast(pl.Date).cast(pl.String)[0])


def interrupted_view(request: HttpRequest) -> HttpResponse:
    raise KeyboardInterrupt


def test_panic_of_native_code_fails_the_request_and_not_the_server(rf: RequestFactory) -> None:
    with pytest.raises(BaseException) as panic:
        panicking_view(rf.get("/"))
    assert not isinstance(panic.value, Exception)  # so `except Exception` of the server would not catch it
    with pytest.raises(RuntimeError, match="panicked"):
        ErrorMiddleware(panicking_view)(rf.get("/"))


def test_interrupt_still_ends_the_server(rf: RequestFactory) -> None:
    with pytest.raises(KeyboardInterrupt):
        ErrorMiddleware(interrupted_view)(rf.get("/"))
