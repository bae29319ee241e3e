"""Datasets: the catalog, archives, ingest to Parquet, reading and checking."""
