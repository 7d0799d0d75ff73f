"""`heatproof demo`: maps of real photographs, an audit of the bundled network, and one page that leads to both."""
