"""Every environment variable of Lorasite, typed and described; `.env` is read too. `.env.example` lists the same names."""

import hashlib
import os
import secrets
import tempfile
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
    data_dir: Path = Field(BASE_DIR / "var", description="Database, uploads, embedded Redis and keys.")
    results_dir: Path = Field(BASE_DIR / "results", description="What runs leave, one folder per experiment.")
    redis_url: str = Field("", description="Redis or Valkey to use; unset: one is embedded.")
    database_url: str = Field("", description="PostgreSQL to use; unset: SQLite under DATA_DIR.")
    secret_key: SecretStr = Field(SecretStr(""), description="Django's key; unset: made once and kept in DATA_DIR.")
    allowed_hosts: str = Field("", description="Comma-separated host names; unset: loopback and HOST.")
    debug: bool = Field(False, description="Django's debug pages; only on loopback.")
    base_models_dir: Path | None = Field(None, description="Folder of base models, one folder each.")
    samples: bool = Field(True, description="Load sample datasets and train a sample run on the first start.")
    django_superuser_username: str = Field("admin", description="Name of the first admin.")
    django_superuser_password: SecretStr = Field(
        SecretStr(""), description="Password of the first admin; unset: a random one, printed once."
    )
    django_superuser_email: str = Field("", description="E-mail address of the first admin.")
    upload_limit_mb: int = Field(200, gt=0, description="Largest data file accepted, in MiB.")
    reader_memory_mb: int = Field(1024, ge=64, description="Memory that reading one data file may take, in MiB.")
    reader_seconds: float = Field(60.0, gt=0, description="Seconds of computing that reading one data file may take.")
    serve_host: str = Field("127.0.0.1", description="Address that `make serve` listens on; it asks for no account.")
    serve_port: int = Field(8100, ge=1, le=65535, description="Port that `make serve` listens on.")
    serve_device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where models answer; auto: CUDA where there is one, else the CPU."
    )
    serve_memory_mb: int = Field(
        2048,
        ge=64,
        description="Most memory for models that answer, in MiB per process; those asked longest ago go first.",
    )
    serve_batch_tokens: int = Field(1024, ge=16, description="Tokens of a batch of texts, whoever asked about them.")
    serve_wait_seconds: float = Field(
        4.0, gt=0, description="Where the wait for an answer would be longer, the caller is told to come back (429)."
    )
    behind_https: bool = Field(False, description="A reverse proxy speaks HTTPS: secure cookies, HSTS, redirects.")
    trusted_proxies: int = Field(0, ge=0, le=5, description="Reverse proxies that set X-Forwarded-For before us.")
    email_url: SecretStr = Field(
        SecretStr(""), description="Where mail goes, smtp://user:password@host:587; unset: no mail is sent."
    )
    email_from: str = Field("lorasite@localhost", description="Sender of the mail.")
    second_factor: bool = Field(False, description="Let people protect their account with a second factor.")
    oidc_server_url: str = Field("", description="OpenID Connect provider for single sign-on; unset: none.")
    oidc_client_id: str = Field("", description="Our name at the provider.")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="Our secret at the provider.")
    oidc_name: str = Field("Single sign-on", description="What the button on the sign-in page says.")
    oidc_sign_up: bool = Field(False, description="Whoever the provider knows gets an account, as a viewer.")
    throttle_login: str = Field("60/minute", pattern=RATE, description="Sign-ins of one address, or off.")
    throttle_upload: str = Field("60/minute", pattern=RATE, description="Uploads of one person or address, or off.")
    throttle_train: str = Field("60/minute", pattern=RATE, description="Submits of one person or address, or off.")
    throttle_validate: str = Field(
        "600/minute", pattern=RATE, description="Configurations checked and runs estimated, likewise, or off."
    )
    throttle_predict: str = Field("1200/minute", pattern=RATE, description="Predictions, likewise, or off.")
    quota_running: int | None = Field(None, ge=1, description="Runs of one person at once; unset: as many as fit.")
    quota_queued: int | None = Field(100, ge=1, description="Runs of one person in the queue.")
    quota_storage_mb: int | None = Field(None, ge=1, description="Data and results of one person, in MiB; unset: any.")
    lease_seconds: int = Field(30, ge=5, description="A run whose worker is silent for so long is taken back.")
    device_kind: str = Field(
        "", pattern=r"^(cpu|cuda|mps)?$", description="Device kind that a worker here serves; unset: this machine's."
    )
    device_kinds: str = Field(
        "",
        pattern=r"^((cpu|cuda|mps)(,(cpu|cuda|mps))*)?$",
        description="Device kinds that workers here have, the usual one first, with commas; unset: this machine's.",
    )
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token that reads /metrics; unset: only this machine reads them."
    )
    min_free_disk_mb: int = Field(1024, ge=0, description="With less space free, in MiB, /readyz says so.")
    worker_beat_file: Path | None = Field(
        None, description="File that a living worker touches, for a container's check."
    )
    secrets_dir: Path = Field(
        Path("/run/secrets"),
        description="Folder of files, each named like a variable here, that hold what should not be in the environment.",
    )

    @property
    def redis_socket(self) -> Path:
        """Where the embedded server listens. A Unix socket needs no port, so two installations never collide."""
        path = self.data_dir.resolve() / "redis" / "redis.sock"
        if len(os.fsencode(path)) < 100:  # a socket's path has room for 104 bytes on macOS, 108 on Linux
            return path
        return Path(tempfile.gettempdir()) / f"lorasite-{hashlib.sha256(bytes(path)).hexdigest()[:16]}.sock"

    @property
    def hosts(self) -> list[str]:
        named = [h.strip() for h in self.allowed_hosts.split(",") if h.strip()]
        return named or sorted({"127.0.0.1", "localhost", "[::1]", self.host} - {"0.0.0.0", "::"})  # noqa: S104  no name of a host

    def key(self) -> str:
        """The configured secret key, or the one kept in DATA_DIR (mode 0600), made on first use."""
        if self.secret_key.get_secret_value():
            return self.secret_key.get_secret_value()
        path = self.data_dir / "secret_key"
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(path, "x", opener=_private) as f:
                f.write(secrets.token_urlsafe(50))
        except FileExistsError:
            pass
        return path.read_text()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read() -> Env:
    """The environment, then `.env`, then the files of SECRETS_DIR."""
    found = Env()
    return Env(_secrets_dir=found.secrets_dir) if found.secrets_dir.is_dir() else found


env = read()
