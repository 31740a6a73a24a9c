"""What differs between machines: paths, locks on files, CPU threads."""
