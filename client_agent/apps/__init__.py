"""Built-in apps, on data sets that come with the package."""
