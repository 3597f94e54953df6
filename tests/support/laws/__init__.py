"""Imports every module of laws, because a law registers itself when its module is imported."""

from support.laws import coverage, data, isolation, schema, vector_store, vectors
from support.laws.base import LAWS, Law

__all__ = ["LAWS", "Law", "coverage", "data", "isolation", "schema", "vector_store", "vectors"]
