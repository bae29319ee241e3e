"""The one seam to object storage and local directories."""

from cifarray.store.address import Access
from cifarray.store.base import Entry, Store
from cifarray.store.keys import checked_key, index_last, is_index, is_key, to_json

__all__ = ["Access", "Entry", "Store", "checked_key", "index_last", "is_index", "is_key", "to_json"]
