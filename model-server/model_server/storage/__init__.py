"""Where models come from: fetching them, checking their digest, putting them on disk. Nothing here loads a model."""
