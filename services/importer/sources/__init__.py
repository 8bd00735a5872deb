"""Where mapping files come from: file systems, parts and formats.

Everything here blocks; :class:`services.importer.reading.Source` calls it in threads.
"""
