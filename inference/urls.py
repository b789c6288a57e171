from django.urls import path

from . import views

app_name = "inference"
urlpatterns = [
    path("predict/", views.page, name="predict"),
    path("models/recommend/", views.recommend, name="recommend"),
]
