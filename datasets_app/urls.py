from django.urls import path

from . import views

app_name = "datasets"
urlpatterns = [
    path("datasets/", views.dataset_list, name="list"),
    path("datasets/new/", views.new, name="new"),
    path("datasets/new/<str:token>/", views.preview, name="preview"),
    path("datasets/<str:name>/", views.detail, name="detail"),
    path("datasets/<str:name>/rows/", views.rows, name="rows"),
    path("datasets/<str:name>/delete/", views.delete, name="delete"),
]
