from django.urls import path

from . import views
from .registry import bulk_views
from .registry import views as registry

app_name = "experiments"
urlpatterns = [
    path("experiments/", views.index, name="list"),
    path("experiments/compare", views.comparison, name="compare"),
    path("experiments/<str:name>/", views.detail, name="detail"),
    path("experiments/<str:name>/delete/", views.delete, name="delete"),
    path("experiments/<str:name>/all.zip", views.everything, name="everything"),
    path("experiments/<str:name>/files/<path:path>", views.file, name="file"),
    path("bulk/models/", bulk_views.bulk, name="bulk-models"),
    path("models/", registry.index, name="models"),
    path("models/register/", registry.register, name="register"),
    path("models/<str:name>/", registry.detail, name="model"),
    path("models/<str:name>/archive.zip", registry.archive, name="model-archive"),
    path("models/<str:name>/card/", registry.describe, name="model-card"),
    path("models/<str:name>/alias/", registry.alias, name="model-alias"),
    path("models/<str:name>/exports/", registry.exported, name="model-exports"),
    path("models/<str:name>/exports/<str:format>/cancel/", registry.cancel_export, name="model-export-cancel"),
    path("models/<str:name>/exports/<str:format>/delete/", registry.delete_export, name="model-export-delete"),
    path("models/<str:name>/exports/<str:format>.zip", registry.export_archive, name="model-export-archive"),
    path("models/<str:name>/delete/", registry.delete, name="model-delete"),
]
