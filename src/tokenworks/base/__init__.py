"""Base: settings, clock, ids, log, database, bus, journal file, embedded services. No business rule lives here."""
