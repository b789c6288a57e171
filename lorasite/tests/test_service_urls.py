"""EMAIL_URL as Django's settings, and the origin of the single sign-on provider."""

from typing import Any

import pytest

from lorasite.service_urls import EmailServer, origin, parse_email_url

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", {"host": "mail.example.org", "port": 25}),
        (
            "smtp://lora%40example.org:p%2Fw@mail.example.org",
            {"host": "mail.example.org", "port": 587, "user": "lora@example.org", "password": "p/w", "starttls": True},
        ),
        ("smtp://u:p@mail.example.org:2525", {"host": "mail.example.org", "port": 2525, "user": "u", "password": "p", "starttls": True}),
        ("smtps://u:p@mail.example.org", {"host": "mail.example.org", "port": 465, "user": "u", "password": "p", "tls": True}),
        ("smtp://", {"host": "localhost", "port": 25}),
    ],
)  # fmt: skip
def test_password_is_never_sent_unencrypted(url: str, expected: dict[str, Any]) -> None:
    assert parse_email_url(url) == EmailServer(SMTP, **expected)


def test_without_a_server_nothing_is_sent_and_console_prints_it() -> None:
    assert parse_email_url("") == EmailServer() and "dummy" in EmailServer().backend
    assert parse_email_url("console:").backend == "django.core.mail.backends.console.EmailBackend"


def test_origin_has_neither_path_nor_query() -> None:
    assert origin("https://id.example.org:8443/realms/one?x=1") == "https://id.example.org:8443"
