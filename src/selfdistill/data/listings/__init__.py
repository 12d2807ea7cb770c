"""Sets of images that are listed: in a table, in archives, in a dataset of Hugging Face."""

from selfdistill.data.listings.hub import load_hub
from selfdistill.data.listings.shards import holds_shards, load_shards
from selfdistill.data.listings.tables import TABLES, load_table

__all__ = ["TABLES", "holds_shards", "load_hub", "load_shards", "load_table"]
