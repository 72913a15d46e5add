"""Models: what each format means. No HTTP here, and nothing that fetches."""
