from typing import Any

import pytest
from django.test import Client


@pytest.fixture
def browser(client: Client, member: Any) -> Client:
    client.force_login(member)
    return client
