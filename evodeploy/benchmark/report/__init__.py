"""What a bench found: table, JSON, CSV, page, and two benches compared."""
