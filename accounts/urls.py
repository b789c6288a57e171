from django.contrib.auth.views import LogoutView
from django.urls import path

from . import people, views

app_name = "accounts"
urlpatterns = [
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("join/<str:secret>/", views.join, name="join"),
    path("account/", views.account, name="account"),
    path("account/password/", views.ChangePassword.as_view(), name="password"),
    path("account/tokens/", views.tokens, name="tokens"),
    path("account/tokens/<int:pk>/end/", views.end_token, name="end-token"),
    path("account/sessions/", views.sessions, name="sessions"),
    path("people/", people.people, name="people"),
    path("people/invitations/<int:pk>/end/", people.withdraw, name="withdraw"),
    path("people/id/<int:pk>/", people.person, name="person-by-id"),
    path("people/<str:username>/", people.person, name="person"),
    path("sharing/<str:kind>/<str:name>/", views.share, name="share"),
]
