"""The sections of the pages: one file each, with `section(findings)`; a study names its sections."""
