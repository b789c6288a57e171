from django.urls import path

from . import views

app_name = "lists"
urlpatterns = [
    path("tags/<str:kind>/<str:name>/", views.tags, name="tags"),
    path("notes/<str:kind>/<str:name>/", views.note, name="note"),
]
