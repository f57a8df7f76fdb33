"""Metrics: what the hot path counts (`recorder`, `tenants`), what each means (`families`), how scrapers get it (`scraping`)."""
