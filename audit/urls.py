from django.urls import path

from . import views

app_name = "audit"
urlpatterns = [
    path("audit/", views.index, name="list"),
    path("audit/export/", views.as_csv, name="export"),
]
