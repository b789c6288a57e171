from django.urls import path

from . import views

app_name = "training"
urlpatterns = [
    path("train/", views.new, name="new"),
    path("train/base-models/", views.search_base_models, name="base_models"),
    path("runs/again/", views.again, name="again"),
    path("runs/<uuid:task_id>/", views.run, name="run"),
    path("runs/<uuid:task_id>/curves.csv", views.curves_csv, name="curves"),
    path("runs/<uuid:task_id>/cancel/", views.cancel, name="cancel"),
    path("runs/<uuid:task_id>/resume/", views.resume, name="resume"),
]
