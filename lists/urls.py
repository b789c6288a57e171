from django.urls import path

from . import views

app_name = "lists"
urlpatterns = [
    path("tags/<str:kind>/<str:name>/", views.tags, name="tags"),
    path("density/", views.density, name="density"),
    path("views/<str:kind>/", views.saved_views, name="views"),
    path("notes/<str:kind>/<str:name>/", views.note, name="note"),
]
