"""Measurements of the whole system, on a real cluster. Results are kept in results/ and told in docs/numbers.md."""
