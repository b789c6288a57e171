from django.urls import path

from . import views

app_name = "experiments"
urlpatterns = [
    path("experiments/", views.index, name="list"),
    path("experiments/compare", views.comparison, name="compare"),
    path("experiments/<str:name>/", views.detail, name="detail"),
    path("experiments/<str:name>/delete/", views.delete, name="delete"),
    path("experiments/<str:name>/all.zip", views.everything, name="everything"),
    path("experiments/<str:name>/files/<path:path>", views.file, name="file"),
]
