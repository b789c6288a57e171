"""Django's settings; what an installation may change comes from env.py."""

import re
from datetime import timedelta

import dj_database_url
from django.templatetags.static import static
from django.urls import reverse_lazy

from lorasite.env import BASE_DIR, env
from lorasite.neighbours import mail, origin_of

VERSION = re.search(r"^## (\d\S*)", (BASE_DIR / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]  # it has one
DATA_DIR, RESULTS_DIR = env.data_dir.resolve(), env.results_dir.resolve()
BASE_MODELS_DIR = env.base_models_dir
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

SECRET_KEY = env.key()
DEBUG, HOST = env.debug, env.host
ALLOWED_HOSTS = env.hosts
ROOT_URLCONF = "lorasite.urls"
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
    "django_prometheus",
    "lorasite",
    "accounts",
    "audit",
    "work",
    "datasets_app",
    "experiments",
    "training",
    "inference",
    "monitoring",
]

MIDDLEWARE = [
    "monitoring.middleware.Probes",
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
                "lorasite.context.site",
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
AXES_FAILURE_LIMIT, AXES_COOLOFF_TIME = 10, timedelta(minutes=5)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]  # so that nobody locks others out
AXES_RESET_ON_SUCCESS, AXES_DISABLE_ACCESS_LOG, AXES_ENABLE_ADMIN, AXES_VERBOSE = True, True, False, False
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_CLIENT_IP_CALLABLE = "web.requests.client_network"
AXES_USERNAME_CALLABLE = "accounts.usernames.name_for_lockout"

# django-allauth brings the second factor, single sign-on and the list of sessions; signing in and up stays our own.
ACCOUNT_ADAPTER, MFA_ADAPTER = "accounts.adapters.AccountAdapter", "accounts.adapters.SecondFactorAdapter"
SOCIALACCOUNT_ADAPTER = "accounts.adapters.SingleSignOnAdapter"
ACCOUNT_EMAIL_VERIFICATION, ACCOUNT_LOGIN_METHODS, ACCOUNT_SIGNUP_FIELDS = "none", {"username"}, ["username*", "email"]
SECOND_FACTOR = env.second_factor
MFA_SUPPORTED_TYPES, MFA_TOTP_ISSUER = ["totp", "webauthn", "recovery_codes"], "Lorasite"
MFA_TOTP_TOLERANCE = 1  # a code of the half minute before or after: clocks differ
MFA_FORMS = {
    "authenticate": "accounts.second_factor.Authenticate",
    "reauthenticate": "accounts.second_factor.Reauthenticate",
    "activate_totp": "accounts.second_factor.Activate",
}
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not env.behind_https
SINGLE_SIGN_ON, OIDC_SIGN_UP = bool(env.oidc_server_url), env.oidc_sign_up
SOCIALACCOUNT_EMAIL_AUTHENTICATION = SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_LOGIN_ON_GET, SOCIALACCOUNT_STORE_TOKENS = False, False
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

EMAIL = mail(env.email_url.get_secret_value())
EMAIL_BACKEND, DEFAULT_FROM_EMAIL = EMAIL.backend, env.email_from
EMAIL_HOST, EMAIL_PORT, EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = EMAIL.host, EMAIL.port, EMAIL.user, EMAIL.password
EMAIL_USE_TLS, EMAIL_USE_SSL, EMAIL_TIMEOUT = EMAIL.starttls, EMAIL.tls, 10
PASSWORD_RESET_TIMEOUT = 24 * 3600

CACHES = {
    # allauth counts wrong codes here: all processes must count together, and a restart must not forget.
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "lorasite_cache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
    "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},  # for what each process can find out anew
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

LOGIN_URL, LOGIN_REDIRECT_URL, LOGOUT_REDIRECT_URL = "accounts:login", "home", "accounts:login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hant", "繁體中文")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_TZ, TIME_ZONE = True, "UTC"

STATIC_URL, STATIC_ROOT = "static/", DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
DATA_UPLOAD_MAX_MEMORY_SIZE = API_BODY_LIMIT = 4 * 1024 * 1024
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "uploads"
for folder in (FILE_UPLOAD_TEMP_DIR, STATIC_ROOT):
    folder.mkdir(exist_ok=True)
UPLOAD_LIMIT = env.upload_limit_mb * 1024 * 1024
# Bytes kept for a full disk. SQLite's write-ahead log takes 4 MiB before it restarts, more while a long read is open.
DISK_RESERVE = 16 * 2**20
UPLOAD_ADDRESSES = ("/datasets/new/", "/api/datasets")  # take files; their views answer to ones that are too large
READER_MEMORY, READER_SECONDS = env.reader_memory_mb * 1024 * 1024, env.reader_seconds
DATASET_READER = (
    "datasets_app.reading.readers.read"  # what the process that reads data files calls; tests put others here
)
LEASE_SECONDS = env.lease_seconds
SERVE_HOST, SERVE_PORT = env.serve_host, env.serve_port
SERVE_DEVICE, SERVE_MEMORY_MB = env.serve_device, env.serve_memory_mb
SERVE_BATCH_TOKENS, SERVE_WAIT_SECONDS = env.serve_batch_tokens, env.serve_wait_seconds
DEVICE_KIND = env.device_kind
DEVICE_KINDS = [kind for kind in env.device_kinds.split(",") if kind]
METRICS_TOKEN = env.metrics_token.get_secret_value()
MIN_FREE_DISK = env.min_free_disk_mb * 1024 * 1024
WORKER_BEAT_FILE = env.worker_beat_file
PROMETHEUS_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, float("inf"))

# Two installations on one host share cookies (a cookie knows no port), so each names its own.
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"lorasite_{env.port}", f"lorasite_csrf_{env.port}"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "web.error_responses.csrf_failure"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
TRUSTED_PROXIES = env.trusted_proxies
if env.behind_https:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = True
    SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]  # asked from inside the cluster
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
# W002: the lock-out answers through our own errors, not axes' middleware. W005, W021: other names of the domain are not ours.
SILENCED_SYSTEM_CHECKS = ["axes.W002", "security.W005", "security.W021"]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'", *([origin_of(env.oidc_server_url)] if env.oidc_server_url else [])],
        "base-uri": ["'none'"],
        "object-src": ["'none'"],
    },
}

REDIS_URL = env.redis_url or f"unix://{env.redis_socket}"
QUEUE_NAMES = (
    "cpu",
    "cuda",
    "mps",
    "data",
)  # work.queue opens them; training runs wait in the one of their device kind

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.TokenAuthentication",
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.authentication.HasScope"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "web.schema.Schema",
    "DEFAULT_PAGINATION_CLASS": "web.pagination.CursorPagination",
    "EXCEPTION_HANDLER": "web.error_responses.api_exception_handler",
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=30),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "CHECK_REVOKE_TOKEN": True,  # a changed password ends every token
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
