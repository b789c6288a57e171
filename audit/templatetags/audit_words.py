"""Entries of the audit log in words."""

from django import template

from audit import words

register = template.Library()
register.filter("action_words", words.action_words)
register.filter("object_name", words.object_name)
register.filter("object_address", words.object_address)
