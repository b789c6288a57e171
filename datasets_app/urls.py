from django.urls import path

from . import bulk_views, change_views, review_views, upload_views, views

app_name = "datasets"
urlpatterns = [
    path("bulk/datasets/", bulk_views.bulk, name="bulk"),
    path("datasets/", views.dataset_list, name="list"),
    path("datasets/new/", upload_views.new, name="new"),
    path("datasets/new/hub/", upload_views.from_hub, name="hub"),
    path("datasets/new/<str:token>/", upload_views.preview, name="preview"),
    path("datasets/tasks/states/", views.states, name="states"),
    path("datasets/tasks/<uuid:task_id>/", views.task, name="task"),
    path("datasets/tasks/<uuid:task_id>/cancel/", views.cancel, name="cancel"),
    path("datasets/<str:name>/", views.detail, name="detail"),
    path("datasets/<str:name>/rows/", views.rows, name="rows"),
    path("datasets/<str:name>/download/", views.download, name="download"),
    path("datasets/<str:name>/fix/", change_views.fix, name="fix"),
    path("datasets/<str:name>/labels/", change_views.rename_labels, name="rename-labels"),
    path("datasets/<str:name>/edit/", change_views.edit, name="edit"),
    path("datasets/<str:name>/draft/", change_views.show_draft, name="draft"),
    path("datasets/<str:name>/tokens/", change_views.tokens, name="tokens"),
    path("datasets/<str:name>/compare/", change_views.compare, name="compare"),
    path("datasets/<str:name>/noise/", review_views.review, name="noise"),
    path("datasets/<str:name>/noise/search/", review_views.search, name="noise-search"),
    path("datasets/<str:name>/noise/decide/", review_views.decide, name="noise-decide"),
    path("datasets/<str:name>/noise/apply/", review_views.apply, name="noise-apply"),
    path("datasets/<str:name>/broken/", views.broken, name="broken"),
    path("datasets/<str:name>/delete/", views.delete, name="delete"),
]
