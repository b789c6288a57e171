from django.urls import path

from . import api

urlpatterns = [
    path("login", api.Login.as_view(), name="api-login"),
    path("login/refresh", api.Refresh.as_view(), name="api-login-refresh"),
    path("sharing/<str:kind>/<str:name>", api.Sharing.as_view(), name="api-sharing"),
    path("logout", api.Logout.as_view(), name="api-logout"),
]
