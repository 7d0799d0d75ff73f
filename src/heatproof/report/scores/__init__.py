"""The tables and the page of a score study."""
