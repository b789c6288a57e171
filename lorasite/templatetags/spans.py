from django import template

from web.durations import span

register = template.Library()
register.filter(span)
