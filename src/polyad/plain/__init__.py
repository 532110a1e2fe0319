"""Plain algorithms of the field, in the plain norm: where fits start. Tensors (groups, *modes), float64."""
