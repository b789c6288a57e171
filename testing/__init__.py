"""Builders that tests of several apps share: people, what they own, whole installations, small models."""
