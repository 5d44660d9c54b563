import pytest

from klaudit.models.language_model import LanguageModel
from tests.models.tiny import make_tiny_model


@pytest.fixture
def tiny() -> LanguageModel:
    return make_tiny_model()
