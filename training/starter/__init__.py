"""The bundled starter model, made again from text that this package writes itself: no download."""
