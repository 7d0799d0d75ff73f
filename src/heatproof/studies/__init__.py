"""Studies: a plan, its jobs, and a folder of rows. Nothing here is imported before it is used."""
