"""The results of a bench: table, JSON, CSV, page, and the comparison of two benches."""
