from django.urls import path

from . import bulk_views, run_views, views

app_name = "training"
urlpatterns = [
    path("train/", views.new, name="new"),
    path("train/base-models/", views.search_base_models, name="base_models"),
    path("bulk/runs/", bulk_views.bulk, name="bulk"),
    path("runs/states/", run_views.states, name="states"),
    path("runs/again/", views.again, name="again"),
    path("runs/<uuid:task_id>/", run_views.run, name="run"),
    path("runs/<uuid:task_id>/curves.csv", run_views.curves_csv, name="curves"),
    path("runs/<uuid:task_id>/answers.jsonl", run_views.answers_jsonl, name="answers"),
    path("runs/<uuid:task_id>/cancel/", run_views.cancel, name="cancel"),
    path("runs/<uuid:task_id>/resume/", run_views.resume, name="resume"),
]
