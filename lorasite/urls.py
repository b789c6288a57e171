"""Page addresses; the API's are in api_urls.py."""

from django.contrib import admin
from django.urls import include, path

from lorasite import find, home
from web.undo import undo

handler400 = "web.error_responses.bad_request"
handler404 = "web.error_responses.not_found"
handler500 = "web.error_responses.server_error"

urlpatterns = [
    path("", home.home, name="home"),
    path("find/", find.find_page, name="find"),
    path("undo/", undo, name="undo"),
    path("running/", home.running, name="running"),
    path("", include("accounts.urls")),
    path("", include("accounts.allauth_urls")),
    path("", include("lists.urls")),
    path("", include("notifications.urls")),
    path("", include("datasets_app.urls")),
    path("", include("training.urls")),
    path("", include("inference.urls")),  # before experiments: models/recommend is no model
    path("", include("experiments.urls")),
    path("", include("audit.urls")),
    path("", include("monitoring.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("lorasite.api_urls")),
    path("v1/", include("inference.openai_urls")),
    path("i18n/", include("django.conf.urls.i18n")),
]
