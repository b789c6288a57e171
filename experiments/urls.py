from django.urls import path

from . import views

app_name = "experiments"
urlpatterns = [
    path("experiments/", views.index, name="list"),
    path("experiments/<str:name>/", views.detail, name="detail"),
    path("experiments/<str:name>/files/<path:path>", views.file, name="file"),
]
