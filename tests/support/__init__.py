"""Helpers that several test files share; pytest rewrites their asserts as it does in test files."""

import pkgutil

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
)
