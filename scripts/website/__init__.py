"""What the documentation site has beside docs/: pages from the root, tutorials run as notebooks, the gallery."""
