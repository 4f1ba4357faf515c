"""Gets the parts of node images: downloads, compilations, Debian's packages."""
