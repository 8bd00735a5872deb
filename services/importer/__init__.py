"""The Importer: mapping files, profiles and content master data on their way into Redis."""
