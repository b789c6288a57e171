"""Messages reach real servers, or are tried again."""

import email
import email.policy
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from notifications import jobs, webhooks
from notifications.models import RETRY_AFTER, Delivery, Event
from notifications.services import announce, save_preferences
from training.models import Status
from work.models import Work

from .conftest import EndRun
from .servers import Drip, Hook, Mailbox, serving

PUBLIC = ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34")
PRIVATE = (
    "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
    "::1", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1",
)  # fmt: skip


def deliver(delivery: Work | None) -> Delivery:
    assert delivery
    jobs.run(str(delivery.pk))
    return Delivery.objects.get(pk=delivery.pk)


def problem_of(delivery: Delivery) -> str:
    assert delivery.error
    return str(delivery.error["message"])


def test_webhook_is_signed_json_without_texts(hook: Hook, hooked: str, end_run: EndRun, settings: Any) -> None:
    settings.SITE_URL = "https://lora.example.org"
    delivery = deliver(end_run("mine", Status.SUCCESS, learned=True))
    ((path, headers, body),) = hook.requests
    assert delivery.status == Status.SUCCESS and path == "/hooks/7?of=lorasite"
    at, _comma, digest = headers["Lorasite-Signature"].removeprefix("t=").partition(",v1=")
    assert digest == hmac.new(hooked.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    content = json.loads(body)
    assert content["id"] == headers["Lorasite-Delivery"] == str(delivery.pk)
    assert content["event"] == "run.finished"
    assert content["run"] == {
        "task_id": content["run"]["task_id"],
        "name": "mine",
        "url": f"https://lora.example.org/runs/{content['run']['task_id']}/",
        "dataset": "d@1",
        "base_model": "b",
        "score": {"name": "accuracy", "value": 0.8},
        "error": None,
    }


def test_message_that_was_sent_is_not_sent_again(hook: Hook, hooked: str, end_run: EndRun) -> None:
    deliver(deliver(end_run("mine", Status.FAILURE)))
    assert len(hook.requests) == 1


def test_message_that_is_refused_is_tried_again_after_growing_pauses(hook: Hook, hooked: str, end_run: EndRun) -> None:
    hook.status = 500
    delivery = deliver(end_run("mine", Status.FAILURE))
    assert delivery.status == Status.PENDING and "500" in problem_of(delivery)
    assert not delivery.within_limit() and not Delivery.objects.filter(Delivery.startable).exists()
    assert delivery.not_before and delivery.not_before - timezone.now() > RETRY_AFTER[0] - timedelta(seconds=5)
    for _pause in RETRY_AFTER:
        assert delivery.status == Status.PENDING
        delivery = deliver(delivery)
    assert delivery.status == Status.FAILURE and len(hook.requests) == len(RETRY_AFTER) + 1


def test_redirect_is_not_followed(hook: Hook, hooked: str, end_run: EndRun) -> None:
    hook.status = 302
    assert "302" in problem_of(deliver(end_run("mine", Status.FAILURE)))
    assert [path for path, _headers, _body in hook.requests] == ["/hooks/7?of=lorasite"]


def test_slow_answer_is_given_up(monkeypatch: Any, settings: Any) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT", 0.2)
    settings.WEBHOOK_HOSTS = ["127.0.0.1"]
    with serving(Drip()) as port, pytest.raises(TimeoutError):
        webhooks.post(f"http://127.0.0.1:{port}/", b"{}", secret="s", delivery="1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "[::ffff:127.0.0.1]"])
def test_webhook_never_reaches_the_server_itself(hook: Hook, host: str) -> None:
    with pytest.raises(webhooks.DeliveryError, match="private network"):
        webhooks.post(f"https://{host}:{hook.server_address[1]}/", b"{}", secret="s", delivery="1")
    assert not hook.requests


def test_addresses_of_the_internet_are_told_from_all_others() -> None:
    assert [address for address in PUBLIC if not webhooks.is_public(address)] == []
    assert [address for address in PRIVATE if webhooks.is_public(address)] == []


def test_certificate_must_be_trusted(settings: Any, tmp_path: Any) -> None:
    import ssl

    settings.WEBHOOK_HOSTS = ["localhost"]
    server = Hook()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the handshake fails, as it should
    with serving(server) as port, pytest.raises(ssl.SSLCertVerificationError):
        webhooks.post(f"https://localhost:{port}/", b"{}", secret="s", delivery="1")


def self_signed(folder: Any) -> Any:
    """Write a certificate for localhost that nobody has signed, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = timezone.now()
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "localhost.pem"
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def test_mail_goes_through_smtp_in_the_language_of_its_reader(settings: Any, member: User, end_run: EndRun) -> None:
    settings.SITE_URL = "https://lora.example.org"
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    save_preferences(user=member, mail_events=list(Event), webhook_events=[], webhook_url="", language="zh-hant")
    mailbox = Mailbox()
    with serving(mailbox) as port:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
        delivery = deliver(end_run("mine", Status.SUCCESS, learned=False))
    ((recipients, content),) = mailbox.messages
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert delivery.status == Status.SUCCESS and recipients == ["<member@example.org>"]
    assert message["Subject"].strip() == "訓練完成，但沒有學到東西：mine"
    assert message["Message-ID"] == f"<{delivery.pk}@lorasite>"
    assert f"https://lora.example.org/runs/{delivery.facts['task_id']}/" in message.get_content()


def test_mail_waits_while_the_server_is_away(settings: Any, member: User) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    announce(owner=member, event=Event.FAILED, key="x", facts={"name": "mine", "path": "/"})
    delivery = deliver(Delivery.objects.get())
    assert delivery.status == Status.PENDING and "ConnectionRefusedError" in problem_of(delivery)
