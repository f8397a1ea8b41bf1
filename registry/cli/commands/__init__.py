"""Commands of the command line: a folder for each kind of noun, and a module for each noun."""
