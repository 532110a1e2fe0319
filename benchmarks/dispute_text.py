"""The words of docs/which-norm.md; names in brackets stand for tables."""

PARTS = (
    "# Which norm, and for what",
    "[SIZES]",
    "[LAYERS]",
    "[WITHIN]",
    "[NETWORKS]",
    "[OTHERS]",
    "[FITS]",
    "[PROVENANCE]",
)
