"""The admin API. The same operations serve HTTP and the command line on the data itself."""
