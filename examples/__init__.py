"""Scripts that use simpleIA from outside, as anybody could."""
