"""Django's settings. What an installation can configure comes from env.py."""

import re
from datetime import timedelta

import dj_database_url
from django.templatetags.static import static
from django.urls import reverse_lazy

from lorasite.env import BASE_DIR, env
from lorasite.service_urls import origin, parse_email_url

VERSION = re.search(r"^## (\d\S*)", (BASE_DIR / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]  # the file always has a version
DATA_DIR = env.data_dir.resolve()
RESULTS_DIR = env.results_dir.resolve()
BASE_MODELS_DIR = env.base_models_dir
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

SECRET_KEY = env.load_secret_key()
DEBUG = env.debug
HOST = env.host
ALLOWED_HOSTS = env.hosts
ROOT_URLCONF = "lorasite.urls"
API_PREFIX = "/api/"  # below it, every error is problem+json and bodies have a limit
WSGI_APPLICATION = "lorasite.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "accounts.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "template_partials",
    "guardian",
    "axes",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_rq",
    "django_prometheus",
    "lorasite",
    "accounts",
    "audit",
    "lists",
    "work",
    "notifications",
    "datasets_app",
    "experiments",
    "training",
    "inference",
    "monitoring",
]

MIDDLEWARE = [
    "monitoring.middleware.ProbeMiddleware",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "web.middleware.ProxyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "web.middleware.PrivateMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "web.middleware.SessionEndedMiddleware",
    "web.middleware.ToastMiddleware",
    "audit.middleware.RequestMiddleware",
    "web.middleware.DiskSpaceMiddleware",
    "web.middleware.ApiMiddleware",
    "web.middleware.BodyMiddleware",
    "web.middleware.NulMiddleware",
    "web.error_responses.ErrorMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "lorasite.context_processors.site",
            ],
        },
    }
]

DATABASES = {
    "default": dj_database_url.parse(
        env.database_url or f"sqlite:///{DATA_DIR / 'db.sqlite3'}", conn_max_age=60, conn_health_checks=True
    )
}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # WAL lets pages read while a worker writes; IMMEDIATE takes the write lock at BEGIN, where busy_timeout can wait.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
    }

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "accounts.backends.LockoutBackend",
    "django.contrib.auth.backends.ModelBackend",
    "guardian.backends.ObjectPermissionBackend",
]
ANONYMOUS_USER_NAME = None
GUARDIAN_MONKEY_PATCH_USER = False
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=5)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]  # both, so that no one can lock out others
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_CLIENT_IP_CALLABLE = "web.requests.client_network"
AXES_USERNAME_CALLABLE = "accounts.usernames.name_for_lockout"

# django-allauth provides the second factor, single sign-on and the list of sessions. Signing in and up is our own.
ACCOUNT_ADAPTER = "accounts.adapters.AccountAdapter"
MFA_ADAPTER = "accounts.adapters.SecondFactorAdapter"
SOCIALACCOUNT_ADAPTER = "accounts.adapters.SingleSignOnAdapter"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email"]
SECOND_FACTOR = env.second_factor
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_TOTP_ISSUER = "Lorasite"
MFA_TOTP_TOLERANCE = 1  # also accept the code of the half minute before or after, because clocks differ
MFA_FORMS = {
    "authenticate": "accounts.second_factor.Authenticate",
    "reauthenticate": "accounts.second_factor.Reauthenticate",
    "activate_totp": "accounts.second_factor.Activate",
}
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not env.behind_https
SINGLE_SIGN_ON = bool(env.oidc_server_url)
OIDC_SIGN_UP = env.oidc_sign_up
SOCIALACCOUNT_EMAIL_AUTHENTICATION = SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_LOGIN_ON_GET = False
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [
            {
                "provider_id": "oidc",
                "name": env.oidc_name,
                "client_id": env.oidc_client_id,
                "secret": env.oidc_client_secret.get_secret_value(),
                "settings": {"server_url": env.oidc_server_url},
            }
        ],
    }
}

EMAIL = parse_email_url(env.email_url.get_secret_value())
EMAIL_BACKEND = EMAIL.backend
EMAIL_HOST = EMAIL.host
EMAIL_PORT = EMAIL.port
EMAIL_HOST_USER = EMAIL.user
EMAIL_HOST_PASSWORD = EMAIL.password
EMAIL_USE_TLS = EMAIL.starttls  # Django's name for STARTTLS
EMAIL_USE_SSL = EMAIL.tls  # and for TLS from the start
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.email_from
SITE_URL = env.site_url.rstrip("/") or f"http://{env.host}:{env.port}"
WEBHOOK_HOSTS = [host.strip().lower() for host in env.webhook_hosts.split(",") if host.strip()]
PASSWORD_RESET_TIMEOUT = 24 * 3600

CACHES = {
    # allauth counts wrong codes here, so all processes must share it and it must survive a restart.
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "lorasite_cache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
    "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},  # for what each process can compute again
    "throttles": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": env.redis_url or f"unix://{env.redis_socket}",
        "KEY_PREFIX": "lorasite-json",
        "OPTIONS": {
            "socket_connect_timeout": 0.2,
            "socket_timeout": 0.5,
            "serializer": "web.throttles.JsonSerializer",
        },
    },
}
THROTTLES = {
    name: "" if rate == "off" else rate
    for name, rate in {
        "login": env.throttle_login,
        "upload": env.throttle_upload,
        "train": env.throttle_train,
        "validate": env.throttle_validate,
        "predict": env.throttle_predict,
    }.items()
}
QUOTAS = {"running": env.quota_running, "queued": env.quota_queued, "storage": env.quota_storage_mb}

LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "accounts:login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hant", "繁體中文")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "lorasite.formats"

STATIC_URL = "static/"
STATIC_ROOT = env.static_root or DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "lorasite.static_files.HashedStaticFilesStorage"},
}
FILE_UPLOAD_PERMISSIONS = None  # those of the umask: 0600 where the site runs, 0644 in an image that another user runs
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
WHITENOISE_USE_FINDERS = True  # for plain names: of bookmarks, and where nothing was collected
DATA_UPLOAD_MAX_MEMORY_SIZE = API_BODY_LIMIT = 4 * 1024 * 1024
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "uploads"
for folder in (FILE_UPLOAD_TEMP_DIR, STATIC_ROOT):
    folder.mkdir(parents=True, exist_ok=True)
UPLOAD_LIMIT = env.upload_limit_mb * 1024 * 1024
# Bytes reserved for a full disk. SQLite's write-ahead log takes 4 MiB before it restarts, and more during a long read.
DISK_RESERVE = 16 * 2**20
UPLOAD_ADDRESSES = ("/datasets/new/", "/api/datasets")  # their views explain the limit to files that are too large
READER_MEMORY = env.reader_memory_mb * 1024 * 1024
READER_SECONDS = env.reader_seconds
# The function that the reader process calls; a setting, so that tests can replace it across the process boundary.
DATASET_READER = "datasets_app.reading.readers.read"
LEASE_SECONDS = env.lease_seconds
SERVED_MODEL = ""  # `manage.py serve --exp` names the only model that it serves
SERVE_HOST = env.serve_host
SERVE_PORT = env.serve_port
SERVE_DEVICE = env.serve_device
SERVE_MEMORY_MB = env.serve_memory_mb
SERVE_BATCH_TOKENS = env.serve_batch_tokens
SERVE_WAIT_SECONDS = env.serve_wait_seconds
VLLM_URL = env.vllm_url.rstrip("/")
VLLM_API_KEY = env.vllm_api_key.get_secret_value()
DEVICE_KIND = env.device_kind
DEVICE_KINDS = [kind for kind in env.device_kinds.split(",") if kind]
METRICS_TOKEN = env.metrics_token.get_secret_value()
MIN_FREE_DISK = env.min_free_disk_mb * 1024 * 1024
WORKER_BEAT_FILE = env.worker_beat_file
PROMETHEUS_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, float("inf"))

# Cookies ignore the port, so two installations on one host would overwrite each other's cookies under one name.
SESSION_COOKIE_NAME = f"lorasite_{env.port}"
CSRF_COOKIE_NAME = f"lorasite_csrf_{env.port}"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "web.error_responses.csrf_failure"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
TRUSTED_PROXIES = env.trusted_proxies
if env.behind_https:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = True
    SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]  # probes from inside the cluster use plain HTTP
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
# W002: a lockout is reported by our own errors, not by axes' middleware. W005, W021: subdomains may belong to others.
SILENCED_SYSTEM_CHECKS = ["axes.W002", "security.W005", "security.W021"]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'", *([origin(env.oidc_server_url)] if env.oidc_server_url else [])],
        "base-uri": ["'none'"],
        "object-src": ["'none'"],
    },
}

REDIS_URL = env.redis_url or f"unix://{env.redis_socket}"
# Training runs wait in the queue of their device kind, all other work in `data`. work.queue opens them through django-rq.
RQ_QUEUES = {
    name: {"URL": REDIS_URL, "DEFAULT_TIMEOUT": -1, "SERIALIZER": "rq.serializers.JSONSerializer"}
    for name in ("cpu", "cuda", "mps", "data", "exports")
}
RQ = {"COMMIT_MODE": "auto"}  # work.queue sends after the commit itself, and needs to know whether Redis took the job
RQ_SHOW_ADMIN_LINK = (
    False  # its views can delete jobs; the database is the truth, so our admin page only shows the queues
)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.TokenAuthentication",
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.authentication.HasScope"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "URL_FORMAT_OVERRIDE": None,  # all answers are JSON; `format` is the format of a download
    "DEFAULT_SCHEMA_CLASS": "web.schema.Schema",
    "DEFAULT_PAGINATION_CLASS": "web.pagination.CursorPagination",
    "EXCEPTION_HANDLER": "web.error_responses.api_exception_handler",
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=30),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "CHECK_REVOKE_TOKEN": True,  # a changed password revokes every token
    "UPDATE_LAST_LOGIN": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Lorasite",
    "DESCRIPTION": "Self-hosted LoRA fine-tuning, from a raw data file to a served model.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "TaskStatusEnum": "work.models.Status",
        "DatasetKindEnum": "datasets_app.models.Version.Kind",
        "StrategyEnum": ["epoch", "steps", "no"],
    },
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}
UNFOLD = {
    "SITE_TITLE": "Lorasite",
    "SITE_HEADER": "Lorasite",
    "SITE_URL": reverse_lazy("home"),
    "SHOW_HISTORY": True,
    "SHOW_LANGUAGES": True,
    "COLORS": {  # those of static/lorasite/lorasite.css, with the steps between them
        "base": {
            "50": "#fbfbf9",
            "100": "#eef1f0",
            "200": "#dfe4e2",
            "300": "#c3cbc9",
            "400": "#a0adaa",
            "500": "#5b6765",
            "600": "#46514f",
            "700": "#313b39",
            "800": "#232c2a",
            "900": "#1b2221",
            "950": "#141918",
        },
        "primary": {
            "50": "#f0f7f6",
            "100": "#e8f1f0",
            "200": "#c5e2df",
            "300": "#9bd2cd",
            "400": "#6cc4bd",
            "500": "#4aa7a1",
            "600": "#1f6f6b",
            "700": "#1a5d5a",
            "800": "#174b49",
            "900": "#133b39",
            "950": "#0d2625",
        },
    },
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("lorasite/icon.svg")}],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "waitress.queue": {"level": "ERROR"},
        "httpx": {"level": "WARNING"},
        "filelock": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
    },
}
