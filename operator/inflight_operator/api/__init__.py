"""The resource, its names and its words: data that every other layer speaks."""
