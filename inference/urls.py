from django.urls import path

from . import views

app_name = "inference"
urlpatterns = [
    path("predict/", views.page, name="predict"),
    path("chat/", views.chat, name="chat"),
    path("chat/stream/", views.chat_stream, name="chat_stream"),
    path("models/recommend/", views.recommend, name="recommend"),
]
