from django.urls import path
from rest_framework_simplejwt.views import TokenRefreshView

from . import api

urlpatterns = [
    path("login", api.Login.as_view(), name="api-login"),
    path("login/refresh", TokenRefreshView.as_view(), name="api-login-refresh"),
    path("logout", api.Logout.as_view(), name="api-logout"),
]
