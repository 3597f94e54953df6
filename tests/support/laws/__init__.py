"""Every law. A law is in the list once its module is imported, so all of them are, here."""

from support.laws import coverage, data, isolation, schema
from support.laws.base import LAWS, Law

__all__ = ["LAWS", "Law", "coverage", "data", "isolation", "schema"]
