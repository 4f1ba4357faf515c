"""``minicluster dashboard``: a page with all clusters as they are, served on 127.0.0.1."""
