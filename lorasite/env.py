"""Every environment variable of Lorasite, with type and description. `.env` is read too; `.env.example` lists the same names."""

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

BASE_DIR = Path(__file__).resolve().parent.parent
RATE = r"^(off|[1-9][0-9]*/(second|minute|hour|day))$"


class Env(BaseSettings):
    model_config = SettingsConfigDict(env_file=BASE_DIR / ".env", env_ignore_empty=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address that the web server listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port that the web server listens on.")
    data_dir: Path = Field(BASE_DIR / "var", description="Folder of database, uploads, embedded Redis and keys.")
    results_dir: Path = Field(BASE_DIR / "results", description="Folder of results, one subfolder per experiment.")
    redis_url: str = Field("", description="Redis or Valkey to use. Unset: an embedded one.")
    database_url: str = Field("", description="PostgreSQL to use. Unset: SQLite in DATA_DIR.")
    secret_key: SecretStr = Field(
        SecretStr(""), description="Django's secret key. Unset: generated once and stored in DATA_DIR."
    )
    allowed_hosts: str = Field("", description="Comma-separated host names of the site. Unset: loopback and HOST.")
    debug: bool = Field(False, description="Show Django's debug pages. Only on loopback.")
    static_root: Path | None = Field(
        None, description="Folder of the collected static files. Unset: one in DATA_DIR, filled at the start."
    )
    base_models_dir: Path | None = Field(None, description="Folder of base models, one subfolder each.")
    samples: bool = Field(True, description="Load sample datasets and train a sample run on the first start.")
    django_superuser_username: str = Field("admin", description="Name of the first admin.")
    django_superuser_password: SecretStr = Field(
        SecretStr(""), description="Password of the first admin. Unset: a random one, printed once."
    )
    django_superuser_email: str = Field("", description="E-mail address of the first admin.")
    upload_limit_mb: int = Field(200, gt=0, description="Largest data file accepted, in MiB.")
    reader_memory_mb: int = Field(1024, ge=64, description="Memory for reading one data file, in MiB.")
    reader_seconds: float = Field(60.0, gt=0, description="CPU seconds for reading one data file.")
    serve_host: str = Field("127.0.0.1", description="Address that `make serve` listens on. It needs no account.")
    serve_port: int = Field(8100, ge=1, le=65535, description="Port that `make serve` listens on.")
    serve_device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Device of predictions. auto: CUDA if available, else the CPU."
    )
    serve_memory_mb: int = Field(
        2048,
        ge=64,
        description="Memory for loaded models, in MiB per process. The least recently used ones are unloaded first.",
    )
    serve_batch_tokens: int = Field(
        1024, ge=16, description="Largest batch of texts to predict, in tokens. A batch may serve several requests."
    )
    serve_wait_seconds: float = Field(
        4.0, gt=0, description="Longest wait for a prediction, in seconds. Beyond it, requests are refused with 429."
    )
    vllm_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="vLLM server that writes answers over the base models it has. Unset: none.",
    )
    vllm_api_key: SecretStr = Field(SecretStr(""), description="API key of the vLLM server, if it asks for one.")
    behind_https: bool = Field(
        False, description="A reverse proxy serves HTTPS: use secure cookies, HSTS and redirects."
    )
    trusted_proxies: int = Field(0, ge=0, le=5, description="Number of own reverse proxies that set X-Forwarded-For.")
    email_url: SecretStr = Field(
        SecretStr(""), description="E-mail server, such as smtp://user:password@host:587. Unset: no e-mail is sent."
    )
    email_from: str = Field("lorasite@localhost", description="Sender of e-mail.")
    site_url: str = Field(
        "", pattern=r"^(https?://\S+)?$", description="Address of the site in messages. Unset: http://HOST:PORT."
    )
    webhook_hosts: str = Field(
        "", description="Comma-separated hosts that webhooks may reach without TLS and in private networks."
    )
    second_factor: bool = Field(False, description="Offer a second factor to protect accounts.")
    oidc_server_url: str = Field("", description="OpenID Connect provider for single sign-on. Unset: none.")
    oidc_client_id: str = Field("", description="Client id at the provider.")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="Client secret at the provider.")
    oidc_name: str = Field("Single sign-on", description="Text of the button on the sign-in page.")
    oidc_sign_up: bool = Field(False, description="Everyone whom the provider signs in gets an account, as a viewer.")
    throttle_login: str = Field("60/minute", pattern=RATE, description="Sign-ins per address, or off.")
    throttle_upload: str = Field("60/minute", pattern=RATE, description="Uploads per person or address, or off.")
    throttle_train: str = Field("60/minute", pattern=RATE, description="Submitted runs per person or address, or off.")
    throttle_validate: str = Field(
        "600/minute", pattern=RATE, description="Checked configurations and estimates per person or address, or off."
    )
    throttle_predict: str = Field("1200/minute", pattern=RATE, description="Predictions per person or address, or off.")
    quota_running: int | None = Field(None, ge=1, description="Runs of one person at the same time. Unset: no limit.")
    quota_queued: int | None = Field(100, ge=1, description="Queued runs of one person.")
    quota_storage_mb: int | None = Field(
        None, ge=1, description="Data and results of one person, in MiB. Unset: no limit."
    )
    lease_seconds: int = Field(
        30, ge=5, description="Seconds after which a run is taken from a worker that does not respond."
    )
    device_kind: str = Field(
        "",
        pattern=r"^(cpu|cuda|mps)?$",
        description="Device kind that a worker on this machine serves. Unset: detected.",
    )
    device_kinds: str = Field(
        "",
        pattern=r"^((cpu|cuda|mps)(,(cpu|cuda|mps))*)?$",
        description="Comma-separated device kinds of all workers, the default one first. Unset: this machine's.",
    )
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token for /metrics. Unset: only this machine may read them."
    )
    min_free_disk_mb: int = Field(1024, ge=0, description="Least free disk space, in MiB. Below it, /readyz fails.")
    worker_beat_file: Path | None = Field(
        None, description="File that a running worker touches, for a container's health check."
    )
    secrets_dir: Path = Field(
        Path("/run/secrets"),
        description="Folder of files, each named like a setting, with values that should not be in the environment.",
    )

    @property
    def redis_socket(self) -> Path:
        """Path of the embedded server's Unix socket. It needs no port, so two installations never collide."""
        path = self.data_dir.resolve() / "redis" / "redis.sock"
        if len(os.fsencode(path)) < 100:  # the limit of a socket's path is 104 bytes on macOS, 108 on Linux
            return path
        return Path(tempfile.gettempdir()) / f"lorasite-{hashlib.sha256(bytes(path)).hexdigest()[:16]}.sock"

    @property
    def hosts(self) -> list[str]:
        """Host names that requests may use."""
        configured = [host.strip() for host in self.allowed_hosts.split(",") if host.strip()]
        if configured:
            return configured
        any_address = {"0.0.0.0", "::"}  # noqa: S104  addresses to listen on, but no names of a host
        return sorted({"127.0.0.1", "localhost", "[::1]", self.host} - any_address)

    def load_secret_key(self) -> str:
        """Return the configured secret key, or the one in DATA_DIR (mode 0600), which is created on first use."""
        configured = self.secret_key.get_secret_value()
        if configured:
            return configured
        path = self.data_dir / "secret_key"
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Exclusive creation: of several processes that start together, one writes the key and the others read it.
        with suppress(FileExistsError), open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(50))
        return path.read_text()


def read_environment() -> Env:
    """Read the environment, then `.env`, then the files in SECRETS_DIR; the first value of a setting counts."""
    environment = Env()
    # SECRETS_DIR is itself a setting, so the folder is known only after the first reading.
    return Env(_secrets_dir=environment.secrets_dir) if environment.secrets_dir.is_dir() else environment


env = read_environment()
