"""Records become figures, tables, one HTML page and comparisons; no torch."""
